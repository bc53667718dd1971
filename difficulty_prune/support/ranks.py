"""Rank statistics: compiled where possible, else SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from .. import _host
except ImportError:  # an install without a compiler still works, only slower
    _host = None  # type: ignore[assignment]


def rank_rows(x: NDArray[Any]) -> NDArray[Any]:
    """Average ranks (1-based) within each row of x [R, N], as `scipy.stats.rankdata(x, axis=1)`; ValueError for NaN.

    >>> rank_rows(np.array([[3.0, 1.0, 3.0]]))
    array([[2.5, 1. , 2.5]])
    """
    if np.isnan(x).any():
        raise ValueError(f"got {int(np.isnan(x).sum())} NaN, which have no rank: drop them first")
    if _host is not None:
        return _host.rank_rows(x)
    from scipy.stats import rankdata

    ranks: NDArray[Any] = rankdata(x, axis=1)
    return ranks


def spearman_matrix(x: NDArray[Any]) -> NDArray[Any]:
    """Spearman correlation between the rows of x [R, N], [R, R]; examples with a NaN in any row are left out.

    A constant row has no ranking: its correlations are NaN.

    >>> spearman_matrix(np.array([[1.0, 2.0, 3.0], [9.0, 8.0, 7.0]]))
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    known = x[:, ~np.isnan(x).any(0)]
    if known.shape[1] < 2:
        return np.full((len(x), len(x)), np.nan)
    if _host is not None:
        return _host.spearman_matrix(known)
    ranks = rank_rows(known)
    ranks = ranks - ranks.mean(1, keepdims=True)
    norm = np.sqrt((ranks**2).sum(1, keepdims=True))
    unit = ranks / np.where(norm > 0, norm, np.nan)
    result: NDArray[Any] = np.clip(unit @ unit.T, -1, 1)
    return result
