"""How well each run correlates with the mean of all."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..runs.score_of_runs import ScoreOfRuns, pieces_of
from ..support.pieces import check_executor, in_threads, run_pieces
from ..support.ranks import dot, spearman_matrix
from .streams import check_runs, ranks_and_spread


def run_agreement(runs: RunSet, score: str, *, executor: Executor | None = None) -> NDArray[Any]:
    """Spearman correlation of each run with the mean of all runs (arXiv 2401.01867), [R] float64.

    Over the examples that the run presented; NaN for a run whose values are all equal. The mean includes the run
    itself, so with few runs this flatters: a single run correlates perfectly with itself.

    Args:
        executor: does the work in pieces; see `reliability`.

    Raises:
        TypeError, ValueError: not a RunSet or not an executor, or a score that not every run has.

    >>> from difficulty_prune import Run
    >>> runs = RunSet(Run({"el2n": e}, architecture="mlp", seed=0) for e in ([0.1, 0.2, 0.9], [0.1, 0.5, 0.4]))
    >>> run_agreement(runs, "el2n").round(2)
    array([1. , 0.5])
    """
    check_runs(runs, score, least=1)
    check_executor(executor)
    mean = runs.mean(score)
    pieces = ((some, mean) for _, some in pieces_of(ScoreOfRuns(runs, score)))
    return np.concatenate(list(run_pieces(executor, _agreement_of_some, pieces)))


def _agreement_of_some(kept: ScoreOfRuns, mean: NDArray[Any]) -> NDArray[Any]:
    of_mean = ranks_of_mean(mean)

    def agreement(run: int) -> float:
        values = kept.read(run)
        ranks, _, known = ranks_and_spread(values)
        return correlate(values, ranks, known, mean, of_mean)

    return np.array(list(in_threads(agreement, range(len(kept)))))


def ranks_of_mean(mean: NDArray[Any]) -> NDArray[Any] | None:
    """Standard ranks [N]; None if the mean is not known for some examples."""
    ranks, _, known = ranks_and_spread(mean)
    return ranks if known.all() else None


def correlate(
    values: NDArray[Any], ranks: NDArray[Any], known: NDArray[Any], mean: NDArray[Any], of_mean: NDArray[Any] | None
) -> float:
    """Spearman correlation of a run [N] with the mean [N], over what the run presented; NaN if one of them is constant.

    Args:
        ranks, known: of the run, from `ranks_and_spread`.
        of_mean: from `ranks_of_mean`.
    """
    if of_mean is None or not known.all():
        return float(spearman_matrix(np.stack([values, mean]))[0, 1])
    norm = dot(ranks, ranks) * dot(of_mean, of_mean)
    return float(np.clip(dot(ranks, of_mean) / np.sqrt(norm), -1, 1)) if norm > 0 else float("nan")
