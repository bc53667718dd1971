"""Policies that draw and weight: exact numbers, exact probabilities, and gradients that are right on average."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.uniform import Hardest
from difficulty_prune.policies.weighted import Importance, SoftPrune, draw, proportional

pytestmark = pytest.mark.usefixtures("one_thread")

NAN, INF = float("nan"), float("inf")
fractions = st.integers(1, 64).map(lambda k: k / 64)
difficulties = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)
distinct = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40, unique=True)
skewed = st.lists(st.floats(-6, 6).map(lambda x: 10.0**x), min_size=1, max_size=30)
seeds = st.integers(0, 2**31 - 1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


def number_kept(keep, size):
    return max(1, math.floor(Fraction(keep) * size + Fraction(1, 2)))


def weighted_policies(keep):
    return [SoftPrune(keep), SoftPrune(keep, easy_keep=keep / 4), Importance(0.5, keep), Importance(INF, keep)]


def check_counts(counts, trials, probability):
    """Each count is binomial: refused where less likely than 5 standard deviations of a normal distribution are."""
    for count, p in zip(counts.tolist(), probability.tolist(), strict=True):
        p = min(p, 1.0)
        assert scipy.stats.binom.cdf(count, trials, p) > 2.9e-7, (count, trials * p)
        assert scipy.stats.binom.sf(count - 1, trials, p) > 2.9e-7, (count, trials * p)


# Probabilities in proportion to a size


def oracle_proportional(sizes, kept):
    """Rescale to the number wanted; whoever comes to 1 or more is certain; repeat with the others."""
    sizes = [Fraction(size) for size in sizes]
    certain = set()
    while len(certain) < len(sizes):
        others = [i for i in range(len(sizes)) if i not in certain]
        scale = (kept - len(certain)) / sum(sizes[i] for i in others)
        too_large = {i for i in others if sizes[i] * scale >= 1}
        if not too_large:
            return [1.0 if i in certain else float(sizes[i] * scale) for i in range(len(sizes))]
        certain |= too_large
    return [1.0] * len(sizes)


@settings(max_examples=80)
@given(sizes=skewed, data=st.data())
def test_proportional_caps_and_rescales_until_nothing_is_above_one(sizes, data):
    kept = data.draw(st.integers(1, len(sizes)))
    got = proportional(float64(sizes), kept)
    np.testing.assert_allclose(got, oracle_proportional(sizes, kept), rtol=1e-11)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 37, 1000])
@pytest.mark.parametrize("value", [1.0, 0.1, 1e-300, 1e300, 1 / 3])
def test_equal_sizes_have_equal_probabilities(size, value):
    for kept in {1, size // 2, size - 1, size} - {0}:
        got = proportional(torch.full((size,), value, dtype=torch.float64), kept)
        np.testing.assert_allclose(got, kept / size, rtol=1e-11)


@settings(max_examples=30)
@given(sizes=skewed)
def test_keeping_all_makes_all_certain(sizes):
    np.testing.assert_allclose(proportional(float64(sizes), len(sizes)), 1, rtol=1e-12)
    assert draw(torch.ones(len(sizes), dtype=torch.float64), len(sizes), seeded(0)).tolist() == [*range(len(sizes))]


def test_one_giant_takes_one_place_and_no_more():
    got = proportional(float64([1e-200, 1e200, 1e-200, 1e-200, 1e-200]), 3)
    np.testing.assert_allclose(got, [0.5, 1, 0.5, 0.5, 0.5])


def test_giants_of_many_magnitudes_are_certain_one_after_another():
    got = proportional(float64([10.0 ** (9 * k) for k in range(8)]), 7)
    np.testing.assert_allclose(got, [1e-9, *[1] * 7], rtol=1e-8, atol=0)


def test_who_comes_to_exactly_one_is_certain():
    assert proportional(float64([2.0, 1.0, 1.0]), 2).tolist() == [1.0, 0.5, 0.5]
    assert proportional(float64([4.0, 2.0, 1.0, 1.0]), 3).tolist() == [1.0, 1.0, 0.5, 0.5]


# Draws


@settings(max_examples=80)
@given(sizes=skewed, seed=seeds, data=st.data())
def test_the_draw_has_the_exact_number_of_different_examples(sizes, seed, data):
    kept = data.draw(st.integers(1, len(sizes)))
    drawn = draw(proportional(float64(sizes), kept), kept, seeded(seed)).tolist()
    assert len(drawn) == len(set(drawn)) == kept
    assert set(drawn) <= set(range(len(sizes)))


@settings(max_examples=8, derandomize=True)
@given(sizes=st.lists(st.floats(-4, 4).map(lambda x: 10.0**x), min_size=2, max_size=8), data=st.data())
@example(sizes=[1.0] * 7, data=None)
@example(sizes=[1e-3, 1e-3, 1.0, 1.0, 1000.0], data=None)
def test_every_example_is_drawn_with_exactly_its_probability(sizes, data):
    kept = 3 if data is None else data.draw(st.integers(1, len(sizes) - 1))
    probability = proportional(float64(sizes), kept)
    generator, counts = seeded(1), torch.zeros(len(sizes), dtype=torch.int64)
    for _ in range(500):
        counts[draw(probability, kept, generator)] += 1
    check_counts(counts, 500, probability)


@pytest.mark.parametrize("policy", [SoftPrune(0.4), SoftPrune(0.7, easy_keep=0.2), Importance(0.5, 0.4)], ids=repr)
def test_every_example_is_kept_with_exactly_its_probability(policy):
    """By epochs of a sampler, which draws each from its own generator."""
    difficulty = float64([0.0, 0.1, 0.3, 0.35, 0.5, 0.8, 1.3, 2.0, 3.0, 5.0])
    kept = number_kept(policy.keep, 10)
    probability = policy.inclusion(difficulty, kept, seeded(0))
    sampler, counts = dp.PruneSampler(policy, difficulty), torch.zeros(10, dtype=torch.int64)
    for epoch in range(500):
        sampler.set_epoch(epoch)
        counts[sampler.plan.index] += 1
    assert counts.sum() == 500 * kept
    check_counts(counts, 500, probability)


@pytest.mark.parametrize("quota", ["proportional", "equal"])
@pytest.mark.parametrize("policy", [SoftPrune(0.4), Importance(0.7, 0.4)], ids=repr)
def test_within_classes_too_the_weight_is_one_over_the_frequency(policy, quota):
    difficulty, labels = torch.arange(20.0).sqrt(), torch.tensor([0] * 14 + [1] * 6)
    counts, weights = torch.zeros(20, dtype=torch.int64), torch.zeros(20, dtype=torch.float64)
    for seed in range(200):
        plan = PerClass(policy, quota)(difficulty, labels, seeded(seed))
        assert len(plan) == 8
        counts[plan.index] += 1
        assert torch.all((weights[plan.index] == 0) | (weights[plan.index] == plan.weight))
        weights[plan.index] = plan.weight.double()
    check_counts(counts, 200, 1 / weights)


@settings(max_examples=40)
@given(difficulty=difficulties, keep=fractions, seed=seeds)
@example(difficulty=[0.0], keep=1 / 64, seed=0)
@example(difficulty=[0.0] * 40, keep=63 / 64, seed=0)
@example(difficulty=[1.0, 1.0, 1.0, 100.0], keep=0.5, seed=0)
def test_number_kept_is_exact_and_weights_are_one_over_the_probability(difficulty, keep, seed):
    difficulty = float64(difficulty)
    kept = number_kept(keep, len(difficulty))
    for policy in weighted_policies(keep):
        plan = policy(difficulty, generator=seeded(seed))
        assert len(plan) == kept
        probability = policy.inclusion(difficulty, kept, seeded(seed))
        assert float(probability.sum()) == pytest.approx(kept, rel=1e-12)
        assert bool(((probability > 0) & (probability <= 1 + 1e-12)).all())
        np.testing.assert_allclose(plan.weight, 1 / probability[plan.index], rtol=1e-6)
        assert bool((plan.weight >= 1).all())


# SoftPrune


@settings(max_examples=40)
@given(difficulty=difficulties, keep=fractions, seed=seeds, data=st.data())
def test_soft_prune_keeps_its_share_of_the_whole_set_and_the_weights_add_up_to_all(difficulty, keep, seed, data):
    size = len(difficulty)
    easy_keep = data.draw(st.none() | st.integers(1, int(keep * 64)).map(lambda k: k / 64))
    plan = SoftPrune(keep, easy_keep=easy_keep)(difficulty, generator=seeded(seed))
    assert len(plan) == plan.summary()["kept"] == number_kept(keep, size)
    assert float(plan.weight.double().sum()) == pytest.approx(size, rel=1e-6)


@settings(max_examples=40)
@given(difficulty=distinct, keep=fractions, data=st.data())
@example(difficulty=[*map(float, range(40))], keep=0.5, data=None)
def test_soft_prune_thins_out_as_few_of_the_easiest_as_will_do(difficulty, keep, data):
    """The threshold: the smallest number of easy examples of which `easy_keep` or more may stay."""
    size, kept = len(difficulty), number_kept(keep, len(difficulty))
    easy_keep = None if data is None else data.draw(st.none() | st.integers(1, int(keep * 64)).map(lambda k: k / 64))
    wanted = Fraction(keep) / 2 if easy_keep is None else Fraction(easy_keep)
    thinned = 0
    if kept < size:
        enough = [n for n in range(size - kept + 1, size + 1) if 1 - Fraction(size - kept, n) >= wanted]
        thinned = min(enough, default=size)
    probability = SoftPrune(keep, easy_keep=easy_keep).inclusion(float64(difficulty), kept, seeded(0))
    ranked = sorted(range(size), key=difficulty.__getitem__)
    assert (probability < 1).nonzero()[:, 0].tolist() == sorted(ranked[:thinned])
    assert len(set(probability[ranked[:thinned]].tolist())) <= 1


@settings(max_examples=40)
@given(difficulty=difficulties, keep=fractions, seed=seeds)
def test_soft_prune_drops_easy_examples_only(difficulty, keep, seed):
    plan = SoftPrune(keep)(difficulty, generator=seeded(seed))
    kept = set(plan.index.tolist())
    full_weight = [difficulty[i] for i, w in zip(plan.index.tolist(), plan.weight.tolist(), strict=True) if w == 1]
    dropped = [difficulty[i] for i in range(len(difficulty)) if i not in kept]
    assert max(dropped, default=-INF) <= min(full_weight, default=INF)


def test_soft_prune_in_numbers():
    """keep 0.75 and easy_keep 0.5: half of the set is easy; half of that goes, and the other half counts twice."""
    plan = SoftPrune(keep=0.75, easy_keep=0.5)(torch.arange(100.0))
    assert plan.index.tolist()[25:] == [*range(50, 100)]
    assert set(plan.index.tolist()[:25]) < set(range(50))
    assert plan.weight.tolist() == [2.0] * 25 + [1.0] * 50


def test_soft_prune_never_drops_the_hardest_but_every_easy_one_now_and_then():
    difficulty, visits = torch.arange(30.0), torch.zeros(30)
    sampler = dp.PruneSampler(SoftPrune(keep=0.6), difficulty)
    for epoch in range(100):
        sampler.set_epoch(epoch)
        visits[list(sampler)] += 1
    easy = math.ceil(12 / 0.7)
    assert visits[easy:].tolist() == [100] * (30 - easy)
    assert bool(((visits[:easy] > 0) & (visits[:easy] < 100)).all())


def test_ties_at_the_threshold_have_their_turn_all_alike():
    counts = torch.zeros(10, dtype=torch.int64)
    for seed in range(400):
        counts[SoftPrune(keep=0.7)([1.0] * 10, generator=seeded(seed)).index] += 1
    check_counts(counts, 400, torch.full((10,), 0.7))


def test_infinite_difficulty_is_hard_to_soft_prune():
    for seed in range(20):
        plan = SoftPrune(keep=0.5)([0.0, INF, 1.0, -INF, 2.0, 3.0], generator=seeded(seed))
        assert 1 in plan.index.tolist()


@settings(max_examples=50)
@given(epochs=st.integers(1, 100), hundredths=st.integers(1, 100))
@example(epochs=7, hundredths=50)
@example(epochs=10, hundredths=30)
@example(epochs=100, hundredths=29)
@example(epochs=3, hundredths=1)
def test_the_last_part_of_the_epochs_is_full_and_no_other(epochs, hundredths):
    """An epoch is full if it reaches into the last `anneal` of the training."""
    policy = SoftPrune(keep=0.5, anneal=hundredths / 100, epochs=epochs)
    begin = epochs * (1 - Fraction(hundredths, 100))
    for epoch in range(epochs + 2):
        assert (policy.at(epoch).keep == 1) == (epoch + 1 > begin)


@pytest.mark.parametrize(
    ("epochs", "anneal", "pruned"),
    [(10, 0.3, 7), (10, 0.125, 8), (7, 0.5, 3), (3, 0.01, 2), (10, 0, 10), (4, 1, 0), (1, 0.5, 0), (30, 0.1, 27)],
)
@pytest.mark.parametrize("per_class", [False, True])
def test_annealing_epochs_see_everything_with_weights_of_exactly_one(epochs, anneal, pruned, per_class):
    """A peer divides by the fraction kept in these epochs too."""
    policy = SoftPrune(keep=0.5, anneal=anneal, epochs=epochs)
    policy = PerClass(policy) if per_class else policy
    sampler = dp.PruneSampler(policy, torch.arange(20.0), labels=torch.arange(20) % 2)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        weight = sampler.weight(torch.arange(20))
        if epoch < pruned:
            assert len(sampler) == 10
            assert float(weight.max()) > 1
            assert int((weight == 0).sum()) == 10
        else:
            assert sorted(sampler) == [*range(20)]
            assert weight.tolist() == [1.0] * 20


def test_anneal_needs_the_number_of_epochs():
    with pytest.raises(ValueError, match=r"epochs: got None beside anneal 0\.2.*epochs=30"):
        dp.PruneSampler(SoftPrune(keep=0.5, anneal=0.2), torch.arange(8.0))
    with pytest.raises(ValueError, match="epochs: got None"):
        dp.PruneSampler(PerClass(SoftPrune(keep=0.5, anneal=0.2)), torch.arange(8.0), labels=torch.arange(8) % 2)


@pytest.mark.parametrize("policy", [SoftPrune(0.5), Importance(1.0, 0.5, unseen="keep")], ids=repr)
def test_unseen_examples_are_kept_with_weight_one(policy):
    difficulty = torch.tensor([NAN, 3.0, NAN, 1.0, 0.0, 2.0, NAN, 5.0])
    for seed in range(50):
        plan = policy(difficulty, generator=seeded(seed))
        weight = dict(zip(plan.index.tolist(), plan.weight.tolist(), strict=True))
        assert len(plan) == 3 + 3  # of the five known ones, 2.5 are rounded up
        assert [weight[i] for i in (0, 2, 6)] == [1.0] * 3
    assert policy([NAN] * 4).weight.tolist() == [1.0] * 4


@pytest.mark.parametrize("policy", [SoftPrune(0.5, unseen="refuse"), Importance()], ids=repr)
def test_unseen_examples_are_refused_where_that_is_asked_for(policy):
    with pytest.raises(ValueError, match=r"2 of 3 examples are NaN, the first at 1.*unseen='keep'"):
        policy([0.0, NAN, NAN])
    with pytest.raises(ValueError, match="are NaN"):
        dp.PruneSampler(PerClass(policy), [0.0, NAN, NAN], labels=[0, 0, 0])


def test_unseen_examples_stay_unbiased_within_classes():
    difficulty = torch.tensor([NAN, 3.0, NAN, 1.0, 0.0, 2.0, NAN, 5.0])
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 1])  # class 2 was never seen
    total = torch.zeros(8, dtype=torch.float64)
    for seed in range(300):
        plan = PerClass(SoftPrune(0.5))(difficulty, labels, seeded(seed))
        total[plan.index] += plan.weight.double()
    assert total[[0, 2, 6]].tolist() == [300.0] * 3
    assert bool(((total / 300 - 1).abs() < 0.5).all())  # 5 standard deviations of a weight that is 0 or 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"keep": 0.0}, ValueError, "keep: got 0.0"),
        ({"keep": 20}, ValueError, "keep: got 20"),
        ({"keep": 0.5, "anneal": 1.5}, ValueError, "anneal: got 1.5"),
        ({"keep": 0.5, "anneal": -0.1}, ValueError, "anneal: got -0.1"),
        ({"keep": 0.5, "anneal": NAN}, ValueError, "anneal: got nan"),
        ({"keep": 0.5, "anneal": True}, TypeError, "anneal: got True"),
        ({"keep": 0.5, "epochs": 0}, ValueError, "epochs: got 0"),
        ({"keep": 0.5, "epochs": 2.5}, TypeError, "epochs: got 2.5"),
        ({"keep": 0.5, "easy_keep": 0.0}, ValueError, "easy_keep: got 0.0"),
        ({"keep": 0.5, "easy_keep": 0.6}, ValueError, "easy_keep: got 0.6, expected at most keep, 0.5"),
        ({"keep": 0.5, "easy_keep": "half"}, TypeError, "easy_keep: got 'half'"),
        ({"keep": 0.5, "unseen": "drop"}, ValueError, "unseen: got 'drop'"),
    ],
)
def test_soft_prune_refuses_at_once(options, error, message):
    with pytest.raises(error, match=message):
        SoftPrune(**options)


# Importance


def oracle_importance(difficulty, temperature, kept):
    """Straight from the definition, with the iterative capping above."""
    mean = sum(difficulty) / len(difficulty)
    spread = math.sqrt(sum((d - mean) ** 2 for d in difficulty) / len(difficulty))
    return oracle_proportional([math.exp((d - mean) / spread / temperature) for d in difficulty], kept)


@settings(max_examples=40)
@given(difficulty=difficulties, temperature=st.floats(0.2, 100), data=st.data())
def test_importance_follows_its_definition(difficulty, temperature, data):
    assume(len(set(difficulty)) > 1)
    kept = data.draw(st.integers(1, len(difficulty)))
    got = Importance(temperature).inclusion(float64(difficulty), kept, seeded(0))
    np.testing.assert_allclose(got, oracle_importance(difficulty, temperature, kept), rtol=1e-9)


@settings(max_examples=40)
@given(difficulty=difficulties, temperature=st.floats(0.2, 100), keep=fractions)
def test_scale_and_offset_of_the_difficulty_do_not_matter(difficulty, temperature, keep):
    kept = number_kept(keep, len(difficulty))
    plain, changed = (
        Importance(temperature, keep).inclusion(d, kept, seeded(0))
        for d in (float64(difficulty), float64(difficulty) * 1e-3 - 7)
    )
    np.testing.assert_allclose(changed, plain, rtol=1e-7)


def test_probability_rises_with_difficulty_and_the_weight_falls():
    plan = Importance(1.0, keep=0.5)(torch.arange(40.0))
    assert plan.weight.tolist() == sorted(plan.weight.tolist(), reverse=True)
    assert plan.weight[0] > plan.weight[-1]
    cooler, warmer = (Importance(t).inclusion(torch.arange(9.0).double(), 3, seeded(0)) for t in (0.5, 2.0))
    assert cooler[-1] > warmer[-1]
    assert cooler[0] < warmer[0]


@pytest.mark.parametrize("temperature", [INF, 1e300, 1e12])
def test_at_a_high_temperature_all_are_alike(temperature):
    plan = Importance(temperature, keep=0.25)(torch.arange(40.0) ** 3)
    np.testing.assert_allclose(plan.weight, 4, rtol=1e-6)


def test_at_a_low_temperature_the_hardest_are_kept():
    difficulty = torch.arange(40.0)
    for seed in range(20):
        plan = Importance(0.05, keep=0.25)(difficulty, generator=seeded(seed))
        assert len(set(plan.index.tolist()) & set(Hardest(0.25)(difficulty).index.tolist())) >= 8


def test_too_low_a_temperature_is_refused_and_not_turned_into_infinite_weights():
    for temperature in (1e-3, 1e-300):
        with pytest.raises(ValueError, match=r"temperature: got .*choose a higher one"):
            Importance(temperature)(torch.arange(40.0))
    assert Importance(1e-300, keep=1.0)(torch.arange(40.0)).weight.tolist() == [1.0] * 40


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9, 1e-300, 1 / 3])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_constant_difficulty_is_drawn_evenly(value, size):
    plan = Importance(0.01, keep=0.5)([value] * size)
    np.testing.assert_allclose(plan.weight, size / len(plan), rtol=1e-6)


@pytest.mark.parametrize("bad", [INF, -INF])
def test_infinite_difficulty_is_refused(bad):
    with pytest.raises(ValueError, match=r"1 of 3 examples are infinite, but Importance .*clamp"):
        Importance()([0.0, bad, 1.0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 0.0}, ValueError, "temperature: got 0.0"),
        ({"temperature": -1}, ValueError, "temperature: got -1"),
        ({"temperature": NAN}, ValueError, "temperature: got nan"),
        ({"temperature": True}, TypeError, "temperature: got True"),
        ({"temperature": "1"}, TypeError, "temperature: got '1'"),
        ({"temperature": None}, TypeError, "temperature: got None"),
        ({"keep": 1.5}, ValueError, "keep: got 1.5"),
    ],
)
def test_importance_refuses_at_once(options, error, message):
    with pytest.raises(error, match=message):
        Importance(**options)


def test_the_summary_tells_the_largest_weight_and_a_class_may_be_left_out_for_an_epoch():
    difficulty, labels = torch.arange(100.0), torch.tensor([0] + [1] * 99)
    summaries = [Importance(0.5, keep=0.1)(difficulty, labels, seeded(seed)).summary() for seed in range(20)]
    assert any(summary["classes"]["0"]["kept"] == 0 for summary in summaries)
    assert all(summary["largest_weight"] > 1 for summary in summaries)
    assert "with weights up to " in str(summaries[0])


# Proof that the weighted gradient is unbiased: a real network, in float64, and its real gradients

SIZE, KEPT = 60, 45  # odd, so that two processes leave one example out
EPOCHS = 250
LABELS = torch.repeat_interleave(torch.arange(2), torch.tensor([40, 20]))
INPUTS = torch.randn(SIZE, 4, dtype=torch.float64, generator=seeded(0)) + LABELS[:, None]
INNER = (SoftPrune(keep=0.75), Importance(1.0, keep=0.75))
POLICIES = [*INNER, *(PerClass(policy, quota) for policy in INNER for quota in ("proportional", "equal"))]
every_policy = pytest.mark.parametrize("policy", POLICIES, ids=repr)


def losses(model, index):
    return F.cross_entropy(model(INPUTS[index]), LABELS[index], reduction="none")


def gradient(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).clone()


@pytest.fixture(scope="module")
def model(one_thread):
    """A network that was trained a little, so that some examples are easy and others hard."""
    layers = [nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)]
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(1), dtype=torch.float64) / 2)
    for _ in range(30):
        model.zero_grad()
        losses(model, torch.arange(SIZE)).mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= parameter.grad / 2
    return model


@pytest.fixture(scope="module")
def gradients(model):
    """[N, P]: the gradient of each example's loss, one backward pass each."""
    rows = []
    for i in range(SIZE):
        model.zero_grad()
        losses(model, torch.tensor([i])).sum().backward()
        rows.append(gradient(model))
    return torch.stack(rows)


