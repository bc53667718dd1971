"""Ways to choose the examples by which architectures are recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ..scores.catalogue import SCORES
from ..support.randomness import generator_from
from .groups import Groups
from .sensitive_examples import sensitive_examples

Select = Literal["sensitive", "random", "hardest", "pca"]

_PERMUTATIONS: Final = 1000
"""Each fold of a cross-validation tests all examples anew. These are enough to rank them, as the effect breaks ties."""


def check_select(select: str) -> None:
    """ValueError unless it is one of the ways."""
    if select not in get_args(Select):
        raise ValueError(f"select: got {select!r}, expected one of {', '.join(map(repr, get_args(Select)))}")


def rank_examples(groups: Groups, select: Select, seed: int, executor: Executor | None = None) -> NDArray[Any]:
    """Positions of all examples that every run presented, int64, those to choose first in front.

    "sensitive": by `sensitive_examples` with 1,000 permutations. "random": in random order. "hardest": by mean
    difficulty. "pca": by the share of the example's variance over runs that lies in the first G - 1 principal
    components of the runs, as many as it takes to tell G architectures apart.

    Args:
        executor: does the tests of `sensitive_examples`; the other ways cost little.
    """
    if select == "sensitive":
        return sensitive_examples(
            groups.runs, groups.score, permutations=_PERMUTATIONS, seed=seed, executor=executor
        ).index
    return _CHEAP[select](groups, seed)


def _random(groups: Groups, seed: int) -> NDArray[Any]:
    known = np.flatnonzero(groups.known())
    order = torch.randperm(len(known), generator=generator_from(seed), device="cpu")
    return np.take(known, order.numpy())


def _hardest(groups: Groups, seed: int) -> NDArray[Any]:
    sign = 1 if SCORES[groups.score].higher_is_harder else -1
    return _highest_first(_for_each(groups, lambda x: sign * x.mean(0)))


def _pca(groups: Groups, seed: int) -> NDArray[Any]:
    gram = np.zeros((len(groups.runs), len(groups.runs)))
    for _, x in groups.blocks():
        centred = x - x.mean(0)
        gram += centred @ centred.T
    components = np.linalg.eigh(gram)[1][:, 1 - len(groups.sizes) :]  # [R, G - 1], of the largest eigenvalues

    def share(x: NDArray[Any]) -> NDArray[Any]:
        centred = x - x.mean(0)
        total = np.where(np.ptp(x, axis=0) > 0, (centred**2).sum(0), np.inf)
        explained: NDArray[Any] = ((components.T @ centred) ** 2).sum(0)
        return explained / total

    return _highest_first(_for_each(groups, share))


_CHEAP: Final[Mapping[Select, Callable[[Groups, int], NDArray[Any]]]] = {
    "random": _random,
    "hardest": _hardest,
    "pca": _pca,
}


def _for_each(groups: Groups, function: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """The function's result for the scores [R, n] of examples, [N]; NaN where a run did not present the example."""
    values = np.full(groups.runs.num_examples, np.nan)
    for positions, x in groups.blocks():
        values[positions] = function(x)
    return values


def _highest_first(values: NDArray[Any]) -> NDArray[Any]:
    order = np.argsort(-values, kind="stable")  # NaN last
    return order[: len(values) - int(np.isnan(values).sum())]
