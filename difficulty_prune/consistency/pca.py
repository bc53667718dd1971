"""Principal components of difficulty: how many notions of it the scores hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..support.plain import plain_fields
from ..support.ranks import rank_rows
from .correlation import check_names
from .streams import check_run_set, count, percent

_MOST, _MORE_THAN_HALF = 0.75, 0.5
"""Shares of the variance from which the text says that one notion of difficulty explains most of it, or more than half.
Words for people, not a test: the text gives the exact share as well."""

_NO_VARIANCE: Final = 1e-12
"""Of a variable with variance 1, what only rounding leaves."""


@dataclass(frozen=True, eq=False)
class PCA:
    """Principal components of K mean difficulties.

    Attributes:
        names: of the K variables: the score, and the architecture if there are several.
        explained: [K] float64, shares of the variance, descending, with sum 1.
        loadings: [K, K] float64, a component per row, a variable per column; rows have length 1, and the largest entry
            of each is positive, so that the first component is high where examples are hard.
        component: [N] float64, the first component of each example, one notion of difficulty; NaN where a variable is.
    """

    names: tuple[str, ...]
    explained: NDArray[Any]
    loadings: NDArray[Any]
    component: NDArray[Any]

    def __str__(self) -> str:
        first = self.explained[0]
        of = count(len(self.names), "score")
        if any(", " in name for name in self.names):
            of = f"{len(self.names)} pairs of score and architecture"
        text = f"The first component explains {percent(first)} of the variance of {of}"
        if len(self.names) == 1:
            return text + ": with only one there is nothing to compare."
        if first >= _MOST:
            return text + ": one notion of difficulty explains most."
        if first >= _MORE_THAN_HALF:
            return text + ": one notion of difficulty explains more than half, and they differ in the rest."
        return text + ": they hold several notions of difficulty."

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, as JSON can hold them, without the values of single examples."""
        return plain_fields(self, leave_out=("component",))


def pca(runs: RunSet, scores: Iterable[str] | None = None) -> PCA:
    """Principal components of mean difficulties, whose ranks are first turned into normal values (arXiv 2401.01867).

    Each score of each architecture is a variable; so is each score of many runs together or of a table. It takes no
    executor: most of the work is reading every score once for its means, 2 s for 300 runs of a million examples.

    Args:
        scores: names that `runs.difficulty` knows; default: `runs.scores`.

    Raises:
        TypeError, ValueError: a string, no score or an unknown one, fewer than two examples with a value in every
            variable, or variables that are all the same for all examples.

    >>> from difficulty_prune import Run
    >>> hard = np.arange(5.0)
    >>> runs = RunSet([Run({"el2n": hard, "confidence": -(hard**3)}, architecture="mlp", seed=0)])
    >>> found = pca(runs)
    >>> print(found)
    The first component explains 100 % of the variance of 2 scores: one notion of difficulty explains most.
    >>> found.loadings[0].round(3), found.component.argsort()
    (array([0.707, 0.707]), array([0, 1, 2, 3, 4]))
    """
    check_run_set(runs)
    names, difficulty = _variables(runs, check_names(runs, scores))
    known = ~np.isnan(difficulty).any(0)
    if known.sum() < 2:
        raise ValueError(f"pca: {int(known.sum())} examples have a value in all variables, expected at least 2")
    normal = normal_scores(difficulty if known.all() else difficulty[:, known])
    variances, vectors = np.linalg.eigh(normal @ normal.T / known.sum())
    variances, loadings = np.maximum(variances[::-1], 0), vectors.T[::-1]
    if variances[0] < _NO_VARIANCE:
        raise ValueError(f"pca: {', '.join(names)} are equal for all examples: there is no variance to explain")
    loadings = loadings * np.sign(loadings[np.arange(len(loadings)), np.abs(loadings).argmax(1)])[:, None]
    component = np.full(runs.num_examples, np.nan)
    component[known] = loadings[0] @ normal
    return PCA(names, variances / variances.sum(), loadings, component)


def normal_scores(values: NDArray[Any]) -> NDArray[Any]:
    """Each row of [K, N] as standard normal values in the same order, centred; equal values stay equal."""
    from scipy.special import ndtri

    normal = rank_rows(values)  # and on in place: K N numbers may be many
    normal -= 0.5
    normal /= values.shape[1]
    ndtri(normal, out=normal)
    normal -= normal.mean(1, keepdims=True)
    return normal


def _variables(runs: RunSet, names: Iterable[str]) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Their names, and the difficulty of each, [K, N]."""
    found = dict(_each_variable(runs, names))
    return tuple(found), np.stack(list(found.values()))


def _each_variable(runs: RunSet, names: Iterable[str]) -> Iterator[tuple[str, NDArray[Any]]]:
    several = len(runs.architectures) > 1
    for name in names:
        if several and name in runs.scores:
            for architecture in runs.architectures:
                yield f"{name}, {architecture}", runs.where(architecture=architecture).difficulty(name)
        else:
            yield name, runs.difficulty(name)
