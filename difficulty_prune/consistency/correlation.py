"""Correlations between scores, or between architectures: of mean difficulties and of single runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..runs.score_of_runs import ScoreOfRuns, pieces_of
from ..scores.catalogue import SCORES
from ..support.pieces import check_executor, in_threads, run_pieces
from ..support.plain import plain_fields
from ..support.ranks import spearman_matrix
from .streams import PairSums, check_run_set, check_runs, ranks_and_spread


@dataclass(frozen=True, eq=False)
class Correlation:
    """Spearman correlations of difficulty between K scores, or between K architectures.

    Attributes:
        names: of the scores or architectures.
        between: "scores" or "architectures".
        of_means: [K, K], of the mean difficulties; NaN if one of the two is the same for all examples.
        of_runs: [K, K], of single runs: the mean over all pairs of different runs. So the diagonal says how far two
            runs correlate, and is NaN for an architecture with one run; a run whose values are all equal counts as 0.
            None if there is only one run, or a score is not one of single runs.
    """

    names: tuple[str, ...]
    between: Literal["scores", "architectures"]
    of_means: NDArray[Any]
    of_runs: NDArray[Any] | None

    def __str__(self) -> str:
        pairs = sorted(
            (float(self.of_means[i, j]), f"{self.names[i]} and {self.names[j]}")
            for i, j in itertools.combinations(range(len(self.names)), 2)
            if not np.isnan(self.of_means[i, j])
        )
        if len(pairs) > 1:
            (lowest, least), (highest, most) = pairs[0], pairs[-1]
            text = (
                f"Of {len(self.names)} {self.between}, {most} correlate most ({highest:.2f}), {least} least "
                f"({lowest:.2f})"
            )
        elif pairs:
            text = f"{pairs[0][1]} correlate at {pairs[0][0]:.2f}"
        else:
            text = f"There is nothing to compare among the {self.between} {', '.join(self.names)}"
        own = np.array([np.nan]) if self.of_runs is None else np.diag(self.of_runs)
        if np.isnan(own).all():
            return text + "."
        same = "by the same score" if self.between == "scores" else "of the same architecture"
        return text + f"; two runs {same} correlate at {np.nanmin(own):.2f} to {np.nanmax(own):.2f}."

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, as JSON can hold them."""
        return plain_fields(self)


def correlation(
    runs: RunSet,
    scores: str | Iterable[str] | None = None,
    *,
    between: Literal["scores", "architectures"] = "scores",
    executor: Executor | None = None,
) -> Correlation:
    """Spearman correlations of difficulty between scores, or between architectures (arXiv 2401.01867).

    Noise lowers the correlation of single runs, but hardly that of means. Two scores rank alike if runs of the one
    correlate with runs of the other as well as among themselves. The means leave out examples without a value in one
    of them.

    Args:
        scores: for between="scores" names that `runs.difficulty` knows, default `runs.scores`; for
            between="architectures" one score, as a string, that every run has.
        executor: ranks single runs in pieces, as for `reliability`; default: a few threads here. Means are read here:
            300 runs of a million examples take 2 s a score.

    Raises:
        TypeError: a string where several scores are expected, or several where one is; or not an executor.
        ValueError: no score, an unknown one, or another `between`.

    >>> from difficulty_prune import Run
    >>> runs = RunSet(
    ...     Run({"el2n": [0.1, 0.5, 0.9], "confidence": [0.9, c, 0.1]}, architecture="mlp", seed=0) for c in (0.4, 0.05)
    ... )
    >>> print(correlation(runs))
    el2n and confidence correlate at 1.00; two runs by the same score correlate at 0.50 to 1.00.
    >>> correlation(runs).of_runs
    array([[1.  , 0.75],
           [0.75, 0.5 ]])
    """
    check_run_set(runs)
    check_executor(executor)
    if between == "scores":
        return _between_scores(runs, scores, executor)
    if between == "architectures":
        return _between_architectures(runs, scores, executor)
    raise ValueError(f"between: got {between!r}, expected 'scores' or 'architectures'")


