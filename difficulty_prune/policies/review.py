"""Keeps the hard examples, and reviews each of the others after a bounded number of epochs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..support.checks import whole_number
from ..support.randomness import generator_from
from .base import Choice, Keeping, Unseen, equal_weights, hardest_first, share_of_ends
from .per_example import PerExample


@dataclass(frozen=True)
class Review(Keeping):
    """Visits the hardest examples in every epoch, and every example at least once in any `gap` epochs in a row.

    In each epoch one example in `gap` is due, whatever its difficulty, and comes back `gap` epochs later; the rest of
    the `keep * N` examples are the hardest of the others. So nothing that is easy, or has become easy, is forgotten for
    longer than `gap` epochs, and nothing has to be remembered: which examples are due follows from the epoch and the
    seed. Weights are 1.

    That easy examples are reviewed at intervals is the idea of spaced repetition (Amiri, Miller, Savova, EMNLP 2017)
    and of AFSS, an anti-forgetting sampler for detectors (Xie et al. 2026, arXiv 2603.17684), which tells easy, medium
    and hard images apart by recall and precision, and reviews first what was not used for longest. A fixed turn for
    each example, as here, bounds the interval.

    Args:
        keep: the fraction of the whole set to visit in an epoch, in (0, 1], at least 1 / gap. What is due is visited
            even if it is more, as it may be within a small class.
        gap: the most epochs from one visit of an example to the next, at least 1.
        seed: of the turns.
        epoch: which epoch it is; `at` sets it. A policy that you call yourself is that of epoch 0.
        unseen: "keep" by default, because no example has been seen when training begins.

    Raises:
        TypeError, ValueError: an argument is no such number, or `keep` is less than 1 / gap.

    >>> policy, difficulty = Review(keep=0.5, gap=4), torch.arange(8.0)
    >>> epochs = [policy.at(epoch)(difficulty).index.tolist() for epoch in range(4)]
    >>> [len(epoch) for epoch in epochs], sorted(set(sum(epochs, [])))
    ([4, 4, 4, 4], [0, 1, 2, 3, 4, 5, 6, 7])
    """

    redrawn: ClassVar[bool] = True
    drops_classes: ClassVar[bool] = True
    ranks: ClassVar[bool] = False  # live scores may well be the same at first; of fixed ones the sampler warns
    keep: float
    gap: int = 10
    seed: int = 0
    epoch: int = 0
    unseen: Unseen = field(default="keep", kw_only=True, repr=False)
    turns: Any = field(default=None, kw_only=True, repr=False)
    """[N], the turn of each example, 0..gap-1, where the policy is that of a part; else they follow from the seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("gap", 1), ("seed", 0), ("epoch", 0)):
            whole_number(getattr(self, name), name, least)
        if self.keep * self.gap < 1 - 1e-9:
            raise ValueError(
                f"keep: got {self.keep} with a gap of {self.gap} epochs, expected at least 1 / {self.gap}: so many "
                "examples are due in each epoch; keep more, or allow a longer gap"
            )

    def at(self, epoch: int) -> Review:
        """The policy of an epoch."""
        return replace(self, epoch=epoch)

    def of(self, positions: Tensor, size: int) -> Review:
        turns = PerExample(self._turns(size), "turns", "the turn of each example [N]")
        return replace(self, turns=turns.of(positions, size))

    def with_keep(self, keep: float) -> Review:
        return super().with_keep(max(keep, 1 / self.gap))

    def limits_of(self, known: int) -> tuple[int, int]:
        least, most = super().limits_of(known)
        return max(least, -(-most // self.gap)), most

    def dearest(self, cost: Tensor, left: Tensor, known: int) -> float:
        turns = self._turns(len(cost))
        left = left & ~turns.isnan()  # of new examples it is not
        due = turns[left].long()
        # Where fewer are due than the fewest that are kept, the hardest join them, whichever these are.
        fewest, _ = self.limits_of(known)
        missing = (fewest - due.bincount(minlength=self.gap)).clamp(0, len(due))
        dear = torch.cat([cost.new_zeros(1), cost[left].sort(descending=True).values.cumsum(0)])
        return float((due.bincount(cost[left], minlength=self.gap) + dear[missing]).max())

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        due = self._due(len(difficulty))
        others = (~due).nonzero()[:, 0]
        hardest = others[hardest_first(difficulty[others], generator)[: self._others(due, kept)]]
        return equal_weights(torch.cat([due.nonzero()[:, 0], hardest]))

    def chances(self, difficulty: Tensor, kept: int) -> Tensor:
        due = self._due(len(difficulty))
        found = due.double()
        if not bool(due.all()):
            found[~due] = share_of_ends(difficulty[~due], self._others(due, kept))
        return found

    def _due(self, size: int) -> Tensor:
        """[N] bool: whose turn it is."""
        return self._turns(size) == self.epoch % self.gap

    def _turns(self, size: int) -> Tensor:
        """[N], equally many of each, at random."""
        if self.turns is not None:
            turns: Tensor = self.turns.check(size)
            return turns
        return torch.randperm(size, generator=generator_from(self.seed), device="cpu") % self.gap

    @staticmethod
    def _others(due: Tensor, kept: int) -> int:
        """How many are kept that are not due."""
        return max(0, kept - int(due.sum()))