@pytest.fixture(scope="module")
def difficulty(model):
    return losses(model, torch.arange(SIZE)).detach()


def is_unbiased(estimates, expected):
    """Whether the mean of the estimates [R, P] can be `expected` [P].

    Each coordinate has to be within 4.5 of its standard errors, and all together as near as Hotelling's T squared
    test says, but for one case in a million.
    """
    error = estimates.mean(0) - expected
    standard_error = estimates.std(0) / len(estimates) ** 0.5
    if bool((error.abs() > 4.5 * standard_error + 1e-12).any()):
        return False
    variance, directions = torch.linalg.eigh(estimates.T.cov() / len(estimates))
    varies = variance > 1e-9 * variance[-1]
    squares = (directions.T @ error)[varies] ** 2 / variance[varies]
    count, rank = len(estimates), int(varies.sum())
    statistic = float(squares.sum()) * (count - rank) / (rank * (count - 1))
    return statistic < scipy.stats.f.ppf(1 - 1e-6, rank, count - rank)


def visit(difficulty, *, shares=1, policy, seed):
    """[R, K] of many epochs: what was visited, in order, and its weights; of several processes, one after another."""
    ranks = [
        dp.PruneSampler(policy, difficulty, labels=LABELS, seed=seed, rank=rank, world_size=shares)
        for rank in range(shares)
    ]
    orders, weights = [], []
    for epoch in range(EPOCHS):
        for sampler in ranks:
            sampler.set_epoch(epoch)
            orders.append(torch.tensor([*sampler]))
            weights.append(sampler.weight(orders[-1]).double())
    return torch.stack(orders).view(EPOCHS, -1), torch.stack(weights).view(EPOCHS, -1)


