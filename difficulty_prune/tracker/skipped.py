"""Presentations that could not be recorded, counted by reason where they are left out."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ..ops.operators import new_skipped, new_state
from .group import Group


class SkippedCounts:
    """Counters [4] int64 in the order of `ops.SKIPPED`, apart because each may be changed by a graph of its own.

    Attributes:
        update: what `update` left out, in this process and, of a group, in all.
        watch: what the backward pass left out in this process.
        unreported: overflows under a gradient scaler, which leaves such steps out itself, and what another kernel of
            the same step has counted already.
        unnormalised: [1], rows whose targets are no probabilities, in this process. They count all the same.
    """

    def __init__(self, device: torch.device) -> None:
        self.update, self.watch, self.unreported = (new_skipped(device) for _ in range(3))
        self.unnormalised = new_state((1,), torch.int64, device)
        self._warned = False

    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [self.update, self.watch, self.unreported, self.unnormalised]

    def warn_of_targets(self, stacklevel: int) -> None:
        """Warns once of targets that are no probabilities (waits for the device)."""
        if not self._warned and int(self.unnormalised):
            self._warned = True
            warnings.warn(
                f"labels: the targets of {int(self.unnormalised)} rows are no probabilities: they do not add up to 1, "
                "or some are negative. They count as they are; for labels that are each 0 or 1, make the tracker with "
                'target="binary"',
                stacklevel=stacklevel + 1,
            )

    def total(self, group: Group | None = None) -> Tensor:
        """What is reported; with a group also what the backward passes of its other processes left out."""
        return self.update + (self.watch if group is None else group.sum(self.watch))
