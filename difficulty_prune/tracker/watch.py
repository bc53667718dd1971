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
    """The identity; its backward pass calls `record(gradient, *tensors)`, and passes the gradient on if it is wanted.

    The anchor is an empty tensor that requires grad. Through it the result requires grad too, without a leaf of the
    size of the inputs, in which a gradient would be kept.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, anchor: Tensor, record: Callable[..., None], *tensors: Tensor | None
    ) -> Tensor:
        ctx.record = record
        ctx.save_for_backward(*tensors)
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        tensors = ctx.saved_tensors
        ctx.record(gradients[0].detach(), *tensors)
        return (gradients[0] if ctx.needs_input_grad[0] else None), None, None, *[None] * len(tensors)


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
        scale = torch.where(w != 0, scale / w, 0)
    if scaler is not None:
        scale = scale / scaler.scale(torch.ones((), device=inputs.device))
    return scale