def scaled_mean(gradients, order, weight):
    """[R, P]: keep * (mean of weight * gradient over the visited), keep = K / N."""
    return KEPT / SIZE * (weight[:, :, None] * gradients[order]).mean(1)


@pytest.fixture(scope="module", params=POLICIES, ids=repr)
def visits(request, difficulty):
    return visit(difficulty, policy=request.param, seed=2)


def test_gradients_of_examples_are_those_of_the_whole(model, gradients):
    model.zero_grad()
    losses(model, torch.arange(SIZE)).mean().backward()
    torch.testing.assert_close(gradients.mean(0), gradient(model))
    assert gradients.mean(0).norm() > 1e-2


def test_the_weighted_gradient_is_unbiased(visits, gradients):
    estimates = scaled_mean(gradients, *visits)
    assert estimates.shape == (EPOCHS, gradients.shape[1])
    assert estimates.std(0).max() > 1e-4
    assert is_unbiased(estimates, gradients.mean(0))


def test_without_the_weights_it_is_not_and_the_check_notices(visits, gradients):
    order, weight = visits
    estimates = scaled_mean(gradients, order, torch.ones_like(weight))
    assert not is_unbiased(estimates, gradients.mean(0))
    assert not is_unbiased(estimates * SIZE / KEPT, gradients.mean(0))  # nor is the plain mean of the kept


