"""Rank error: how far an example is out of place when only some runs are averaged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..runs.score_of_runs import ScoreOfRuns
from ..support.checks import check_between, whole_number
from ..support.pieces import check_executor, in_threads, run_pieces
from ..support.plain import plain_fields
from .correlation import architecture_of_runs
from .footrule import (
    correlation_of,
    distance_from_truth,
    in_random_order,
    noise_of_one,
    noise_of_two,
    rank_distance,
)
from .intervals import (
    departure,
    groups_of_examples,
    half_width,
    jackknife_error,
    mean_known,
    standard_error_of_groups,
)
from .pairs import Pairs, pairs_of_runs
from .spearman_brown import fisher
from .splits import split_halves
from .streams import RankNothingError, batches, check_runs, count, generator, percent

_SIZES: Final = 12
"""Points of the curve. Each costs `resamples` means over runs; a dozen, even on a log scale, show its shape."""

_TIED_SPLITS: Final = 10
"""Splits in which ties are broken at random as well; more of them change the third digit of the interval."""

_TOO_WIDE: Final = 1 / 6
"""An interval as wide as this, half of the way from equal to random ranks, does not say how far examples are off."""


@dataclass(frozen=True, eq=False)
class RankError:
    """Mean of `|rank - true rank| / N` when m runs are averaged. The true rank is by the mean of very many such runs.

    Attributes:
        runs: [M] int64, values of m: from 1 to half of the runs, and last R, all of them. For the values between, too
            few other runs are left to compare with.
        error: [M] float64, the estimates. All but the last are measured against the other runs, and the noise of these
            is taken off; the last is extrapolated from half of the runs.
        low, high: [M] float64, the confidence interval of each.
        score: the one that ranks the examples.
        level: of the intervals.
    """

    runs: NDArray[Any]
    error: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    score: str
    level: float = 0.95

    def __str__(self) -> str:
        against = "compared with the ranking by very many runs"
        if self.high[0] - self.low[0] > _TOO_WIDE:
            return (
                f"How far one run misplaces an example is not known ({self._range(0)} of the ranks on average), "
                f"{against}; train {count(int(self.runs[-1]), 'more run')} and ask again."
            )
        return (
            f"One run misplaces an example by {percent(self.error[0], 1)} of the ranks on average ({self._range(0)}), "
            f"the mean of {count(int(self.runs[-1]), 'run')} by {percent(self.error[-1], 1)} ({self._range(-1)}), "
            f"{against}."
        )

    def _range(self, position: int) -> str:
        return f"{100 * self.low[position]:.1f} to {percent(self.high[position], 1)}"

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, as JSON can hold them."""
        return plain_fields(self)


def rank_error(
    runs: RunSet,
    score: str,
    *,
    resamples: int = 100,
    level: float = 0.95,
    seed: int = 0,
    executor: Executor | None = None,
) -> RankError:
    """How far the mean of m runs puts an example out of place, for several m (after arXiv 2401.01867).

    The truth is the mean of very many runs like these. The paper takes the mean of all runs in its place, which
    contains the runs that are judged, so that the error is too small, and 0 for all runs. Here, sets of m runs are
    compared with the mean of the other runs, and what these add to the distance is taken off, as is exact for normal
    values; the distance between halves of the runs shows how much that is. More than half of the runs would leave too
    few others. So after half comes only R, extrapolated: noise falls in proportion to the number of runs. Random ranks
    have an error of 1/3.

    With several architectures, the truth is the mean over them in the proportion that they have here, which sets of
    runs match as far as they can. If an architecture has a single run, all runs count as of one kind.

    The interval combines the same uncertainties as that of `reliability`. Ties count as equally hard; but perhaps
    further runs would tell such examples apart, so the upper end is for ties that hide an order. In simulations of
    normal, skewed and discrete scores (2 to 8 runs, `tests/consistency/test_rank_error.py`) the interval covers the
    error of fresh runs. The error of one run is too high, by up to half, where the noise is in few examples or the
    true scores have few values.

    Args:
        runs: at least two. Examples that none of the compared runs presented are left out.
        score: one that every run has.
        resamples: sets drawn for each m; all of them if there are no more. With more than 22 runs, 11 values of m are
            chosen up to half of the runs.
        level: of the intervals, in (0, 1).
        seed: of the draws and of the groups of examples.
        executor: does the work in pieces, as for `reliability`; default: a few threads here.

    Raises:
        TypeError, ValueError: fewer than two runs, a score that not every run has, a level outside (0, 1), no
            resamples, not an executor, or scores that rank nothing, because they are the same for all examples or runs
            share fewer than two examples.

    >>> from difficulty_prune import Run
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.normal(size=500)
    >>> runs = RunSet(Run({"el2n": hard + rng.normal(size=500)}, architecture="mlp", seed=s) for s in range(4))
    >>> print(rank_error(runs, "el2n"))
    One run misplaces an example by 16.8 % of the ranks on average (15.2 to 18.6 %), the mean of 4 runs by 10.2 % \
(8.9 to 11.8 %), compared with the ranking by very many runs.
    """
    check_runs(runs, score, least=2)
    check_between(level, "level")
    number, rng = whole_number(resamples, "resamples", least=1), generator(seed)
    check_executor(executor)
    kinds, kept = _kinds(runs), ScoreOfRuns(runs, score)
    halves = _compare_halves(kept, score, kinds, number, rng, executor)
    sizes = _sizes(len(runs))
    noise = _noise_of_each(kept, score, [_sets(kinds, int(m), number, rng) for m in sizes], kinds, halves, executor)
    pairs = pairs_of_runs(runs, score, executor)
    low, high = _interval(runs.num_examples, pairs, kinds, halves, noise[0], level)
    noise.append(halves.noise / len(runs))
    sizes = np.append(sizes, len(runs))

    error = np.array([distance_from_truth(v) for v in noise])
    scaled = [[_scaled(v, halves.noise, end, m) for v, m in zip(noise, sizes, strict=True)] for end in (low, high)]
    ends = np.array([[distance_from_truth(v) for v in end] for end in scaled])
    return RankError(sizes, error, np.minimum(ends[0], error), np.maximum(ends[1], error), score, float(level))


