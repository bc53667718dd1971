"""Policies: rules that turn difficulty into a plan.

A policy is called as `policy(difficulty, labels=None, generator=None) -> Plan`. `difficulty` is [N], high = hard,
without NaN; `labels` [N] are used for the summary and to refuse a plan that drops a whole class; `generator` breaks
ties (and draws, where a policy is random), by default one seeded with 0. The number kept is `keep * N` rounded half
up, at least 1.

>>> plan = Hardest(keep=0.5)(torch.tensor([0.1, 0.9, 0.5, 0.2]))
>>> plan.index.tolist()
[1, 2]
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from .plan import Plan, make_plan

__all__ = ["Easiest", "Hardest", "PerClass", "Policy", "Random", "Window"]


class Policy(Protocol):
    """A rule that turns difficulty into a plan."""

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """difficulty [N] -> plan; see the module."""
        ...


class _Ranked(ABC):
    """A policy that chooses a part of the examples, ordered from the hardest to the easiest."""

    keep: float

    def __post_init__(self) -> None:
        check_fraction(self.keep, "keep")

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """See the module.

        Raises:
            TypeError, ValueError: NaN or an empty difficulty, labels of another length, or a class that would be
                dropped.
        """
        values = check_difficulty(difficulty)
        kept = self.choose(values, _generator(generator))
        return make_plan(kept, len(values), repr(self), check_plan_labels(labels, len(values)))

    @abstractmethod
    def choose(self, difficulty: Tensor, generator: torch.Generator) -> Tensor:
        """Positions to keep."""


@dataclass(frozen=True)
class Hardest(_Ranked):
    """Keeps the hardest `keep` of the examples, in (0, 1]."""

    keep: float

    def choose(self, difficulty: Tensor, generator: torch.Generator) -> Tensor:
        return hardest_first(difficulty, generator)[: number_kept(self.keep, len(difficulty))]


@dataclass(frozen=True)
class Easiest(_Ranked):
    """Keeps the easiest `keep` of the examples, in (0, 1]."""

    keep: float

    def choose(self, difficulty: Tensor, generator: torch.Generator) -> Tensor:
        return hardest_first(-difficulty, generator)[: number_kept(self.keep, len(difficulty))]


@dataclass(frozen=True)
class Window(_Ranked):
    """Leaves out the hardest `start` of the examples, which are often mislabelled, and keeps the next `keep`.

    >>> Window(start=0.25, keep=0.5)(torch.tensor([4.0, 3.0, 2.0, 1.0])).index.tolist()
    [1, 2]
    """

    start: float
    keep: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number(self.start, "start", "[0, 1)")
        if not 0 <= self.start < 1:
            raise ValueError(f"start: got {self.start}, expected a number in [0, 1): the hardest fraction, left out")
        if self.start + self.keep > 1 + 1e-9:
            raise ValueError(f"Window: got start {self.start} and keep {self.keep}, expected a sum of at most 1")

    def choose(self, difficulty: Tensor, generator: torch.Generator) -> Tensor:
        size, kept = len(difficulty), number_kept(self.keep, len(difficulty))
        first = min(_half_up(self.start * size), size - kept)
        return hardest_first(difficulty, generator)[first : first + kept]


@dataclass(frozen=True)
class Random(_Ranked):
    """Keeps a random `keep` of the examples: what any other policy has to beat."""

    keep: float

    def choose(self, difficulty: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(difficulty), generator=generator)[: number_kept(self.keep, len(difficulty))]


@dataclass(frozen=True)
class PerClass:
    """Applies a policy within each class.

    Args:
        policy: `Hardest`, `Easiest`, `Window` or `Random`.
        quota: "proportional" keeps the policy's share of every class; "equal" keeps the same number of every class, as
            far as the classes are large enough: what a small class cannot give, the others share.

    >>> difficulty, labels = torch.arange(10.0), torch.tensor([0] * 8 + [1] * 2)
    >>> PerClass(Hardest(keep=0.5))(difficulty, labels).index.tolist()
    [4, 5, 6, 7, 9]
    """

    policy: Hardest | Easiest | Window | Random
    quota: Literal["proportional", "equal"] = "proportional"

    def __post_init__(self) -> None:
        if not isinstance(self.policy, _Ranked):
            raise TypeError(f"policy: got {self.policy!r}, expected Hardest, Easiest, Window or Random")
        if self.quota not in ("proportional", "equal"):
            raise ValueError(f"quota: got {self.quota!r}, expected 'proportional' or 'equal'")

    @property
    def keep(self) -> float:
        return self.policy.keep

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """See the module; here the labels are required."""
        values = check_difficulty(difficulty)
        classes = check_plan_labels(labels, len(values))
        if classes is None:
            raise ValueError("PerClass: got no labels, expected the class of every example, [N]")
        generator = _generator(generator)
        members = [(classes == c).nonzero()[:, 0] for c in classes.unique()]
        kept = [
            group[self._for_quota(size, len(group)).choose(values[group], generator)]
            for group, size in zip(members, self._sizes([len(group) for group in members]), strict=True)
        ]
        return make_plan(torch.cat(kept), len(values), repr(self), classes)

    def _sizes(self, groups: list[int]) -> list[int]:
        left, sizes = number_kept(self.keep, sum(groups)), [0] * len(groups)
        if self.quota == "proportional":
            return _largest_remainders(groups, self.keep, left)
        for turn, c in enumerate(sorted(range(len(groups)), key=groups.__getitem__)):  # smallest class first
            sizes[c] = max(1, min(groups[c], left // (len(groups) - turn)))
            left -= sizes[c]
        return sizes

    def _for_quota(self, kept: int, size: int) -> Hardest | Easiest | Window | Random:
        """The policy with the share that gives `kept` of `size` examples."""
        keep = kept / size
        if isinstance(self.policy, Window):
            return replace(self.policy, start=min(self.policy.start, 1 - keep), keep=keep)
        return replace(self.policy, keep=keep)


def _largest_remainders(groups: list[int], keep: float, total: int) -> list[int]:
    """`keep` of every group in whole numbers that add up to `total` (where every group can have at least 1)."""
    exact = [round(keep * size, 9) for size in groups]
    sizes = [max(1, math.floor(share)) for share in exact]
    by_remainder = sorted(range(len(groups)), key=lambda c: sizes[c] - exact[c])
    for c in by_remainder[: max(0, total - sum(sizes))]:
        sizes[c] += 1
    return sizes


def check_fraction(value: float, name: str) -> None:
    """TypeError or ValueError unless the value is a number in (0, 1]."""
    _check_number(value, name, "(0, 1]")
    if not 0 < value <= 1:  # NaN is neither
        raise ValueError(f"{name}: got {value}, expected a number in (0, 1]: the fraction of examples that is kept")


def _check_number(value: float, name: str, interval: str) -> None:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name}: got {value!r}, expected a number in {interval}, the fraction of examples")


def check_difficulty(difficulty: Any) -> Tensor:
    """Difficulty as [N] float64 on the CPU; ValueError for another shape, no example, or NaN."""
    values = _on_cpu(difficulty).double()
    if values.dim() != 1 or len(values) == 0:
        raise ValueError(f"difficulty: got shape {tuple(values.shape)}, expected one number per example, [N], N >= 1")
    unknown = values.isnan()
    if bool(unknown.any()):
        raise ValueError(
            f"difficulty: {int(unknown.sum())} of {len(values)} examples are NaN, the first at "
            f"{int(unknown.int().argmax())}: they were never presented, or too "
            "rarely for this score. Score them first, or fill in a value"
        )
    return values


def check_plan_labels(labels: Any, size: int) -> Tensor | None:
    """Labels as [N] int64 on the CPU, or None."""
    if labels is None:
        return None
    values = _on_cpu(labels)
    if values.dtype.is_floating_point or values.dtype == torch.bool:
        raise TypeError(f"labels: got {values.dtype}, expected whole numbers")
    if tuple(values.shape) != (size,):
        raise ValueError(f"labels: got shape {tuple(values.shape)}, expected [{size}], one per example")
    if int(values.min()) < 0:
        raise ValueError(f"labels: got {int(values.min())}, expected 0 or more")
    return values.long()


def number_kept(keep: float, size: int) -> int:
    """`keep * size` rounded half up, at least 1."""
    return max(1, min(size, _half_up(keep * size)))


def _half_up(x: float) -> int:
    return math.floor(round(x, 9) + 0.5)  # 0.29 * 50 is 14.499999999999998, and is meant as 14.5


def hardest_first(difficulty: Tensor, generator: torch.Generator) -> Tensor:
    """Positions from the hardest to the easiest; the generator decides between equals."""
    shuffled = torch.randperm(len(difficulty), generator=generator)
    return shuffled[difficulty[shuffled].argsort(descending=True, stable=True)]


def _on_cpu(values: Any) -> Tensor:
    """A tensor of its own from a tensor, an array (read-only ones too) or a sequence of Python numbers."""
    return values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def _generator(generator: torch.Generator | None) -> torch.Generator:
    return torch.Generator().manual_seed(0) if generator is None else generator
