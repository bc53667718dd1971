"""Sets of runs that agree up to noise, with and without missing examples."""

from __future__ import annotations

import numpy as np
import scipy.stats

import difficulty_prune as dp

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


RESULTS = {
    "reliability": lambda: dp.consistency.reliability(run_set(noisy(3)), "el2n"),
    "rank_error": lambda: dp.consistency.rank_error(run_set(noisy(3)), "el2n"),
    "correlation": lambda: dp.consistency.correlation(two_scores()),
    "architectures": lambda: dp.consistency.correlation(two_scores(3, SIZE, "aab"), "el2n", between="architectures"),
    "pca": lambda: dp.consistency.pca(two_scores()),
    "variance_shares": lambda: dp.consistency.variance_shares(two_scores(3, SIZE, "aab"), "el2n"),
    "stable_subset": lambda: dp.consistency.stable_subset(run_set(noisy(3)), "el2n", dp.policies.Hardest(0.5)),
}
