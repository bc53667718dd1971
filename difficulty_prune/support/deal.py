"""Deals items to processes so that what they got so far costs each of them about the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def deal(cost: NDArray[Any], ranks: int) -> NDArray[np.int64]:
    """The order [n] in which to take items of cost [n], so that number r of every `ranks` in a row is for process r.

    Items are dealt in their order, one to each process at a time: the most expensive of a round to the process that has
    got the least so far. At no time are the processes further apart than the items of a round ever are, since whoever
    is behind gets more. So any batches that they make of the same rounds cost about the same too, and where all items
    cost the same, the order stays as it was. What is left of the last round stays at the end.

    >>> deal(np.array([1.0, 5.0, 1.0, 4.0, 2.0]), 2).tolist()
    [0, 1, 3, 2, 4]
    """
    rounds = len(cost) // ranks
    rows = np.asarray(cost[: rounds * ranks], np.float64).reshape(rounds, ranks)
    cheapest_first = rows.argsort(1, kind="stable")
    costs = np.take_along_axis(rows, cheapest_first, 1)
    dealt = np.empty((rounds, ranks), np.int64)
    so_far = [0.0] * ranks
    for items, item_costs, got in zip(cheapest_first.tolist(), costs.tolist(), dealt, strict=True):
        richest_first = sorted(range(ranks), key=so_far.__getitem__, reverse=True)
        for rank, item, item_cost in zip(richest_first, items, item_costs, strict=True):
            got[rank] = item
            so_far[rank] += item_cost
    dealt += np.arange(rounds)[:, None] * ranks
    return np.concatenate([dealt.ravel(), np.arange(rounds * ranks, len(cost))])
