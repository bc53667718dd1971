"""What GraNd refuses: wrong arguments, parameters out of sight, and examples without a gradient of their own."""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.batchnorm import _BatchNorm

from .independence import tensors_in
from .parameter_uses import CHECKPOINT, graph
from .targets import Targets, check_targets

Loss = Literal["cross_entropy"] | Callable[[Tensor, Any], Tensor]

_CHANCE: Final = 0.95
"""A mean loss above this share of log C, the loss of chance, counts as no better than chance. On digits, batches of 32
were at 0.94 to 1.07 with untrained networks, and at most at 0.90 after one epoch."""

_MOST_ROUNDING: Final = 0.05
"""Of the largest logit: how much a batch may change an example by rounding, in half precision. A layer that mixes
examples changes it by far more. A ResNet-18 in float32 changes it by 1e-6."""

_WHOLE: Final = (
    "load the whole parameters into a plain copy of the model, with torch.distributed.checkpoint.state_dict."
    "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)), and score that"
)


def check_arguments(model: nn.Module, inputs: Tensor, labels: Targets, loss: Loss) -> dict[str, Tensor]:
    """The parameters that count, by name; TypeError, ValueError or RuntimeError for what `grand` cannot take."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
    if isinstance(model, nn.DataParallel):
        raise TypeError("model: got DataParallel, whose replicas hide the parameters; give model.module")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "model: got a ScriptModule, whose parameters cannot be replaced; give the module it was made of"
        )
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs: got {type(inputs).__name__}, expected a tensor")
    if inputs.dim() == 0:
        raise ValueError("inputs: got a single number, expected B examples [B, ...]")
    check_loss(loss)
    if loss == "cross_entropy":
        _check_classes(labels, len(inputs))
    else:
        check_targets(labels, len(inputs))
    if torch.is_inference_mode_enabled():
        raise RuntimeError("grand: needs gradients; leave torch.inference_mode()")
    _refuse_batch_norm(model)
    _refuse_shards(model)
    parameters: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("model: no parameter requires gradients; call requires_grad_() on those that count")
    return parameters


def check_loss(loss: Loss) -> None:
    """ValueError for a name that is none, or anything else that cannot be called."""
    if loss != "cross_entropy" and not callable(loss):
        raise ValueError(f"loss: got {loss!r}, expected 'cross_entropy' or a function of (outputs, labels)")


def _check_classes(labels: Targets, size: int) -> None:
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels: got {type(labels).__name__}, expected a tensor")
    if labels.dim() == 0 or len(labels) != size:
        raise ValueError(f"got {size} inputs and labels {tuple(labels.shape)}, expected one class for each input")
    if labels.dim() != 1:
        raise ValueError(
            f"labels: got {tuple(labels.shape)}, expected [{size}], one class per example; for text, images to "
            "segment and other labels pass a loss of your own"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels: got {labels.dtype}, expected int64 classes; pass a loss of your own for other labels")


def check_labels(labels: Tensor, classes: int) -> None:
    """ValueError for a class outside 0..classes-1."""
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise ValueError(
            f"labels: got {int(labels[wrong][0])}, expected 0..{classes - 1} for a model of {classes} classes"
        )


def _refuse_batch_norm(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            state = "is in training mode" if module.training else "has no running statistics"
            raise ValueError(
                f"model: batch norm {name!r} {state}, so that the loss of an example depends on the others of its "
                "batch and no example has a gradient of its own; "
                + ("call model.eval()" if module.training else "track running statistics, or use another norm")
            )


def _refuse_shards(model: nn.Module) -> None:
    """A process that holds a part of a parameter knows a part of its gradient; layers compute with gathered copies."""
    fsdp = _loaded("torch.distributed.fsdp", "FullyShardedDataParallel", "FSDPModule")
    for name, module in model.named_modules():
        if isinstance(module, fsdp):
            kind = "FullyShardedDataParallel" if isinstance(module, fsdp[:1]) else "fully_shard"
            where = f"module {name!r}" if name else "the whole"
            raise ValueError(f"model: {where} is sharded by {kind}, which hides parameters; {_WHOLE}")
    for name, p in model.named_parameters():
        if isinstance(p, _loaded("torch.distributed.tensor", "DTensor")):
            raise ValueError(f"model: parameter {name!r} is a DTensor, spread over processes; {_WHOLE}")


def _loaded(module: str, *classes: str) -> tuple[type, ...]:
    """Classes of a module; none if nothing has imported it, because then no object can be of them."""
    return tuple(getattr(sys.modules[module], name) for name in classes) if module in sys.modules else ()


def refuse_hidden(hidden: Mapping[str, str]) -> None:
    """ValueError if an `autograd.Function` uses parameters that it has not been given.

    Args:
        hidden: the function's name, by the parameter's.
    """
    if hidden:
        name, function = next(iter(hidden.items()))
        raise ValueError(
            f"model: parameter {name!r} is used inside the autograd function {function}, which has not been given it, "
            f"so that its gradient is out of sight; {_remedy(function)}"
        )


def refuse_reentrant(nodes: Iterable[Node]) -> None:
    """ValueError if a graph contains reentrant checkpoints, which cannot give the gradients of chosen tensors."""
    if any(type(node).__name__.startswith(CHECKPOINT) for node in nodes):
        raise ValueError(f"model: uses reentrant checkpoints, which hide gradients; {_remedy(CHECKPOINT)}")


def _remedy(function: str) -> str:
    if function == CHECKPOINT:
        return "checkpoint with use_reentrant=False, or score the model without checkpoints"
    return (
        "pass the parameter to the function's apply, score the model without it, or call requires_grad_(False) on the "
        "parameter if it does not count"
    )


@contextmanager
def refuse_gradients_left(parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """ValueError if a backward pass adds to `.grad` by itself, as reversible blocks do. `.grad` stays as it was."""
    before = {name: p.grad for name, p in parameters.items()}
    for p in parameters.values():
        p.grad = None
    try:
        yield
        left = [name for name, p in parameters.items() if p.grad is not None]
    finally:
        for name, p in parameters.items():
            p.grad = before[name]
    if left:
        raise ValueError(
            f"model: the gradient of parameter {left[0]!r} comes from a backward pass inside the backward pass (a "
            "reversible block, or a hook), out of sight; score the model without it, or call requires_grad_(False) on "
            "the parameter if it does not count"
        )


def rounding(epsilon: float, device: torch.device) -> float:
    """How much a batch may change an example's logits by rounding, as a part of the largest.

    Args:
        epsilon: machine epsilon of the coarsest dtype of the forward pass.
        device: on others than the CPU, float32 may be rounded as coarsely as half precision (TF32).
    """
    if device.type != "cpu" or torch.get_float32_matmul_precision() != "highest":
        return _MOST_ROUNDING
    return min(_MOST_ROUNDING, max(1e-6, 1e4 * epsilon))


def refuse_mixing(
    example: int, in_batch: Tensor, alone: Tensor, allowed: float, mixing_module: Callable[[int], str]
) -> None:
    """ValueError if the logits [C] of an example change by more than rounding when it comes alone.

    Args:
        example: its place in the batch.
        in_batch: [C], its logits in the batch.
        alone: [C]
        allowed: as a part of the largest logit.
        mixing_module: where the example meets the others, in words.
    """
    if in_batch.shape != alone.shape:
        raise ValueError(
            f"model: returned {(1, *alone.shape)} for one example and {(1, *in_batch.shape)} for it in a batch"
        )
    difference, size = _difference(in_batch, alone)
    smallest = torch.finfo(alone.dtype).tiny if alone.is_floating_point() else 0.0
    if difference > allowed * size + smallest:
        raise ValueError(
            f"model: the logits of example {example} change by {difference:.3g} (of {size:.3g}) when it comes alone; "
            f"{mixing_module(example)}. So its loss depends on the others of its batch and it has no gradient of its "
            "own; call model.eval() and make each example's output its own, or pass the examples in batches of one"
        )


def refuse_mixing_loss(together: Tensor, alone: Tensor, allowed: float) -> None:
    """ValueError if the losses [B] of examples change by more than rounding when the loss gets each alone."""
    difference, size = _difference(together, alone)
    if difference > allowed * size:
        example = int((together - alone).abs().argmax())
        raise ValueError(
            f"loss: got {float(together[example]):.3g} for example {example} in the batch and "
            f"{float(alone[example]):.3g} for it alone, so that it depends on the others of its batch and has no "
            "gradient of its own; return losses that depend on their own example's output and label only, and divide "
            "by the tokens or weights of the example, not of the batch"
        )


def check_losses(losses: Tensor, size: int) -> None:
    """TypeError or ValueError unless a loss of one's own returned a floating point number, or one per example."""
    if not isinstance(losses, Tensor):
        raise TypeError(f"loss: returned {type(losses).__name__}, expected a tensor")
    if not losses.is_floating_point():
        raise TypeError(f"loss: returned {losses.dtype}, expected floating point")
    if losses.dim() > 0 and losses.shape != (size,):
        raise ValueError(
            f"loss: returned {tuple(losses.shape)}, expected one number or one per example [{size}]; "
            "sum or average over all other dimensions"
        )


