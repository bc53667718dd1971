"""Reading input gradients out of the training step's own backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor


class GradientScaler(Protocol):
    """What is used of `torch.amp.GradScaler`."""

    def scale(self, outputs: Tensor) -> Tensor:
        """The tensor times the current loss scale."""
        ...


class WatchInputs(torch.autograd.Function):
    """The identity; its backward pass shows the gradient to `record`, and passes it on if somebody wants it."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, record: Callable[[Tensor], None], pass_on: bool) -> Tensor:
        ctx.record = record
        ctx.pass_on = pass_on
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ctx.record(gradients[0].detach())
        return (gradients[0] if ctx.pass_on else None), None, None


def loss_gradient_scale(
    inputs: Tensor, weight: Tensor | None, reduction: str, scaler: GradientScaler | None
) -> Tensor | None:
    """Factor [B] float32 that turns the arriving gradient into that of each example's own loss; None for 1.

    0 where the weight is 0: such an example's gradient did not arrive.
    """
    batch = inputs.shape[0]
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction: got {reduction!r}, expected 'mean' or 'sum'")
    if weight is not None and (not isinstance(weight, Tensor) or tuple(weight.shape) != (batch,)):
        got = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"weight: got {got}, expected a tensor [{batch}], one factor per example")
    if weight is None and reduction == "sum" and scaler is None:
        return None
    scale = torch.full((batch,), float(batch) if reduction == "mean" else 1.0, device=inputs.device)
    if weight is not None:
        w = weight.detach().to(inputs.device, torch.float32, non_blocking=True)
        scale = torch.where(w != 0, scale / torch.where(w != 0, w, 1), 0)
    if scaler is not None:
        scale = scale / scaler.scale(torch.ones((), device=inputs.device))
    return scale
