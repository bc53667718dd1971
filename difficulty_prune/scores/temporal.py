"""Scores of how an example's predictions change over time: TDDS and dynamic uncertainty."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from .. import ops
from ..ops.reference import log_probabilities, spread

TEMPORAL: Final = ("tdds", "dyn_unc")
"""The scores of this file."""


@dataclass(frozen=True)
class TemporalOptions:
    """How TDDS and dynamic uncertainty look at an example's presentations.

    Attributes:
        window: presentations that are looked at together, at least 3: two hold a single change, which cannot deviate
            from its own mean. An example that was presented less often has no score.
        decay: weight of the newest window in the moving average of TDDS, in (0, 1]; dynamic uncertainty has none.

    Raises:
        ValueError: a window or a decay outside these.

    >>> TemporalOptions().bytes_per_example(("dyn_unc",), classes=10)
    48
    >>> TemporalOptions().bytes_per_example(("tdds", "dyn_unc"), classes=10)
    128
    """

    window: int = 10
    decay: float = 0.9

    def __post_init__(self) -> None:
        ops.check_temporal(self.window, self.decay)

    @property
    def definition(self) -> dict[str, Any]:
        """The options that change the numbers: all."""
        return asdict(self)

    def bytes_per_example(self, names: Collection[str], classes: int) -> int:
        """Memory for one example: 4 (window + 2) for "dyn_unc" alone, 4 (2 window + classes + 2) with "tdds"."""
        width = ops.temporal_width(self.window, classes if "tdds" in names else None)
        return width * torch.float32.itemsize


class TemporalRecords:
    """What TDDS and dynamic uncertainty need of each example's presentations.

    Memory is `TemporalOptions.bytes_per_example`: with windows of 10, 48 bytes per example for "dyn_unc" alone, 128 for
    "tdds" with 10 classes and 4,088 with 1,000.

    Args:
        num_examples: N.
        classes: C.
        names: which of "tdds" and "dyn_unc" to keep.
        device: where the logits will be.
        options: see `TemporalOptions`.

    Attributes:
        table: [N, width] float32, see `ops.temporal_parts`.

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
            raise ValueError(f"names: got {tuple(names)}, expected one or both of {TEMPORAL}")
        self.classes = classes
        kept = classes if "tdds" in names else None
        self.table = ops.new_temporal_table(num_examples, self.options.window, kept, device)

    def record(self, index: Tensor, logits: Tensor, labels: Tensor, skipped: Tensor | None = None) -> TemporalRecords:
        """Adds a presentation of the examples `index` [B], with logits [B, C]; see `ops.record_temporal_`."""
        window, decay = self.options.window, self.options.decay
        ops.record_temporal_(self.table, index, logits, labels, window, decay, skipped)
        return self

    @property
    def count(self) -> Tensor:
        """[N] int32, presentations seen."""
        return self.table[:, 0].int()

    def scores(self) -> dict[str, Tensor]:
        """Each score [N] float32; NaN where there were fewer presentations than a window holds."""
        part = ops.temporal_parts(self.table, self.options.window)
        windows = part["count"] - (self.options.window - 1)
        values = {"dyn_unc": part["deviations"] / windows}
        if "tdds" in self.names:
            values["tdds"] = part["average"]
        return {name: torch.where(windows > 0, values[name], torch.nan)[:, 0] for name in self.names}

    def merge(self, other: TemporalRecords) -> None:
        """Takes over what `other` has seen of examples that were never presented here.

        Raises:
            ValueError: both have seen the same example, or they keep different things.
        """
        own, got = self._kind(), other._kind()
        if own != got:
            raise ValueError(f"merge: got temporal records of {got}, expected {own}")
        theirs = other.table.to(self.table.device)
        seen = theirs[:, 0] > 0
        both = (seen & (self.table[:, 0] > 0)).nonzero()[:, 0]
        if len(both):
            raise ValueError(
                f"merge: {len(both)} examples were presented to both, the first of them {int(both[0])}; windows span "
                "presentations in their order, and cannot be put together afterwards: let every presentation of an "
                f"example go to the same tracker, or do not track {' and '.join(self.names)}"
            )
        self.table[seen] = theirs[seen]

    def _kind(self) -> dict[str, Any]:
        """What two states that can be merged have in common."""
        return {"examples": len(self.table), "classes": self.classes, "names": self.names, **self.options.definition}

    def state_dict(self) -> dict[str, Any]:
        """The state by name: table (a tensor), names, classes, window, decay."""
        return {"table": self.table, "names": self.names, "classes": self.classes, **self.options.definition}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], options: TemporalOptions | None = None) -> TemporalRecords:
        """The inverse of `state_dict`. The table is copied, to where it was.

        Raises:
            ValueError: the state was recorded with other options, or its table does not fit the rest of it.
        """
        recorded = TemporalOptions(state["window"], state["decay"])
        if options not in (None, recorded):
            raise ValueError(f"the state was recorded with {recorded}, and cannot go on with {options}")
        table = state["table"]
        records = cls(len(table), state["classes"], state["names"], table.device, recorded)
        if table.shape != records.table.shape:
            raise ValueError(f"table: got shape {tuple(table.shape)}, expected {tuple(records.table.shape)}")
        records.table.copy_(table)
        return records


