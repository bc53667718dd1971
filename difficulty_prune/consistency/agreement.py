"""How far the runs agree."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..files import Array
from ..ranks import spearman_matrix
from ..runs import RunSet


def run_agreement(runs: RunSet, score: str) -> Array:
    """Spearman correlation of each run with the mean of all runs (arXiv 2401.01867), [R] float64.

    Over the examples that the run presented. The mean holds the run itself, so with few runs this flatters: a single
    run agrees fully with itself.

    >>> from difficulty_prune import Run
    >>> runs = RunSet(Run({"el2n": e}, architecture="mlp", seed=0) for e in ([0.1, 0.2, 0.9], [0.1, 0.5, 0.4]))
    >>> run_agreement(runs, "el2n").round(2)
    array([1. , 0.5])
    """
    mean = runs.mean(score)
    return np.array([spearman_matrix(np.stack([run, mean]))[0, 1] for run in runs.matrix(score)])


def score_correlation(runs: RunSet, scores: Iterable[str] | None = None) -> Array:
    """Spearman correlation between the mean difficulties of several scores, [S, S] float64.

    Args:
        scores: names that `runs.difficulty` knows; default: `runs.scores`.
    """
    if isinstance(scores, str):
        raise TypeError(f"scores: got the string {scores!r}, expected several names such as ({scores!r},)")
    names = runs.scores if scores is None else tuple(scores)
    if not names:
        raise ValueError(f"scores: got none; the runs have {', '.join(runs.scores)}")
    return spearman_matrix(np.stack([runs.difficulty(name) for name in names]))
