"""Rank statistics: compiled if possible, else by NumPy and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .native import host


def rank_rows(x: NDArray[Any]) -> NDArray[Any]:
    """Average ranks (1-based) within each row of x [R, N], as `scipy.stats.rankdata(x, axis=1)`; ValueError for NaN.

    >>> rank_rows(np.array([[3.0, 1.0, 3.0]]))
    array([[2.5, 1. , 2.5]])
    """
    if np.isnan(x).any():
        raise ValueError(f"got {int(np.isnan(x).sum())} NaN, which has no rank: leave those examples out")
    if host is not None:
        return host.rank_rows(x)
    from scipy.stats import rankdata

    ranks: NDArray[Any] = rankdata(x, axis=1)
    return ranks


def dot(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The scalar product of two vectors, without the threads of BLAS.

    These wait for each other in a loop that keeps cores busy: called from several threads, products of a million
    numbers took 20 times as long with two threads of BLAS as with one.

    >>> dot(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    11.0
    """
    return float(np.einsum("i,i->", a, b))


def standard_ranks(x: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Average ranks of x [n], without NaN, with mean 0 and variance 1; all 0 if all values are equal.

    Also the mean of rank x value, which is Gini's mean difference up to a factor.

    >>> standard_ranks(np.array([5.0, 7.0]))
    (array([-1.,  1.]), 1.0)
    """
    if host is not None:
        return host.standard_ranks(x)
    if len(x) == 0:
        return np.zeros(0), 0.0
    ranks = rank_rows(x[None])[0]
    ranks -= ranks.mean()
    ranks /= ranks.std() or 1.0
    return ranks, float(ranks @ (x - x.mean()) / len(x))


def spearman_matrix(x: NDArray[Any]) -> NDArray[Any]:
    """Spearman correlations between the rows of x [R, N], as [R, R]; examples with a NaN in any row are left out.

    A constant row ranks nothing: its correlations are NaN.

    >>> spearman_matrix(np.array([[1.0, 2.0, 3.0], [9.0, 8.0, 7.0]]))
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    known = x[:, ~np.isnan(x).any(0)]
    if known.shape[1] < 2:
        return np.full((len(x), len(x)), np.nan)
    if host is not None:
        return host.spearman_matrix(known)
    ranks = rank_rows(known)
    ranks = ranks - ranks.mean(1, keepdims=True)
    norm = np.sqrt((ranks**2).sum(1, keepdims=True))
    unit = ranks / np.where(norm > 0, norm, np.nan)
    result: NDArray[Any] = np.clip(unit @ unit.T, -1, 1)
    return result
