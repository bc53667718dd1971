"""How far two rankings are apart, and how much noise that shows (Spearman's footrule)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..support.ranks import rank_rows


def rank_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Mean of |rank in a - rank in b| / n over the n examples known to both, [N] each.

    1/3, as of random ranks, if one of them is the same for all examples; NaN if both are, or fewer than two are known.

    >>> rank_distance(np.array([1.0, 2.0, np.nan]), np.array([5.0, 4.0, 3.0]))
    0.5
    """
    known = ~(np.isnan(a) | np.isnan(b))
    varied = [bool(known.sum() > 1 and np.ptp(values[known])) for values in (a, b)]
    if not all(varied):
        return 1 / 3 if any(varied) else math.nan
    ranks = [rank_rows(values[known][None])[0] for values in (a, b)]  # one by one: threads cost more than they save
    return float(np.abs(ranks[0] - ranks[1]).mean() / known.sum())


def in_random_order(values: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Ranks [N] in which equal values are in random order; NaN stays.

    >>> sorted(in_random_order(np.array([7.0, 7.0, np.nan]), np.random.default_rng(0))[:2].tolist())
    [0.0, 1.0]
    """
    ranks = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values))
    ranks[known[np.lexsort((rng.random(len(known)), values[known]))]] = np.arange(len(known))
    return ranks


def distance_of(correlation: float) -> float:
    """The rank distance of normal values with this Pearson correlation.

    >>> round(distance_of(0.0), 6), distance_of(1.0)  # random ranks, and equal ones
    (0.333333, 0.0)
    """
    return 0.5 - math.asin((1 + min(1.0, max(-1.0, correlation))) / 2) / math.pi


def correlation_of(distance: float) -> float:
    """The Pearson correlation of normal values with this rank distance, the inverse of `distance_of`."""
    return 2 * math.sin(math.pi * (0.5 - distance)) - 1


def noise_of_two(correlation: float, shares: tuple[float, float]) -> float:
    """The variance of a run's noise, in units of the true scores', from the correlation of two means of runs.

    With noise s, the means correlate at 1 / sqrt((1 + s a) (1 + s b)).

    Args:
        shares: (a, b), the share of a run's noise that is left in each mean: 1 / m for a mean of m runs.
    """
    if correlation <= 0:
        return math.inf
    a, b = shares
    excess = 1 / correlation**2 - 1
    return 2 * max(0.0, excess) / (a + b + math.sqrt((a + b) ** 2 + 4 * a * b * max(0.0, excess)))


def noise_of_one(correlation: float, other: float) -> float:
    """The variance of a mean's noise, from its correlation with another mean whose noise has the variance `other`."""
    return max(0.0, 1 / (correlation**2 * (1 + other)) - 1) if correlation > 0 else math.inf


def distance_from_truth(noise: float) -> float:
    """The rank distance between the true scores and these with noise of that variance; 1/3 if it is infinite."""
    return distance_of(1 / math.sqrt(1 + noise))
