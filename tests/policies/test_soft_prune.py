"""SoftPrune: what it thins out, its exact weights, and its last epochs."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from drawn import INF, NAN, check_counts, difficulties, distinct, float64, fractions, number_kept, seeded, seeds
from hypothesis import example, given, settings
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.weighted import Importance, SoftPrune

pytestmark = pytest.mark.usefixtures("one_thread")


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
    probability = SoftPrune(keep, easy_keep=easy_keep).probability(float64(difficulty), kept, seeded(0))
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


def test_an_easy_keep_near_zero_still_gives_every_example_a_chance():
    """Of 8 examples 4 are kept; half a chance in 1e20 is raised to the least that a whole number allows, 1 in 5."""
    policy = SoftPrune(keep=0.5, easy_keep=1e-20)
    assert policy.probability(torch.arange(8.0).double(), 4, seeded(0)).tolist() == pytest.approx([0.2] * 5 + [1.0] * 3)
    assert float(policy(torch.arange(8.0)).weight.sum()) == pytest.approx(8)


def test_the_threshold_is_exact_for_decimal_fractions():
    probability = SoftPrune(keep=0.9, easy_keep=0.8).probability(torch.arange(20.0).double(), 18, seeded(0))
    assert probability.tolist() == pytest.approx([0.8] * 10 + [1.0] * 10)


def test_the_number_of_epochs_may_come_from_numpy():
    assert SoftPrune(keep=0.5, anneal=0.5, epochs=np.int64(10)).at(5).keep == 1
