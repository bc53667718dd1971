"""Which examples the audit page shows: those of its views, as many as are asked for."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from ..support.randomness import generator_from
from .known import Known, disagreement

_STRATUM = 3  # the purpose of the generator


@dataclasses.dataclass(frozen=True)
class Shown:
    """The m examples of the page, and the random stratum among them.

    Attributes:
        rows: [m] int64, places among the known examples, most likely wrong first.
        sampled: [s] int64, places among the known examples, drawn at random without looking at their scores, in the
            order in which they are to be looked at.
    """

    rows: NDArray[np.int64]
    sampled: NDArray[np.int64]


def choose(known: Known, most: int, sampled: int, seed: int) -> Shown:
    """All examples if there are no more than `most`; else the random stratum, and of each view the first in turn."""
    size = len(known)
    order = hardest_first(known.difficulty)
    scored = np.flatnonzero(~np.isnan(known.difficulty))
    shuffled = torch.randperm(len(scored), generator=generator_from(seed, _STRATUM), device="cpu").numpy()
    stratum = scored[shuffled[: min(sampled, most)]]
    if size <= most:
        return Shown(order, stratum)
    chosen = dict.fromkeys(stratum.tolist())
    queues = [iter(view.tolist()) for view in _views(known, order)]
    while len(chosen) < most and queues:
        for queue in list(queues):
            fresh = next((row for row in queue if row not in chosen), None)
            if fresh is None:
                queues.remove(queue)
            elif len(chosen) < most:
                chosen[fresh] = None
    kept = np.zeros(size, bool)
    kept[list(chosen)] = True
    return Shown(order[kept[order]], stratum)


def hardest_first(difficulty: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions by falling difficulty, the lower position first on a tie, NaN last.

    >>> hardest_first(np.array([0.5, np.nan, 1.0, 0.5])).tolist()
    [2, 0, 3, 1]
    """
    return np.argsort(np.where(np.isnan(difficulty), np.inf, -difficulty), kind="stable")


def _views(known: Known, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each view, first things first."""
    views = [order, _by_class(known.label, order), order[::-1]]
    if known.suggested is not None:
        other = (known.suggested >= 0) & (known.suggested != known.label)
        views.append(np.flatnonzero(other)[hardest_first(known.probability[other])])
    if len(known.by_architecture) > 1:
        views.append(hardest_first(disagreement(known)))
    if known.dropped is not None:
        views.append(order[known.dropped[order]])
    return views


def _by_class(label: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The hardest of each class, then the second of each, and so on."""
    of_class = label[order]
    by_class = np.argsort(of_class, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(of_class[by_class]) != 0])
    lengths = np.diff(np.r_[starts, len(order)])
    rank = np.empty(len(order), np.int64)
    rank[by_class] = np.arange(len(order)) - np.repeat(starts, lengths)
    return order[np.argsort(rank, kind="stable")]
