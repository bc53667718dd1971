"""Shares of variance, found again in simulated scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from noisy_runs import noisy, run_set

import difficulty_prune as dp

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
        "Of the variance of el2n, 71 % belongs to the example, 9 % depends on the architecture, 0 % is a shift of the "
        "whole run, 20 % is noise of single runs."
    )
