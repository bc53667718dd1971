"""Checks of what policies are given: what came, what was expected, what to do."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Unseen = Literal["refuse", "keep"]


def check_number(value: float, name: str, interval: str) -> None:
    """TypeError unless the value is a real number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name}: got {value!r}, expected a number in {interval}")


def check_fraction(value: float, name: str) -> None:
    """TypeError or ValueError unless the value is a number in (0, 1]."""
    check_number(value, name, "(0, 1], the fraction of examples that is kept")
    if not 0 < value <= 1:  # NaN is neither
        raise ValueError(f"{name}: got {value}, expected a number in (0, 1]: the fraction of examples that is kept")


def check_left_out(value: float, keep: float, name: str) -> None:
    """TypeError or ValueError unless the value is a fraction in [0, 1) that leaves room for `keep`."""
    check_number(value, name, "[0, 1), the hardest fraction of the examples, which is left out")
    if not 0 <= value < 1:
        raise ValueError(f"{name}: got {value}, expected a number in [0, 1): the hardest fraction, left out")
    if value + keep > 1 + 1e-9:
        raise ValueError(f"{name}: got {name} {value} and keep {keep}, expected a sum of at most 1")


def check_unseen(unseen: str) -> None:
    """ValueError unless it is one of the two options."""
    if unseen not in ("refuse", "keep"):
        raise ValueError(f"unseen: got {unseen!r}, expected 'refuse' or 'keep': what to do with NaN difficulty")


def check_difficulty(difficulty: Any, unseen: Unseen = "refuse") -> Tensor:
    """Difficulty as [N] float64 on the CPU.

    Raises:
        ValueError: another shape, no example, or NaN where unseen examples are refused.
    """
    values = _on_cpu(
        difficulty, "difficulty", "numbers [N], such as runs.difficulty('el2n'), or tracker.source('loss')"
    )
    values = values.double()
    if values.dim() != 1 or len(values) == 0:
        raise ValueError(f"difficulty: got shape {tuple(values.shape)}, expected one number per example, [N], N >= 1")
    unknown = values.isnan()
    if unseen == "refuse" and bool(unknown.any()):
        raise ValueError(
            f"difficulty: {int(unknown.sum())} of {len(values)} examples are NaN, the first at "
            f"{int(unknown.int().argmax())}: they were never presented, or too rarely for this score. Score them "
            "first, or keep them all: give the policy unseen='keep'"
        )
    return values


def finite_range(difficulty: Tensor, policy: str) -> tuple[float, float]:
    """The lowest and the highest difficulty; ValueError where some are infinite, and have no distance to others."""
    lowest, highest = (float(bound) for bound in difficulty.aminmax())
    if math.isinf(lowest) or math.isinf(highest):
        raise ValueError(
            f"difficulty: {int(difficulty.isinf().sum())} of {len(difficulty)} examples are infinite, but {policy} "
            "computes with differences: clamp them, or take ranks (difficulty.argsort().argsort())"
        )
    return lowest, highest


def check_plan_labels(labels: Any, size: int) -> Tensor | None:
    """Labels as [N] int64 on the CPU, or None."""
    if labels is None:
        return None
    values = _on_cpu(labels, "labels", "whole numbers [N]")
    if values.dtype.is_floating_point or values.dtype == torch.bool:
        raise TypeError(f"labels: got {values.dtype}, expected whole numbers")
    if tuple(values.shape) != (size,):
        raise ValueError(f"labels: got shape {tuple(values.shape)}, expected [{size}], one per example")
    if int(values.min()) < 0:
        raise ValueError(f"labels: got {int(values.min())}, expected 0 or more")
    return values.long()


def _on_cpu(values: Any, name: str, expected: str) -> Tensor:
    """A tensor on the CPU from a tensor, an array (read-only ones too) or a sequence of Python numbers."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.array(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: got {type(values).__name__}, expected {expected}")
    return torch.from_numpy(array)
