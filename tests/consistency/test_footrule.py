"""Distance between rankings: against loops and simulated normal values, and the noise that it shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from difficulty_prune.consistency import footrule

correlations = st.floats(-0.99, 0.999)


@given(st.integers(0, 99), st.booleans())
def test_the_distance_is_that_of_ranks_of_what_both_know(seed, ties):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 12))
    a, b = (np.round(a), np.round(b)) if ties else (a, b)
    a[rng.random(12) < 0.2] = np.nan
    known = [i for i in range(12) if not np.isnan(a[i])]
    ranks = [scipy.stats.rankdata(values[known]) for values in (a, b)]
    if np.ptp(ranks[0]) and np.ptp(ranks[1]):
        slow = sum(abs(x - y) for x, y in zip(*ranks, strict=True)) / len(known) ** 2
        assert footrule.rank_distance(a, b) == pytest.approx(slow, abs=1e-12)


def test_what_ranks_nothing_is_as_far_as_chance_and_two_of_them_are_not_known():
    constant, varied = np.zeros(5), np.arange(5.0)
    assert footrule.rank_distance(constant, varied) == footrule.rank_distance(varied, constant) == 1 / 3
    assert math.isnan(footrule.rank_distance(constant, constant))
    assert math.isnan(footrule.rank_distance(varied, np.array([1.0, *[np.nan] * 4])))


@pytest.mark.parametrize("correlation", [-0.8, 0.0, 0.3, 0.9, 0.999])
def test_the_distance_of_normal_values_follows_from_their_correlation(correlation):
    a, b = np.random.default_rng(0).normal(size=(2, 200_000))
    b = correlation * a + math.sqrt(1 - correlation**2) * b
    assert footrule.distance_of(correlation) == pytest.approx(footrule.rank_distance(a, b), rel=0.01)


@given(correlations)
def test_correlation_and_distance_are_inverse(correlation):
    distance = footrule.distance_of(correlation)
    assert footrule.correlation_of(distance) == pytest.approx(correlation, abs=1e-9)


@given(st.floats(1e-6, 1e6), st.floats(0.01, 1), st.floats(0.01, 1))
def test_noise_follows_from_the_correlation_that_it_leaves(noise, a, b):
    correlation = 1 / math.sqrt((1 + noise * a) * (1 + noise * b))
    assert footrule.noise_of_two(correlation, (a, b)) == pytest.approx(noise, rel=1e-4)
    assert footrule.noise_of_one(correlation, noise * b) == pytest.approx(noise * a, rel=1e-4, abs=1e-9)


def test_rankings_that_do_not_correlate_are_all_noise():
    for correlation in (0.0, -0.3):
        assert footrule.noise_of_two(correlation, (1.0, 1.0)) == math.inf
        assert footrule.noise_of_one(correlation, 0.5) == math.inf
    assert footrule.distance_from_truth(math.inf) == pytest.approx(1 / 3)
    assert footrule.noise_of_two(1.0, (1.0, 1.0)) == 0


@given(st.integers(0, 99))
def test_ties_are_broken_at_random_and_nothing_else_changes(seed):
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(size=30))
    values[3] = np.nan
    ranks = footrule.in_random_order(values, rng)
    assert np.isnan(ranks[3])
    assert sorted(ranks[~np.isnan(ranks)]) == list(range(29))
    for a, b in [(i, j) for i in range(30) for j in range(30) if values[i] < values[j]]:
        assert ranks[a] < ranks[b]
