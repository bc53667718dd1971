"""Processes that are threads of one: what they sum up meets at a barrier."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import torch
from torch import Tensor


class Meeting:
    """Where as many threads as there are processes bring a tensor each, and take away what is made of all."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.brought: list[Any] = [None] * world
        self.barrier = Barrier(world, timeout=30)

    def meet(self, rank: int, values: Tensor, together: Callable[[Tensor], Tensor]) -> Tensor:
        self.brought[rank] = values
        self.barrier.wait()
        result = together(torch.stack(self.brought))
        self.barrier.wait()
        return result

    def reductions(self, rank: int) -> dict[str, Callable[[Tensor], Tensor]]:
        return {
            "sums": lambda values: self.meet(rank, values, lambda all_of_them: all_of_them.sum(0)),
            "largest": lambda values: self.meet(rank, values, lambda all_of_them: all_of_them.amax(0)),
        }


def run(world: int, work: Callable[..., Any]) -> list[Any]:
    """`work(rank, sums=, largest=)` of every process, by rank."""
    meeting = Meeting(world)

    def of(rank: int) -> Any:
        try:
            return work(rank, **meeting.reductions(rank))
        except Exception:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(world) as threads:
        return [future.result() for future in [threads.submit(of, rank) for rank in range(world)]]
