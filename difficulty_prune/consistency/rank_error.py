"""Rank error: how far an example is out of place when fewer runs are averaged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..support.checks import whole_number
from ..support.plain import plain_fields
from ..support.ranks import rank_rows
from .streams import check_runs, count, generator, means_of, percent, weights_of

_SIZES: Final = 12
"""Points of the curve. Each costs `resamples` means over runs; a dozen, even on a log scale, show its shape."""


@dataclass(frozen=True, eq=False)
class RankError:
    """Mean of |rank - rank by all runs| / N when only m runs are averaged.

    Attributes:
        runs: [M] int64, values of m, from 1 to R.
        error: [M] float64, mean over sets of m runs.
        low, high: [M] float64, the 5th and 95th percentile over the sets.
        score: by which the examples are ranked.
    """

    runs: NDArray[Any]
    error: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    score: str

    def __str__(self) -> str:
        text = f"One run misplaces an example by {percent(self.error[0], 1)} of the ranks on average"
        half = int(np.abs(self.runs - self.runs[-1] / 2).argmin())  # beyond half of the runs the error flatters
        if half == 0:
            return text + f", against the mean of {count(int(self.runs[-1]), 'run')}."
        return text + f", the mean of {count(int(self.runs[half]), 'run')} by {percent(self.error[half], 1)}."

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, as JSON can hold them."""
        return plain_fields(self)


def rank_error(runs: RunSet, score: str, *, resamples: int = 100, seed: int = 0) -> RankError:
    """How far the mean of m runs puts an example out of place, for several m (arXiv 2401.01867).

    The mean over examples of |rank - rank by the mean of all runs| / N, over sets of m runs drawn without replacement.
    Each set is a part of all runs, so near m = R the error flatters, and at R it is 0; `reliability` does not flatter.
    Random ranks give 1/3.

    Args:
        runs: at least two. A set leaves out examples that none of its runs presented.
        score: one that every run has.
        resamples: sets drawn for each m; all of them if there are no more. With more than 12 runs, 12 values of m are
            chosen.
        seed: of the draws.

    Raises:
        TypeError, ValueError: fewer than two runs, a score that not every run has, no resamples, or a run that
            presented no example.

    >>> from difficulty_prune import Run
    >>> values = ([1.0, 2.0, 3.0], [1.0, 3.0, 2.5], [2.0, 1.0, 3.5])
    >>> runs = RunSet(Run({"el2n": v}, architecture="mlp", seed=0) for v in values)
    >>> rank_error(runs, "el2n").error.round(3)
    array([0.148, 0.037, 0.   ])
    """
    check_runs(runs, score, least=2)
    number, rng = whole_number(resamples, "resamples", least=1), generator(seed)
    of_all = runs.mean(score)
    ranks = rank_rows(of_all[~np.isnan(of_all)][None])[0]
    sizes = np.unique(np.geomspace(1, len(runs), _SIZES).round().astype(np.int64))
    if len(runs) <= _SIZES:
        sizes = np.arange(1, len(runs) + 1)
    sets = [weights_of(_sets(len(runs), int(m), number, rng), len(runs)) for m in sizes]
    means = means_of(runs, score, np.concatenate(sets))
    errors = [[_error(next(means), of_all, ranks, score) for _ in of_size] for of_size in sets]
    low, high = np.array([np.percentile(of_sets, (5, 95)) for of_sets in errors]).T
    return RankError(sizes, np.array([np.mean(of_sets) for of_sets in errors]), low, high, score)


def _sets(runs: int, size: int, resamples: int, rng: np.random.Generator) -> Iterable[Iterable[int]]:
    if math.comb(runs, size) <= resamples:
        return itertools.combinations(range(runs), size)
    return [rng.choice(runs, size, replace=False) for _ in range(resamples)]


def _error(mean: NDArray[Any], of_all: NDArray[Any], ranks_of_all: NDArray[Any], score: str) -> float:
    known = ~np.isnan(mean)
    if not known.any():
        raise ValueError(f"{score}: one of the runs presented no example; leave it out")
    as_before = known.sum() == len(ranks_of_all)
    expected = ranks_of_all if as_before else rank_rows(of_all[known][None])[0]
    return float(np.abs(rank_rows(mean[known][None])[0] - expected).mean() / known.sum())
