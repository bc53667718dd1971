"""Policies without weights keep the right number of the right examples."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from kept import distinct, expected_number, fast, fractions, half_up, kept, seeded, seeds, tied, values_at, windows

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.uniform import Easiest, Hardest, Random, Window

pytestmark = pytest.mark.filterwarnings("ignore:difficulty. all .* examples have the same value")

# How many


@fast
@given(difficulty=tied, keep=fractions, seed=seeds)
@example(difficulty=[0.0], keep=1 / 64, seed=0)
@example(difficulty=[0.0] * 3, keep=0.5, seed=0)
@example(difficulty=[0.0] * 5, keep=0.5, seed=0)
def test_exact_number_is_kept(difficulty, keep, seed):
    size = len(difficulty)
    for policy in (Hardest(keep), Easiest(keep), Window(0.0, keep), Window(1 - keep, keep), Random(keep)):
        index = kept(policy, difficulty, seed=seed)
        assert len(index) == expected_number(keep, size)
        assert index == sorted(set(index))
        assert set(index) <= set(range(size))


@pytest.mark.parametrize(
    ("keep", "size", "number"),
    [(0.7, 10, 7), (0.1, 25, 3), (0.3, 5, 2), (0.25, 10, 3), (0.25, 9, 2), (0.999, 10, 10), (0.001, 10, 1), (1, 7, 7)],
)
def test_number_kept_is_rounded_half_up(keep, size, number):
    assert len(kept(Hardest(keep), range(size))) == number


@pytest.mark.parametrize(("keep", "size", "number"), [(0.35, 10, 4), (0.29, 50, 15), (0.58, 25, 15), (0.35, 90, 32)])
def test_half_of_an_example_is_rounded_up_for_decimal_fractions(keep, size, number):
    assert len(kept(Hardest(keep), range(size))) == number


@pytest.mark.parametrize(
    "policy",
    [Hardest(keep=0.2), Easiest(keep=0.2), Window(start=0.1, keep=0.2), Random(keep=0.2), PerClass(Hardest(keep=0.2))],
    ids=repr,
)
def test_keep_a_fifth_keeps_a_fifth_and_does_not_remove_it(policy):
    plan = policy(torch.arange(100.0), torch.arange(100) % 2)
    assert len(plan) == 20
    assert plan.summary()["kept"] == 20
    assert plan.summary()["dropped"] == 80


@pytest.mark.parametrize("keep", [1.0, 1])
@pytest.mark.parametrize("size", [1, 2, 37])
def test_keep_all_keeps_all(keep, size):
    difficulty, labels = torch.rand(size, generator=seeded(0)), torch.arange(size) % 2
    for policy in (Hardest(keep), Easiest(keep), Window(0, keep), Window(0.0, keep), Random(keep)):
        assert policy(difficulty, labels).index.tolist() == list(range(size))
        for quota in ("proportional", "equal"):
            assert PerClass(policy, quota)(difficulty, labels).index.tolist() == list(range(size))


# Which


@fast
@given(difficulty=tied, keep=fractions, seed=seeds)
def test_hardest_keeps_the_hardest(difficulty, keep, seed):
    number = expected_number(keep, len(difficulty))
    assert values_at(difficulty, kept(Hardest(keep), difficulty, seed=seed)) == sorted(difficulty)[-number:]


@fast
@given(difficulty=tied, keep=fractions, seed=seeds)
def test_easiest_keeps_the_easiest(difficulty, keep, seed):
    number = expected_number(keep, len(difficulty))
    assert values_at(difficulty, kept(Easiest(keep), difficulty, seed=seed)) == sorted(difficulty)[:number]


@fast
@given(difficulty=tied, window=windows, seed=seeds)
def test_window_leaves_out_the_hardest_and_keeps_the_next(difficulty, window, seed):
    start, keep = window[0] / 64, window[1] / 64
    size, number = len(difficulty), expected_number(keep, len(difficulty))
    first = min(half_up(start, size), size - number)
    expected = sorted(difficulty, reverse=True)[first : first + number]
    assert values_at(difficulty, kept(Window(start, keep), difficulty, seed=seed)) == sorted(expected)


@fast
@given(difficulty=distinct, keep=fractions)
def test_window_from_the_start_is_hardest_and_to_the_end_is_easiest(difficulty, keep):
    assert kept(Window(0.0, keep), difficulty) == kept(Hardest(keep), difficulty)
    if half_up(1 - keep, len(difficulty)) + expected_number(keep, len(difficulty)) >= len(difficulty):
        assert kept(Window(1 - keep, keep), difficulty) == kept(Easiest(keep), difficulty)


def test_infinite_difficulty_is_hardest():
    difficulty = [0.0, math.inf, 1.0, -math.inf]
    assert kept(Hardest(0.25), difficulty) == [1]
    assert kept(Easiest(0.25), difficulty) == [3]
    assert kept(Window(0.25, 0.5), difficulty) == [0, 2]


def test_random_keeps_every_example_equally_often():
    counts = torch.zeros(10)
    for seed in range(1000):
        counts[kept(Random(keep=0.3), range(10), seed=seed)] += 1
    assert counts.sum() == 3000
    assert ((counts - 300).abs() < 75).all()  # more than 5 standard deviations


def test_random_does_not_look_at_difficulty():
    for seed in range(5):
        assert kept(Random(0.5), list(range(30)), seed=seed) == kept(Random(0.5), [0.0] * 30, seed=seed)


# Ties, determinism, equivariance


@pytest.mark.parametrize(
    "policy", [Hardest(0.5), Easiest(0.5), Window(0.25, 0.5), Random(0.5), PerClass(Hardest(0.5))], ids=repr
)
def test_all_equal_examples_are_kept_equally_often(policy):
    counts = torch.zeros(12)
    for seed in range(400):
        counts[kept(policy, [1.0] * 12, torch.zeros(12, dtype=torch.int64), seed=seed)] += 1
    assert ((counts - 200).abs() < 50).all()  # 5 standard deviations


def test_only_the_ties_at_the_edge_are_drawn():
    difficulty = [9.0, 5.0, 5.0, 5.0, 5.0, 1.0, 0.0, 9.5]
    seen = {tuple(kept(Hardest(0.5), difficulty, seed=seed)) for seed in range(200)}
    assert all({0, 7} <= set(index) and not {5, 6} & set(index) for index in seen)
    assert seen == {(0, a, b, 7) for a in range(1, 5) for b in range(a + 1, 5)}


@fast
@given(difficulty=tied, keep=fractions, seed=seeds)
def test_a_seed_gives_one_plan(difficulty, keep, seed):
    labels = torch.arange(len(difficulty)) % 3
    for policy in (Hardest(keep), Window(0, keep), Random(keep), PerClass(Random(keep)), PerClass(Easiest(keep))):
        labels_or_none = labels if isinstance(policy, PerClass) else None
        first = kept(policy, difficulty, labels_or_none, seed)
        assert kept(policy, difficulty, labels_or_none, seed) == first


def test_default_generator_is_seeded_with_zero_and_no_global_one_is_used():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for policy in (Hardest(0.5), Random(0.5)):
        assert policy(torch.zeros(50)).index.tolist() == kept(policy, [0.0] * 50, seed=0)
        assert policy(torch.zeros(50)).index.tolist() != kept(policy, [0.0] * 50, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


@fast
@given(difficulty=distinct, window=windows, order_seed=seeds, seed=seeds)
def test_permuted_examples_give_the_permuted_plan(difficulty, window, order_seed, seed):
    start, keep = window[0] / 64, window[1] / 64
    order = torch.randperm(len(difficulty), generator=seeded(order_seed))
    labels = torch.arange(len(difficulty)) % 3
    permuted = [difficulty[i] for i in order]
    for policy in (Hardest(keep), Easiest(keep), Window(start, keep)):
        straight = kept(policy, difficulty)
        assert sorted(order[kept(policy, permuted, seed=seed)].tolist()) == straight
        for quota in ("proportional", "equal"):
            within = PerClass(policy, quota)
            straight = kept(within, difficulty, labels)
            assert sorted(order[kept(within, permuted, labels[order], seed)].tolist()) == straight


@fast
@given(difficulty=st.lists(st.integers(-1000, 1000), min_size=1, max_size=40, unique=True), keep=fractions)
def test_only_the_ranking_counts(difficulty, keep):
    stretched = [value**3 / 7.0 + 5 for value in difficulty]
    assert kept(Hardest(keep), difficulty) == kept(Hardest(keep), stretched)


# Input of every kind


@pytest.mark.parametrize(
    "convert",
    [
        lambda d: torch.tensor(d, dtype=torch.float64),
        lambda d: torch.tensor(d, dtype=torch.float32),
        lambda d: torch.tensor(d, dtype=torch.float32, requires_grad=True),
        lambda d: np.array(d, dtype=np.float64),
        lambda d: np.array(d, dtype=np.float32),
        lambda d: np.array(d, dtype=np.float64)[::1],
        list,
        tuple,
        lambda d: [int(4 * value) for value in d],
        lambda d: np.array([int(4 * value) for value in d]),
    ],
    ids=["torch64", "torch32", "grad", "numpy64", "numpy32", "view", "list", "tuple", "ints", "numpy ints"],
)
def test_difficulty_of_any_numeric_kind(convert):
    difficulty = [float(x) for x in torch.randperm(40, generator=seeded(2)) / 4]  # exact in float32
    labels = torch.arange(40) % 4
    expected = Hardest(0.4)(torch.tensor(difficulty, dtype=torch.float64))
    assert Hardest(0.4)(convert(difficulty)).index.tolist() == expected.index.tolist()
    expected = PerClass(Easiest(0.4))(torch.tensor(difficulty, dtype=torch.float64), labels)
    for given_labels in (labels, labels.numpy(), labels.tolist(), labels.to(torch.uint8), labels.int()):
        got = PerClass(Easiest(0.4))(convert(difficulty), given_labels)
        assert got.index.tolist() == expected.index.tolist()
        assert got.summary() == expected.summary()


@pytest.mark.parametrize("convert", [lambda d: torch.tensor(d, dtype=torch.float64), np.array, list, tuple])
def test_differences_below_single_precision_count(convert):
    difficulty = [1.0, 1.0 + 1e-12]
    for seed in range(10):
        assert Hardest(0.5)(convert(difficulty), generator=seeded(seed)).index.tolist() == [1]
        assert Easiest(0.5)(convert(difficulty), generator=seeded(seed)).index.tolist() == [0]


def test_input_is_left_alone():
    difficulty, labels = torch.rand(20, dtype=torch.float64, generator=seeded(0)), torch.arange(20) % 2
    copies = difficulty.clone(), labels.clone()
    for policy in (Hardest(0.5), Easiest(0.5), Random(0.5), PerClass(Easiest(0.5))):
        policy(difficulty, labels)
    assert torch.equal(difficulty, copies[0])
    assert torch.equal(labels, copies[1])


def test_scores_and_labels_of_a_run_are_taken_without_a_warning():
    run = dp.Run({"loss": [0.1, 0.2, 0.3, 0.4]}, architecture="mlp", seed=0, labels=[0, 0, 1, 1])
    runs = dp.RunSet([run])
    torch.set_warn_always(True)  # PyTorch shows most warnings once in a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(Hardest(0.75)(runs.difficulty("loss"), labels=runs.labels)) == 3
            assert len(Hardest(0.75)(run.scores["loss"], labels=run.labels)) == 3
    finally:
        torch.set_warn_always(False)


def test_policies_are_values():
    assert Hardest(keep=0.5) == Hardest(0.5)
    assert hash(Window(0.1, 0.5)) == hash(Window(start=0.1, keep=0.5))
    assert PerClass(Hardest(0.5)).keep == 0.5
    with pytest.raises(AttributeError):
        Hardest(0.5).keep = 0.7
