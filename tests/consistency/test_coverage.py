"""How far to trust a ranking, in simulations whose truth is known.

The truth is the Spearman correlation between the mean of R runs and the mean of R fresh ones, for a large number of
examples; each simulation draws new examples and new runs.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

import difficulty_prune as dp

LEVEL = 0.95
REPEATS = 100
TOLERANCE = 3 * math.sqrt(LEVEL * (1 - LEVEL) / REPEATS)  # three standard errors of a share: 0.065


def normal(rng, runs, size):
    return rng.normal(size=size) + rng.normal(size=(runs, size))


def hard_are_noisy(rng, runs, size):
    hard = rng.normal(size=size)
    return hard + np.exp(0.5 * hard) * rng.normal(size=(runs, size))


def counts(rng, runs, size):
    """Whole numbers, four in ten of them 0."""
    return np.maximum(0, np.round(normal(rng, runs, size)))


def skewed(rng, runs, size):
    return np.exp(normal(rng, runs, size))


def with_a_bad_run(rng, runs, size):
    """The first of each four has four times the noise of the others."""
    noise = np.where(np.arange(runs) % 4 == 0, 4.0, 1.0)
    return rng.normal(size=size) + noise[:, None] * rng.normal(size=(runs, size))


def run_set(matrix):
    return dp.RunSet(dp.Run({"el2n": row}, architecture="mlp", seed=s) for s, row in enumerate(matrix))


def spearman(a, b):
    return scipy.stats.spearmanr(a, b).statistic


def truth(draw, runs, size=100_000):
    matrix = draw(np.random.default_rng(0), 2 * runs, size)
    return spearman(matrix[:runs].mean(0), matrix[runs:].mean(0))


def simulated(draw, runs, size, repeats=REPEATS, splits=5):
    for seed in range(repeats):
        matrix = draw(np.random.default_rng([seed, runs, size]), runs, size)
        yield dp.consistency.reliability(run_set(matrix), "el2n", splits=splits, level=LEVEL, seed=seed)


@pytest.mark.parametrize(
    ("draw", "runs", "size", "off"),
    [
        (normal, 2, 300, 0.01),
        (normal, 4, 300, 0.01),
        (normal, 8, 300, 0.01),
        (hard_are_noisy, 4, 300, 0.01),
        (counts, 4, 300, 0.015),
        (skewed, 4, 1000, 0.03),
        (with_a_bad_run, 4, 300, 0.02),
    ],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(draw, runs, size, off):
    expected = truth(draw, runs)
    found = list(simulated(draw, runs, size))
    values = np.array([one.value for one in found])
    covered = np.mean([one.interval[0] <= expected <= one.interval[1] for one in found])
    width = np.mean([one.interval[1] - one.interval[0] for one in found])
    assert values.mean() == pytest.approx(expected, abs=off + 3 * values.std() / math.sqrt(REPEATS))
    assert covered >= LEVEL - TOLERANCE
    if draw is normal:
        assert width <= 2 * 2 * 1.96 * values.std(), "no more than twice what it takes"


@pytest.mark.parametrize(("draw", "runs"), [(normal, 4), (hard_are_noisy, 4), (with_a_bad_run, 4)])
def test_the_value_is_the_correlation_with_as_many_fresh_runs(draw, runs):
    matrix = draw(np.random.default_rng(1), 2 * runs, 20_000)
    found = dp.consistency.reliability(run_set(matrix[:runs]), "el2n")
    assert found.value == pytest.approx(spearman(matrix[:runs].mean(0), matrix[runs:].mean(0)), abs=0.015)


def test_the_runs_needed_reach_the_target_with_fresh_runs():
    target = 0.9
    needed = dp.consistency.reliability(run_set(normal(np.random.default_rng(2), 4, 20_000)), "el2n").runs_needed(
        target
    )
    assert truth(normal, needed) == pytest.approx(target, abs=0.01)
    assert truth(normal, needed - 2) < target


def test_what_fresh_runs_would_do_holds_for_one_run_too():
    found = dp.consistency.reliability(run_set(normal(np.random.default_rng(3), 6, 20_000)), "el2n")
    assert found.single_run == pytest.approx(truth(normal, 1), abs=0.01)
    assert found.at(1) == pytest.approx(found.single_run, abs=0.01)
    assert found.at(12) == pytest.approx(truth(normal, 12), abs=0.01)


@pytest.mark.parametrize("runs", [2, 3, 8])
def test_noise_has_no_reliability(runs):
    size = 400
    found = list(simulated(lambda rng, runs, size: rng.normal(size=(runs, size)), runs, size, repeats=40))
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(40) + 0.01
    assert np.mean([one.interval[0] <= 0 <= one.interval[1] for one in found]) >= 0.85
    for one in found:
        assert -1 <= one.interval[0] <= one.value <= one.interval[1] <= 1
        assert "is not known" in str(one) or "the runs do not agree" in str(one)


def test_runs_that_saw_a_part_of_the_examples_are_as_reliable_as_fresh_ones_that_did():
    def held_out(rng, runs, size):
        matrix = normal(rng, runs, size)
        matrix[rng.random(matrix.shape) < 0.3] = np.nan
        return matrix

    matrix = held_out(np.random.default_rng(4), 16, 20_000)
    found = dp.consistency.reliability(run_set(matrix[:8]), "el2n")
    fresh = [run_set(half).mean("el2n") for half in (matrix[:8], matrix[8:])]
    known = ~np.isnan(fresh[0] + fresh[1])
    assert found.value == pytest.approx(spearman(fresh[0][known], fresh[1][known]), abs=0.015)
    assert found.single_run == pytest.approx(truth(normal, 1), abs=0.015)