def tdds(logits: Tensor, window: int = 10, decay: float = 0.9) -> Tensor:
    """TDDS (Zhang et al. 2024, arXiv 2311.13613) of trajectories in memory.

    The change from one presentation to the next is sum_c p_t |log p_t - log p_(t-1)|. A window of presentations holds
    one change less; the score is the moving average over windows, the newest weighing `decay`, of the Euclidean norm of
    the changes' deviations from their mean. (The authors' script measures the first window at every step; here the
    window moves on, as the paper says.) A log-probability below -1e16 counts as -1e16.

    Args:
        logits: [T, N, C] floating point, T presentations of N examples in order.
        window: presentations in a window, at least 3.
        decay: weight of the newest window, in (0, 1].

    Returns:
        [N] float32; NaN where T < window.

    Raises:
        TypeError, ValueError: wrong type, dtype, shape, window or decay, or a value that is not finite.

    >>> tdds(torch.zeros(4, 2, 3), window=3)
    tensor([0., 0.])
    """
    ops.check_temporal(window, decay)
    _check_trajectory(logits, "logits", "[T, N, C]", 3)
    if logits.shape[2] == 0:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, expected at least one class")
    log_p = log_probabilities(logits)
    changes = (log_p[1:].exp() * (log_p[1:] - log_p[:-1]).abs()).sum(2)
    if len(logits) < window:
        return changes.new_full(logits.shape[1:2], torch.nan)
    average = torch.zeros_like(changes[0])
    for deviation in spread(changes.unfold(0, window - 1, 1)):
        average = (1 - decay) * average + decay * deviation
    return average


def dyn_unc(p_label: Tensor, window: int = 10) -> Tensor:
    """Dynamic uncertainty (He et al. 2024, arXiv 2306.05175) of trajectories in memory.

    The mean over all T - window + 1 windows of the standard deviation (ddof 1) of the label's probability.

    Args:
        p_label: [T, N] floating point, the probability of the label at T presentations of N examples in order.
        window: presentations in a window, at least 3.

    Returns:
        [N] float32; NaN where T < window.

    Raises:
        TypeError, ValueError: wrong type, dtype, shape or window, or a value outside 0..1.

    >>> dyn_unc(torch.tensor([[0.5], [1.0], [0.0], [0.5]]), window=3)
    tensor([0.5000])
    """
    ops.check_temporal(window, decay=1)
    _check_trajectory(p_label, "p_label", "[T, N]", 2)
    if p_label.numel() and not (p_label.min() >= 0 and p_label.max() <= 1):
        got = f"{p_label.min():g} to {p_label.max():g}"
        raise ValueError(f"p_label: got values from {got}, expected probabilities (the softmax of the logits)")
    if len(p_label) < window:
        return p_label.new_full(p_label.shape[1:], torch.nan, dtype=torch.float32)
    deviations: Tensor = spread(p_label.float().unfold(0, window, 1)) / (window - 1) ** 0.5
    return deviations.mean(0)


def _check_trajectory(values: Tensor, name: str, shape: str, dims: int) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name}: got {type(values).__name__}, expected a torch.Tensor")
    if not values.dtype.is_floating_point:
        raise TypeError(f"{name}: got {values.dtype}, expected a floating-point dtype")
    if values.dim() != dims:
        raise ValueError(f"{name}: got shape {tuple(values.shape)}, expected {shape}, presentations first")
    if not values.isfinite().all():
        raise ValueError(f"{name}: got {int((~values.isfinite()).sum())} values that are not finite, expected none")
