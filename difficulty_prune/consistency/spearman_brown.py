"""The formula of Spearman and Brown: how the correlation of two means grows with the number of runs in each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def step_up(spearman: float, factor: float) -> float:
    """Spearman correlation of two means of `factor` times as many runs; the formula itself is about Pearson's."""
    return to_spearman(step(to_pearson(spearman), factor))


def step(r: float, factor: float) -> float:
    """The formula, for a Pearson correlation: the odds r / (1 - r) grow by the factor."""
    below = 1 + (factor - 1) * r
    return max(-1.0, factor * r / below) if below > 0 else -1.0


def odds(r: float) -> float:
    """Of a Pearson correlation: they grow in proportion to the number of runs."""
    return r / (1 - r)


def to_pearson(spearman: float) -> float:
    """The Pearson correlation of normal values with this Spearman correlation."""
    return 2 * math.sin(math.pi * spearman / 6)


def to_spearman(pearson: float) -> float:
    """The Spearman correlation of normal values with this Pearson correlation."""
    return 6 / math.pi * math.asin(max(-1.0, min(1.0, pearson)) / 2)


def fisher(r: Any) -> Any:
    """Fisher's z of a Pearson correlation, finite for 1 too."""
    return np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