def check_loss_graph(losses: Tensor, outputs: Tensor, source: Node | None, parameters: Mapping[str, Node]) -> None:
    """ValueError unless losses [B] are finite, and depend on the parameters through the outputs alone.

    Args:
        losses: of each example.
        outputs: of the model.
        source: the graph node that computed the outputs.
        parameters: the graph nodes of the parameters, by name.
    """
    if not losses.isfinite().all():
        example = int(losses.isfinite().logical_not().nonzero()[0])
        raise ValueError(
            f"loss: got {losses[example].item()} for example {example} of the batch, expected a finite number; a mean "
            "over the tokens of an example that has none needs .clamp(min=1), and a model may have diverged"
        )
    if outputs.requires_grad and not losses.requires_grad:
        raise ValueError(
            "loss: returned numbers without a gradient; compute them from the outputs with PyTorch, without detach(), "
            "item() or torch.no_grad()"
        )
    nodes = graph(losses, {} if source is None else {source: ()})
    beside = [name for name, node in parameters.items() if node in nodes]
    if beside:
        raise ValueError(
            f"loss: uses parameter {beside[0]!r} of the model itself, as weight decay does, and not only through the "
            "outputs; leave that part out, or let the model return what the loss needs"
        )


def _difference(a: Tensor, b: Tensor) -> tuple[float, float]:
    """The largest difference between the finite numbers of two tensors, and their size; (inf, 1) if others differ."""
    a, b = a.double().flatten(), b.double().flatten()
    finite = a.isfinite() & b.isfinite()
    if not (finite | (a == b) | (a.isnan() & b.isnan())).all():
        return math.inf, 1.0
    a, b = a[finite], b[finite]
    return (float((a - b).abs().max()), float(torch.cat([a, b]).abs().max())) if len(a) else (0.0, 0.0)


