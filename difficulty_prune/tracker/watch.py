"""Reading input gradients out of the training step's own backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from ..support.checks import check_number
from .state import TrackerState

REDUCTIONS: Final = ("mean", "sum", "weighted_mean")


class GradientScaler(Protocol):
    """What is used of `torch.amp.GradScaler`."""

    def scale(self, outputs: Tensor) -> Tensor:
        """The tensor times the current loss scale."""
        ...

    def is_enabled(self) -> bool:
        """Whether it scales, and leaves out steps that overflowed."""
        ...


class WatchInputs(torch.autograd.Function):
    """The identity; its backward pass calls `record(gradient, *tensors)`, and passes the gradient on if it is wanted.

    The anchor is an empty tensor that requires grad. Through it the result requires grad too, without a leaf of the
    size of the inputs, in which a gradient would be kept.

    Only a graph that is traced may save tensors: hooks on saved tensors, which offload or compress activations, would
    hand back a copy of state that is to be changed.
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


class FirstPass:
    """What the first backward pass through a watched tensor does; a second is noted.

    Args:
        record: called with the gradient, and returns whether it was taken, which it is not while the tracker is paused.
        note_another: called for each pass after the one that was taken.
    """

    def __init__(self, record: Callable[[Tensor], bool], note_another: Callable[[], None]) -> None:
        self._record, self._note_another = record, note_another
        self._taken = False

    def __call__(self, gradient: Tensor) -> None:
        if not self._taken:
            self._taken = self._record(gradient)
        else:
            self._note_another()


class Recomputed:
    """What activation checkpointing asks of `watch` when it runs a part of the forward pass again.

    Reentrant checkpointing runs it without gradients first, and then, in the backward pass, for good: what was put off
    is watched then. The other kind runs it with gradients first; what it runs again must look the same, and counts no
    more. A call is known by the place of its index in memory.
    """

    _REMEMBERED: Final = 64  # calls whose forward pass may be run again, far more than a step has

    def __init__(self) -> None:
        self._calls: dict[tuple[int, int], str] = {}

    def put_off(self, inputs: Tensor, index: Tensor) -> Tensor:
        """The inputs as they are, of a call without gradients."""
        if self._calls.get(_place(index)) not in ("watched", "passed over"):
            self._remember(index, "put off")
        return inputs

    def was_put_off(self, index: Tensor) -> bool:
        """Whether the call with this index was put off, and has not been made up for."""
        return self._calls.get(_place(index)) == "put off"

    def note(self, index: Tensor, *, watched: bool) -> None:
        """Remembers whether a call with gradients watched its inputs, or passed over this step."""
        if in_backward_pass():
            self._remember(index, "made up for" if watched else "made up for, passed over")
        else:
            self._remember(index, "watched" if watched else "passed over")

    def again(self, inputs: Tensor, index: Tensor, state: TrackerState, note_another: Callable[[], None]) -> Tensor:
        """What the call with this index gave before, without recording anything."""
        call = self._calls.get(_place(index), "watched")
        if call == "made up for":  # a second backward pass through a reentrant checkpoint
            note_another()
        if state.anchor is None or call.endswith("passed over"):
            return inputs
        watched: Tensor = WatchInputs.apply(inputs, state.anchor, _pass_over)
        return watched

    def _remember(self, index: Tensor, call: str) -> None:
        place = _place(index)
        self._calls.pop(place, None)
        self._calls[place] = call
        if len(self._calls) > self._REMEMBERED:
            del self._calls[next(iter(self._calls))]


def _place(index: Tensor) -> tuple[int, int]:
    return index.data_ptr(), len(index)


def _pass_over(gradient: Tensor) -> None:
    """Records nothing."""


def in_backward_pass() -> bool:
    """Whether this thread is in a backward pass, where checkpointing runs parts of the forward pass again."""
    return bool(torch._C._current_graph_task_id() != -1)


def check_loss_scale(
    inputs: Tensor, weight: Tensor | None, reduction: str, accumulation_steps: float, scaler: GradientScaler | None
) -> None:
    """TypeError or ValueError unless these say how the loss of inputs [B, ...] is made of those of its examples."""
    batch = inputs.shape[0]
    if scaler is not None and not (hasattr(scaler, "scale") and hasattr(scaler, "is_enabled")):
        raise TypeError(f"scaler: got {scaler!r}, expected the torch.amp.GradScaler in use, or None")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: got {reduction!r}, expected 'weighted_mean', 'mean' or 'sum'")
    if weight is not None and (not isinstance(weight, Tensor) or tuple(weight.shape) != (batch,)):
        got = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"weight: got {got}, expected a tensor [{batch}], one factor per example")
    if weight is None and reduction == "weighted_mean":
        raise ValueError(
            "weight: got None with reduction='weighted_mean', expected a tensor of one factor per example, such as "
            "class_weights[labels], or (labels != -100).float() where the loss ignores labels"
        )
    check_number(accumulation_steps, "accumulation_steps", "(0, inf), what the loss is divided by, such as 4")
    if not 0 < accumulation_steps < math.inf:
        raise ValueError(f"accumulation_steps: got {accumulation_steps}, expected what the loss is divided by, above 0")


def loss_gradient_scale(
    inputs: Tensor, weight: Tensor | None, reduction: str, accumulation_steps: float, scaler: GradientScaler | None
) -> Tensor | None:
    """Factor [B] float32 that turns the arriving gradient into that of each example's own loss; None for 1.

    0 where the weight is 0: such an example's gradient did not arrive.
    """
    if weight is None and reduction == "sum" and accumulation_steps == 1 and scaler is None:
        return None
    batch = inputs.shape[0]
    divisor = float(accumulation_steps) * (batch if reduction == "mean" else 1)
    scale = torch.full((batch,), divisor, dtype=torch.float32, device=inputs.device)
    if weight is not None:
        w = weight.detach().to(inputs.device, torch.float32, non_blocking=True)
        if reduction == "weighted_mean":
            scale = scale * w.sum()
        scale = torch.where(w != 0, scale / w, 0)
    if scaler is not None:
        scale = scale / scaler.scale(torch.ones((), dtype=torch.float32, device=inputs.device))
    return scale
