"""An iterable dataset whose samples a pruner has chosen."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from .stream_pruner import StreamPruner


class PrunedStream(IterableDataset[Any]):
    """What a pruner keeps of an iterable dataset, each sample with its weight; see `StreamPruner.pipe`.

    For datasets whose pipelines take no function, such as MosaicML's `StreamingDataset` or an `IterableDataset` of your
    own. It shares nothing out: the dataset does so among workers and processes, as without it. Where epochs differ, a
    second pass without `pruner.set_epoch` in between warns, since it keeps the same samples as the first.

    >>> import tempfile
    >>> from difficulty_prune.policies import Easiest
    >>> from difficulty_prune.streams.inclusion_table import InclusionTable
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = InclusionTable.build(f"{folder}/table", [7, 8, 9], Easiest(0.6), [0.1, 0.9, 0.5])
    ...     list(PrunedStream([(7, "x"), (8, "y"), (9, "z")], StreamPruner(table, key=0)))
    [(7, 'x', 1.0), (9, 'z', 1.0)]
    """

    def __init__(self, dataset: Iterable[Any], pruner: StreamPruner) -> None:
        self.dataset = dataset
        self.pruner = pruner
        # Of the pass that ended last: the process that trains, and its calls of set_epoch. Workers see the same memory.
        self._ended = torch.full((2,), -1, dtype=torch.int64, device="cpu").share_memory_()

    def __iter__(self) -> Iterator[Any]:
        now = self._now()
        if now is not None and now == self._ended.tolist():
            warnings.warn(
                f"epoch {self.pruner.epoch} is read once more, which keeps the same samples; call "
                "pruner.set_epoch(epoch) before each pass",
                stacklevel=2,
            )
        yield from self.pruner.pipe(self.dataset)
        if now is not None:
            self._ended.copy_(torch.tensor(now, device="cpu"))

    def _now(self) -> list[int] | None:
        """What tells passes of one epoch from others; None where they need not be told, or the first worker does."""
        worker = get_worker_info()
        if not self.pruner.epochs_differ or (worker is not None and worker.id > 0):
            return None
        # Processes that a training process forked share the memory too, but each has passes of its own.
        return [os.getpid() if worker is None else os.getppid(), self.pruner.times_set]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self._ended.is_shared():  # a copy, as from a file, of which no pass has ended
            self._ended = torch.full_like(self._ended, -1).share_memory_()
