"""Rank statistics against SciPy: `make bench`. Compare the medians within a group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from difficulty_prune.ranks import rank_rows, spearman_matrix

SIZES = [(8, 50_000), (40, 50_000)]


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]} runs x {size[1]:,}")
def scores(request: pytest.FixtureRequest) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=request.param)
    x[:, ::10] = np.round(x[:, ::10])  # some ties
    return x


@pytest.mark.parametrize(
    "implementation", [spearman_matrix, lambda x: spearmanr(x, axis=1).statistic], ids=["ours", "scipy"]
)
def test_spearman_matrix(benchmark: Any, scores: np.ndarray[Any, Any], implementation: Any) -> None:
    benchmark.group = f"Spearman matrix, {scores.shape[0]} x {scores.shape[1]:,}"
    result = benchmark.pedantic(implementation, (scores,), rounds=5, warmup_rounds=1)
    np.testing.assert_allclose(result, spearmanr(scores, axis=1).statistic, atol=1e-12)


@pytest.mark.parametrize("implementation", [rank_rows, lambda x: rankdata(x, axis=1)], ids=["ours", "scipy"])
def test_rank_rows(benchmark: Any, scores: np.ndarray[Any, Any], implementation: Any) -> None:
    benchmark.group = f"ranks, {scores.shape[0]} x {scores.shape[1]:,}"
    result = benchmark.pedantic(implementation, (scores,), rounds=5, warmup_rounds=1)
    np.testing.assert_array_equal(result, rankdata(scores, axis=1))
