"""Better, worse, or no difference seen: what paired results over a few seeds allow to say."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..support.arrays import real_numbers
from ..support.checks import check_between, whole_number
from ..support.plain import plain_fields

Word = Literal["better", "worse", "no difference seen", "not known"]

POWER: Final = 0.8
"""The probability with which a difference of `smallest_visible` would have been seen."""

_SPREADS: Final = 2000  # equally likely ones, of which the power is the mean

_DIGITS: Final = 8  # at most, after the point

_ROUNDING: Final = 1e-9
"""Differences that vary by less than this part of the values do not vary: 0.9 - 0.8 and 0.8 - 0.7 are the same."""


_LARGEST: Final = 1e150  # whose square is finite


class Paired(NamedTuple):
    """Student's t for paired differences; each field has the shape of the cells.

    Attributes:
        mean: of the differences over seeds.
        error: the standard error of the mean (ddof 1); NaN for a single seed.
        half: half the width of the interval; NaN for a single seed.
    """

    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    half: NDArray[np.float64]


def paired(differences: NDArray[np.float64], *, cells: int = 1, level: float = 0.95) -> Paired:
    """Mean and interval of paired differences [..., seeds], of any number of cells.

    The interval is Student's t with seeds - 1 degrees of freedom. With several cells each has the level
    1 - (1 - level) / cells (Bonferroni), so that all of them hold together with at least `level`.

    >>> paired(np.array([[0.5, 1.0, 1.5], [0.0, 0.0, 0.0]])).half.round(2)
    array([1.24, 0.  ])
    """
    from scipy.stats import t

    values = np.asarray(differences, np.float64)
    seeds = values.shape[-1]
    mean = values.mean(-1)
    if seeds < 2:
        unknown = np.full_like(mean, np.nan)
        return Paired(mean, unknown, unknown)
    error = values.std(-1, ddof=1) / math.sqrt(seeds)
    return Paired(mean, error, float(t.isf((1 - level) / (2 * cells), seeds - 1)) * error)


@functools.cache
def visible(seeds: int, *, cells: int = 1, level: float = 0.95, power: float = POWER) -> float:
    """The true difference, in standard errors, whose interval leaves out 0 with probability `power`.

    >>> round(visible(5), 2)  # by a paired t-test of 5 seeds
    3.76
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm, t

    freedom = seeds - 1
    # The noncentral t distribution as a mean over the measured spread, since SciPy's is NaN far from the middle.
    spreads = np.sqrt(chi2.ppf((np.arange(_SPREADS) + 0.5) / _SPREADS, freedom) / freedom)
    ends = float(t.isf((1 - level) / (2 * cells), freedom)) * spreads

    def lacking(shift: float) -> float:
        return float((norm.sf(ends - shift) + norm.cdf(-ends - shift)).mean()) - power

    high = 1.0
    while lacking(high) < 0:
        high *= 2
    return float(brentq(lacking, 0.0, high))


