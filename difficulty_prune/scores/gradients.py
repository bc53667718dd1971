"""Variance of Gradients (arXiv 2008.11600): gradients to the input, and their running moments per example."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops


@dataclass(frozen=True)
class GradientOptions:
    """How input gradients are recorded.

    Attributes:
        channel_dim: dimension of the input that holds channels; their signed mean is taken first, as the paper
            does. None for inputs without channels. An input [B, F] never has channels.
        every: record every so many training steps, from the first on.

    >>> GradientOptions(every=2).every
    2
    """

    channel_dim: int | None = 1
    every: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every: got {self.every!r}, expected a whole number of steps, at least 1")
        if self.channel_dim is not None and (not isinstance(self.channel_dim, int) or self.channel_dim < 1):
            raise ValueError(f"channel_dim: got {self.channel_dim!r}, expected None or a dimension from 1 on")

    def with_channels(self, gradients: Tensor) -> Tensor:
        """View of gradients [B, ...] as [B, C, ...], the layout of `ops.record_gradients_`."""
        if self.channel_dim is None or gradients.dim() == 2:
            return gradients.unsqueeze(1)
        if self.channel_dim >= gradients.dim():
            raise ValueError(
                f"channel_dim: got {self.channel_dim}, but the input has shape {tuple(gradients.shape)}; "
                "set GradientOptions(channel_dim=...) to its channels, or None"
            )
        return gradients.movedim(self.channel_dim, 1)

    def pixels(self, inputs: Tensor) -> int:
        """Values that are kept per example of `inputs` [B, ...]."""
        return math.prod(self.with_channels(inputs).shape[2:])


class GradientMoments:
    """Running mean and spread of each example's input gradient: 8 bytes per pixel and 4 per example.

    >>> moments = GradientMoments(2, 4, torch.device("cpu"))
    >>> _ = moments.record(torch.tensor([1, 1]), torch.tensor([0.0, 2.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2))
    >>> moments.vog()
    tensor([nan, 1.])
    """

    def __init__(self, num_examples: int, pixels: int, device: torch.device) -> None:
        self.count = ops.new_state((num_examples,), torch.int32, device)
        self.mean = ops.new_state((num_examples, pixels), torch.float32, device)
        self.m2 = ops.new_state((num_examples, pixels), torch.float32, device)

    def record(
        self, index: Tensor, gradients: Tensor, scale: Tensor | None = None, skipped: Tensor | None = None
    ) -> GradientMoments:
        """Adds gradients [B, C, ...] of the examples `index` [B]; see `ops.record_gradients_`."""
        ops.record_gradients_(self.count, self.mean, self.m2, index, gradients, scale, None, skipped)
        return self

    def merge(self, other: GradientMoments) -> None:
        """Adds the gradients that `other` has seen."""
        ops.merge_moments_(self.count, self.mean, self.m2, other.count, other.mean, other.m2)

    def vog(self) -> Tensor:
        """[N] float32: mean over pixels of the deviation over time (ddof 0); NaN where no gradient was seen."""
        blocks = zip(self.m2.split(4096), self.count.split(4096), strict=True)  # bounds the temporary memory
        return torch.cat([(m2 / count[:, None]).sqrt().mean(1) for m2, count in blocks])

    def state_dict(self) -> dict[str, Tensor]:
        """The three tensors by name."""
        return {"count": self.count, "mean": self.mean, "m2": self.m2}

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> GradientMoments:
        """The inverse of `state_dict`; the tensors are copied."""
        moments = cls.__new__(cls)
        moments.count, moments.mean, moments.m2 = (state[key].clone() for key in ("count", "mean", "m2"))
        return moments


def _label_logit(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]).sum()


def _label_probability(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.float().softmax(1).gather(1, labels[:, None]).sum()


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, reduction="sum")


TARGETS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "vog": _label_logit,
    "vog_probability": _label_probability,
    "vog_loss": _loss,
}
"""What each gradient score differentiates, summed over the batch."""


def check_depends(inputs: Tensor, logits: Tensor) -> None:
    """ValueError unless both take part in a graph."""
    if not inputs.requires_grad or not logits.requires_grad:
        raise ValueError(
            f"inputs: the logits do not depend on them (requires_grad is {inputs.requires_grad} for the inputs, "
            f"{logits.requires_grad} for the logits); call x = tracker.watch(x, index) or x.requires_grad_() "
            "before the forward pass"
        )


def input_gradient(score: str, logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
    """Gradient of a gradient score's target to the inputs that produced the logits.

    Args:
        score: "vog", "vog_probability" or "vog_loss".
        logits: [B, C], computed from `inputs`; the graph is kept for the training step.
        labels: [B] int64.
        inputs: [B, ...] that required gradients before the forward pass.

    Returns:
        [B, ...], shaped as the inputs. In train-mode batch norm an example's gradient also holds what it does to
        the others of its batch.

    Raises:
        ValueError: the logits do not depend on the inputs.
        RuntimeError: the graph is gone, because the backward pass of the training step ran before.

    >>> x = torch.ones(1, 2, requires_grad=True)
    >>> input_gradient("vog", x * torch.tensor([3.0, 5.0]), torch.tensor([1]), x)
    tensor([[0., 5.]])
    """
    check_depends(inputs, logits)
    with torch.enable_grad():
        target = TARGETS[score](logits, labels)
        try:
            (gradient,) = torch.autograd.grad(target, inputs, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            raise RuntimeError(
                f"{score}: no backward pass to the inputs ({error}); call tracker.update before loss.backward()"
            ) from error
    if gradient is None:
        raise ValueError("inputs: the logits do not depend on this tensor; pass the one that went through the model")
    return gradient
