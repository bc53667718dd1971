"""How well the means of two halves of the runs rank alike, over all examples and within groups of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..support.native import host
from ..support.ranks import standard_ranks
from .spearman_brown import to_pearson


def compare_halves(means: NDArray[Any], groups: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """`correlation_of_halves` of each two rows of means [2 K, n], over all examples and in groups: [K, 1 + G].

    The compiled code sorts each row once: within a group examples are in the order that they have among all.

    Args:
        groups: positions of the examples of each; together they are all examples, each once.
    """
    if host is None:
        pairs = zip(means[::2], means[1::2], strict=True)
        return np.array([[_of_set(a, b, rows) for rows in (slice(None), *groups)] for a, b in pairs])
    group = np.empty(means.shape[1], np.int32)
    for number, members in enumerate(groups):
        group[members] = number
    found = host.compare_halves(means, group, len(groups))
    pearson: NDArray[Any] = 2 * np.sin(np.pi * found[..., 0] / 6) * found[..., 1]
    return pearson


def _of_set(a: NDArray[Any], b: NDArray[Any], rows: Any) -> float:
    return correlation_of_halves(np.stack([a[rows], b[rows]]))


def correlation_of_halves(halves: NDArray[Any]) -> float:
    """The Pearson correlation that belongs to the Spearman correlation of two means [2, n], lower if one is wider."""
    known = halves[:, ~np.isnan(halves).any(0)]
    if known.shape[1] < 2:
        return math.nan
    (x, wide_x), (y, wide_y) = standard_ranks(known[0]), standard_ranks(known[1])
    if not (x.any() and y.any()):
        return math.nan
    spearman = float(np.clip(np.dot(x, y) / known.shape[1], -1, 1))
    return to_pearson(spearman) * 2 * wide_x * wide_y / (wide_x**2 + wide_y**2)
