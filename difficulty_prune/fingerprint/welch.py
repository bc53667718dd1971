"""Welch's test: whether architectures differ in the mean, though their variances may differ too."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .effect import Variance, sum_groups

_SMALLEST_VARIANCE: Final = 1e-12
"""Of a group, as a fraction of the example's variance over all runs: no larger than what rounding may leave, so it only
keeps groups whose runs all agree from a division by 0."""


def welch_p_values(own: Variance, sizes: tuple[int, ...]) -> NDArray[Any]:
    """p-value [n] of each example, from its analysis of variance over groups of these sizes.

    Welch's analysis of variance (Welch 1951), which for two groups is his two-sided t-test. If all runs of an
    architecture agree, as discrete scores may, their variance is taken as 1e-12 of the example's. A constant example
    has p = 1.

    >>> from difficulty_prune.fingerprint.effect import variance
    >>> x = np.array([[0.0, 5.0], [1.0, 5.0], [7.0, 5.0], [9.0, 5.0]])
    >>> welch_p_values(variance(x, (2, 2)), (2, 2)).round(4)
    array([0.0445, 1.    ])
    """
    from scipy.special import fdtrc

    constant = own.total == 0
    size, groups = np.array(sizes)[:, None], len(sizes)
    lowest = _SMALLEST_VARIANCE * np.where(constant, 1, own.total) / sum(sizes)
    precision = size / np.maximum(own.within / (size - 1), lowest)
    share = precision / sum_groups(precision)
    mean = sum_groups(share * own.mean)
    doubt = sum_groups((1 - share) ** 2 / (size - 1)) / (groups**2 - 1)
    between = sum_groups(precision * (own.mean - mean) ** 2) / (groups - 1)
    p: NDArray[Any] = fdtrc(groups - 1, 1 / (3 * doubt), between / (1 + 2 * (groups - 2) * doubt))
    return np.where(constant, 1.0, p)
