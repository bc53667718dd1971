"""An index for samples that have only ids: each new id gets the next one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from ..support.ids import as_objects, id_array


class StreamIndex:
    """Gives each new id the next index 0, 1, 2, ..., so that a tracker can record samples of a stream.

    It belongs to the process that trains: workers pass ids on, and batches are indexed when they arrive. Every process
    of a group has its own; their runs are joined by ids. An id takes about 100 bytes and its text.

    >>> index = StreamIndex()
    >>> index(["cat/1", "dog/7"]), index(["dog/7", "ape/3"])
    (tensor([0, 1]), tensor([1, 2]))
    >>> index.ids.tolist()
    ['cat/1', 'dog/7', 'ape/3']
    """

    def __init__(self) -> None:
        self._places: dict[str | int, int] = {}

    def __call__(self, ids: Any) -> Tensor:
        """The index of each id of a batch, [B] int64 on the CPU, for `tracker.update(index, ...)`.

        Args:
            ids: [B] texts or whole numbers, as a loader collates them.

        Raises:
            TypeError: ids that are neither, or of another kind than those before.
            RuntimeError: in a worker of a loader, whose index other workers would not know.
        """
        if get_worker_info() is not None:
            raise RuntimeError(
                "StreamIndex: called in a worker of a DataLoader, where each worker would give the same indices to "
                "other samples; let the workers pass ids on, and call it in the training loop: index(batch['id'])"
            )
        names = id_array(ids)
        first = next(iter(self._places), None)
        if first is not None and len(names) and isinstance(first, str) != (names.dtype == object):
            raise TypeError(
                f"ids: got {names[:1].tolist()[0]!r}, but those before are of another kind, such as {first!r}"
            )
        places = self._places
        return torch.tensor([places.setdefault(name, len(places)) for name in names.tolist()], dtype=torch.int64)

    @property
    def ids(self) -> NDArray[Any]:
        """[N] texts (dtype object) or int64, in order of their index, for `tracker.finish(ids=...)`."""
        names: list[Any] = list(self._places)
        return as_objects(names) if names and isinstance(names[0], str) else np.array(names, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"StreamIndex({len(self):,} ids)"

    def state_dict(self) -> dict[str, Any]:
        """The ids in order, to be saved beside the tracker's state."""
        return {"ids": list(self._places)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the place of all ids so far; ValueError or TypeError for ids that are malformed or occur twice."""
        if not isinstance(state, Mapping) or "ids" not in state:
            got = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"load_state_dict: got {got}, expected what StreamIndex.state_dict gives")
        names = id_array(state["ids"]).tolist()
        places = {name: place for place, name in enumerate(names)}
        if len(places) < len(names):
            raise ValueError(f"ids: {len(names) - len(places)} of {len(names)} occur twice, expected each once")
        self._places = places
