"""What every policy of this package shares: how many are kept, what happens to unseen examples, how ties are broken."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..plan import Plan, make_plan
from .checks import Unseen, check_difficulty, check_fraction, check_plan_labels, check_unseen

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
