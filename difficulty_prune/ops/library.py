"""Registers the operators with PyTorch: schemas, shapes for tracing, autograd, compiled kernels, fallback.

The schemas stand here alone; the compiled module `_C` only adds kernels for the devices that it knows. Every
other device is served by the plain-PyTorch reference, with one warning that says why.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, fallthrough_kernel, register_fake

from . import reference
from .layout import DECAY, STATS

NAMESPACE = "difficulty_prune"
SCHEMAS = {
    "softmax_stats": "(Tensor logits, Tensor labels, int? ignore_index=None) -> Tensor",
    "soft_stats": "(Tensor logits, Tensor targets, Tensor(a!)? unnormalised=None) -> Tensor",
    "sigmoid_stats": "(Tensor logits, Tensor labels, int? ignore_index=None) -> Tensor",
    "reduce_rows": "(Tensor stats, int examples, Tensor? owner=None, Tensor? weight=None, Tensor? labels=None, "
    "Tensor(a!)? skipped=None) -> (Tensor, Tensor)",
    "try_record_stats_": "(Tensor(a!) table, Tensor index, Tensor logits, Tensor labels, Tensor(b!) skipped, "
    f"int? ignore_index=None, float decay={DECAY}, Tensor(c!)? steps=None) -> bool",
    "record_stats_": "(Tensor(a!) table, Tensor index, Tensor logits, Tensor labels, Tensor(b!) skipped, "
    f"int? ignore_index=None, float decay={DECAY}, Tensor(c!)? steps=None) -> ()",
    "record_given_stats_": "(Tensor(a!) table, Tensor index, Tensor stats, Tensor labels, int num_classes, "
    f"Tensor(b!) skipped, float right_from=1.0, float decay={DECAY}, Tensor(c!)? steps=None) -> ()",
    "try_record_temporal_": "(Tensor(a!) table, Tensor index, Tensor logits, Tensor labels, int window, float decay, "
    "Tensor(b!) skipped, Tensor? records=None, int? ignore_index=None) -> bool",
    "record_temporal_": "(Tensor(a!) table, Tensor index, Tensor logits, Tensor labels, int window, float decay, "
    "Tensor(b!) skipped, Tensor? records=None, int? ignore_index=None) -> ()",
    "record_dual_": "(Tensor(a!) sums, Tensor table, Tensor index, Tensor logits, Tensor labels, int window, "
    "Tensor? records=None, int? ignore_index=None) -> ()",
    "try_record_gradients_": "(Tensor(a!) count, Tensor(b!) mean, Tensor(c!) m2, Tensor index, Tensor gradients, "
    "Tensor? scale, Tensor? pixels, Tensor(d!) skipped) -> bool",
    "record_gradients_": "(Tensor(a!) count, Tensor(b!) mean, Tensor(c!) m2, Tensor index, Tensor gradients, "
    "Tensor? scale, Tensor? pixels, Tensor(d!) skipped) -> ()",
    "merge_moments_": "(Tensor(a!) count, Tensor(b!) mean, Tensor(c!) m2, Tensor other_count, Tensor other_mean, "
    "Tensor other_m2) -> ()",
    "gradient_variance": "(Tensor gradients, str statistic='std') -> Tensor",
    "reduce_probabilities": "(Tensor logits, int examples, Tensor owner, Tensor? weight=None) -> Tensor",
    "record_means_": "(Tensor(a!) count, Tensor(b!) mean, Tensor index, Tensor values, Tensor used) -> ()",
}
PLAIN = ("reduce_probabilities", "record_means_", "record_dual_")
"""Written in operations of PyTorch that wait for nothing, on every device; there are no other kernels."""

library = Library(NAMESPACE, "DEF")


def _load_compiled() -> str | None:
    """Imports the kernels; returns why they are missing, or None."""
    try:
        import difficulty_prune._C  # noqa: F401
    except ImportError as error:
        return f"the compiled module could not be loaded ({error})"
    return None


for _name, _schema in SCHEMAS.items():
    library.define(_name + _schema)
missing: str | None = _load_compiled()
"""Why the compiled kernels are missing; None where they are there."""


@functools.cache
def _warn_once(device_type: str) -> None:
    reason = missing or f"this build has no kernels for {device_type!r} tensors"
    advice = "reinstall difficulty-prune with a C++ compiler present" + (
        " and an nvcc (DIFFICULTY_PRUNE_CUDA=1)" if device_type == "cuda" else ""
    )
    warnings.warn(
        f"difficulty_prune runs its slower plain-PyTorch operators on {device_type!r}: {reason}. "
        f"To get the kernels, {advice}; `difficulty-prune doctor` shows what was built.",
        RuntimeWarning,
        stacklevel=4,
    )


def _fallback(function: Callable[..., Any], warns: bool) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if warns:
            _warn_once(next(a.device.type for a in args if isinstance(a, Tensor)))
        # .data, because autograd does not notice changes by the compiled kernels either: state is no part of a graph.
        return function(*(a.data if isinstance(a, Tensor) else a for a in args), **kwargs)

    return run


for _name in SCHEMAS:
    _function = getattr(reference, _name)
    # To try is to look first, and where there are no kernels nothing more than that is done.
    _served = _function if _name.startswith("try_") else _fallback(_function, _name not in PLAIN)
    library.impl(_name, _served, "CompositeExplicitAutograd")
    library.impl(_name, fallthrough_kernel, "Autograd")  # statistics carry no gradient


@register_fake(f"{NAMESPACE}::softmax_stats")
@register_fake(f"{NAMESPACE}::soft_stats")
def _(logits: Tensor, target: Tensor, option: Any = None) -> Tensor:
    return logits.new_empty((logits.shape[0], *logits.shape[2:], len(STATS)), dtype=torch.float32)


@register_fake(f"{NAMESPACE}::sigmoid_stats")
def _(logits: Tensor, labels: Tensor, ignore_index: int | None = None) -> Tensor:
    return logits.new_empty((*logits.shape, len(STATS)), dtype=torch.float32)


@register_fake(f"{NAMESPACE}::reduce_rows")
def _(stats: Tensor, examples: int, *columns: Tensor | None) -> tuple[Tensor, Tensor]:
    return stats.new_empty((examples, len(STATS))), stats.new_empty((examples,), dtype=torch.int64)


@register_fake(f"{NAMESPACE}::reduce_probabilities")
def _(logits: Tensor, examples: int, *columns: Tensor | None) -> Tensor:
    return logits.new_empty((examples, logits.shape[1]), dtype=torch.float32)


@register_fake(f"{NAMESPACE}::gradient_variance")
def _(gradients: Tensor, statistic: str = "std") -> Tensor:
    return gradients.new_empty((gradients.shape[1],), dtype=torch.float32)


@register_fake(f"{NAMESPACE}::record_stats_")
@register_fake(f"{NAMESPACE}::record_given_stats_")
@register_fake(f"{NAMESPACE}::record_temporal_")
@register_fake(f"{NAMESPACE}::record_dual_")
@register_fake(f"{NAMESPACE}::record_gradients_")
@register_fake(f"{NAMESPACE}::merge_moments_")
@register_fake(f"{NAMESPACE}::record_means_")
def _(*arguments: Tensor | float | None) -> None:
    return None
