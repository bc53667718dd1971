"""The mean of each example's probabilities over training: which class the models of all epochs together name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor

from ..ops.operators import new_state
from ..ops.reference import narrow
from ..support.blocks import blocks
from .arrivals import Arrivals
from .growth import resized
from .mapped import mapped_zeros
from .options import ProbabilityOptions

_TENSORS: Final = ("count", "mean")


class MeanProbabilities:
    """Mean over presentations of each example's probabilities.

    Args:
        num_examples: N.
        classes: C.
        device: where the logits will be.
        options: see `ProbabilityOptions`.

    Attributes:
        classes: C.
        count: [N] int32, presentations.
        mean: [N, C] float32 or bfloat16.

    >>> means = MeanProbabilities(2, 2, torch.device("cpu"))
    >>> means.record(torch.tensor([1, 1]), torch.tensor([[0.0, 1.0], [0.5, 0.5]]), torch.tensor([True, True]))
    >>> means.average()
    tensor([[   nan,    nan],
            [0.2500, 0.7500]])
    >>> means.suggested()
    (tensor([-1,  1]), tensor([   nan, 0.7500]))
    """

    def __init__(
        self, num_examples: int, classes: int, device: torch.device, options: ProbabilityOptions | None = None
    ) -> None:
        options = options if options is not None else ProbabilityOptions()
        home, shape = options.state_device(device), (num_examples, classes)
        self.classes = classes
        self._mmap = options.mmap
        self.count = new_state((num_examples,), torch.int32, home)
        if options.mmap is None:
            self.mean = new_state(shape, options.type, home)
        else:
            self.mean = mapped_zeros(shape, options.type, options.mmap)
        self._arrivals = Arrivals()

    def record(self, index: Tensor, probabilities: Tensor, used: Tensor) -> None:
        """Adds a presentation of the examples `index` [B], with probabilities [B, C], where `used` [B] bool says so.

        Where the state is on the CPU and the probabilities are not, they are added when they have arrived there, in
        order: at one of the next calls, or when the state is read.
        """
        if probabilities.device.type != "cpu" and self.mean.device.type == "cpu":
            self._arrivals.send(self._record_arrived, None, index, probabilities, used)
        else:
            torch.ops.difficulty_prune.record_means_(self.count, self.mean, index, probabilities, used)

    def _record_arrived(self, _: Tensor, *batch: Tensor) -> None:
        torch.ops.difficulty_prune.record_means_(self.count, self.mean, *batch)

    def settle(self) -> None:
        """Waits for probabilities that are on their way to state on the CPU; everything that reads the state does."""
        self._arrivals.settle()

    def resize(self, size: int) -> None:
        """From now on for so many examples; see `resized`."""
        self.settle()
        self.count, self.mean = resized(self.count, size), resized(self.mean, size, self._mmap)

    def average(self) -> Tensor:
        """[N, C] float32 on the device of the state, each row with sum 1; NaN where never presented."""
        result = torch.empty(self.mean.shape, dtype=torch.float32, device=self.mean.device)
        for rows, means in self._blocks():
            result[rows] = means
        return result

    def suggested(self) -> tuple[Tensor, Tensor]:
        """The class of the largest mean, [N] int64, the lowest on a tie and -1 where never presented; and its mean."""
        label = torch.full_like(self.count, -1, dtype=torch.int64)
        probability = torch.full_like(self.count, torch.nan, dtype=torch.float32)
        for rows, means in self._blocks():
            label[rows] = torch.where(self.count[rows] > 0, means.argmax(1), -1)
            probability[rows] = means.amax(1)
        return label, probability

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Some examples at a time, which bounds the temporary memory, and their means."""
        self.settle()
        for rows in blocks(len(self.mean), self.classes):
            means = self.mean[rows].float()
            yield rows, means / means.sum(1, keepdim=True)  # which rounding may have moved from 1; 0 / 0 is NaN

    def merge(self, other: MeanProbabilities) -> None:
        """Adds the presentations that `other` has seen."""
        self.settle()
        other.settle()
        for rows in blocks(len(self.mean), self.classes):
            count, mean = (t[rows].to(self.mean.device) for t in (other.count, other.mean))
            total, own = self.count[rows] + count, self.mean[rows].float()
            merged = own + (mean.float() - own) * (count / total.clamp(min=1))[:, None]
            examples = torch.arange(rows.start, rows.start + len(count), device=total.device)
            self.mean[rows] = narrow(merged, self.mean.dtype, examples, total)
            self.count[rows] = total

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors count and mean."""
        self.settle()
        return {name: getattr(self, name) for name in _TENSORS}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], options: ProbabilityOptions | None = None) -> MeanProbabilities:
        """The inverse of `state_dict`. The tensors are copied: to where the options say, else to where they were."""
        examples, classes = state["mean"].shape
        means = cls(examples, classes, state["mean"].device, options)
        for name in _TENSORS:
            getattr(means, name).copy_(state[name])
        return means
