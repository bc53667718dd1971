"""What TDDS, dynamic uncertainty and DUAL need of each example's presentations, while a model trains."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from ..ops.layout import temporal_parts, temporal_width
from ..ops.operators import new_state, new_temporal_table, record_temporal_
from ..scores.temporal import TEMPORAL, TemporalOptions
from .growth import resized
from .records import copy_rows


class TemporalRecords:
    """What TDDS, dynamic uncertainty and DUAL need of each example's presentations.

    Memory is `TemporalOptions.bytes_per_example`: with windows of 10, 48 bytes per example for "dyn_unc" alone, 128 for
    "tdds" with 10 classes and 4,088 with 1,000; "dual" takes 4 bytes more than "dyn_unc".

    Args:
        num_examples: N.
        classes: C.
        names: which of "tdds", "dyn_unc" and "dual" to keep.
        device: where the logits will be.
        options: see `TemporalOptions`.

    Attributes:
        table: [N, width] float32, see `ops.temporal_parts`.
        dual: [N] float32, the sum over windows of what each adds to DUAL; None if it is not kept.

    Raises:
        ValueError: no name, or one that is not of these scores.

    >>> records = TemporalRecords(2, 2, ("dyn_unc",), torch.device("cpu"), TemporalOptions(window=3))
    >>> logits = torch.tensor([[0.0, 0.0], [0.0, 50.0], [50.0, 0.0]])
    >>> records.record(torch.tensor([1, 1, 1]), logits, torch.tensor([1, 1, 1])).scores()
    {'dyn_unc': tensor([   nan, 0.5000])}
    """

    def __init__(
        self,
        num_examples: int,
        classes: int,
        names: Collection[str],
        device: torch.device,
        options: TemporalOptions | None = None,
    ) -> None:
        self.options = options if options is not None else TemporalOptions()
        self.names = tuple(name for name in TEMPORAL if name in names)
        if not names or set(self.names) != set(names):
            raise ValueError(f"names: got {tuple(names)}, expected some of {TEMPORAL}")
        self.classes = classes
        kept = classes if "tdds" in names else None
        self.table = new_temporal_table(num_examples, self.options.window, kept, device)
        self.dual = new_state((num_examples,), torch.float32, device) if "dual" in self.names else None

    def record(
        self,
        index: Tensor,
        logits: Tensor,
        labels: Tensor,
        skipped: Tensor | None = None,
        records: Tensor | None = None,
        ignore_index: int | None = None,
    ) -> TemporalRecords:
        """Adds a presentation of the examples `index` [B], with logits [B, C]; see `ops.record_temporal_`."""
        window, decay = self.options.window, self.options.decay
        self._record_dual(index, logits, labels, records, ignore_index)
        record_temporal_(self.table, index, logits, labels, window, decay, skipped, records, ignore_index)
        return self

    def record_gathered(
        self,
        index: Tensor,
        logits: Tensor,
        labels: Tensor,
        skipped: Tensor,
        records: Tensor | None,
        ignore_index: int | None,
    ) -> None:
        """`record` of the rows of all processes of a group, each of which has checked its own; others only fill up."""
        self._record_dual(index, logits, labels, records, ignore_index)
        torch.ops.difficulty_prune.record_temporal_(
            self.table, index, logits, labels, self.options.window, self.options.decay, skipped, records, ignore_index
        )

    def _record_dual(
        self, index: Tensor, logits: Tensor, labels: Tensor, records: Tensor | None, ignore_index: int | None
    ) -> None:
        """Adds the windows that a batch completes to DUAL; the table is still that of before the batch."""
        if self.dual is not None:
            window = self.options.window
            torch.ops.difficulty_prune.record_dual_(
                self.dual, self.table, index, logits, labels, window, records, ignore_index
            )

    def resize(self, size: int) -> None:
        """From now on for so many examples; see `resized`."""
        self.table = resized(self.table, size)
        self.dual = None if self.dual is None else resized(self.dual, size)

    @property
    def count(self) -> Tensor:
        """[N] int32, presentations seen."""
        return self.table[:, 0].int()

    def scores(self) -> dict[str, Tensor]:
        """Each score [N] float32; NaN where there were fewer presentations than a window holds."""
        part = temporal_parts(self.table, self.options.window)
        windows = part["count"] - (self.options.window - 1)
        values = {"dyn_unc": part["deviations"] / windows}
        if "tdds" in self.names:
            values["tdds"] = part["average"]
        if self.dual is not None:
            values["dual"] = self.dual[:, None] / windows
        return {name: torch.where(windows > 0, values[name], torch.nan)[:, 0] for name in self.names}

    def take(self, other: TemporalRecords, here: Tensor, there: Tensor) -> None:
        """Takes over what another process kept of the examples [k] at its places `there`."""
        copy_rows(self, other, ("table",) if self.dual is None else ("table", "dual"), here, there)

    def merge(self, other: TemporalRecords) -> None:
        """Takes over what `other` has seen of examples that were never presented here.

        Raises:
            ValueError: see `check_merge`.
        """
        self.check_merge(other)
        theirs = other.table.to(self.table.device)
        seen = theirs[:, 0] > 0
        self.table[seen] = theirs[seen]
        if self.dual is not None and other.dual is not None:
            self.dual[seen] = other.dual.to(self.dual.device)[seen]

    def check_merge(self, other: TemporalRecords) -> None:
        """ValueError where both have seen the same example, or they keep different things."""
        own, got = self._kind(), other._kind()
        if own != got:
            raise ValueError(f"merge: got temporal records of {got}, expected {own}")
        both = ((other.table[:, 0] > 0).to(self.table.device) & (self.table[:, 0] > 0)).nonzero()[:, 0]
        if len(both):
            raise ValueError(
                f"merge: {len(both)} examples were presented to both, the first of them {int(both[0])}; windows span "
                "presentations in their order, and cannot be put together afterwards: let every presentation of an "
                f"example go to the same tracker, or do not track {' and '.join(self.names)}"
            )

    def _kind(self) -> dict[str, Any]:
        """What two states that can be merged have in common."""
        return {"examples": len(self.table), "classes": self.classes, "names": self.names, **self.options.definition}

    def state_dict(self) -> dict[str, Any]:
        """The state by name: table and dual (tensors), names, classes, window, decay."""
        kept = {"table": self.table, **({} if self.dual is None else {"dual": self.dual})}
        return {**kept, "names": self.names, "classes": self.classes, **self.options.definition}

    @staticmethod
    def check_state(state: Any, num_examples: int, options: TemporalOptions) -> None:
        """ValueError unless this is a `state_dict` of so many examples, recorded with these options."""
        keys = {"table", "names", "classes", *options.definition}
        if not isinstance(state, Mapping) or not keys <= set(state):
            raise ValueError(f"temporal_records: got {type(state).__name__}, expected a dict with {sorted(keys)}")
        recorded = {name: state[name] for name in options.definition}
        if recorded != options.definition:
            raise ValueError(
                f"the state was recorded with {TemporalOptions(**recorded)}, and cannot go on with {options}"
            )
        names, classes, table = state["names"], state["classes"], state["table"]
        if not names or not set(names) <= set(TEMPORAL) or type(classes) is not int or classes < 1:
            raise ValueError(f"temporal_records: got names {names!r} and classes {classes!r}")
        width = temporal_width(options.window, classes if "tdds" in names else None)
        if not isinstance(table, Tensor) or tuple(table.shape) != (num_examples, width) or table.dtype != torch.float32:
            got = f"shape {tuple(table.shape)}, {table.dtype}" if isinstance(table, Tensor) else type(table).__name__
            raise ValueError(f"temporal_records: table: got {got}, expected {(num_examples, width)}, torch.float32")
        if not bool((table[:, 0] >= 0).all()):  # NaN is not either
            raise ValueError("temporal_records.table: got counts below 0 or no numbers; the state is damaged")
        if "dual" in names:
            sums = state.get("dual")
            if not isinstance(sums, Tensor) or tuple(sums.shape) != (num_examples,) or sums.dtype != torch.float32:
                got = f"shape {tuple(sums.shape)}, {sums.dtype}" if isinstance(sums, Tensor) else type(sums).__name__
                raise ValueError(f"temporal_records: dual: got {got}, expected {(num_examples,)}, torch.float32")

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], options: TemporalOptions | None = None) -> TemporalRecords:
        """The inverse of `state_dict`. The table is copied, to where it was.

        Raises:
            ValueError: see `check_state`; the options are by default those in the state.
        """
        recorded = TemporalOptions(state["window"], state["decay"]) if options is None else options
        cls.check_state(state, len(state["table"]), recorded)
        table = state["table"]
        records = cls(len(table), state["classes"], state["names"], table.device, recorded)
        records.table.copy_(table)
        if records.dual is not None:
            records.dual.copy_(state["dual"])
        return records
