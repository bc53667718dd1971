"""Correlations of each two runs, and of each run with the mean of all, by ranking each run twice.

The sum over pairs i != j of u_i . v_j is U . V minus the sum over i of u_i . v_i, where U and V are the sums of the
ranks u and v; the numbers of examples that both runs presented are summed the same way. So it takes a first pass over
the runs for the sums, and a second one for what remains without each run.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..runs.score_of_runs import ScoreOfRuns, pieces_of
from ..support.pieces import in_threads, run_pieces
from ..support.ranks import dot
from .run_agreement import correlate, ranks_of_mean
from .spearman_brown import to_pearson
from .streams import ranks_and_spread


@dataclass(frozen=True)
class Pairs:
    """What pairs of runs say.

    Attributes:
        spearman: mean correlation over all pairs of different runs.
        pearson: the same as `correlation_of_halves` has it: of normal values, lower if one run is spread wider.
        without: [R] the latter without each run; empty for two runs.
        agreement: [R], the Spearman correlation of each run with the mean of all, as `run_agreement` gives it.
    """

    spearman: float
    pearson: float
    without: list[float]
    agreement: NDArray[Any]


def pairs_of_runs(runs: RunSet, score: str, executor: Executor | None = None) -> Pairs:
    """See `Pairs`."""
    kept = ScoreOfRuns(runs, score)
    sums = _add_up_all(kept, executor)
    pearson = to_pearson(sums.mean(sums.spreads) / float(np.square(sums.spreads).mean()))
    agreement, without = map(np.array, zip(*_rest(kept, sums, executor), strict=True))
    return Pairs(sums.mean(), pearson, without.tolist() if len(runs) > 2 else [], agreement)


@dataclass
class SumsOfRanks:
    """Sums over runs.

    Attributes:
        ranks: [N], of `standard_ranks`.
        spread_ranks: [N], of these times the run's spread.
        known: [N], how many runs presented the example.
        values: [N], of the score.
        squares, sizes: [R], the squared norm of a run's ranks, and how many examples it presented.
        spreads: [R].
    """

    ranks: NDArray[Any]
    spread_ranks: NDArray[Any]
    known: NDArray[Any]
    values: NDArray[Any]
    squares: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    sizes: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    spreads: NDArray[Any] = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of_nothing(cls, size: int) -> SumsOfRanks:
        """Of no runs yet, for N examples."""
        return cls(*(np.zeros(size) for _ in range(4)))

    def add(self, other: SumsOfRanks) -> None:
        """Adds the sums over further runs."""
        self.ranks += other.ranks
        self.spread_ranks += other.spread_ranks
        self.known += other.known
        self.values += other.values
        self.squares = np.append(self.squares, other.squares)
        self.sizes = np.append(self.sizes, other.sizes)
        self.spreads = np.append(self.spreads, other.spreads)

    def mean(self, spreads: NDArray[Any] | None = None) -> float:
        """Over pairs of different runs, of the product of their ranks, or of these times the spreads [R]."""
        total, own = (self.ranks, 1.0) if spreads is None else (self.spread_ranks, spreads**2)
        return _ratio(dot(total, total) - (own * self.squares).sum(), self._pairs())

    def mean_without(self, run: int, ranks: NDArray[Any], known: NDArray[Any]) -> float:
        """`mean(spreads)` without a run, which has these ranks [N] and presented these examples [N]."""
        spread = self.spreads[run]
        total = dot(self.spread_ranks, self.spread_ranks) - 2 * spread * dot(self.spread_ranks, ranks)
        own = (self.spreads**2 * self.squares).sum() - 2 * spread**2 * self.squares[run]
        return _ratio(total - own, self._pairs() - 2 * (dot(self.known, known) - self.sizes[run]))

    def _pairs(self) -> float:
        """Examples that two different runs presented, over all pairs in both orders."""
        return float(dot(self.known, self.known) - self.sizes.sum())


def _ratio(total: float, size: float) -> float:
    return float(total / size) if size > 0.5 else float("nan")


def _add_up_all(kept: ScoreOfRuns, executor: Executor | None) -> SumsOfRanks:
    """The first pass."""
    sums = SumsOfRanks.of_nothing(kept.num_examples)
    for part in run_pieces(executor, _add_up, ((some,) for _, some in pieces_of(kept))):
        sums.add(part)
    return sums


def _add_up(kept: ScoreOfRuns) -> SumsOfRanks:
    sums = SumsOfRanks.of_nothing(kept.num_examples)
    for values, (ranks, spread, known) in in_threads(lambda run: _ranked(kept, run), range(len(kept))):
        sums.ranks += ranks
        sums.spread_ranks += spread * ranks
        sums.known += known
        np.add(sums.values, values, out=sums.values, where=known)
        sums.squares = np.append(sums.squares, dot(ranks, ranks))
        sums.sizes = np.append(sums.sizes, np.count_nonzero(known))
        sums.spreads = np.append(sums.spreads, spread)
    return sums


def _rest(kept: ScoreOfRuns, sums: SumsOfRanks, executor: Executor | None) -> Iterable[tuple[float, float]]:
    """The second pass: of each run its agreement with the mean, and what remains without it."""
    pieces = ((some, sums, first) for first, some in pieces_of(kept))
    for part in run_pieces(executor, _rest_of_some, pieces):
        yield from part


def _rest_of_some(kept: ScoreOfRuns, sums: SumsOfRanks, first: int) -> list[tuple[float, float]]:
    mean = np.divide(sums.values, sums.known, out=np.full(len(sums.values), np.nan), where=sums.known > 0)
    of_mean = ranks_of_mean(mean)

    def rest(run: int) -> tuple[float, float]:
        values, (ranks, _, known) = _ranked(kept, run)
        agreement = correlate(values, ranks, known, mean, of_mean)
        others = float(np.square(np.delete(sums.spreads, first + run)).mean())
        without = sums.mean_without(first + run, ranks, known) / others if others > 0 else float("nan")
        return agreement, to_pearson(without)

    return list(in_threads(rest, range(len(kept))))


def _ranked(kept: ScoreOfRuns, run: int) -> tuple[NDArray[Any], tuple[NDArray[Any], float, NDArray[Any]]]:
    values = kept.read(run)
    return values, ranks_and_spread(values)