@dataclass(frozen=True)
class _Halves:
    """How two halves of the runs differ, on average over splits.

    Attributes:
        correlation: of their means, as Pearson's of normal values.
        in_groups: [splits, groups] the same in groups of examples.
        shares: see `noise_of_two`.
        noise: the variance of a single run's noise.
        noise_if_tied: the same if ties hide an order.
    """

    correlation: float
    in_groups: NDArray[Any]
    shares: tuple[float, float]
    noise: float
    noise_if_tied: float


def _kinds(runs: RunSet) -> NDArray[Any]:
    """The position of each run's architecture among all, [R] int64; zeros if one of them has a single run."""
    kinds = architecture_of_runs(runs)
    return kinds if np.bincount(kinds).min() > 1 else np.zeros_like(kinds)


def _compare_halves(
    kept: ScoreOfRuns,
    score: str,
    kinds: NDArray[Any],
    number: int,
    rng: np.random.Generator,
    executor: Executor | None,
) -> _Halves:
    groups = groups_of_examples(kept.num_examples, rng)
    splits = split_halves([str(kind) for kind in kinds], number, rng)
    weights = np.array([_balanced(np.array(half), kinds) for split in splits for half in split])
    compared = _compare_pairs(kept, weights, executor, groups, rng.spawn(_TIED_SPLITS))
    distance, if_tied = mean_known(compared[:, 0]), mean_known(compared[:, 1])
    if math.isnan(distance):
        raise RankNothingError(score)
    in_groups = np.array([[correlation_of(apart) for apart in of_groups] for of_groups in compared[:, 2:]])
    shares = _share(weights[0]), _share(weights[1])
    noise, noise_if_tied = (noise_of_two(correlation_of(d), shares) for d in (distance, max(distance, if_tied)))
    return _Halves(correlation_of(distance), in_groups, shares, noise, noise_if_tied)


def _noise_of_each(
    kept: ScoreOfRuns,
    score: str,
    sets: Sequence[NDArray[Any]],
    kinds: NDArray[Any],
    halves: _Halves,
    executor: Executor | None,
) -> list[float]:
    """The variance of the noise of the mean of as many runs as each of the sets [K, size] has."""
    everyone, weights = np.arange(len(kept)), []
    for chosen in itertools.chain(*sets):
        others = np.setdiff1d(everyone, chosen)
        weights += [np.bincount(chosen, minlength=len(kept)), _balanced(others, kinds)]
    distances = _compare_pairs(kept, np.array(weights), executor)[:, 0]
    shares = np.array([_share(weight) for weight in weights[1::2]])
    of_size = np.cumsum([len(some) for some in sets])[:-1]
    noise = []
    for apart, share in zip(np.split(distances, of_size), np.split(shares, of_size), strict=True):
        distance, other = mean_known(apart), halves.noise * float(share.mean())
        if math.isnan(distance):
            raise ValueError(f"{score}: one of the runs presented no example; leave it out")
        least = halves.noise / len(kept)
        noise.append(max(least, noise_of_one(correlation_of(distance), other)) if math.isfinite(other) else other)
    return noise


