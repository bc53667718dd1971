"""WithoutWrong: what it leaves out, that its `keep` is of the whole set, and what it refuses."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from drawn import check_counts, distinct, fractions, number_kept, seeded, seeds
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kept import half_up, kept

import difficulty_prune as dp

P = dp.policies
RANKING = [P.Hardest, P.Easiest, P.Random, P.Stratified, lambda keep: P.Window(0.0, keep)]


def shares(size: int, keep: float, wrong: float) -> tuple[int, int]:
    """How many are to be kept and left out; draws for which that does not fit are not looked at."""
    number, out = number_kept(keep, size), half_up(wrong, size)
    assume(number <= size - out and keep < 1)
    return number, out


@settings(max_examples=60)
@given(
    difficulty=st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=40),
    keep=fractions, wrong=st.integers(0, 63).map(lambda k: k / 64), make=st.sampled_from(RANKING), seed=seeds,
)  # fmt: skip
def test_it_keeps_its_share_of_all_out_of_the_least_hard(difficulty, keep, wrong, make, seed):
    number, out = shares(len(difficulty), keep, wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ties, where nothing else is left
        found = kept(P.WithoutWrong(make(keep), wrong), difficulty, seed=seed)
    assert len(found) == len(set(found)) == number
    left = sorted(difficulty)[: len(difficulty) - out]
    for value in {difficulty[i] for i in found}:  # as many of each value as are left at most
        assert sum(difficulty[i] == value for i in found) <= left.count(value)


@given(difficulty=distinct, keep=fractions, wrong=st.integers(0, 63).map(lambda k: k / 64))
def test_of_the_ends_it_is_a_window(difficulty, keep, wrong):
    shares(len(difficulty), keep, wrong)
    assume(keep + wrong <= 1)
    assert kept(P.WithoutWrong(P.Hardest(keep), wrong), difficulty) == kept(P.Window(wrong, keep), difficulty)
    assert kept(P.WithoutWrong(P.Easiest(keep), wrong), difficulty) == kept(P.Easiest(keep), difficulty)


@given(difficulty=distinct, keep=fractions, data=st.data(), make=st.sampled_from([P.Hardest, P.Easiest, P.Random]))
def test_given_positions_are_left_out_whatever_their_difficulty(difficulty, keep, data, make):
    size = len(difficulty)
    wrong = data.draw(st.lists(st.integers(0, size - 1), unique=True, max_size=size - 1))
    number = number_kept(keep, size)
    assume(number <= size - len(wrong) and keep < 1)
    mask = np.isin(np.arange(size), wrong)
    found = kept(P.WithoutWrong(make(keep), wrong), difficulty)
    assert len(found) == number
    assert not set(found) & set(wrong)
    assert found == kept(P.WithoutWrong(make(keep), mask), difficulty)
    if make is P.Hardest:
        others = sorted((i for i in range(size) if i not in wrong), key=difficulty.__getitem__)
        assert found == sorted(others[len(others) - number :])


@given(difficulty=distinct, data=st.data())
def test_another_order_of_the_data_is_another_order_of_the_plan(difficulty, data):
    order = data.draw(st.permutations(range(len(difficulty))))
    policy = P.WithoutWrong(P.Hardest(0.5), 0.25)
    shares(len(difficulty), 0.5, 0.25)
    there = kept(policy, difficulty)
    assert sorted(order[i] for i in kept(policy, [difficulty[i] for i in order])) == there


def test_ties_are_broken_by_the_generator():
    policy, difficulty = P.WithoutWrong(P.Easiest(0.9), 0.1), [0.0] * 90 + [1.0] * 110
    plans = [kept(policy, difficulty, seed=seed) for seed in range(2)]
    assert plans[0] != plans[1]
    assert plans[0] == kept(policy, difficulty, seed=0)
    with pytest.warns(UserWarning, match="ranks nothing"):
        kept(P.WithoutWrong(P.Random(0.5), 0.25), [1.0] * 8)


def test_all_that_is_left_is_what_a_keep_of_one_means():
    assert kept(P.WithoutWrong(P.Random(1.0), 0.25), [0.0, 1.0, 2.0, 3.0]) == [0, 1, 2]


def test_within_classes_of_what_is_left():
    """A tenth is left out overall, all of class 0, and then half of the whole set is kept, class by class."""
    labels = [0] * 50 + [1] * 50
    difficulty = [*(100.0 - i for i in range(10)), *(float(i % 7) + i / 1000 for i in range(90))]
    found = kept(P.WithoutWrong(P.PerClass(P.Hardest(0.5)), 0.1), difficulty, torch.tensor(labels))
    assert len(found) == 50
    assert min(found) >= 10
    assert sum(i < 50 for i in found) == 22  # of 40: 50 / 90 of them


def test_the_summary_counts_all_examples():
    policy = P.WithoutWrong(P.Hardest(0.5), wrong=[0, 1])
    plan = policy(torch.arange(8.0))
    assert (plan.summary()["examples"], plan.summary()["kept"]) == (8, 4)
    assert plan.summary()["policy"] == "WithoutWrong(Hardest(keep=0.5), wrong=2 examples)"


def test_dynamic_pruning_of_what_is_left():
    policy = P.WithoutWrong(P.SoftPrune(0.5, anneal=0.25, epochs=4), wrong=0.2)
    difficulty = torch.arange(100.0)
    sampler = dp.PruneSampler(policy, difficulty, labels=[0, 1] * 50)
    seen = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        seen.append(set(sampler))
        assert max(seen[-1]) < 80
        assert float(sampler.plan.weight.sum()) == pytest.approx(80)
    assert [len(epoch) for epoch in seen] == [50, 50, 50, 80]
    assert seen[0] != seen[1]
    assert sampler.total_steps(batch_size=10, epochs=4) == 23


def test_examples_without_a_score_are_kept_or_refused_as_the_policy_says():
    difficulty = [math.nan, 4.0, 3.0, 2.0, 1.0]
    assert kept(P.WithoutWrong(P.Hardest(0.5, unseen="keep"), 0.25), difficulty) == [0, 2, 3]
    assert kept(P.WithoutWrong(P.Hardest(0.5, unseen="keep"), [0, 1]), difficulty) == [2, 3]
    assert kept(P.WithoutWrong(P.Hardest(0.5, unseen="keep"), 0.25), [math.nan] * 3) == [0, 1, 2]
    with pytest.raises(ValueError, match="1 of 5 examples are NaN"):
        kept(P.WithoutWrong(P.Hardest(0.5), 0.25), difficulty)


@pytest.mark.parametrize(
    "policy",
    [
        P.WithoutWrong(P.Random(0.5), 0.25),
        P.WithoutWrong(P.Hardest(0.5), 0.25),
        P.WithoutWrong(P.Stratified(0.4), [0, 3]),
        P.WithoutWrong(P.PerClass(P.Hardest(0.5)), [0]),
        P.WithoutWrong(P.SoftPrune(0.6), 0.2),
        P.WithoutWrong(P.PerClass(P.Hardest(0.5)), 0.3),  # all that are tied at the fraction are left out
        P.WithoutWrong(P.BetaSampling(0.4, torch.linspace(0, 1, 10)), 0.3),
        P.WithoutWrong(P.Review(0.4, gap=4).at(2), 0.3),
    ],
    ids=repr,
)
def test_inclusion_is_how_often_an_example_is_kept(policy):  # fmt: skip
    difficulty, labels = torch.tensor([5.0, 5.0, 4.0, 5.0, 2.0, 1.0, 1.0, 3.0, 2.0, 0.0]), torch.tensor([0, 1] * 5)
    expected, draws = policy.inclusion(difficulty, labels), 2000
    counts = torch.zeros(len(difficulty))
    for seed in range(draws):
        counts[policy(difficulty, labels, seeded(seed)).index] += 1
    assert float(expected.sum()) == pytest.approx(len(policy(difficulty, labels)))
    check_counts(counts, draws, expected)


def test_classes_that_are_tied_at_the_fraction_have_no_inclusion():
    with pytest.raises(ValueError, match="4 examples of several classes are tied"):
        P.WithoutWrong(P.PerClass(P.Hardest(0.5)), 0.25).inclusion([1.0, 1.0, 1.0, 1.0, 0.0, 0.5, 0.2, 0.3], [0, 1] * 4)


@pytest.mark.parametrize("policy", [P.BetaSampling(0.5, torch.linspace(0, 1, 8)), P.Review(0.5, gap=4).at(1)], ids=repr)
def test_ties_at_the_fraction_are_not_alike_where_more_is_known_of_each(policy):
    """It depends on which are left, with their own confidence or turn, what a plan has."""
    tied = [1.0, 1.0, 1.0, 1.0, 0.0, 0.5, 0.2, 0.3]
    with pytest.raises(ValueError, match=r"4 examples are tied at the fraction 0\.25, and .* knows more of each"):
        P.WithoutWrong(policy, 0.25).inclusion(tied)
    assert float(P.WithoutWrong(policy, [0, 1]).inclusion(tied).sum()) == pytest.approx(4)
    assert len(P.WithoutWrong(policy, 0.25)(tied)) == 4


def test_equal_policies_are_equal():
    half = P.Random(0.5)
    assert P.WithoutWrong(half, [1, 2]) == P.WithoutWrong(half, torch.tensor([2, 1]))
    assert hash(P.WithoutWrong(half, [1, 2])) == hash(P.WithoutWrong(half, [2, 1]))
    assert P.WithoutWrong(half, [1, 2]) != P.WithoutWrong(half, [1, 3])
    assert P.WithoutWrong(half, 0.1) != P.WithoutWrong(half, 0.2)
    assert P.WithoutWrong(half, 0.1) != P.WithoutWrong(P.Random(0.4), 0.1)


def call(policy, difficulty=(4.0, 3.0, 2.0, 1.0), **options):
    return lambda: policy()(list(difficulty), **options)


@pytest.mark.parametrize(
    ("attempt", "error", "says"),
    [
        (lambda: P.WithoutWrong(0.5, 0.1), TypeError, "policy: got 0.5.*Random"),
        (lambda: P.WithoutWrong(P.Random, 0.1), TypeError, "policy: got"),
        (lambda: P.WithoutWrong(P.Random(0.5), 1.0), ValueError, r"wrong: got 1.0.*\[0, 1\)"),
        (lambda: P.WithoutWrong(P.Random(0.5), -0.1), ValueError, "wrong: got -0.1"),
        (lambda: P.WithoutWrong(P.Random(0.5), math.nan), ValueError, "wrong: got nan"),
        (lambda: P.WithoutWrong(P.Random(0.5), True), TypeError, "wrong: got True"),
        (lambda: P.WithoutWrong(P.Random(0.5), "0.1"), TypeError, "wrong"),
        (lambda: P.WithoutWrong(P.Random(0.5), [0.1]), TypeError, "wrong: got torch.float64"),
        (lambda: P.WithoutWrong(P.Random(0.5), [1, 1]), ValueError, "position 1"),
        (lambda: P.WithoutWrong(P.Random(0.5), [-1]), ValueError, "position -1"),
        (lambda: P.PerClass(P.WithoutWrong(P.Random(0.5), 0.1)), TypeError, "around PerClass"),
        (call(lambda: P.WithoutWrong(P.Random(0.5), [4])), ValueError, r"position 4, expected 0\.\.3"),
        (call(lambda: P.WithoutWrong(P.Random(0.5), [True])), ValueError, "mask of 1, expected 4"),
        (call(lambda: P.WithoutWrong(P.Random(0.75), 0.5)), ValueError, "keeps 3 of 4.*only 2.*at most 0.5"),
        (call(lambda: P.WithoutWrong(P.Random(1.0), [0, 1, 2, 3])), ValueError, "leaves none of 4"),
        (call(lambda: P.WithoutWrong(P.Random(0.25), 0.5), labels=[1, 1, 0, 0]), ValueError, "all 2 .* of class 1"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(attempt, error, says):
    with pytest.raises(error, match=says):
        attempt()
