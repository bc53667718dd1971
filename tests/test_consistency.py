"""How far to trust a ranking: against loops that a reader checks in a minute, laws, refusals and figures."""

from __future__ import annotations

import itertools
import json
import math
import re

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.decomposition import PCA

import difficulty_prune as dp
from difficulty_prune.consistency import splits as splits_module
from difficulty_prune.consistency.intervals import pairs_of_runs
from difficulty_prune.consistency.spearman_brown import step_up, to_pearson
from difficulty_prune.consistency.splits import split_halves

SIZE = 60


def run_set(matrix, score="el2n", architectures=None):
    """Runs of one score from [R, N]."""
    names = architectures or ["mlp"] * len(matrix)
    return dp.RunSet(
        dp.Run({score: row}, architecture=name, seed=s)
        for s, (row, name) in enumerate(zip(np.asarray(matrix, dtype=np.float64), names, strict=True))
    )


def noisy(runs=4, size=SIZE, noise=0.7, seed=0):
    """[R, N] of examples that differ and runs that add noise."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=size) + noise * rng.normal(size=(runs, size))


def holes(runs=6, size=SIZE, seed=0):
    """[R, N] in which three in ten are missing, example 0 in all runs."""
    rng = np.random.default_rng(seed)
    matrix = noisy(runs, size, seed=seed)
    matrix[rng.random(matrix.shape) < 0.3] = np.nan
    matrix[:, 0] = np.nan
    return matrix


def rho(a, b):
    known = ~np.isnan(a) & ~np.isnan(b)
    return scipy.stats.spearmanr(a[known], b[known]).statistic


def mean_known(matrix):
    """Mean of each column over what is not NaN."""
    return np.array(
        [np.mean(column[~np.isnan(column)]) if not np.isnan(column).all() else np.nan for column in matrix.T]
    )


def two_scores(runs=4, size=SIZE, architectures=None, seed=0):
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=size)
    names = architectures or ["mlp"] * runs
    return dp.RunSet(
        dp.Run(
            {"el2n": hard + rng.normal(size=size), "confidence": -hard + rng.normal(size=size)},
            architecture=name,
            seed=s,
        )
        for s, name in enumerate(names)
    )


# Agreement


@pytest.mark.parametrize("score", ["el2n", "aum"])
@pytest.mark.parametrize("matrix", [noisy(5), holes()], ids=["full", "holes"])
def test_run_agreement_is_spearman_with_the_mean_over_what_the_run_knows(score, matrix):
    agreement = dp.consistency.run_agreement(run_set(matrix, score), score)
    np.testing.assert_allclose(agreement, [rho(row, mean_known(matrix)) for row in matrix], rtol=1e-12)


def test_one_run_agrees_with_itself():
    assert dp.consistency.run_agreement(run_set(noisy(1)), "el2n") == pytest.approx([1.0], abs=1e-12)


# Reliability


def gini(values):
    """Mean difference of two different examples."""
    return np.mean([abs(a - b) for a, b in itertools.combinations(values, 2)])


def slow_reliability(matrix):
    """All splits of an even number of runs, one after the other."""
    runs = set(range(len(matrix)))
    halves = []
    for first in itertools.combinations(runs, len(runs) // 2):
        means = np.stack([mean_known(matrix[list(first)]), mean_known(matrix[sorted(runs - set(first))])])
        a, b = means[:, ~np.isnan(means).any(0)]
        pearson = 2 * math.sin(math.pi * rho(a, b) / 6)
        halves.append(pearson * 2 * gini(a) * gini(b) / (gini(a) ** 2 + gini(b) ** 2))
    half = np.mean(halves)
    return 6 / math.pi * math.asin(2 * half / (1 + half) / 2)


@pytest.mark.parametrize(
    "matrix",
    [noisy(2), noisy(4), noisy(4, noise=3.0), holes(4), holes(6, seed=1)],
    ids=["2", "4", "4 noisy", "h4", "h6"],
)
def test_reliability_is_the_mean_of_all_split_halves_stepped_up(matrix):
    assert dp.consistency.reliability(run_set(matrix), "el2n").value == pytest.approx(
        slow_reliability(matrix), abs=1e-10
    )


def test_with_two_runs_of_one_spread_it_is_twice_the_odds_of_their_correlation():
    matrix = scipy.stats.rankdata(noisy(2), axis=1)
    pearson = to_pearson(rho(*matrix))
    found = dp.consistency.reliability(run_set(matrix), "el2n")
    assert to_pearson(found.value) == pytest.approx(2 * pearson / (1 + pearson), abs=1e-12)
    assert found.single_run == pytest.approx(rho(*matrix), abs=1e-12)


@pytest.mark.parametrize("matrix", [noisy(5), holes(5)], ids=["full", "holes"])
def test_single_run_is_the_mean_correlation_of_pairs_of_runs(matrix):
    found = dp.consistency.reliability(run_set(matrix), "el2n").single_run
    pairs = list(itertools.combinations(matrix, 2))
    if np.isnan(
        matrix
    ).any():  # each run is ranked by itself, and pairs count by their common examples: near, not equal
        common = [(~np.isnan(a) & ~np.isnan(b)).sum() for a, b in pairs]
        assert found == pytest.approx(np.average([rho(a, b) for a, b in pairs], weights=common), abs=0.03)
    else:
        assert found == pytest.approx(np.mean([rho(a, b) for a, b in pairs]), abs=1e-12)


@pytest.mark.parametrize("matrix", [noisy(5), holes(5)], ids=["full", "holes"])
def test_leaving_out_a_run_gives_what_the_other_runs_give(matrix):
    *_, without = pairs_of_runs(run_set(matrix), "el2n")
    others = [pairs_of_runs(run_set(np.delete(matrix, run, axis=0)), "el2n")[1] for run in range(len(matrix))]
    np.testing.assert_allclose(without, others, rtol=1e-9)


@given(
    names=st.lists(st.sampled_from("abc"), min_size=2, max_size=15),
    number=st.integers(1, 40),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_halves_are_of_equal_size_and_of_the_same_architectures_as_far_as_possible(names, number, seed):
    found = split_halves(names, number, np.random.default_rng(seed))
    assert 1 <= len(found) <= number
    odd = sum(names.count(name) % 2 for name in set(names))
    for first, second in found:
        assert len(first) == len(second) == len(names) // 2
        assert len({*first, *second}) == 2 * len(first)
        unlike = sum(abs(sum(names[r] == n for r in first) - sum(names[r] == n for r in second)) for n in set(names))
        assert unlike == 2 * (odd // 2), "each architecture with an odd number is one run short in a half"


def test_all_splits_are_taken_once_where_they_are_few():
    def count(names, number=1000):
        found = split_halves(names, number, np.random.default_rng(0))
        assert len({frozenset(map(frozenset, split)) for split in found}) == len(found)
        return len(found)

    assert [count(["a"] * runs) for runs in (2, 3, 4, 5, 8)] == [1, 3, 3, 15, 35]
    assert count(["a", "a", "b", "b"]) == 2, "one of each in each half"
    assert count(["a"] * splits_module._LISTED, 100) == 100


@given(value=st.floats(0.01, 0.999), factor=st.floats(0.05, 50), further=st.floats(0.05, 50))
def test_stepping_up_twice_is_stepping_up_by_the_product(value, factor, further):
    assert step_up(step_up(value, factor), further) == pytest.approx(step_up(value, factor * further), abs=1e-9)


@given(value=st.floats(0.01, 0.995), runs=st.integers(2, 60), target=st.floats(0.02, 0.99))
def test_the_runs_needed_reach_the_target_and_one_fewer_do_not(value, runs, target):
    found = dp.consistency.Reliability(value, (value, value), 0.95, value, np.ones(runs), "el2n", runs, ("mlp",))
    assert found.runs_needed(value) == runs
    assert found.at(runs) == pytest.approx(value, abs=1e-9)
    needed = found.runs_needed(target)
    assert found.at(needed) >= target - 1e-6
    assert needed == 1 or found.at(needed - 1) < target + 1e-6


@pytest.mark.parametrize(
    ("value", "runs", "text"),
    [
        (0.9312, 4, "With 4 runs the ranking by el2n has reliability 0.93 (0.83-0.95); 6 runs would reach 0.95."),
        (0.96, 9, "With 9 runs the ranking by el2n has reliability 0.96 (0.86-0.98); 8 runs are enough for 0.95."),
        (0.9996, 2, "With 2 runs the ranking by el2n has reliability 1.00 (0.90-1.00); 1 run is enough for 0.95."),
        (
            -0.001,
            2,
            "With 2 runs the ranking by el2n has reliability 0.00 (-0.10 to 0.02); the runs do not agree, so no number "
            "of them can be told that would reach 0.95.",
        ),
        (0.03, 2, "With 2 runs the ranking by el2n has reliability 0.03 (-0.07 to 0.05); 1,289 runs would reach 0.95."),
    ],
)
def test_reliability_answers_in_words(value, runs, text):
    interval = (value - 0.1, min(value + 0.02, 1.0))
    found = dp.consistency.Reliability(value, interval, 0.95, value, np.ones(runs), "el2n", runs, ("mlp",))
    assert str(found) == found.describe(0.95) == text
    with pytest.raises(ValueError, match=r"target: got 1\.2, expected a number between 0 and 1"):
        found.describe(1.2)


def test_no_fewer_runs_are_needed_than_there_are_architectures():
    found = dp.consistency.Reliability(0.99, (0.9, 1.0), 0.95, 0.8, np.ones(8), "el2n", 8, ("a", "b", "c"))
    assert found.runs_needed(0.5) == 3
    assert found.runs_needed(0.99) == 8


def test_describe_speaks_of_any_target():
    found = dp.consistency.reliability(run_set(noisy(4)), "el2n")
    assert found.describe(0.8).endswith(f"{found.runs_needed(0.8)} runs are enough for 0.8.")
    assert found.describe(0.999).endswith(f"{found.runs_needed(0.999)} runs would reach 0.999.")


def test_runs_that_do_not_agree_cannot_tell_how_many_are_needed():
    matrix = np.stack([np.arange(20.0), -np.arange(20.0)])
    found = dp.consistency.reliability(run_set(matrix), "el2n")
    assert found.value == -1
    assert found.single_run == pytest.approx(-1)
    assert found.to_dict()["runs_needed"] is None
    with pytest.raises(ValueError, match="the runs do not agree at all"):
        found.runs_needed(0.9)


def test_runs_that_agree_fully_have_reliability_1():
    found = dp.consistency.reliability(run_set([np.arange(100.0), 2.0 + np.arange(100.0)]), "el2n")
    assert found.value == pytest.approx(1, abs=1e-9)
    assert found.interval == pytest.approx((1, 1), abs=1e-4)
    assert found.runs_needed(0.999) == 1


def test_the_order_of_examples_and_runs_does_not_matter():
    matrix = noisy(5)
    shuffled = matrix[:, np.random.default_rng(1).permutation(SIZE)]
    found, other, turned = (
        dp.consistency.reliability(run_set(m), "el2n") for m in (matrix, shuffled, np.roll(matrix, 2, axis=0))
    )
    assert other.value == pytest.approx(found.value, abs=1e-12)
    assert other.single_run == pytest.approx(found.single_run, abs=1e-12)
    assert turned.value == pytest.approx(found.value, abs=1e-12)
    assert turned.interval == pytest.approx(found.interval, abs=1e-9)
    np.testing.assert_allclose(turned.agreement, np.roll(found.agreement, 2), rtol=1e-12)


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_reliability_depends_on_neither_unit_nor_direction(scale, shift):
    matrix = noisy(4)
    found = dp.consistency.reliability(run_set(matrix), "el2n")
    for changed in (run_set(scale * matrix + shift), run_set(-scale * matrix)):
        other = dp.consistency.reliability(changed, "el2n")
        assert (other.value, *other.interval) == pytest.approx((found.value, *found.interval), abs=1e-9)


def test_the_seed_decides_and_the_level_widens():
    runs = run_set(noisy(12, 300))

    def interval(**options):
        return dp.consistency.reliability(runs, "el2n", splits=5, **options).interval

    assert interval(seed=3) == interval(seed=3) != interval(seed=4)
    (low, high), (lower, higher) = interval(level=0.8), interval(level=0.99)
    assert lower < low < high < higher


def test_a_few_examples_give_no_interval_but_a_value():
    found = dp.consistency.reliability(run_set(noisy(3, size=9)), "el2n")
    assert found.interval == pytest.approx((min(0.0, found.value), 1.0))


def test_runs_of_several_architectures_are_compared_like_with_like():
    rng = np.random.default_rng(0)
    hard, special = rng.normal(size=2000), rng.normal(size=(2, 2000))
    matrix = np.stack([hard + special[k] + 0.5 * rng.normal(size=2000) for k in (0, 0, 1, 1)])
    together = dp.consistency.reliability(run_set(matrix, architectures=["a", "a", "b", "b"]), "el2n")
    ignoring = dp.consistency.reliability(run_set(matrix), "el2n")
    fresh = np.stack([hard + special[k] + 0.5 * rng.normal(size=2000) for k in (0, 0, 1, 1)])
    assert together.value == pytest.approx(rho(matrix.mean(0), fresh.mean(0)), abs=0.01)
    assert ignoring.value < together.value - 0.02
    assert together.architectures == ("a", "b")


# Rank error


def slow_error(matrix, size):
    """Over all sets of so many runs."""
    of_all = mean_known(matrix)
    errors = []
    for chosen in itertools.combinations(range(len(matrix)), size):
        mean = mean_known(matrix[list(chosen)])
        known = ~np.isnan(mean)
        ranks = [scipy.stats.rankdata(values[known]) for values in (mean, of_all)]
        errors.append(np.mean(np.abs(ranks[0] - ranks[1])) / known.sum())
    return np.mean(errors), np.percentile(errors, 5), np.percentile(errors, 95)


@pytest.mark.parametrize("matrix", [noisy(2), noisy(5), holes(5), np.round(noisy(4))], ids=["2", "5", "holes", "ties"])
def test_rank_error_is_the_mean_over_all_sets_of_runs(matrix):
    found = dp.consistency.rank_error(run_set(matrix), "el2n")
    assert found.runs.tolist() == list(range(1, len(matrix) + 1))
    expected = [slow_error(matrix, size) for size in found.runs]
    np.testing.assert_allclose(np.stack([found.error, found.low, found.high], 1), expected, atol=1e-12)
    assert found.error[-1] == 0


def test_sets_are_drawn_where_there_are_too_many():
    matrix = noisy(30, noise=3.0)
    found = dp.consistency.rank_error(run_set(matrix), "el2n", resamples=40)
    assert len(found.runs) <= 12
    assert (found.runs[0], found.runs[-1]) == (1, 30)
    assert (np.diff(found.error) < 0).all()
    expected = np.mean([slow_error(matrix[[r, *range(30)]], 1)[0] for r in range(3)])  # a mean of 31 is near that of 30
    assert found.error[0] == pytest.approx(expected, rel=0.2)
    again = dp.consistency.rank_error(run_set(matrix), "el2n", resamples=40)
    other = dp.consistency.rank_error(run_set(matrix), "el2n", resamples=40, seed=1)
    np.testing.assert_array_equal(found.error, again.error)
    assert (found.error[2:-1] != other.error[2:-1]).any()


def test_rank_error_answers_in_words():
    found = dp.consistency.RankError(np.arange(1, 9), np.linspace(0.081, 0, 8), np.zeros(8), np.ones(8), "el2n")
    assert str(found) == "One run misplaces an example by 8.1 % of the ranks on average, the mean of 4 runs by 4.6 %."
    of_two = dp.consistency.rank_error(run_set([[1.0, 2.0, 3.0], [1.0, 3.0, 2.5]]), "el2n")
    assert str(of_two).endswith("of the ranks on average, against the mean of 2 runs.")


# Correlation


def test_correlation_between_scores_is_that_of_means_and_of_pairs_of_different_runs():
    runs = two_scores()
    difficulties = {"el2n": runs.matrix("el2n"), "confidence": -runs.matrix("confidence")}
    found = dp.consistency.correlation(runs)
    assert found.names == ("el2n", "confidence")
    for (i, a), (j, b) in itertools.product(enumerate(difficulties.values()), repeat=2):
        assert found.of_means[i, j] == pytest.approx(rho(a.mean(0), b.mean(0)), abs=1e-12)
        pairs = [rho(a[p], b[q]) for p, q in itertools.permutations(range(len(runs)), 2)]
        assert found.of_runs[i, j] == pytest.approx(np.mean(pairs), abs=1e-12)
    chosen = dp.consistency.correlation(runs, ["confidence", "el2n"])
    np.testing.assert_allclose(chosen.of_means, found.of_means[::-1, ::-1], rtol=1e-12)
    np.testing.assert_allclose(chosen.of_runs, found.of_runs[::-1, ::-1], rtol=1e-12)


def test_correlation_between_architectures_is_that_of_means_and_of_pairs_of_different_runs():
    matrix, names = noisy(6), ["a", "b", "a", "c", "b", "a"]
    found = dp.consistency.correlation(run_set(matrix, "aum", names), "aum", between="architectures")
    rows = {name: [r for r, other in enumerate(names) if other == name] for name in "abc"}
    assert found.names == ("a", "b", "c")
    for (i, a), (j, b) in itertools.product(enumerate("abc"), repeat=2):
        assert found.of_means[i, j] == pytest.approx(rho(matrix[rows[a]].mean(0), matrix[rows[b]].mean(0)), abs=1e-12)
        pairs = [rho(matrix[p], matrix[q]) for p, q in itertools.product(rows[a], rows[b]) if p != q]
        if pairs:
            assert found.of_runs[i, j] == pytest.approx(np.mean(pairs), abs=1e-12)
        else:
            assert (a, b) == ("c", "c")
            assert np.isnan(found.of_runs[i, j])
    assert found.to_dict()["of_runs"][2][2] is None


@pytest.mark.parametrize("between", ["scores", "architectures"])
def test_a_correlation_of_pairs_leaves_out_what_one_of_the_runs_does_not_know(between):
    matrix = holes(4, 3000)
    found = dp.consistency.correlation(
        run_set(matrix), "el2n" if between == "architectures" else ["el2n"], between=between
    )
    pairs = [rho(a, b) for a, b in itertools.combinations(matrix, 2)]
    assert found.of_runs[0, 0] == pytest.approx(np.mean(pairs), abs=0.005), "not less for what is missing"


def test_single_runs_are_not_compared_where_there_is_one_or_a_table(tmp_path):
    runs = two_scores()
    np.savez(tmp_path / "table.npz", scores=runs.difficulty("el2n"))
    runs = runs.with_table(tmp_path / "table.npz", "memorization", column="scores")
    with_table = dp.consistency.correlation(runs, ["el2n", "memorization"])
    assert with_table.of_runs is None
    assert with_table.of_means[0, 1] == pytest.approx(1)
    assert str(with_table) == "el2n and memorization agree with 1.00."
    one = dp.consistency.correlation(two_scores(1))
    assert one.of_runs is None
    assert one.of_means.shape == (2, 2)
    alone = dp.consistency.correlation(two_scores(1), "el2n", between="architectures")
    assert alone.of_runs is None
    assert str(alone) == "Of mlp no two can be compared."


def test_correlation_answers_in_words():
    means = np.array([[1.0, 0.9, 0.2], [0.9, 1.0, -0.1], [0.2, -0.1, 1.0]])
    found = dp.consistency.Correlation(("el2n", "loss", "vog"), "scores", means, means * [[0.7], [0.6], [0.5]])
    assert str(found) == (
        "Of 3 scores, el2n and loss agree most (0.90), loss and vog least (-0.10); "
        "two runs by one score agree with 0.50 to 0.70."
    )


# Principal components


def test_components_are_those_of_scikit_learn_on_normal_scores():
    runs = two_scores(4, 200, ["a", "b", "a", "b"])
    variables = [
        scipy.stats.norm.ppf((scipy.stats.rankdata(runs.where(architecture=a).difficulty(s)) - 0.5) / 200)
        for s in ("el2n", "confidence")
        for a in ("a", "b")
    ]
    oracle = PCA().fit(np.transpose(variables))
    found = dp.consistency.pca(runs)
    assert found.names == ("el2n, a", "el2n, b", "confidence, a", "confidence, b")
    np.testing.assert_allclose(found.explained, oracle.explained_variance_ratio_, rtol=1e-9)
    np.testing.assert_allclose(np.abs(found.loadings), np.abs(oracle.components_), atol=1e-9)
    expected = oracle.transform(np.transpose(variables))[:, 0]
    np.testing.assert_allclose(found.component, expected * np.sign(expected @ found.component), atol=1e-9)
    assert (found.loadings[0] > 0).all(), "all say what is hard"
    assert "of the variance of 4 pairs of score and architecture: " in str(found)
    assert rho(found.component, runs.difficulty("el2n")) > 0.5


@settings(deadline=None, max_examples=30)
@given(hnp.arrays(np.float64, (3, 15), elements=st.floats(-5, 5)))
def test_components_share_the_variance_and_are_orthogonal(matrix):
    if (matrix == matrix[:, :1]).all():
        return
    runs = dp.RunSet([dp.Run(dict(zip(("el2n", "loss", "aum"), matrix, strict=True)), architecture="mlp", seed=0)])
    found = dp.consistency.pca(runs)
    assert found.explained.sum() == pytest.approx(1)
    assert (np.diff(found.explained) <= 1e-12).all()
    np.testing.assert_allclose(found.loadings @ found.loadings.T, np.eye(3), atol=1e-9)
    assert (found.loadings[np.arange(3), np.abs(found.loadings).argmax(1)] > 0).all()


def test_one_score_is_its_own_component_and_unknown_examples_stay_unknown():
    matrix = noisy(3)
    matrix[:, 5] = np.nan
    found = dp.consistency.pca(run_set(matrix))
    assert found.explained.tolist() == [1.0]
    assert found.loadings.tolist() == [[1.0]]
    assert np.flatnonzero(np.isnan(found.component)).tolist() == [5]
    assert rho(found.component, matrix.mean(0)) == pytest.approx(1)
    assert str(found).endswith("of 1 score: with one there is nothing to compare.")


@pytest.mark.parametrize(
    ("share", "words"), [(0.82, "one notion of difficulty explains most"), (0.6, "more than half"), (0.4, "several")]
)
def test_the_words_follow_the_share_that_the_first_component_explains(share, words):
    found = dp.consistency.PCA(("a", "b", "c"), np.array([share, 1 - share, 0]), np.eye(3), np.zeros(4))
    assert str(found).startswith(
        f"The first component explains {share:.0%}".replace("%", " % of the variance of 3 scores")
    )
    assert words in str(found)


# Shares of variance


PARTS = ("example", "architecture", "example x architecture", "run", "rest")


def simulated(rng, truth, numbers, size):
    """[R, N] with variances `truth` in the order of PARTS, and architectures."""
    spread = np.sqrt(truth)
    example = spread[0] * rng.normal(size=size)
    rows = []
    for count in numbers:
        own = example + spread[1] * rng.normal() + spread[2] * rng.normal(size=size)
        rows += [own + spread[3] * rng.normal() + spread[4] * rng.normal(size=size) for _ in range(count)]
    return np.stack(rows), [f"net{k}" for k, count in enumerate(numbers) for _ in range(count)]


@pytest.mark.parametrize(
    ("numbers", "truth"),
    [
        ((3, 3, 3, 3), (4.0, 0.5, 1.0, 0.3, 2.0)),
        ((1, 2, 5, 4), (4.0, 0.5, 1.0, 0.3, 2.0)),
        ((2, 2), (1.0, 0.0, 0.0, 0.0, 3.0)),
        ((6,), (2.0, 0.0, 0.0, 0.5, 1.0)),
    ],
    ids=["balanced", "unbalanced", "no architecture", "one architecture"],
)
def test_shares_of_variance_are_found_in_simulated_scores(numbers, truth):
    repeats, size = 250, 80
    found = []
    for seed in range(repeats):
        matrix, names = simulated(np.random.default_rng([seed, sum(numbers)]), truth, numbers, size)
        shares = dp.consistency.variance_shares(run_set(matrix, architectures=names), "el2n")
        found.append([shares.components[part] for part in PARTS])
    mean, error = np.mean(found, 0), np.std(found, 0) / math.sqrt(repeats)
    for part, value, expected, deviation in zip(PARTS, mean, truth, error, strict=True):
        # a variance near 0 is estimated as 0 where it would be negative, which leaves it a little too large
        clipped = 1.5 * deviation * math.sqrt(repeats) if expected < 0.6 else 0.0
        assert -4 * deviation - 1e-12 <= value - expected <= 4 * deviation + clipped + 1e-12, part


def test_without_noise_the_variances_are_those_of_the_parts():
    example = np.array([0.0, 1.0, 2.0, 5.0])
    shares = dp.consistency.variance_shares(run_set([example, example + 3, example + 1]), "el2n")
    assert shares.components["example"] == pytest.approx(example.var(ddof=1))
    assert shares.components["run"] == pytest.approx(np.var([0, 3, 1], ddof=1))
    assert shares.components["rest"] == pytest.approx(0, abs=1e-12)
    assert shares.architecture == 0
    assert str(shares).endswith("; with one architecture, what depends on it counts as the example's.")


@settings(deadline=None, max_examples=50)
@given(
    matrix=hnp.arrays(np.float64, (5, 6), elements=st.integers(-9, 9)),
    scale=st.sampled_from([-2.0, 0.5, 10.0]),
    shift=st.integers(-100, 100),
)
def test_shares_sum_to_one_and_depend_on_neither_unit_nor_zero(matrix, scale, shift):
    names = ["a", "b", "a", "b", "b"]
    if matrix.var() == 0:
        return
    found = dp.consistency.variance_shares(run_set(matrix, architectures=names), "el2n")
    shares = [found.example, found.architecture, found.run, found.rest]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) >= 0
    other = dp.consistency.variance_shares(run_set(scale * matrix + shift, architectures=names), "el2n")
    assert [other.example, other.architecture, other.run, other.rest] == pytest.approx(shares, abs=1e-9)


def test_shares_use_the_examples_that_every_run_knows():
    matrix = noisy(4)
    matrix[1, 3] = matrix[2, 7] = np.nan
    known = ~np.isnan(matrix).any(0)
    found, expected = (dp.consistency.variance_shares(run_set(m), "el2n") for m in (matrix, matrix[:, known]))
    assert found.components == pytest.approx(expected.components)


def test_variance_shares_answer_in_words():
    shares = dp.consistency.VarianceShares(0.71, 0.09, 0.0, 0.2, {}, "el2n", ("mlp", "cnn"))
    assert str(shares) == (
        "Of the variance of el2n 71 % is the example's, 9 % depends on the architecture, 0 % is a shift of the whole "
        "run, 20 % is noise of single runs."
    )


# Stable subset


def test_the_frequency_is_the_share_of_resampled_sets_whose_plan_holds_the_example():
    # of two runs 1/4 of the sets hold the first alone, 1/4 the second alone; example 0 is hard in all, 1 in the first
    # and in the mean, 2 in the second
    runs = run_set([[9.0, 8.0, 1.0, 0.0], [9.0, 2.0, 3.0, 0.0]])
    found = dp.consistency.stable_subset(runs, "el2n", dp.policies.Hardest(0.5), resamples=1000)
    assert found.frequency[[0, 3]].tolist() == [1.0, 0.0]
    assert found.frequency[1] == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 1000))
    assert found.frequency.sum() == pytest.approx(2)
    assert (found.index.tolist(), found.index.dtype) == ([0], np.int64)
    wider = dp.consistency.stable_subset(runs, "el2n", dp.policies.Hardest(0.5), share=0.5, resamples=1000)
    assert wider.index.tolist() == [0, 1]
    assert (wider.kept, wider.kept_and_stable) == (2, 2)


def test_low_scores_are_hard_where_the_score_says_so():
    matrix = np.stack([np.arange(10.0), np.arange(10.0) + 0.1])
    for score, expected in (("el2n", [8, 9]), ("aum", [0, 1])):
        found = dp.consistency.stable_subset(run_set(matrix, score), score, dp.policies.Hardest(0.2), resamples=5)
        assert found.index.tolist() == expected


def test_sets_are_resampled_within_architectures():
    matrix, names = np.zeros((3, 20)), ["a", "b", "b"]
    matrix[0, :5] = 1000.0  # the only run of its architecture, so that it is in every set once
    matrix[1:] = noisy(2, 20)
    found = dp.consistency.stable_subset(run_set(matrix, architectures=names), "el2n", dp.policies.Hardest(0.25))
    assert found.index.tolist() == [0, 1, 2, 3, 4]
    assert found.frequency[:5].tolist() == [1.0] * 5


def test_ties_and_random_policies_vary_between_sets():
    runs = run_set(np.stack([np.zeros(200), np.ones(200)]))
    for policy in (dp.policies.Hardest(0.5), dp.policies.Random(0.5)):
        found = dp.consistency.stable_subset(runs, "el2n", policy)
        assert found.frequency.mean() == pytest.approx(0.5)
        assert found.frequency.std() == pytest.approx(0.05, rel=0.3)
        assert len(found.index) == 0
    again = dp.consistency.stable_subset(runs, "el2n", dp.policies.Random(0.5))
    other = dp.consistency.stable_subset(runs, "el2n", dp.policies.Random(0.5), seed=1)
    np.testing.assert_array_equal(found.frequency, again.frequency)
    assert (found.frequency != other.frequency).any()


def test_the_labels_of_the_runs_reach_the_policy():
    labels = np.arange(SIZE) % 3
    runs = dp.RunSet(dp.Run({"el2n": row}, architecture="mlp", seed=s, labels=labels) for s, row in enumerate(noisy(3)))
    found = dp.consistency.stable_subset(runs, "el2n", dp.policies.PerClass(dp.policies.Hardest(0.5)), resamples=20)
    np.testing.assert_allclose([found.frequency[labels == c].sum() for c in range(3)], 10)


def test_a_stable_subset_answers_in_words():
    found = dp.consistency.StableSubset(
        np.arange(3412), np.zeros(8000), 0.9, 4000, 3412, 100, repr(dp.policies.Hardest(keep=0.5))
    )
    assert str(found) == (
        "Of the 4,000 examples that Hardest(keep=0.5) keeps, 3,412 (85 %) are kept by at least 90 % of 100 resampled "
        "sets of runs."
    )


def test_unknown_difficulty_is_refused_saying_of_which_set_unless_the_policy_keeps_it():
    matrix = noisy(2)
    matrix[0, :3] = np.nan
    runs = run_set(matrix)
    with pytest.raises(
        ValueError, match=r"resampled set \d+ of the runs, in which 3 examples .* by none: difficulty: 3"
    ):
        dp.consistency.stable_subset(runs, "el2n", dp.policies.Hardest(0.5))
    found = dp.consistency.stable_subset(runs, "el2n", dp.policies.Hardest(0.5, unseen="keep"))
    assert found.kept == 30


# What all of them share


MEASURES = {
    "reliability": lambda runs, score: dp.consistency.reliability(runs, score),
    "rank_error": lambda runs, score: dp.consistency.rank_error(runs, score),
    "variance_shares": lambda runs, score: dp.consistency.variance_shares(runs, score),
    "stable_subset": lambda runs, score: dp.consistency.stable_subset(runs, score, dp.policies.Hardest(0.5)),
    "correlation": lambda runs, score: dp.consistency.correlation(runs, score, between="architectures"),
    "run_agreement": lambda runs, score: dp.consistency.run_agreement(runs, score),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_score_that_the_runs_do_not_have_is_refused(name):
    with pytest.raises(ValueError, match="has no score 'aum'; all runs have el2n"):
        MEASURES[name](run_set(noisy(3)), "aum")
    with pytest.raises(ValueError, match="there is no score 'eln2'; did you mean 'el2n'"):
        MEASURES[name](run_set(noisy(3)), "eln2")
    with pytest.raises(TypeError, match="runs: got list, expected a RunSet"):
        MEASURES[name](list(run_set(noisy(3))), "el2n")


@pytest.mark.parametrize("name", ["reliability", "rank_error", "variance_shares", "stable_subset"])
def test_one_run_is_refused(name):
    with pytest.raises(ValueError, match="got 1 run, expected at least 2"):
        MEASURES[name](run_set(noisy(1)), "el2n")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("reliability", {"splits": 0}, "splits: got 0, expected 1 or more"),
        ("reliability", {"level": 1}, "level: got 1, expected a number between 0 and 1"),
        ("reliability", {"level": math.nan}, "level: got nan"),
        ("reliability", {"seed": -1}, "seed: got -1"),
        ("rank_error", {"resamples": 0}, "resamples: got 0"),
        ("stable_subset", {"share": 0}, r"share: got 0, expected a number in \(0, 1\]"),
        ("stable_subset", {"share": 1.5}, r"share: got 1\.5"),
        ("stable_subset", {"resamples": -2}, "resamples: got -2"),
        ("stable_subset", {"policy": 0.5}, r"policy: got 0\.5, expected one of dp\.policies"),
        ("correlation", {"between": "runs"}, "between: got 'runs', expected 'scores' or 'architectures'"),
        ("correlation", {"between": "architectures"}, "scores: got None, expected one score"),
        ("correlation", {"scores": "el2n"}, "got the string 'el2n', expected several"),
        ("correlation", {"scores": []}, "scores: got none"),
        ("pca", {"scores": "el2n"}, "got the string 'el2n', expected several"),
        ("pca", {"scores": ["eln2"]}, "did you mean 'el2n'"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    arguments = {"score": "el2n"} if name in ("reliability", "rank_error", "stable_subset") else {}
    if name == "stable_subset":
        arguments["policy"] = dp.policies.Hardest(0.5)
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(dp.consistency, name)(run_set(noisy(3)), **{**arguments, **options})


def test_runs_that_rank_nothing_are_refused():
    constant = run_set(np.stack([np.zeros(9), np.ones(9), np.ones(9) * 2]))
    apart = run_set([[1.0, 2.0, np.nan, np.nan], [np.nan, np.nan, 1.0, 2.0]])
    for runs in (constant, apart):
        with pytest.raises(ValueError, match="the runs rank nothing"):
            dp.consistency.reliability(runs, "el2n")
    with pytest.raises(ValueError, match="0 of 4 examples were presented by each of the 2 runs, expected at least 2"):
        dp.consistency.variance_shares(apart, "el2n")
    with pytest.raises(ValueError, match="equal for all examples"):
        dp.consistency.pca(constant)
    with pytest.raises(ValueError, match="got one run of each of a, b, expected two of at least one"):
        dp.consistency.variance_shares(run_set(noisy(2), architectures=["a", "b"]), "el2n")
    with pytest.raises(ValueError, match="equal for all examples in all runs"):
        dp.consistency.variance_shares(run_set(np.full((3, 7), 0.1)), "el2n")


RESULTS = {
    "reliability": lambda: dp.consistency.reliability(run_set(noisy(3)), "el2n"),
    "rank_error": lambda: dp.consistency.rank_error(run_set(noisy(3)), "el2n"),
    "correlation": lambda: dp.consistency.correlation(two_scores()),
    "architectures": lambda: dp.consistency.correlation(two_scores(3, SIZE, "aab"), "el2n", between="architectures"),
    "pca": lambda: dp.consistency.pca(two_scores()),
    "variance_shares": lambda: dp.consistency.variance_shares(two_scores(3, SIZE, "aab"), "el2n"),
    "stable_subset": lambda: dp.consistency.stable_subset(run_set(noisy(3)), "el2n", dp.policies.Hardest(0.5)),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_plain_data_and_one_sentence(name):
    result = RESULTS[name]()
    facts = result.to_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert re.fullmatch(r"[^\n]+\.", str(result))
    with pytest.raises(AttributeError):
        result.score = "aum"


# Figures


FIGURES = {
    "reliability_curve": lambda ax: dp.plots.reliability_curve(RESULTS["reliability"](), ax=ax),
    "reliability_curve of noise": lambda ax: dp.plots.reliability_curve(
        dp.consistency.reliability(run_set([[1.0, 2.0, 3.0], [2.0, 2.5, 1.0]]), "el2n"), 0.8, ax=ax
    ),
    "rank_error_curve": lambda ax: dp.plots.rank_error_curve(RESULTS["rank_error"](), ax=ax),
    "correlation_heatmap": lambda ax: dp.plots.correlation_heatmap(RESULTS["correlation"](), ax=ax),
    "correlation_heatmap of runs": lambda ax: dp.plots.correlation_heatmap(RESULTS["architectures"](), "runs", ax=ax),
    "explained_variance": lambda ax: dp.plots.explained_variance(RESULTS["pca"](), ax=ax),
    "loadings": lambda ax: dp.plots.loadings(RESULTS["pca"](), ax=ax),
    "variance_bars": lambda ax: dp.plots.variance_bars(RESULTS["variance_shares"](), ax=ax),
    "stability": lambda ax: dp.plots.stability(RESULTS["stable_subset"](), ax=ax),
    "run_agreement_bars": lambda ax: dp.plots.run_agreement_bars(two_scores(), ax=ax),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_on_the_axes_given_or_on_their_own_and_leave_pyplot_alone(name):
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    given_axes = Figure().add_subplot()
    assert FIGURES[name](given_axes) is given_axes
    own = FIGURES[name](None)
    own.get_figure().canvas.draw()
    assert own.get_title()
    if "heatmap" not in name and name != "loadings":
        assert own.get_xlabel()
    assert own.has_data()
    assert pyplot.get_fignums() == []


def test_the_curve_marks_the_runs_that_the_target_takes():
    found = RESULTS["reliability"]()
    labels = dp.plots.reliability_curve(found, target=0.9).get_legend_handles_labels()[1]
    assert {"95% interval", "measured", "two single runs", "target 0.9", f"{found.runs_needed(0.9)} needed"} <= {
        *labels
    }


def test_bars_of_several_scores_are_stacked_to_one():
    ax = dp.plots.variance_bars(dp.consistency.variance_shares(two_scores(), s) for s in ("el2n", "confidence"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["el2n", "confidence"]
    ends = {bar.get_x() + bar.get_width() for bar in ax.patches}
    assert max(ends) == pytest.approx(1)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="target: got 2"):
        dp.plots.reliability_curve(RESULTS["reliability"](), target=2)
    with pytest.raises(ValueError, match="of: got 'runs', expected 'means'"):
        dp.plots.correlation_heatmap(dp.consistency.correlation(two_scores(1)), of="runs")
    with pytest.raises(ValueError, match="components: got 0"):
        dp.plots.loadings(RESULTS["pca"](), 0)
    with pytest.raises(ValueError, match="got no shares"):
        dp.plots.variance_bars([])