def _compare_pairs(
    kept: ScoreOfRuns,
    weights: NDArray[Any],
    executor: Executor | None,
    groups: Sequence[NDArray[Any]] = (),
    ties: Sequence[np.random.Generator] = (),
) -> NDArray[Any]:
    """How far the means of each two rows of weights [2 K, R] rank apart: [K, 2 + G].

    Over all examples; for the first pairs again with ties in random order, else NaN; and in each group of examples.
    """

    def pieces() -> Iterator[tuple[Any, ...]]:
        first = 0
        for some in batches(weights, kept.num_examples):
            last = first + len(some) // 2
            yield kept, some, groups, ties[first:last]
            first = last

    return np.concatenate(list(run_pieces(executor, _compare_some, pieces())))


def _compare_some(
    kept: ScoreOfRuns,
    weights: NDArray[Any],
    groups: Sequence[NDArray[Any]],
    ties: Sequence[np.random.Generator],
) -> NDArray[Any]:
    """See `_compare_pairs`; `ties` is for the first pairs of these."""
    means = kept.means(weights)

    def compare(pair: int) -> list[float]:
        a, b = means[2 * pair : 2 * pair + 2]
        tied = math.nan
        if pair < len(ties):
            tied = rank_distance(in_random_order(a, ties[pair]), in_random_order(b, ties[pair]))
        return [rank_distance(a, b), tied, *(rank_distance(a[group], b[group]) for group in groups)]

    return np.array(list(in_threads(compare, range(len(means) // 2))))


def _interval(
    size: int, pairs: Pairs, kinds: NDArray[Any], halves: _Halves, of_one: float, level: float
) -> tuple[float, float]:
    """The lowest and the highest plausible variance of a single run's noise.

    Args:
        size: number of examples.
        pairs: what pairs of runs say.
        of_one: the variance of its noise, measured against the other runs.
    """
    runs = len(kinds)
    half = runs // 2
    errors = [standard_error_of_groups(halves.in_groups, size), jackknife_error(pairs.without, half)]
    if half > 1 and not kinds.any():
        errors.append((departure(halves.correlation, 1 / (1 + of_one), half, runs), math.inf))
    z, width = float(fisher(halves.correlation)), half_width(errors, level)
    low, high = (noise_of_two(math.tanh(end), halves.shares) for end in (z + width, z - width))
    hidden = halves.noise_if_tied / halves.noise if 0 < halves.noise < math.inf else 1.0
    return low, max(high * hidden, halves.noise_if_tied)


def _scaled(noise: float, of_one: float, end: float, size: int) -> float:
    """The noise of a mean of `size` runs, if that of one run were `end` instead of `of_one`."""
    if 0 < of_one < math.inf:
        return noise * end / of_one
    return end / size


def _sizes(runs: int) -> NDArray[Any]:
    """Numbers of runs up to half of them, [M] int64."""
    half = runs // 2
    if half < _SIZES:
        return np.arange(1, half + 1)
    return np.unique(np.geomspace(1, half, _SIZES - 1).round().astype(np.int64))


def _sets(kinds: NDArray[Any], size: int, number: int, rng: np.random.Generator) -> NDArray[Any]:
    """Sets [K, size] of runs that have each architecture as often as its proportion says, rounded down or up."""
    if math.comb(len(kinds), size) > number:
        drawn: NDArray[Any] = np.stack([_every_so_often(kinds, size, rng) for _ in range(number)])
        return drawn
    sets = np.array(list(itertools.combinations(range(len(kinds)), size)))
    counts = np.stack([(kinds[sets] == kind).sum(1) for kind in range(kinds.max() + 1)], axis=1)
    exact = np.bincount(kinds) * size / len(kinds)
    chosen: NDArray[Any] = sets[(np.abs(counts - exact) < 1).all(1)]
    return chosen


def _every_so_often(kinds: NDArray[Any], size: int, rng: np.random.Generator) -> NDArray[Any]:
    """Runs [size] at equal distances in a row of the architectures, each in random order."""
    row = np.lexsort((rng.random(len(kinds)), kinds))
    places = (rng.random() + np.arange(size)) * (len(kinds) / size)
    chosen: NDArray[Any] = row[np.minimum(places.astype(np.int64), len(kinds) - 1)]  # rounding may pass the end
    return chosen


def _balanced(chosen: NDArray[Any], kinds: NDArray[Any]) -> NDArray[Any]:
    """Weights [R] of the chosen runs that give each architecture the proportion that it has in all.

    They are whole numbers, so that examples with the same counts stay tied.
    """
    of_all, (present, of_chosen) = np.bincount(kinds), np.unique(kinds[chosen], return_counts=True)
    whole = math.lcm(*of_chosen.tolist())
    of_kind = {kind: float(of_all[kind]) * whole / number for kind, number in zip(present, of_chosen, strict=True)}
    weights = np.zeros(len(kinds))
    weights[chosen] = [of_kind[kind] for kind in kinds[chosen]]
    return weights


def _share(weights: NDArray[Any]) -> float:
    """The share of a single run's noise that is left in a weighted mean."""
    return float(np.square(weights).sum() / weights.sum() ** 2)
