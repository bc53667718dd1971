"""Rank error: how far an example is misplaced when fewer runs are averaged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..support.ranks import rank_rows
from .streams import check_positive, check_runs, count, generator, means_of, percent, plain, weights_of

_SIZES: Final = 12


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
        numbers = {name: plain(getattr(self, name)) for name in ("runs", "error", "low", "high")}
        return {"score": self.score, **numbers}


def rank_error(runs: RunSet, score: str, *, resamples: int = 100, seed: int = 0) -> RankError:
    """How far an example is misplaced by the mean of m runs, against m (arXiv 2401.01867).

    The mean over examples of |rank - rank by the mean of all runs| / N, over sets of m of the runs drawn without
    replacement. The set is part of all runs, so near m = R it flatters, and is 0 at R; `reliability` does not. Pure
    chance gives 1/3.

    Args:
        runs: at least two. Examples that no run of a set presented are left out of it.
        score: one that every run has.
        resamples: sets drawn for each m; all of them where there are no more. Of many m, 12 are chosen.

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
    number, rng = check_positive(resamples, "resamples"), generator(seed)
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
