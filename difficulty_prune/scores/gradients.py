"""Gradients of class scores to the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor


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
