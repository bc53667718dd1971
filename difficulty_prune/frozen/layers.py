"""The layers of a model: which there are, which to look at, and what comes out of them."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

MAX_LAYERS: Final = 8
LOGITS: Final = "logits"
"""The name of the model's own output among the layers."""

Output = tuple[str, torch.Size | None]
"""A module's name, and the shape of its output if that is a floating-point tensor with a row per example."""


def check_layers(model: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple without repeats; ValueError for one that the model does not have."""
    if isinstance(names, str):
        raise TypeError(f"layers: got the string {names!r}, expected several names such as ({names!r},)")
    listed = tuple(dict.fromkeys(names))
    known = [*dict(model.named_modules(remove_duplicate=False)), LOGITS]
    for name in listed:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=5, cutoff=0.4)
            hint = f"did you mean {', '.join(map(repr, near))}?" if near else "see model.named_modules()"
            raise ValueError(f"layers: {type(model).__name__} has no layer {name!r}; {hint}")
    return listed


def trace_calls(model: nn.Module, inputs: Tensor) -> list[Output]:
    """Every module's calls in the order in which they end in one forward pass; the model itself comes last, as ""."""
    calls: list[Output] = []

    def note(name: str, output: Any) -> None:
        calls.append((name, output.shape if _is_usable(output, len(inputs)) else None))

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(lambda _, args, output, name=name: note(name, output)))
        model(inputs)
    return calls


def choose_layers(model: nn.Module, calls: list[Output]) -> tuple[str, ...]:
    """The ends of the model's blocks in the order in which they run, at most 8 with the logits, as score_features says.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> choose_layers(model, trace_calls(model, torch.zeros(1, 4)))
    ('2', 'logits')
    """
    times = Counter(name for name, _ in calls)
    blocks = set(_blocks(model, "", sum(p.numel() for p in model.parameters())))
    ends: list[str] = []
    for name, shape in calls:
        if name in blocks and times[name] == 1 and shape is not None:
            if any(p.dim() > 1 for p in model.get_submodule(name).parameters()):
                ends.append(name)
            elif ends:  # no weights: the end of the block before
                ends[-1] = name
    shapes = dict(calls)
    if ends and shapes[ends[-1]] == shapes[""]:
        ends.pop()  # the logits, or their softmax
    kept = np.linspace(0, len(ends) - 1, min(len(ends), MAX_LAYERS - 1)).round().astype(int)
    return (*(ends[i] for i in kept), LOGITS)


def find_head(model: nn.Module, calls: list[Output]) -> str:
    """The last layer with a weight matrix that runs; the model itself if it has no such layer.

    >>> model = nn.Sequential(nn.Linear(4, 2), nn.Softmax(1))
    >>> find_head(model, trace_calls(model, torch.zeros(1, 4)))
    '0'
    """
    weighted = {name for name, module in model.named_modules() if _has_weight(module)}
    ran = [name for name, _ in calls if name in weighted]
    if weighted and not ran:
        raise ValueError(
            f"model: no layer of {type(model).__name__} was seen to run; pass the model as it was before torch.compile"
        )
    return ran[-1] if ran else ""


def run_layers(
    model: nn.Module, inputs: Tensor, layers: Iterable[str], head: str, max_features: int | None
) -> tuple[dict[str, Tensor], Tensor, Any]:
    """One forward pass: outputs of the layers by name in the order in which they run, input of the head, model output.

    Outputs of layers and input of the head are [B, D] float32 on the CPU. Of a layer that runs several times the last
    time is kept.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    outputs: dict[str, Tensor] = {}
    embedding: dict[str, Tensor] = {}

    def keep(kept: dict[str, Tensor], name: str, value: Any) -> None:
        kept.pop(name, None)
        kept[name] = _as_rows(value, len(inputs), f"{name!r}" if kept is outputs else f"before {name!r}", max_features)

    with ExitStack() as hooks:
        for name in layers:
            hook = modules[name].register_forward_hook(lambda _, args, output, name=name: keep(outputs, name, output))
            hooks.enter_context(hook)
        hook = modules[head].register_forward_pre_hook(lambda _, args: keep(embedding, head, args[0] if args else None))
        hooks.enter_context(hook)
        result = model(inputs)
    for kept, name in [*((outputs, name) for name in layers), (embedding, head)]:
        if name not in kept:
            raise ValueError(f"layer {name!r} did not run in the forward pass; choose others with layers=...")
    return outputs, embedding[head], result


def _blocks(module: nn.Module, name: str, parameters: int) -> Iterator[str]:
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        share = sum(p.numel() for p in child.parameters())
        is_trunk = isinstance(child, (nn.Sequential, nn.ModuleList)) or 2 * share > parameters
        if is_trunk and any(True for _ in child.children()):
            yield from _blocks(child, path, parameters)
        else:
            yield path


def _has_weight(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() > 1


def _is_usable(output: Any, rows: int) -> bool:
    return isinstance(output, Tensor) and output.is_floating_point() and output.dim() > 0 and len(output) == rows


def _as_rows(value: Any, rows: int, name: str, max_features: int | None) -> Tensor:
    """Output of a layer as [B, D] float32 on the CPU."""
    if not _is_usable(value, rows):
        got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"layer {name}: got {got}, expected one floating-point tensor with {rows} rows, one per example; "
            "choose other layers with layers=..."
        )
    # A copy at once: a layer that works in place, such as ReLU, may overwrite the output of the one before.
    return _pooled(value, max_features).to("cpu", torch.float32, copy=True)


def _pooled(output: Tensor, max_features: int | None) -> Tensor:
    """Output [B, ...] as [B, D], averaged over areas until D <= max_features or one number per channel is left."""
    if max_features is not None and 3 <= output.dim() <= 5 and output[0].numel() > max_features:
        if output.dim() == 3:
            output = output.transpose(1, 2)  # [B, T, D]: the channels come last
        channels, sizes = output.shape[1], output.shape[2:]
        side = max(1, math.floor((max_features / channels) ** (1 / len(sizes)) + 1e-9))
        pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[len(sizes) - 1]
        output = pool(tuple(min(side, size) for size in sizes))(output)
    return output.reshape(len(output), -1)
