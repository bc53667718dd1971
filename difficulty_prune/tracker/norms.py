"""The running mean of each example's gradient norm, which is `grand`."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from ..ops.operators import merge_moments_, new_state, record_gradients_
from .group import Group
from .growth import resized

_TENSORS: Final = ("count", "mean")


class GradientNorms:
    """Mean over time of a number per example.

    Args:
        num_examples: N.
        device: where the norms will be.
        group: processes that each see a share of the norms; what is read is of all of them, and then every process
            has to read it.

    Attributes:
        count: [N] int32, norms that this process has seen.
        mean: [N] float32, their running mean.

    >>> norms = GradientNorms(2, torch.device("cpu"))
    >>> norms.record(torch.tensor([1, 1]), torch.tensor([1.0, 3.0]))
    >>> norms.average()
    tensor([nan, 2.])
    """

    def __init__(self, num_examples: int, device: torch.device, group: Group | None = None) -> None:
        self._group = group
        self.count = new_state((num_examples,), torch.int32, device)
        self.mean = new_state((num_examples,), torch.float32, device)
        self._spread = new_state((num_examples,), torch.float32, device)  # which the operators keep beside a mean

    def record(self, index: Tensor, norms: Tensor, scale: Tensor | None = None, skipped: Tensor | None = None) -> None:
        """Adds norms [B] of the examples `index` [B]; what is not finite is counted in `skipped`.

        Args:
            scale: [B] float32, of which 0 passes over a row.
        """
        state = self.count, self.mean[:, None], self._spread[:, None]
        record_gradients_(*state, index, norms.float()[:, None], scale, None, skipped)

    def resize(self, size: int) -> None:
        """From now on for so many examples; see `resized`."""
        self.count, self.mean, self._spread = (resized(t, size) for t in (self.count, self.mean, self._spread))

    def merge(self, other: GradientNorms) -> None:
        """Adds the norms that `other` has seen, of this process."""
        theirs = (t.to(self.mean.device) for t in (other.count, other.mean[:, None], other._spread[:, None]))
        merge_moments_(self.count, self.mean[:, None], self._spread[:, None], *theirs)

    def counts(self) -> Tensor:
        """[N] int32, norms seen."""
        return self.count if self._group is None else self._group.sum(self.count)

    def average(self) -> Tensor:
        """[N] float32; NaN where no norm was seen."""
        count, mean = self._of_all()
        return torch.where(count > 0, mean, torch.nan)

    def _of_all(self) -> tuple[Tensor, Tensor]:
        """Count and mean of all processes."""
        if self._group is None:
            return self.count, self.mean
        count, mean, _ = self._group.merge_moments(self.count, self.mean[:, None], self._spread[:, None])
        return count, mean[:, 0]

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors count and mean."""
        return dict(zip(_TENSORS, self._of_all(), strict=True))

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], group: Group | None = None) -> GradientNorms:
        """The inverse of `state_dict`. In a group the first process takes it over, the others go on from nothing."""
        norms = cls(len(state["count"]), state["mean"].device, group)
        if group is None or group.is_first:
            for name in _TENSORS:
                getattr(norms, name).copy_(state[name])
        return norms
