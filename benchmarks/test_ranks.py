"""Rank statistics against SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparison import Compare
from scipy.stats import rankdata, spearmanr

from difficulty_prune.support.ranks import rank_rows, spearman_matrix

Matrix = np.ndarray[Any, Any]


@pytest.fixture(params=[8, 40])
def scores(request: pytest.FixtureRequest) -> Matrix:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(request.param, 50_000))
    x[:, ::10] = np.round(x[:, ::10])  # some ties
    return x


def scipy_matrix(x: Matrix) -> Matrix:
    return spearmanr(x, axis=1).statistic


def scipy_ranks(x: Matrix) -> Matrix:
    return rankdata(x, axis=1)


def test_spearman_matrix(compare: Compare, scores: Matrix) -> None:
    np.testing.assert_allclose(spearman_matrix(scores), scipy_matrix(scores), atol=1e-12)
    work = f"Spearman matrix, {len(scores)} runs x 50,000"
    compare(work, "scipy.stats.spearmanr", lambda: spearman_matrix(scores), lambda: scipy_matrix(scores), rounds=10)


def test_rank_rows(compare: Compare, scores: Matrix) -> None:
    np.testing.assert_array_equal(rank_rows(scores), scipy_ranks(scores))
    work = f"ranks, {len(scores)} runs x 50,000"
    compare(work, "scipy.stats.rankdata", lambda: rank_rows(scores), lambda: scipy_ranks(scores), rounds=10)
