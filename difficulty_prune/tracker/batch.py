"""Checks of what a tracker is given in one step, before anything is made or recorded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..ops.checks import check_gradients, check_index, check_labels, check_logits, check_same_device
from .state import TrackerState


def index_beside(index: Tensor, batch: Tensor, num_examples: int) -> Tensor:
    """The checked index on the device of the batch; one on the CPU is checked there and then copied.

    Raises:
        TypeError, ValueError, IndexError: not int64 [B], on another device, or outside 0..num_examples-1.

    >>> index_beside(torch.tensor([1]), torch.zeros(1, 5), num_examples=2)
    tensor([1])
    """
    return _beside(index, batch, num_examples, rows=batch.shape[0])


def index_of_rows(index: Tensor, batch: Tensor, num_examples: int) -> Tensor:
    """The same where a batch may have more rows than examples.

    >>> index_of_rows(torch.tensor([1]), torch.zeros(7, 5), num_examples=2)
    tensor([1])
    """
    return _beside(index, batch, num_examples, rows=None)


def _beside(index: Tensor, batch: Tensor, num_examples: int, rows: int | None) -> Tensor:
    check_index(index, rows, num_examples)
    if index.device.type == "cpu" and batch.device.type != "cpu":
        return index.to(batch.device, non_blocking=True)
    check_same_device(index=index, batch=batch)
    return index


def refuse_transforms(what: str) -> None:
    """ValueError inside a transform of `torch.func`, whose tensors stand for others, of which kernels know nothing."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise ValueError(
            f"{what}: called inside a transform of torch.func, such as grad or vmap; record outside it: let the "
            "function return the logits, as in torch.func.grad(f, has_aux=True), and give them to tracker.update"
        )


def check_batch(
    state: TrackerState,
    index: Tensor,
    logits: Tensor | None,
    labels: Tensor | None,
    gradients: Mapping[str, Tensor],
    norms: Tensor | None,
    ignore_index: int | None = None,
) -> Tensor:
    """The index, where the batch is, if everything fits together and the state; see `DifficultyTracker.record`.

    Raises:
        TypeError, ValueError, IndexError: something does not.
    """
    given = [t for t in (logits, *gradients.values(), norms) if t is not None]
    if not given:
        raise TypeError("record: expected logits and labels, gradients or norms")
    if logits is not None:
        check_logits(logits)
    elif not all(isinstance(t, Tensor) and t.dim() for t in given):
        raise TypeError(f"record: got {[type(t).__name__ for t in given]}, expected tensors [batch, ...]")
    index = index_beside(index, given[0], state.wanted.num_examples)
    if logits is not None:
        _check_logits(state, logits, labels, ignore_index)
    for name, gradient in gradients.items():
        _check_gradient(state, name, gradient, index)
    if norms is not None:
        _check_norms(state, norms, index)
    return index


def _check_logits(state: TrackerState, logits: Tensor, labels: Tensor | None, ignore_index: int | None) -> None:
    if labels is None:
        raise TypeError("record: got logits without labels, expected both")
    if not torch.compiler.is_compiling():  # else the tracer does, once, when it makes the state
        state.check_logits(logits.device, tuple(logits.shape), logits.shape[1])
    check_labels(labels, logits, ignore_index)


def _check_gradient(state: TrackerState, name: str, gradient: Tensor, index: Tensor) -> None:
    own = state.wanted.names(needs="input gradients")
    if name not in own:
        raise ValueError(f"gradients: got {name!r}, expected of this tracker's {own}")
    check_gradients(state.wanted.gradient.with_channels(gradient), leading=1)
    _check_rows(name, gradient, index)
    if not torch.compiler.is_compiling():
        state.check_gradient(name, gradient.device, gradient.shape)


def _check_norms(state: TrackerState, norms: Tensor, index: Tensor) -> None:
    if "grand" not in state.wanted.scores:
        raise ValueError(f"norms: 'grand' is not among the scores of this tracker, {state.wanted.scores}")
    if not norms.dtype.is_floating_point or norms.dim() != 1:
        raise ValueError(
            f"norms: got {norms.dtype} {tuple(norms.shape)}, expected floating point [batch], one per example"
        )
    _check_rows("norms", norms, index)
    state.check_device(norms.device)


def _check_rows(name: str, values: Tensor, index: Tensor) -> None:
    if values.shape[0] != index.shape[0]:
        raise ValueError(f"{name}: got {values.shape[0]} rows, expected {index.shape[0]}, as the index has")
    check_same_device(**{"index": index, name: values})
