"""An iterable dataset whose samples a pruner has chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import IterableDataset

from .stream_pruner import StreamPruner


class PrunedStream(IterableDataset[Any]):
    """What a pruner keeps of an iterable dataset, each sample with its weight; see `StreamPruner.pipe`.

    For datasets whose pipelines take no function, such as MosaicML's `StreamingDataset` or an `IterableDataset` of your
    own. It shares nothing out: the dataset does so among workers and processes, as without it.

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

    def __iter__(self) -> Iterator[Any]:
        return self.pruner.pipe(self.dataset)