@dataclass(frozen=True)
class Verdict:
    """What may be said of the difference between two ways of training, from the same seeds of each.

    The word follows from the interval and never contradicts it: "better" if all of it is above 0, "worse" if all of it
    is below, "no difference seen" if 0 is inside. It is "not known" of one seed, and of differences that are the same
    for every seed and not 0, since their spread cannot be measured.

    Attributes:
        difference: the mean over seeds, turned so that positive is better, in the metric's unit.
        interval: its confidence interval; None where the spread is not known.
        word: "better", "worse", "no difference seen" or "not known".
        smallest_visible: the true difference that so many seeds with such a spread would have called better or worse
            in 4 of 5 comparisons; None where the spread is not known.
        differences: seed by seed, turned as `difference`.
        than: what it is compared with, such as "chance".
        cells: how many verdicts answer the same question: their intervals hold together with probability `level`.
        level: of the intervals.
        points: whether the metric is a share, whose differences are said in points: 0.008 is 0.8 points.
    """

    difference: float
    interval: tuple[float, float] | None
    word: Word
    smallest_visible: float | None
    differences: tuple[float, ...]
    than: str = "the other"
    cells: int = 1
    level: float = 0.95
    points: bool = True

    @property
    def seeds(self) -> int:
        """How many pairs."""
        return len(self.differences)

    @property
    def width(self) -> float:
        """Of the interval, in points where `points`; infinite where the spread is not known."""
        if self.interval is None:
            return math.inf
        return (self.interval[1] - self.interval[0]) * self._scale

    @property
    def short(self) -> str:
        """The answer without interval: "1.0 worse than all data"."""
        if self.word in ("better", "worse"):
            return f"{self._say(abs(self.difference))} {self.word} than {self.than}"
        return f"no difference to {self.than} seen" if self.word == "no difference seen" else str(self)

    @property
    def amount(self) -> str:
        """How large the difference is, whichever is better: "0.8 points"."""
        return f"{self._say(abs(self.difference))}{self._unit}"

    @property
    def between(self) -> str:
        """The interval in the unit of `amount`, turned so that "worse" is positive too: "0.3 to 1.3"."""
        low, high = self.interval or (math.nan, math.nan)
        if self.word == "worse":
            low, high = -high, -low
        return f"{self._say(low)} to {self._say(high)}"

    def __str__(self) -> str:
        amount = self.amount
        leaning = f"{amount} {'better' if self.difference >= 0 else 'worse'}"
        if self.word == "not known":
            why = "one seed: train 3 or more" if self.seeds == 1 else "the same for every seed: test on more examples"
            return f"not known whether it differs from {self.than} ({leaning}, {why})"
        if self.interval is None or self.smallest_visible is None:
            return f"no difference to {self.than} seen (the same results for every seed)"
        if self.word == "no difference seen":
            would = f"{self._say(self.smallest_visible)}{self._unit} would have been"
            if self.points and self.smallest_visible > 1:
                would = "none could have been"
            return f"no difference to {self.than} seen ({leaning}, {self.between}; {would})"
        return f"{amount} {self.word} than {self.than} ({self.between})"

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, as JSON can hold them."""
        return plain_fields(self, in_words=str(self))

    @property
    def _scale(self) -> float:
        return 100.0 if self.points else 1.0

    @property
    def _unit(self) -> str:
        return " points" if self.points else ""

    def _say(self, value: float) -> str:
        return f"{round(self._scale * value, self._digits) + 0.0:.{self._digits}f}"  # + 0.0 makes 0 of -0

    @functools.cached_property
    def _digits(self) -> int:
        """As many as the interval deserves, and one more where an end would read as 0, since its sign is the answer."""
        numbers = [abs(self.difference), *map(abs, self.interval or ())]
        known = self.width / 2 if self.interval is not None else numbers[0] * self._scale
        digits = 1 if self.points else 2
        if 0 < known < math.inf:
            digits = min(_DIGITS, max(digits, (0 if self.points else 1) - math.floor(math.log10(known))))
        hidden = any(0 < self._scale * number < 0.5 * 10**-digits for number in numbers[1:])
        return digits + hidden


def verdict(
    results: Any,
    others: Any,
    *,
    than: str = "the other",
    cells: int = 1,
    level: float = 0.95,
    lower_is_better: bool = False,
    points: bool | None = None,
) -> Verdict:
    """Compares two ways of training seed by seed.

    The interval is Student's t of the paired differences (ddof 1). With several cells, that is verdicts that answer the
    same question, each interval has the level 1 - (1 - level) / cells (Bonferroni), so that all hold together.
    `tests/comparison/test_verdict.py` checks by simulation that they do.

    Args:
        results, others: [seeds] numbers, finite; the same position is the same seed.
        than: what the others are, in words.
        cells: how many verdicts answer the same question, 1 or more.
        level: of the interval, in (0, 1).
        lower_is_better: turns the difference, as for a loss.
        points: whether the numbers are shares, whose differences are said in points. Default: if all are in [0, 1] and
            higher is better.

    Raises:
        TypeError, ValueError: no numbers, not finite, or not as many of each; a level outside (0, 1); no cell.

    >>> print(verdict([0.81, 0.83, 0.82], [0.80, 0.81, 0.81], than="chance"))
    no difference to chance seen (1.3 points better, -0.1 to 2.8; 1.9 points would have been)
    """
    a, b = _finite(results, "results"), _finite(others, "others")
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise ValueError(f"got results {list(a.shape)} and others {list(b.shape)}, expected one of each per seed, [n]")
    check_between(level, "level")
    whole_number(cells, "cells", least=1)
    both = np.concatenate([a, b])
    if points is None:
        points = not lower_is_better and bool(((both >= 0) & (both <= 1)).all())
    differences = b - a if lower_is_better else a - b
    found = paired(differences, cells=cells, level=level)
    mean, error, half = float(found.mean), float(found.error), float(found.half)
    extent = float(np.abs(both).max())
    interval: tuple[float, float] | None = None
    smallest: float | None = None
    if float(np.ptp(differences)) <= _ROUNDING * extent or math.isnan(half):
        word: Word = "no difference seen" if len(a) > 1 and abs(mean) <= _ROUNDING * extent else "not known"
    else:
        most = 1.0 if points else math.inf  # shares do not differ by more
        interval = (max(mean - half, -most), min(mean + half, most))
        smallest = visible(len(a), cells=cells, level=level) * error
        word = "better" if interval[0] > 0 else "worse" if interval[1] < 0 else "no difference seen"
    return Verdict(
        mean, interval, word, smallest, tuple(differences.tolist()), than, int(cells), float(level), bool(points)
    )


def _finite(values: Any, name: str) -> NDArray[np.float64]:
    numbers = real_numbers(values, name)
    fits = np.abs(numbers) <= _LARGEST  # NaN does not
    if not fits.all():
        raise ValueError(f"{name}: got {numbers[~fits][0]}, expected finite numbers, one per seed")
    return numbers