def test_weights_that_are_off_by_a_fifth_are_noticed(visits, gradients):
    order, weight = visits
    assert not is_unbiased(scaled_mean(gradients, order, 1 + 1.2 * (weight - 1)), gradients.mean(0))


def test_keep_times_the_mean_loss_of_any_micro_batch_is_unbiased(visits, gradients):
    """Also of the last one, which is smaller: the order is random, so that every place holds any kept example."""
    order, weight = visits
    for batch in (slice(0, 16), slice(32, 45)):
        assert is_unbiased(scaled_mean(gradients, order[:, batch], weight[:, batch]), gradients.mean(0))


def test_a_loader_with_gradient_accumulation_gives_the_weighted_gradient_of_the_epoch(model, gradients, difficulty):
    """Micro-batches of any size: the sum of weight * loss over each, divided by the size of the dataset."""
    sampler = dp.PruneSampler(SoftPrune(keep=0.75), difficulty, seed=3)
    loader = DataLoader(dp.IndexedDataset(TensorDataset(INPUTS, LABELS)), batch_size=16, sampler=sampler)
    estimates = []
    for epoch in range(150):
        sampler.set_epoch(epoch)
        model.zero_grad()
        for x, y, index in loader:  # 16, 16 and 13
            loss = F.cross_entropy(model(x), y, reduction="none")
            (sampler.weight(index).double() * loss).sum().div(SIZE).backward()
        index, weight = sampler.plan.index, sampler.plan.weight.double()
        torch.testing.assert_close(gradient(model), weight @ gradients[index] / SIZE)
        estimates.append(gradient(model))
    assert is_unbiased(torch.stack(estimates), gradients.mean(0))


