"""How well each run correlates with the mean of all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..support.ranks import spearman_matrix
from .streams import check_runs, read


def run_agreement(runs: RunSet, score: str) -> NDArray[Any]:
    """Spearman correlation of each run with the mean of all runs (arXiv 2401.01867), [R] float64.

    Over the examples that the run presented; NaN for a run whose values are all equal. The mean includes the run
    itself, so with few runs this flatters: a single run correlates perfectly with itself.

    Raises:
        TypeError, ValueError: not a RunSet, or a score that not every run has.

    >>> from difficulty_prune import Run
    >>> runs = RunSet(Run({"el2n": e}, architecture="mlp", seed=0) for e in ([0.1, 0.2, 0.9], [0.1, 0.5, 0.4]))
    >>> run_agreement(runs, "el2n").round(2)
    array([1. , 0.5])
    """
    check_runs(runs, score, least=1)
    mean = runs.mean(score)
    return np.array([spearman_matrix(np.stack([read(runs, r, score), mean]))[0, 1] for r in range(len(runs))])