def module_that_mixes(
    model: nn.Module, forward: Callable[[Tensor], object], inputs: Tensor, example: int, allowed: float
) -> str:
    """Where an example meets the others of its batch: the first module whose output they change, but not its input.

    Args:
        model: whose modules are looked at.
        forward: runs it.
        inputs: [B, ...]
        example: its place in the batch.
        allowed: what counts as rounding, as a part of the largest number.
    """
    alone: list[tuple[str, list[list[Tensor]]]] = []
    found: list[str] = []
    with _outputs_of_modules(model, lambda name, tensors: alone.append((name, tensors))):
        forward(inputs[example : example + 1])
    left = iter(alone)

    def compare(name: str, tensors: list[list[Tensor]]) -> None:
        other, others = next(left, ("", [[], []]))
        taken, given = (_agree(*pair, example, len(inputs), allowed) for pair in zip(tensors, others, strict=True))
        if name != other or (taken and not given):
            found.append(name)

    with _outputs_of_modules(model, compare):
        forward(inputs)
    return (
        f"it meets other examples in module {found[0]!r}" if any(found[:1]) else "it meets them in the model's forward"
    )


@contextmanager
def _outputs_of_modules(model: nn.Module, take: Callable[[str, list[list[Tensor]]], None]) -> Iterator[None]:
    """Calls `take` with the name of each module that has run, its input tensors and its output tensors."""

    def hook(name: str) -> Callable[..., None]:
        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            take(name, [[t.detach().clone() for t in tensors_in(value)] for value in ((args, kwargs), output)])

        return after

    handles = [m.register_forward_hook(hook(name), with_kwargs=True) for name, m in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _agree(batch: Sequence[Tensor], alone: Sequence[Tensor], example: int, size: int, allowed: float) -> bool:
    """Whether an example's part of some tensors is what it is alone. What has no dimension of examples is left out."""
    for together, single in zip(batch, alone, strict=False):
        shapes = enumerate(zip(together.shape, single.shape, strict=False))
        differ = [d for d, (a, b) in shapes if a != b]
        if together.dim() == single.dim() and [(together.shape[d], single.shape[d]) for d in differ] == [(size, 1)]:
            difference, largest = _difference(together.select(differ[0], example), single.select(differ[0], 0))
            if difference > allowed * largest:
                return False
    return len(batch) == len(alone)


def warn_of_chance(losses: Tensor, classes: int) -> None:
    """Warns if the losses [B] are those of a model that knows nothing."""
    if classes > 1 and float(losses.detach().mean()) >= _CHANCE * math.log(classes):
        warn(  # the same words each time, so that a loop over batches warns once
            "grand: on this batch the model is no better than chance. At initialisation GraNd measures little but the "
            "norm of the input: train for some epochs first, unless the labels of the batch are known to be wrong"
        )


def warn(message: str) -> None:
    """A UserWarning at the line that called `grand`."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and Path(frame.f_code.co_filename).parent == Path(__file__).parent:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
