"""The permutation test of sensitive examples against SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparison import Compare, Target
from scipy.stats import permutation_test

import difficulty_prune as dp
from difficulty_prune.fingerprint.sensitive_examples import sensitive_examples

Matrix = np.ndarray[Any, Any]

EACH, PERMUTATIONS = 20, 1000
FEW, MANY = 5_000, 50_000
BATCH = 3  # permutations that SciPy does at once: about the fastest of 1 to 50; its default (all) takes 16 GB for MANY


def scores(examples: int) -> Matrix:
    return np.random.default_rng(0).normal(size=(2 * EACH, examples))


def difference(a: Matrix, b: Matrix, axis: int) -> Matrix:
    return np.abs(a.mean(axis) - b.mean(axis))


def scipy_p_values(x: Matrix, batch: int | None) -> Matrix:
    return permutation_test(
        (x[:EACH], x[EACH:]),
        difference,
        n_resamples=PERMUTATIONS,
        batch=batch,
        alternative="greater",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).pvalue


def our_p_values(runs: dp.RunSet) -> Matrix:
    return sensitive_examples(runs, "el2n", permutations=PERMUTATIONS).p_value


def runs_of(x: Matrix) -> dp.RunSet:
    return dp.RunSet(dp.Run({"el2n": row}, architecture=["cnn", "mlp"][i // EACH], seed=i) for i, row in enumerate(x))


@pytest.mark.parametrize(("examples", "batch"), [(MANY, BATCH), (FEW, BATCH), (FEW, None)])
def test_permutation_test(compare: Compare, examples: int, batch: int | None) -> None:
    """Side by side on the same examples: all the work of sensitive_examples, against p-values alone."""
    x = scores(examples)
    runs = runs_of(x)
    error = our_p_values(runs) - scipy_p_values(x, batch)
    assert np.abs(error).max() < 0.12  # each drew its own 1,000 permutations: the standard error is up to 0.022
    compare(
        f"sensitive_examples, {EACH} + {EACH} runs x {examples:,}, {PERMUTATIONS:,} permutations",
        f"scipy.stats.permutation_test(batch={batch})",
        lambda: our_p_values(runs),
        lambda: scipy_p_values(x, batch),
        Target(faster=20, seconds=5) if examples == MANY else Target(),
        rounds=3,
    )