def check_names(runs: RunSet, scores: str | Iterable[str] | None) -> tuple[str, ...]:
    """Names of several scores; default: all that every run has."""
    if isinstance(scores, str):
        raise TypeError(f"scores: got the string {scores!r}, expected several names such as ({scores!r},)")
    if scores is not None and not isinstance(scores, Iterable):
        raise TypeError(f"scores: got {scores!r}, expected several names such as ('el2n',)")
    names = runs.scores if scores is None else tuple(dict.fromkeys(scores))
    if not names:
        raise ValueError(f"scores: got none; the runs have {', '.join(runs.scores) or 'none in common'}")
    return names


def _between_scores(runs: RunSet, scores: str | Iterable[str] | None, executor: Executor | None) -> Correlation:
    names = check_names(runs, scores)
    of_means = spearman_matrix(np.stack([runs.difficulty(name) for name in names]))
    if len(runs) == 1 or not set(names) <= set(runs.scores):
        return Correlation(names, "scores", of_means, None)
    kept = [(_direction(name), ScoreOfRuns(runs, name)) for name in names]
    each = [tuple(range(len(names)))] * len(runs)
    return Correlation(names, "scores", of_means, _of_pairs(kept, each, len(names), executor))


def _between_architectures(runs: RunSet, score: str | Iterable[str] | None, executor: Executor | None) -> Correlation:
    if not isinstance(score, str):
        raise TypeError(f"scores: got {score!r}, expected one score, as in correlation(runs, 'el2n', between=...)")
    check_runs(runs, score, least=1)
    names, kinds = runs.architectures, architecture_of_runs(runs)
    of_means = spearman_matrix(np.stack([runs.where(architecture=name).mean(score) for name in names]))
    if len(runs) == 1:
        return Correlation(names, "architectures", of_means, None)
    each = [(int(kind),) for kind in kinds]
    of_runs = _of_pairs([(1.0, ScoreOfRuns(runs, score))], each, len(names), executor)
    return Correlation(names, "architectures", of_means, of_runs)


_Signed = tuple[float, ScoreOfRuns]
"""A score of the runs, and 1, or -1 to turn it."""


def _of_pairs(
    scores: Sequence[_Signed], kinds: Sequence[tuple[int, ...]], number: int, executor: Executor | None
) -> NDArray[Any]:
    """`PairSums.mean` over the runs, [K, K].

    Args:
        scores: k of each run.
        kinds: of each run, the kinds of these scores, k of 0..K-1.
        number: K.
    """
    sums = PairSums(number, scores[0][1].num_examples)
    parts = [[(sign, some, first) for first, some in pieces_of(kept)] for sign, kept in scores]
    pieces = []
    for of_scores in zip(*parts, strict=True):
        first, size = of_scores[0][2], len(of_scores[0][1])
        pieces.append(([(sign, some) for sign, some, _ in of_scores], kinds[first : first + size], number))
    for part in run_pieces(executor, _add_up, pieces):
        sums.merge(part)
    return sums.mean()


def _add_up(scores: Sequence[_Signed], kinds: Sequence[tuple[int, ...]], number: int) -> PairSums:
    """The sums over some of the runs; see `_of_pairs`."""

    def rank(item: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any]]:
        run, which = item
        sign, kept = scores[which]
        ranks, _, known = ranks_and_spread(sign * kept.read(run))
        return ranks, known

    sums = PairSums(number, scores[0][1].num_examples)
    ranked = in_threads(rank, itertools.product(range(len(kinds)), range(len(scores))))
    for of_run in kinds:
        sums.add(of_run, list(itertools.islice(ranked, len(scores))))
    return sums


def architecture_of_runs(runs: RunSet) -> NDArray[Any]:
    """Position of each run's architecture in `runs.architectures`, [R] int64."""
    positions = {name: position for position, name in enumerate(runs.architectures)}
    return np.array([positions[run.architecture] for run in runs])


def _direction(score: str) -> float:
    return 1.0 if SCORES[score].higher_is_harder else -1.0
