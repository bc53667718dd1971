"""Gradients of the loss, or of the score of the true class, with respect to the input."""

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
"""What each gradient score differentiates; a sum over the batch."""


def check_depends(inputs: Tensor, logits: Tensor) -> None:
    """ValueError unless both the inputs and the logits require gradients."""
    if not inputs.requires_grad or not logits.requires_grad:
        raise ValueError(
            f"inputs: the logits do not depend on them (requires_grad is {inputs.requires_grad} for the inputs, "
            f"{logits.requires_grad} for the logits); call x = tracker.watch(x, index) or x.requires_grad_() "
            "before the forward pass"
        )


def has_module_hooks(outputs: Tensor) -> bool:
    """Whether full backward hooks of modules, `register_full_backward_hook`, are in the graph of the outputs."""
    waiting, seen = [outputs.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name() == "BackwardHookFunctionBackward":
            return True
        seen.add(node)
        waiting += [function for function, _ in node.next_functions]
    return False


def input_gradient(score: str, logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
    """Gradient of what a gradient score differentiates, with respect to the inputs that produced the logits.

    Args:
        score: "vog", "vog_probability" or "vog_loss".
        logits: [B, C], computed from `inputs`. The graph is kept, so the training step can still run backward.
        labels: [B] int64.
        inputs: [B, ...], which required gradients before the forward pass.

    Returns:
        [B, ...], shaped like the inputs. With batch norm in training mode, an example's gradient also includes its
        effect on the rest of the batch.

    Raises:
        ValueError: the logits do not depend on the inputs.
        RuntimeError: the training step's backward pass has already freed the graph.

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
