"""What the measures share: checks of runs, means over runs, ranks, and numbers in words."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..runs.score_of_runs import ScoreOfRuns
from ..support.checks import whole_number
from ..support.ranks import dot, standard_ranks

_MEANS: Final = 1 << 24
"""Numbers of all means in memory at once, 128 MB. More than a block, because every batch of means reads all files anew:
100 means over 100 runs of 500,000 examples took 3.3 s, and 16 s with the 2^20 numbers of a block."""

_MOST_MEANS: Final = 32
"""Means at once, so that there are several batches for the workers of an executor where examples are few."""

_TOO_MANY_FOR_CHANCE: Final = 20
"""Different values of a score that two trainings do not have in common for all examples."""

RANK_NOTHING: Final = (
    "the runs rank nothing: their values are the same for all examples, or halves of the runs share fewer than two "
    "examples"
)


class RankNothingError(ValueError):
    """Runs by whose score no example is harder than another."""

    def __init__(self, score: str) -> None:
        super().__init__(f"{score}: {RANK_NOTHING}")


def check_runs(runs: RunSet, score: str, least: int) -> None:
    """TypeError or ValueError unless there are at least `least` runs, each with the score."""
    check_run_set(runs)
    runs.matrix(score, slice(0, 0))
    if len(runs) < least:
        raise ValueError(f"got {len(runs)} run, expected at least {least}: a single run has nothing to compare with")


def check_run_set(runs: RunSet) -> None:
    """TypeError unless it is a RunSet."""
    if not isinstance(runs, RunSet):
        raise TypeError(f"runs: got {type(runs).__name__}, expected a RunSet; RunSet.load(paths) reads one")


def generator(seed: int) -> np.random.Generator:
    """Random numbers that depend on the seed alone."""
    return np.random.default_rng(np.random.SeedSequence([whole_number(seed, "seed")]))


def read(runs: RunSet, run: int, score: str) -> NDArray[Any]:
    """The score of one run as stored, [N] float64."""
    return np.asarray(runs[run].scores[score], dtype=np.float64)


def warn_of_equal_runs(runs: RunSet, score: str) -> None:
    """Warns of two runs with the same values, which no two trainings have by chance.

    Counts may well agree, and so may a few examples: of these nothing is said.
    """
    seen: dict[str, int] = {}
    for run, digest in enumerate(ScoreOfRuns(runs, score).digests()):
        first = seen.setdefault(digest, run)
        if first != run and len(np.unique(read(runs, run, score))) >= _TOO_MANY_FOR_CHANCE:
            warnings.warn(
                f"{score}: {runs[first]!r} and {runs[run]!r} have the same value for every example: one is a copy of "
                "the other, or both trainings used one seed. Together they do not tell how far another run would "
                "agree. Give each training its own seed (torch.manual_seed), and each run once",
                stacklevel=3,
            )
            return


def batches(weights: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """Rows of weights [K, R] of as many means of `size` examples as fit into 128 MB, an even number, at most 32."""
    at_once = min(_MOST_MEANS, max(2, _MEANS // size // 2 * 2))
    return (weights[start : start + at_once] for start in range(0, len(weights), at_once))


def weights_of(chosen: Iterable[Iterable[int]], runs: int) -> NDArray[Any]:
    """[K, R] int64: 1 for the chosen runs of each of K sets, else 0.

    >>> weights_of([(0, 2), (1,)], runs=3)
    array([[1, 0, 1],
           [0, 1, 0]])
    """
    return np.array([np.isin(np.arange(runs), list(some)) for some in chosen], dtype=np.int64)


def known_to_all(runs: RunSet, score: str) -> NDArray[Any]:
    """Positions of the examples that every run presented; ValueError if there are fewer than two."""
    known = np.ones(runs.num_examples, bool)
    for run in range(len(runs)):
        known &= ~np.isnan(read(runs, run, score))
    if known.sum() < 2:
        raise ValueError(
            f"{score}: {int(known.sum())} of {runs.num_examples} examples were presented by each of the {len(runs)} "
            "runs, expected at least 2; choose runs that trained on the same examples"
        )
    return np.flatnonzero(known)


def ranks_and_spread(values: NDArray[Any]) -> tuple[NDArray[Any], float, NDArray[Any]]:
    """Standard ranks [N], Gini's mean difference up to a factor, and which values are known [N].

    >>> ranks_and_spread(np.array([5.0, np.nan, 7.0]))
    (array([-1.,  0.,  1.]), 1.0, array([ True, False,  True]))
    """
    known = ~np.isnan(values)
    if known.all():
        return *standard_ranks(values), known
    ranks = np.zeros(len(values))
    ranks[known], spread = standard_ranks(values[known])
    return ranks, spread, known


class PairSums:
    """Mean Spearman correlation over all pairs of different runs, for each two of K kinds, from sums over runs.

    The sum over i != j of u_i . v_j is U . V minus the sum over i of u_i . v_i, where U and V are the sums of the ranks
    u and v; the numbers of examples that both runs presented are summed the same way. So memory is O(K N) for any R.
    """

    def __init__(self, kinds: int, size: int) -> None:
        self._ranks, self._known = np.zeros((kinds, size)), np.zeros((kinds, size), np.int32)
        self._own_products, self._own_sizes = np.zeros((kinds, kinds)), np.zeros((kinds, kinds))

    def add(self, kinds: Iterable[int], ranked: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> None:
        """Adds one run: of each of these kinds its `standard_ranks` [N], and which values it has [N]."""
        own = list(zip(kinds, ranked, strict=True))
        for kind, (ranks, known) in own:
            self._ranks[kind] += ranks
            self._known[kind] += known
        for (i, (ranks, known)), (j, (others, shown)) in itertools.product(own, own):
            if i <= j:
                self._own_products[i, j] += dot(ranks, others)
                self._own_sizes[i, j] += np.count_nonzero(known & shown)

    def merge(self, other: PairSums) -> None:
        """Adds further runs."""
        self._ranks += other._ranks
        self._known += other._known
        self._own_products += other._own_products
        self._own_sizes += other._own_sizes

    def mean(self) -> NDArray[Any]:
        """[K, K] float64; NaN where no two different runs share examples."""
        known = self._known.astype(np.float64)
        products = self._ranks @ self._ranks.T - _both_triangles(self._own_products)
        sizes = known @ known.T - _both_triangles(self._own_sizes)
        return np.where(sizes > 0.5, products / np.maximum(sizes, 1), np.nan)


def _both_triangles(upper: NDArray[Any]) -> NDArray[Any]:
    full: NDArray[Any] = upper + np.triu(upper, 1).T
    return full


def count(number: int, word: str) -> str:
    """The number and the word, in the plural unless it is one.

    >>> count(1, "run"), count(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def percent(share: float, digits: int = 0) -> str:
    """A share as people read it.

    >>> percent(0.0812, 1)
    '8.1 %'
    """
    return f"{100 * share:.{digits}f} %"
