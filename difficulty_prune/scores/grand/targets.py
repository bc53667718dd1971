"""What a loss compares outputs with: a tensor with a row per example, or several of them in a tuple, list or dict."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from .independence import tensors_in, with_tensors
from .parameter_uses import version

Targets: TypeAlias = Tensor | tuple[Any, ...] | list[Any] | dict[Any, Any]


def check_targets(targets: Targets, size: int) -> None:
    """TypeError or ValueError unless these are one tensor or several, each with `size` rows."""
    _check_types(targets)
    found = list(tensors_in(targets))
    if not found:
        raise ValueError(f"labels: got {targets!r}, expected at least one tensor")
    for t in found:
        if t.dim() == 0 or len(t) != size:
            raise ValueError(f"got {size} inputs and labels {tuple(t.shape)}, expected one row for each input")


def _check_types(targets: Any) -> None:
    if type(targets) in (tuple, list, dict):
        for part in targets.values() if isinstance(targets, dict) else targets:
            _check_types(part)
    elif not isinstance(targets, Tensor):
        raise TypeError(
            f"labels: got {type(targets).__name__}, expected a tensor, or a tuple, list or dict of tensors, each with "
            "a row per example"
        )


def detached(targets: Targets) -> Targets:
    """The targets, out of any graph."""
    return _each(targets, [t.detach() for t in tensors_in(targets)])


def rows_of(targets: Targets, rows: slice | Tensor | None) -> Targets:
    """Rows of each tensor; with None, one example's targets as a batch of one."""
    found = [t[rows.to(t.device) if isinstance(rows, Tensor) else rows] for t in tensors_in(targets)]
    return _each(targets, found)


def to_device(targets: Targets, device: torch.device | str) -> Targets:
    """The targets on a device."""
    return _each(targets, [t.to(device) for t in tensors_in(targets)])


def versions(targets: Targets) -> list[int]:
    """How often each tensor has been changed in place."""
    return [version(t) for t in tensors_in(targets)]


def _each(targets: Targets, tensors: list[Tensor]) -> Targets:
    result: Targets = with_tensors(targets, iter(tensors))
    return result
