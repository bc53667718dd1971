"""Which examples of today's data are meant: by id, or by position."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..identity import Identity
from ..support.counted import counted
from ..support.name_some import name_some
from ..support.plain import plain_fields
from .entry import Entry


@dataclasses.dataclass(frozen=True)
class Check:
    """What decisions say of today's data, in words and as a dict.

    Attributes:
        decisions: how many there are.
        examples: N.
        position: [decisions] int64, the example that each means; -1 where the data lacks its id.
        missing: the ids that the data lacks.
        by_index: decisions that name their example by its position alone, which are right as long as nothing is added,
            removed or reordered.
    """

    decisions: int
    examples: int
    position: NDArray[np.int64]
    missing: tuple[str | int, ...]
    by_index: int

    def __str__(self) -> str:
        found = self.decisions - len(self.missing)
        are = "is" if found == 1 else "are"
        text = f"{found:,} of {counted(self.decisions, 'decision')} {are} of examples of this data "
        text += f"({counted(self.examples, 'example')})"
        if self.missing:
            text += (
                f"; {counted(len(self.missing), 'is of an id', 'are of ids')} that it lacks: {name_some(self.missing)}"
            )
        if self.by_index:
            text += f"; {counted(self.by_index, 'names its', 'name their')} example by position alone"
        return text

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the positions."""
        return plain_fields(self, leave_out=["position"])


def check_entries(entries: Sequence[Entry], data: Identity) -> Check:
    """Finds the examples that are meant.

    Raises:
        ValueError: a position outside the data; ids, and the data has none; or two entries that mean the same example
            and contradict each other.
    """
    named = {str(entry.id): row for row, entry in enumerate(entries) if entry.id is not None}
    if named and data.ids is None:
        first = next(entry for entry in entries if entry.id is not None)
        raise ValueError(
            f"{first.place} names its example by the id {first.id!r}, but the data has no ids: wrap it in "
            "dp.IndexedDataset(dataset, key=...), or give decisions by index alone"
        )
    position = np.full(len(entries), -1, np.int64)
    if named and data.ids is not None:
        for place, name in enumerate(data.ids):
            row = named.get(str(name))
            if row is not None:
                position[row] = place
    for row, entry in enumerate(entries):
        if entry.id is None and entry.index is not None:
            if entry.index >= data.size:
                raise ValueError(
                    f"{entry.place} is of index {entry.index}, but the data has {data.size} examples, "
                    f"0..{data.size - 1}"
                )
            position[row] = entry.index
    _check_agreement(entries, position)
    missing = tuple(e.id for e, p in zip(entries, position, strict=True) if p < 0 and e.id is not None)
    by_index = sum(entry.id is None for entry in entries)
    return Check(len(entries), data.size, position, missing, by_index)


def _check_agreement(entries: Sequence[Entry], position: NDArray[np.int64]) -> None:
    """ValueError where one entry means by its id, and another by its index, the same example, and they differ."""
    known: dict[int, Entry] = {}
    for entry, place in zip(entries, position.tolist(), strict=True):
        other = known.setdefault(place, entry) if place >= 0 else entry
        if other.said != entry.said:
            raise ValueError(
                f"{other.place} ({other.name}) and {entry.place} ({entry.name}) are of the same example and contradict "
                f"each other: {other.said} and {entry.said}"
            )
