"""What every policy of this package shares: how many are kept, what happens to unseen examples, how ties are broken."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from .plan import Plan, make_plan

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


Choice = tuple[Tensor, Tensor]
"""Positions [K] int64 and the weight of each, [K] float64."""


class Policy(Protocol):
    """A rule that turns difficulty into a plan.

    One's own may have attributes that a sampler looks at: `redrawn = True` for a new draw in every epoch even where the
    difficulty is fixed, `at(epoch) -> Policy` for one that changes, and `unseen = "keep"` to be given NaN.
    """

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """difficulty [N] -> plan; see `dp.policies`."""
        ...


class Keeping(ABC):
    """A policy that keeps a given fraction of the examples.

    Attributes:
        keep: the fraction, in (0, 1].
        unseen: what happens to examples of NaN difficulty.
        redrawn: whether a sampler draws anew in every epoch, even where the difficulty stays the same.
        drops_classes: whether a plan may lack a class, because over the epochs all of them have their turn.
    """

    keep: float
    unseen: Unseen
    redrawn: ClassVar[bool] = False
    drops_classes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fraction(self.keep, "keep")
        check_unseen(self.unseen)

    def __call__(self, difficulty: Any, labels: Any = None, generator: torch.Generator | None = None) -> Plan:
        """See `dp.policies`.

        Raises:
            TypeError, ValueError: NaN (unless unseen="keep") or an empty difficulty, labels of another length, or a
                class that would be dropped.
        """
        values = check_difficulty(difficulty, self.unseen)
        classes = check_plan_labels(labels, len(values))
        draw = default_generator(generator)
        choice = keep_unseen(values, lambda known: self.choose(known, number_kept(self.keep, len(known)), draw))
        return make_plan(*choice, len(values), repr(self), classes, self.drops_classes)

    def at(self, epoch: int) -> Keeping:
        """The policy of an epoch."""
        return self

    @abstractmethod
    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        """Chooses `kept` of the examples, 1 <= kept <= N, whose difficulty [N] has no NaN."""


def at_epoch(policy: Policy, epoch: int) -> Policy:
    """The policy of an epoch, of one that changes and of one that does not."""
    at: Callable[[int], Policy] | None = getattr(policy, "at", None)
    return policy if at is None else at(epoch)


def keep_unseen(difficulty: Tensor, choose: Callable[[Tensor], Choice]) -> Choice:
    """What is chosen from the difficulty that is known, and all examples of which it is not."""
    unseen = difficulty.isnan()
    if not bool(unseen.any()):
        return choose(difficulty)
    known, others = (~unseen).nonzero()[:, 0], unseen.nonzero()[:, 0]
    if len(known) == 0:
        return equal_weights(others)
    kept, weight = choose(difficulty[known])
    return torch.cat([others, known[kept]]), torch.cat([torch.ones(len(others), dtype=weight.dtype), weight])


def equal_weights(positions: Tensor) -> Choice:
    """The positions, each with weight 1."""
    return positions, torch.ones(len(positions), dtype=torch.float64)


def number_kept(keep: float, size: int) -> int:
    """`keep * size` rounded half up, at least 1."""
    return max(1, min(size, half_up(keep * size)))


def half_up(x: float) -> int:
    """The nearest whole number, the larger of two."""
    return math.floor(round(x, 9) + 0.5)  # 0.29 * 50 is 14.499999999999998, and is meant as 14.5


def hardest_first(difficulty: Tensor, generator: torch.Generator) -> Tensor:
    """Positions from the hardest to the easiest; the generator decides between equals."""
    shuffled = torch.randperm(len(difficulty), generator=generator)
    return shuffled[difficulty[shuffled].argsort(descending=True, stable=True)]


def default_generator(generator: torch.Generator | None) -> torch.Generator:
    """The generator given, else one of a fixed seed."""
    return torch.Generator().manual_seed(0) if generator is None else generator


def equal_shares(groups: list[int], total: int) -> list[int]:
    """The same number from every group, adding up to `total`; what a small group cannot give, the others share.

    >>> equal_shares([10, 1, 10], 9)
    [4, 1, 4]
    """
    shares = [0] * len(groups)
    for turn, g in enumerate(sorted(range(len(groups)), key=groups.__getitem__)):  # smallest group first
        shares[g] = min(groups[g], total // (len(groups) - turn))
        total -= shares[g]
    return shares


def proportional_shares(groups: list[int], keep: float, total: int) -> list[int]:
    """`keep` of every group, adding up to `total` (the largest remainders are rounded up); at least 1 of each.

    >>> proportional_shares([900, 100], 0.5, 500)
    [450, 50]
    """
    exact = [round(keep * size, 9) for size in groups]
    shares = [max(1, math.floor(share)) for share in exact]
    by_remainder = sorted(range(len(groups)), key=lambda g: shares[g] - exact[g])
    for g in by_remainder[: max(0, total - sum(shares))]:
        shares[g] += 1
    return shares