@pytest.mark.parametrize("policy", [SoftPrune(keep=0.75), PerClass(Importance(1.0, keep=0.75), "equal")], ids=repr)
def test_two_processes_together_are_unbiased_although_one_example_is_left_out(policy, difficulty, gradients):
    """keep * (mean over those visited of weight * gradient) is, on average, the mean gradient of the whole dataset.

    Here keep = K / N, of the K = 45 examples of the plan and not of the 44 visited. The example that is left out is
    any of the 45 with the same probability, so that the expected sum over the visited is 44 / 45 of the expected sum
    over the plan, which is the sum of all N gradients; the mean divides by 44, and K / N does the rest. It holds for
    the 44 together, which is also the average of the two processes' means that DistributedDataParallel takes, and for
    either process alone.
    """
    order, weight = visit(difficulty, shares=2, policy=policy, seed=5)
    assert order.shape == (EPOCHS, KEPT - 1)
    assert is_unbiased(scaled_mean(gradients, order, weight), gradients.mean(0))
    assert is_unbiased(scaled_mean(gradients, order[:, KEPT // 2 :], weight[:, KEPT // 2 :]), gradients.mean(0))
    assert not is_unbiased(scaled_mean(gradients, order, torch.ones_like(weight)), gradients.mean(0))


# What a first version got wrong


def test_an_easy_keep_near_zero_still_gives_every_example_a_chance():
    """Of 8 examples 4 are kept; half a chance in 1e20 is raised to the least that a whole number allows, 1 in 5."""
    policy = SoftPrune(keep=0.5, easy_keep=1e-20)
    assert policy.inclusion(torch.arange(8.0).double(), 4, seeded(0)).tolist() == pytest.approx([0.2] * 5 + [1.0] * 3)
    assert float(policy(torch.arange(8.0)).weight.sum()) == pytest.approx(8)


def test_the_threshold_is_exact_for_decimal_fractions():
    probability = SoftPrune(keep=0.9, easy_keep=0.8).inclusion(torch.arange(20.0).double(), 18, seeded(0))
    assert probability.tolist() == pytest.approx([0.8] * 10 + [1.0] * 10)


def test_the_number_of_epochs_may_come_from_numpy():
    assert SoftPrune(keep=0.5, anneal=0.5, epochs=np.int64(10)).at(5).keep == 1


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_very_large_and_very_small_difficulty_is_not_taken_for_constant(scale):
    difficulty = float64([0.0, 1.0, 2.0, 5.0])
    plain, scaled = (Importance().inclusion(d, 2, seeded(0)) for d in (difficulty, difficulty * scale))
    np.testing.assert_allclose(scaled, plain, rtol=1e-9)
