"""Presentations that could not be recorded, counted by reason where they are left out."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.operators import new_skipped
from .group import Group


class SkippedCounts:
    """Counters [4] int64 in the order of `ops.SKIPPED`, apart because each may be changed by a graph of its own.

    Attributes:
        update: what `update` left out, in this process and, of a group, in all.
        watch: what the backward pass left out in this process.
        unreported: overflows under a gradient scaler, which leaves such steps out itself, and what another kernel of
            the same step has counted already.
    """

    def __init__(self, device: torch.device) -> None:
        self.update, self.watch, self.unreported = (new_skipped(device) for _ in range(3))

    def tensors(self) -> list[Tensor]:
        """All three."""
        return [self.update, self.watch, self.unreported]

    def total(self, group: Group | None = None) -> Tensor:
        """What is reported; with a group also what the backward passes of its other processes left out."""
        return self.update + (self.watch if group is None else group.sum(self.watch))
