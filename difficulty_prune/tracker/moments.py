"""Running moments of each example's input gradient, from which Variance of Gradients (arXiv 2008.11600) is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor

from ..ops.operators import merge_moments_, new_state, record_gradients_
from .arrivals import Arrivals
from .group import Group
from .growth import resized
from .mapped import mapped_zeros
from .options import GradientOptions

_BLOCK: Final = 4096  # examples
_TENSORS: Final = ("count", "mean", "m2")


class GradientMoments:
    """Running mean and spread of each example's input gradient.

    Args:
        num_examples: N.
        size: pixels of an example, of which `options` may keep fewer.
        device: where the gradients will be.
        options: see `GradientOptions`.
        group: processes that each see a share of the gradients; what is read is of all of them, and then every process
            has to read it.

    Attributes:
        size: pixels of an example.
        count: [N] int32, gradients that this process has seen.
        mean, m2: [N, P], their running mean and sum of squared deviations; float32, m2 perhaps bfloat16.
        pixels: [P] int64, the pixels that are kept, on the device of the state; None for all.

    >>> moments = GradientMoments(2, 4, torch.device("cpu"))
    >>> _ = moments.record(torch.tensor([1, 1]), torch.tensor([0.0, 2.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2))
    >>> moments.vog()
    tensor([nan, 1.])
    """

    def __init__(
        self,
        num_examples: int,
        size: int,
        device: torch.device,
        options: GradientOptions | None = None,
        group: Group | None = None,
    ) -> None:
        options = options if options is not None else GradientOptions()
        self.size = size
        self._group = group
        self._mmap = options.mmap
        selected = options.selected(size)
        kept = size if selected is None else len(selected)
        home, m2_dtype = options.state_device(device), options.m2_type
        self.pixels = None if selected is None else selected.to(home)
        self._pixels_on: dict[torch.device, Tensor] = {}  # where gradients come from, if not the home of the state
        self.count = new_state((num_examples,), torch.int32, home)
        if options.mmap is None:
            self.mean, self.m2 = (new_state((num_examples, kept), t, home) for t in (torch.float32, m2_dtype))
        else:
            self.mean, self.m2 = (
                mapped_zeros((num_examples, kept), t, options.mmap) for t in (torch.float32, m2_dtype)
            )
        self._arrivals = Arrivals()

    def record(
        self, index: Tensor, gradients: Tensor, scale: Tensor | None = None, skipped: Tensor | None = None
    ) -> GradientMoments:
        """Adds gradients [B, C, ...] of the examples `index` [B]; see `ops.record_gradients_`.

        Where the state is on the CPU and the gradients are not, they are added when they have arrived there, in
        order: at one of the next calls, or when the state is read.
        """
        if gradients.device.type != "cpu" and self.mean.device.type == "cpu":
            self._arrivals.send(self._record_arrived, skipped, index, self._signal(gradients), scale)
        else:
            record_gradients_(self.count, self.mean, self.m2, index, gradients, scale, self.pixels, skipped)
        return self

    def _signal(self, gradients: Tensor) -> Tensor:
        """What has to travel of gradients [B, C, ...]: [B, 1, P] float32."""
        signal = gradients.flatten(2)
        if self.pixels is not None:
            if signal.device not in self._pixels_on:
                self._pixels_on[signal.device] = self.pixels.to(signal.device)
            signal = signal[:, :, self._pixels_on[signal.device]]
        return signal.mean(1, keepdim=True, dtype=torch.float32)

    def _record_arrived(self, skipped: Tensor, index: Tensor, signal: Tensor, scale: Tensor | None) -> None:
        # Past the checks: what is wrong with values from an accelerator is counted and not raised.
        torch.ops.difficulty_prune.record_gradients_(
            self.count, self.mean, self.m2, index, signal, scale, None, skipped
        )

    def settle(self) -> None:
        """Waits for gradients that are on their way to state on the CPU; everything that reads the state does."""
        self._arrivals.settle()

    def resize(self, size: int) -> None:
        """From now on for so many examples; see `resized`."""
        self.settle()
        self.count = resized(self.count, size)
        self.mean, self.m2 = (resized(t, size, self._mmap) for t in (self.mean, self.m2))

    def merge(self, other: GradientMoments) -> None:
        """Adds the gradients that `other` has seen, of this process."""
        self.settle()
        other.settle()
        theirs = (t.to(self.mean.device) for t in (other.count, other.mean, other.m2))
        merge_moments_(self.count, self.mean, self.m2, *theirs)

    def counts(self) -> Tensor:
        """[N] int32, gradients seen."""
        self.settle()
        return self.count if self._group is None else self._group.sum(self.count)

    def vog(self) -> Tensor:
        """[N] float32: mean over pixels of the deviation over time (ddof 0); NaN where no gradient was seen.

        An example whose gradients were all exactly 0 has no loss, as where its label is ignored: it was not presented,
        and is not the easiest of all.
        """
        return torch.cat([self._vog_of(*block) for block in self._blocks()])

    def _vog_of(self, count: Tensor, mean: Tensor, m2: Tensor) -> Tensor:
        vog = (m2.float() / count[:, None]).sqrt().mean(1)
        if self.pixels is not None:  # a few pixels may well show nothing
            return vog
        return torch.where((vog == 0) & (mean == 0).all(1), torch.nan, vog)

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Count, mean and M2 of some examples at a time, which bounds the temporary memory; of all processes."""
        self.settle()
        for block in zip(*(t.split(_BLOCK) for t in (self.count, self.mean, self.m2)), strict=True):
            yield block if self._group is None else self._group.merge_moments(*block)

    def state_dict(self) -> dict[str, Any]:
        """The state by name: size (a number), and the tensors count, mean, m2, and pixels (None for all)."""
        self.settle()
        tensors = [self.count, self.mean, self.m2]
        if self._group is not None:
            tensors = [torch.cat(blocks) for blocks in zip(*self._blocks(), strict=True)]
        return {"size": self.size, **dict(zip(_TENSORS, tensors, strict=True)), "pixels": self.pixels}

    @classmethod
    def from_state_dict(
        cls, state: dict[str, Any], options: GradientOptions | None = None, group: Group | None = None
    ) -> GradientMoments:
        """The inverse of `state_dict`. The tensors are copied: to where the options say, else to where they were.

        In a group the first process takes them over, and the others go on from nothing.
        """
        moments = cls(len(state["count"]), state["size"], state["mean"].device, options, group)
        if group is None or group.is_first:
            for name in _TENSORS:
                getattr(moments, name).copy_(state[name])
        return moments
