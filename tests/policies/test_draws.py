"""Probabilities in proportion to a size, and draws that have exactly these probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import (
    check_counts,
    difficulties,
    float64,
    fractions,
    number_kept,
    oracle_proportional,
    seeded,
    seeds,
    skewed,
    weighted_policies,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.weighted import Importance, SoftPrune, draw, proportional

pytestmark = pytest.mark.usefixtures("one_thread")


# Probabilities in proportion to a size


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
    probability = policy.probability(difficulty, kept, seeded(0))
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
        probability = policy.probability(difficulty, kept, seeded(seed))
        assert float(probability.sum()) == pytest.approx(kept, rel=1e-12)
        assert bool(((probability > 0) & (probability <= 1 + 1e-12)).all())
        np.testing.assert_allclose(plan.weight, 1 / probability[plan.index], rtol=1e-6)
        assert bool((plan.weight >= 1).all())
