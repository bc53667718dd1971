"""Streams with ids, split among workers and processes, and a table that keeps a part of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import IterableDataset, get_worker_info

import difficulty_prune as dp
from difficulty_prune.policies.weighted import SoftPrune

SIZE = 240
NAMES = [f"shard-{i // 40}/{i:04d}" for i in range(SIZE)]
DIFFICULTY = torch.rand(SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Stream(IterableDataset):
    """Samples {"id", "x"}, every `world`-th from `rank` on, shared out among workers, in an order of its own."""

    def __init__(self, pruner=None, *, rank: int = 0, world: int = 1, step: int = 1) -> None:
        self.pruner, self.rank, self.world, self.step = pruner, rank, world, step

    def read(self) -> Iterator[dict]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for i in range(self.rank + self.world * number, SIZE, self.world * workers):
            place = i * self.step % SIZE
            yield {"id": NAMES[place], "x": float(place)}

    def __iter__(self) -> Iterator[dict]:
        return self.read() if self.pruner is None else self.pruner.pipe(self.read())


def table_of(path, policy=None, known: int = SIZE) -> dp.InclusionTable:
    return dp.InclusionTable.build(path, NAMES[:known], policy or SoftPrune(0.5), DIFFICULTY[:known])


def sample_id(sample) -> str:
    return sample["id"]


def expected(pruner, epoch: int) -> dict[str, float]:
    """What is kept of the whole stream, and its weight, by the vectorised way."""
    keep, weight = pruner.decide(NAMES, epoch)
    return {name: w for name, k, w in zip(NAMES, keep.tolist(), weight.tolist(), strict=True) if k}
