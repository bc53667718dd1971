"""Sensitive examples: against SciPy's tests, one example at a time, and against simulations with a known truth."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from without_compiled import needs_compiled, without_compiled

import difficulty_prune as dp
from difficulty_prune.fingerprint import permutation
from difficulty_prune.fingerprint.effect import unit_range, variance
from difficulty_prune.fingerprint.groups import group_runs
from difficulty_prune.fingerprint.sensitive_examples import sensitive_examples
from difficulty_prune.support import native

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = without_compiled("difficulty_prune.fingerprint.permutation")
NAMES = ("cnn", "mlp", "vit", "resnet")


def runs_of(*groups, names=NAMES, score: str = "el2n") -> dp.RunSet:
    """Runs of an architecture for each group of scores [runs, N]."""
    return dp.RunSet(
        dp.Run({score: np.asarray(scores, np.float64)}, architecture=name, seed=seed)
        for name, group in zip(names, groups, strict=False)
        for seed, scores in enumerate(group)
    )


def normal_runs(generator, sizes, examples: int, sensitive: int = 0, effect: float = 0.0) -> dp.RunSet:
    """Standard normal scores; architecture g moves those of the first `sensitive` examples by g * effect."""
    moved = np.arange(examples) < sensitive
    return runs_of(*(generator.normal(size=(n, examples)) + g * effect * moved for g, n in enumerate(sizes)))


# The slow, obvious ones


def eta_squared(*groups, axis: int = 0):
    everything = np.concatenate(groups, axis=axis)
    mean = everything.mean(axis, keepdims=True)
    between = sum(g.shape[axis] * (g.mean(axis, keepdims=True) - mean) ** 2 for g in groups)
    return (between / ((everything - mean) ** 2).sum(axis, keepdims=True)).squeeze(axis)


def scipy_permutation(*groups) -> np.ndarray:
    """Exact p-value of each example."""
    return scipy.stats.permutation_test(
        groups, eta_squared, n_resamples=math.inf, alternative="greater", axis=0, vectorized=True
    ).pvalue


def welch_anova(*groups) -> float:
    """Of one example, as Welch (1951) writes it."""
    k = len(groups)
    weight = [len(g) / g.var(ddof=1) for g in groups]
    mean = sum(w * g.mean() for w, g in zip(weight, groups, strict=True)) / sum(weight)
    tail = sum((1 - w / sum(weight)) ** 2 / (len(g) - 1) for w, g in zip(weight, groups, strict=True))
    between = sum(w * (g.mean() - mean) ** 2 for w, g in zip(weight, groups, strict=True)) / (k - 1)
    statistic = between / (1 + 2 * (k - 2) / (k**2 - 1) * tail)
    return scipy.stats.f.sf(statistic, k - 1, (k**2 - 1) / (3 * tail))


def draw_groups(sizes, examples: int, counts: bool):
    """Normal scores, or small counts with many ties."""
    generator = np.random.default_rng(5)
    for size in sizes:
        yield generator.poisson(2.0, (size, examples)) * 1.0 if counts else generator.normal(size=(size, examples))


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("sizes", [(4, 4), (2, 5), (3, 3, 2), (2, 2, 2, 2)])
def test_exact_p_values_are_those_of_scipy(sizes, counts: bool) -> None:
    groups = list(draw_groups(sizes, 40, counts))
    varied = np.ptp(np.concatenate(groups), axis=0) > 0  # of a constant example SciPy knows no statistic
    groups = [g[:, varied] for g in groups]
    found = sensitive_examples(runs_of(*groups), "el2n")
    np.testing.assert_allclose(found.p_value, scipy_permutation(*groups), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.effect, eta_squared(*groups), atol=1e-12)
    assert found.exact
    assert found.permutations == math.factorial(sum(sizes)) // math.prod(map(math.factorial, sizes))
    assert found.p_value.min() >= found.smallest_p


@pytest.mark.parametrize(("sizes", "smallest"), [((4, 4), 2 / 70), ((2, 5), 1 / 21), ((2, 2, 2), 6 / 90)])
def test_groups_far_apart_have_the_smallest_p_value_there_can_be(sizes, smallest: float) -> None:
    found = sensitive_examples(runs_of(*(np.full((n, 1), 10.0 * g) for g, n in enumerate(sizes))), "el2n")
    assert found.p_value[0] == found.smallest_p == pytest.approx(smallest, abs=1e-15)
    assert found.effect[0] == 1


@needs_compiled
@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_compiled_and_plain_p_values_are_the_same(sizes: list[int], examples: int, counts: bool, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(sum(sizes), examples))
    x = unit_range(np.round(x) if counts else x)
    own, among = variance(x, tuple(sizes)), permutation.assignments(tuple(sizes), 70, seed)
    compiled = permutation.permutation_p_values(x, own, among)
    np.testing.assert_array_equal(PLAIN.permutation_p_values(x, own, among), compiled)


@needs_compiled
@pytest.mark.parametrize(
    ("scores", "threshold", "groups"),
    [
        (np.zeros((4, 3)), np.zeros(2), np.zeros((5, 4), np.int16)),
        (np.zeros((4, 3)), np.zeros(3), np.zeros((5, 3), np.int16)),
        (np.zeros((4, 3)), np.zeros(3), np.zeros((0, 4), np.int16)),
        (np.zeros((4, 3)), np.zeros(3), np.full((5, 4), -1, np.int16)),
    ],
)
def test_the_compiled_count_refuses_what_does_not_fit(scores, threshold, groups) -> None:
    with pytest.raises(ValueError, match="expected"):
        native.host.count_as_large(scores, threshold, groups)


@pytest.mark.parametrize("sizes", [(5, 5), (3, 3, 3)])
def test_sampled_p_values_are_exact_ones_up_to_their_monte_carlo_error(sizes) -> None:
    runs = normal_runs(np.random.default_rng(0), sizes, 200, sensitive=100, effect=1.0)
    exact, sampled = (sensitive_examples(runs, "el2n", permutations=n) for n in (2000, 200))
    assert exact.exact
    assert not sampled.exact
    error = np.sqrt(exact.p_value * (1 - exact.p_value) / 200)
    assert (np.abs(sampled.p_value - exact.p_value) < 5 * error + 1 / 201).all()
    assert sampled.p_value.min() >= sampled.smallest_p == 1 / 201


@pytest.mark.parametrize("sizes", [(2, 2), (5, 3), (10, 10)])
def test_welch_for_two_architectures_is_scipys_t_test(sizes) -> None:
    first, second = (20 * g for g in draw_groups(sizes, 50, counts=False))
    second = 0.3 * second + np.linspace(0, 40, 50)
    expected = scipy.stats.ttest_ind(first, second, equal_var=False).pvalue
    np.testing.assert_allclose(sensitive_examples(runs_of(first, second), "el2n", "welch").p_value, expected, rtol=1e-9)


@pytest.mark.parametrize("sizes", [(2, 3), (4, 4, 4), (2, 3, 5, 9)])
def test_welch_for_more_is_his_analysis_of_variance(sizes) -> None:
    groups = [(g + 1) * x + g for g, x in enumerate(draw_groups(sizes, 30, counts=False))]
    expected = [welch_anova(*columns) for columns in zip(*(g.T for g in groups), strict=True)]
    np.testing.assert_allclose(sensitive_examples(runs_of(*groups), "el2n", "welch").p_value, expected, rtol=1e-9)


@pytest.mark.parametrize("test", ["permutation", "welch"])
def test_counts_without_variance_have_a_p_value(test) -> None:
    columns = [[3, 3, 3], [3, 3, 3]], [[0, 0, 0], [2, 2, 2]], [[0, 0, 0], [1, 2, 2]], [[0, 0, 1], [0, 0, 1]]
    runs = runs_of(*np.moveaxis(np.array(columns, np.float64), 0, 2), score="forgetting")
    found = sensitive_examples(runs, "forgetting", test)
    assert np.isfinite(found.p_value).all()
    assert found.p_value[0] == found.p_value[3] == 1
    assert found.effect[0] == found.effect[3] == 0
    assert found.index[0] == 1
    assert found.p_value[1] <= found.p_value[2] < 1
    if test == "welch":
        assert found.p_value[1] < 1e-10


@pytest.mark.parametrize("value", [0.1, 1e-300, 1e300, -7.3])
@pytest.mark.parametrize("test", ["permutation", "welch"])
def test_a_constant_is_constant_however_its_mean_is_rounded(value: float, test) -> None:
    found = sensitive_examples(runs_of(np.full((3, 1), value), np.full((4, 1), value)), "el2n", test)
    assert found.p_value.tolist() == found.q_value.tolist() == [1.0]
    assert found.effect.tolist() == [0.0]


# What p-values promise


def test_under_the_null_welch_p_values_are_uniform() -> None:
    runs = normal_runs(np.random.default_rng(1), (10, 10), 5000)
    p = sensitive_examples(runs, "el2n", "welch").p_value
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("sizes", [(10, 10), (8, 7, 9)])
def test_under_the_null_permutation_p_values_are_uniform(sizes) -> None:
    p = sensitive_examples(normal_runs(np.random.default_rng(2), sizes, 5000), "el2n", permutations=999).p_value
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("permutations", [100, 10_000])
def test_under_the_null_permutation_p_values_of_counts_are_not_too_small(permutations: int) -> None:
    generator = np.random.default_rng(3)
    runs = runs_of(*(generator.poisson(0.7, (6, 4000)) * 1.0 for _ in range(2)))
    p = sensitive_examples(runs, "el2n", permutations=permutations).p_value
    for a in (0.01, 0.05, 0.1, 0.3):
        assert (p <= a).mean() <= a + 4 * math.sqrt(a * (1 - a) / 4000)


@pytest.mark.parametrize("test", ["permutation", "welch"])
def test_the_false_discovery_rate_is_kept_and_planted_examples_are_found(test) -> None:
    generator = np.random.default_rng(4)
    false_shares = []
    for _ in range(12):
        runs = normal_runs(generator, (10, 10), 1000, sensitive=200, effect=2.5)
        called = sensitive_examples(runs, "el2n", test, permutations=2000).significant(0.1)
        false_shares.append((called >= 200).mean())
        assert (called < 200).sum() > 180
    assert 0.04 < np.mean(false_shares) < 0.1  # the correction for a share of 0.8 that is null: 0.08 is expected


def test_the_false_discovery_rate_is_kept_with_three_architectures() -> None:
    generator = np.random.default_rng(6)
    shares = []
    for _ in range(10):
        runs = normal_runs(generator, (6, 6, 6), 500, sensitive=100, effect=2.0)
        called = sensitive_examples(runs, "el2n", permutations=1000).significant(0.1)
        shares.append((called >= 100).mean())
    assert np.mean(shares) < 0.11


def test_without_any_sensitive_example_almost_nothing_is_called_so() -> None:
    generator = np.random.default_rng(7)
    found = [sensitive_examples(normal_runs(generator, (8, 8), 500), "el2n", "welch") for _ in range(40)]
    assert sum(len(f.significant(0.05)) > 0 for f in found) <= 6  # 2 are expected


def test_the_index_is_in_order_of_p_then_effect_then_position() -> None:
    found = sensitive_examples(normal_runs(np.random.default_rng(8), (3, 3), 300, 50, 3.0), "el2n")
    order = sorted(range(300), key=lambda i: (found.p_value[i], -found.effect[i], i))
    assert found.index.dtype == np.int64
    assert found.index.tolist() == order
    lenient = found.significant(0.9)
    assert lenient.tolist() == [i for i in order if found.q_value[i] <= 0.9]
    np.testing.assert_array_equal(found.q_value, scipy.stats.false_discovery_control(found.p_value))


# Laws

counts_of_runs = st.sampled_from([(2, 2), (3, 3), (2, 4), (2, 2, 2), (2, 3, 2)])


@st.composite
def groups_of_counts(draw):
    """Small whole numbers, so that sums are exact, and ties many."""
    examples = draw(st.integers(1, 5))
    return [draw(hnp.arrays(np.float64, (n, examples), elements=st.integers(-3, 3))) for n in draw(counts_of_runs)]


tests = st.sampled_from(["permutation", "welch"])


@settings(max_examples=40)
@given(groups_of_counts(), tests, st.integers(-1000, 1000), st.sampled_from([0.5, 8.0, -4.0]))
def test_place_and_scale_of_a_score_change_no_p_value(groups, test, shift: int, scale: float) -> None:
    before = sensitive_examples(runs_of(*groups), "el2n", test)
    after = sensitive_examples(runs_of(*(shift + scale * g for g in groups)), "el2n", test)
    same = dict(rtol=1e-9, atol=0) if test == "welch" else dict(rtol=0, atol=0)
    np.testing.assert_allclose(after.p_value, before.p_value, **same)
    np.testing.assert_allclose(after.effect, before.effect, atol=1e-12)


@settings(max_examples=40)
@given(groups_of_counts(), tests, st.randoms())
def test_permuting_examples_permutes_the_p_values(groups, test, random) -> None:
    order = list(range(groups[0].shape[1]))
    random.shuffle(order)
    before = sensitive_examples(runs_of(*groups), "el2n", test)
    after = sensitive_examples(runs_of(*(g[:, order] for g in groups)), "el2n", test)
    for name in ("p_value", "q_value", "effect"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name)[order])


@settings(max_examples=40)
@given(groups_of_counts(), tests)
def test_the_names_of_architectures_do_not_matter(groups, test) -> None:
    groups = [np.sin(g) for g in groups]  # whose sums are rounded
    before = sensitive_examples(runs_of(*groups), "el2n", test)
    for names in itertools.permutations(NAMES[: len(groups)]):
        after = sensitive_examples(runs_of(*groups, names=names), "el2n", test)
        for name in ("index", "p_value", "q_value", "effect"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


@settings(max_examples=40)
@given(groups_of_counts(), tests, st.randoms(), st.sampled_from([5, 1000]))
def test_the_order_of_runs_does_not_matter(groups, test, random, permutations: int) -> None:
    runs = list(runs_of(*groups))
    before = sensitive_examples(dp.RunSet(runs), "el2n", test, permutations=permutations)
    random.shuffle(runs)
    after = sensitive_examples(dp.RunSet(runs), "el2n", test, permutations=permutations)
    for name in ("index", "p_value", "q_value", "effect"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


@pytest.mark.parametrize("sizes", [(10, 10), (4, 5, 6)])
def test_an_example_has_the_same_p_value_alone_and_among_many(sizes) -> None:
    runs = normal_runs(np.random.default_rng(9), sizes, 1300, 600, 0.7)
    p = sensitive_examples(runs, "el2n", permutations=700).p_value
    for part in (slice(0, 1), slice(500, 530), slice(1299, None)):
        alone = dp.RunSet(
            dp.Run({"el2n": r.scores["el2n"][part]}, architecture=r.architecture, seed=r.seed) for r in runs
        )
        np.testing.assert_array_equal(sensitive_examples(alone, "el2n", permutations=700).p_value, p[part])


def test_scores_far_from_zero_are_tested_as_well() -> None:
    near = np.random.default_rng(10).integers(0, 4, (8, 100)) / 4
    far = near + 2.0**40
    found = [sensitive_examples(runs_of(x[:4], x[4:]), "el2n").p_value for x in (near, far)]
    np.testing.assert_array_equal(*found)


def test_another_seed_draws_other_permutations_and_global_state_is_left_alone() -> None:
    runs = normal_runs(np.random.default_rng(11), (10, 10), 50)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    p = [sensitive_examples(runs, "el2n", permutations=100, seed=seed).p_value for seed in (0, 0, 1)]
    np.testing.assert_array_equal(p[0], p[1])
    assert (p[0] != p[2]).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_threads_change_nothing() -> None:
    import torch

    runs = normal_runs(np.random.default_rng(12), (6, 6, 6), 1500)
    alone = sensitive_examples(runs, "el2n", permutations=300).p_value
    torch.set_num_threads(2)
    together = sensitive_examples(runs, "el2n", permutations=300).p_value
    torch.set_num_threads(1)
    np.testing.assert_array_equal(together, alone)


def test_blocks_are_the_matrix_without_examples_that_a_run_did_not_present() -> None:
    x = np.random.default_rng(13).normal(size=(4, 2_200_000)).astype(np.float32)
    x[0, [5, 2_150_000]] = np.nan
    runs = dp.RunSet(dp.Run({"el2n": row}, architecture="ab"[i // 2], seed=i) for i, row in enumerate(x))
    blocks = list(group_runs(runs, "el2n", 2).blocks())
    assert len(blocks) > 1
    known = np.delete(np.arange(x.shape[1]), [5, 2_150_000])
    np.testing.assert_array_equal(np.concatenate([positions for positions, _ in blocks]), known)
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks], axis=1), x[:, known])


# What is said


def test_examples_that_a_run_did_not_present_are_left_out_and_counted() -> None:
    generator = np.random.default_rng(14)
    groups = [generator.normal(np.array([0, 0, 0, 0, 0, 9 * g]), size=(4, 6)) for g in range(2)]
    groups[0][1, 2] = groups[1][3, 4] = np.nan
    found = sensitive_examples(runs_of(*groups), "el2n", "welch")
    for values in (found.p_value, found.q_value, found.effect):
        assert np.flatnonzero(np.isnan(values)).tolist() == [2, 4]
    assert sorted(found.index) == [0, 1, 3, 5]
    assert found.significant().tolist() == [5]
    assert str(found) == (
        "1 of 4 examples tell cnn and mlp apart (el2n, false-discovery rate 0.05; Welch's test of 8 runs). "
        "2 more were not presented in every run and are left out."
    )


def test_too_few_runs_are_told_with_what_to_do() -> None:
    found = sensitive_examples(normal_runs(np.random.default_rng(15), (4, 4), 8000, 400, 9.0), "el2n")
    assert str(found) == (
        "0 of 8,000 examples tell cnn and mlp apart (el2n, false-discovery rate 0.05; permutation test, all 70 "
        "assignments of 8 runs). With 4 + 4 runs no p-value is below 0.029, which does not survive the correction for "
        "8,000 tests unless 4,572 examples have it: train more runs, or test='welch'."
    )
    hopeless = sensitive_examples(normal_runs(np.random.default_rng(15), (3, 3), 10, 5, 9.0), "el2n")
    assert "no p-value is below 0.1" in str(hopeless)
    assert "however many have it: train more runs" in str(hopeless)


def test_too_few_permutations_are_told_with_what_to_do() -> None:
    runs = normal_runs(np.random.default_rng(16), (10, 10), 3000, 10, 9.0)
    found = sensitive_examples(runs, "el2n", permutations=100)
    assert "With 100 permutations no p-value is below 0.0099" in str(found)
    assert "take more permutations, or test='welch'." in str(found)
    enough = str(sensitive_examples(runs, "el2n", "welch"))
    assert enough.startswith("1")
    assert "With" not in enough


def test_the_summary_is_json() -> None:
    found = sensitive_examples(
        normal_runs(np.random.default_rng(17), (5, 5, 5), 100, 20, 4.0), "el2n", permutations=500
    )
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert facts["runs"] == {"cnn": 5, "mlp": 5, "vit": 5}
    assert facts["significant"] == len(found.significant())
    assert [one["example"] for one in facts["most_sensitive"]] == found.index[:10].tolist()
    assert str(found).startswith(f"{facts['significant']} of 100 examples tell cnn, mlp and vit apart (el2n, ")


def test_manhattan_shows_every_example_once_and_the_threshold() -> None:
    found = sensitive_examples(normal_runs(np.random.default_rng(18), (9, 9), 400, 30, 5.0), "el2n", "welch")
    ax = dp.plots.manhattan(found, rate=0.1)
    others, sensitive, line = ax.get_lines()
    assert sorted(sensitive.get_xdata()) == sorted(found.significant(0.1))
    assert len(others.get_xdata()) + len(sensitive.get_xdata()) == 400
    assert sensitive.get_ydata().min() >= line.get_ydata()[0] > others.get_ydata().max()


def test_manhattan_draws_where_one_example_would_be_sensitive_if_none_is() -> None:
    found = sensitive_examples(normal_runs(np.random.default_rng(19), (3, 3), 50), "el2n")
    ax = dp.plots.manhattan(found)
    assert ax.get_lines()[2].get_ydata()[0] == pytest.approx(-math.log10(0.05 / 50))


# What is refused


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(test="t"), ValueError, "test: got 't', expected 'permutation' or 'welch'"),
        (dict(permutations=0), ValueError, "permutations: got 0, expected 1 or more"),
        (dict(permutations=2.5), TypeError, "permutations: got 2.5"),
        (dict(seed=-1), ValueError, "seed: got -1"),
        (dict(score="el3n"), ValueError, "el3n"),
        (dict(score="aum"), ValueError, "has no score 'aum'"),
        (dict(score="memorization"), ValueError, "not one per run"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message: str) -> None:
    runs = normal_runs(np.random.default_rng(0), (2, 2), 3)
    with pytest.raises(error, match=message):
        sensitive_examples(runs, **{"score": "el2n", **arguments})


def test_bad_runs_are_refused() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="runs of 'cnn' only, expected at least two architectures"):
        sensitive_examples(normal_runs(generator, (5,), 3), "el2n")
    with pytest.raises(ValueError, match="runs of 'mlp': got 1, expected at least 2 of each"):
        sensitive_examples(normal_runs(generator, (5, 1), 3), "el2n")
    with pytest.raises(TypeError, match="got list, expected a RunSet"):
        sensitive_examples([1, 2], "el2n")  # type: ignore[arg-type]
    nowhere = np.where(np.eye(4, dtype=bool), np.nan, generator.normal(size=(4, 4)))
    with pytest.raises(ValueError, match="none of 4 examples was presented in each of the 4 runs"):
        sensitive_examples(runs_of(nowhere[:2], nowhere[2:]), "el2n")


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, float("nan")])
def test_a_rate_outside_0_and_1_is_refused(rate: float) -> None:
    found = sensitive_examples(normal_runs(np.random.default_rng(0), (2, 2), 3), "el2n")
    with pytest.raises(ValueError, match="rate: got"):
        found.significant(rate)
