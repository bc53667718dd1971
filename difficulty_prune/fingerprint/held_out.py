"""Recognising held-out runs, which neither chose the examples nor trained the classifier, by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..support.randomness import generator_from
from .classifier import Classifier
from .groups import Groups

_MOST_FOLDS: Final = 10
"""Ten folds learn from nine tenths of the runs, and more folds cost more: each one tests all examples again."""

Ranking = Callable[[Groups], NDArray[Any]]
"""From the runs to learn from, the positions of examples, the best first."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """How each run fared while it was held out.

    Attributes:
        correct: [R] bool, whether its architecture was recognised.
        distance: [R] float64, to the centre of its own architecture.
    """

    correct: NDArray[Any]
    distance: NDArray[Any]


def recognise_held_out(
    groups: Groups, ranking: Ranking, sizes: Iterable[int], known: NDArray[Any], seed: int
) -> Mapping[int, HeldOut]:
    """Holds every run out once. For each size k, the other runs alone choose the k best examples.

    Args:
        known: [N] bool, the examples to choose from.
    """
    sizes, group = tuple(sizes), groups.members
    folds = min(_MOST_FOLDS, *groups.sizes)
    fold = split_runs(groups, folds, seed)
    outcomes = {k: HeldOut(np.zeros(len(group), bool), np.zeros(len(group))) for k in sizes}
    for held in (fold == f for f in range(folds)):
        x = groups.matrix(choose(ranking, groups.subset(~held), max(sizes), known))
        for k, outcome in outcomes.items():
            classifier = Classifier.fit(x[~held, :k], group[~held])
            outcome.correct[held] = classifier.probabilities(x[held, :k]).argmax(1) == group[held]
            outcome.distance[held] = classifier.distance(x[held, :k], group[held])
    return outcomes


def choose(ranking: Ranking, groups: Groups, size: int, known: NDArray[Any]) -> NDArray[Any]:
    """Positions [size] of the examples that these runs rank best, among the known ones [N]."""
    ranked = ranking(groups)
    chosen: NDArray[Any] = ranked[known[ranked]][:size]
    return chosen


def always(examples: NDArray[Any]) -> Ranking:
    """The ranking that is the same whatever the runs."""
    return lambda groups: examples


def split_runs(groups: Groups, parts: int, seed: int) -> NDArray[Any]:
    """[R] int64, a random part of `parts` for each run; parts differ by at most one run within each architecture."""
    draws = torch.rand(len(groups.runs), generator=generator_from(seed, 1), dtype=torch.float64, device="cpu").numpy()
    part = np.empty(len(draws), np.int64)
    part[np.lexsort((draws, groups.members))] = np.arange(len(draws)) % parts
    return part
