"""One-way analysis of variance of each example: how much of its variance over runs lies between architectures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Variance:
    """The analysis of n examples, whose runs fall into G groups.

    Attributes:
        mean: [G, n].
        within: [G, n], sums of squares about the group's mean.
        between: [n], sum of squares of the groups' means about the mean of all runs.
        total: [n], of all runs about their mean.
    """

    mean: NDArray[Any]
    within: NDArray[Any]
    between: NDArray[Any]
    total: NDArray[Any]

    @property
    def effect(self) -> NDArray[Any]:
        """Correlation ratio eta^2 = between / total, [n] in [0, 1]; 0 for a constant example."""
        share: NDArray[Any] = self.between / np.where(self.total > 0, self.total, 1)
        return share


def variance(x: NDArray[Any], sizes: tuple[int, ...]) -> Variance:
    """Analysis of variance of each column of x [R, n], whose rows are sorted by group.

    >>> variance(np.array([[0.0], [1.0], [2.0], [3.0]]), sizes=(2, 2)).effect
    array([0.8])
    """
    groups = np.split(x, np.cumsum(sizes)[:-1])
    size = np.array(sizes)[:, None]
    sums = np.stack([group.sum(0) for group in groups])
    mean = sums / size
    within = np.stack([((group - m) ** 2).sum(0) for group, m in zip(groups, mean, strict=True)])
    between = sum_groups(size * (mean - sum_groups(sums) / len(x)) ** 2)
    return Variance(mean, within, between, between + sum_groups(within))


def unit_range(x: NDArray[Any]) -> NDArray[Any]:
    """Each column of x [R, n] moved and scaled to [0, 1]; zeros where it is constant.

    No test depends on location or scale, and so rounding does no harm to scores far from 0.

    >>> unit_range(np.array([[5.0, 1e9], [5.0, 1e9 + 2], [5.0, 1e9 + 1]]))
    array([[0. , 0. ],
           [0. , 1. ],
           [0. , 0.5]])
    """
    low, high = x.min(0), x.max(0)
    scaled: NDArray[Any] = (x - low) / np.where(high > low, high - low, 1)
    return scaled


def sum_groups(parts: NDArray[Any]) -> NDArray[Any]:
    """Sum of [G, n] over groups, the same to the last bit whatever their order."""
    total: NDArray[Any] = np.sort(parts, axis=0).sum(0)
    return total
