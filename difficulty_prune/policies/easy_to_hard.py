"""A window over groups of difficulty that slides from easy to hard while a model trains."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..support.checks import whole_number
from .base import (
    Choice,
    Keeping,
    Unseen,
    check_anneal,
    chosen,
    equal_weights,
    first_full_epoch,
    hardest_first,
    share_of_ends,
)
from .everyone import Everyone


@dataclass(frozen=True)
class EasyToHard(Keeping):
    """Visits a window of the ranking that slides from the easy end to the hard end, a group further in every epoch.

    The examples, in order of difficulty, are cut into groups of equal size. An epoch visits those in a window of
    `keep * N` examples. It begins at the easiest group, moves by about a group an epoch, and once it has reached the
    hardest begins anew. No example is jumped over: where the window is smaller than a group, it moves by less. The idea
    is that of SeTa's sliding window (Zhou et al., CVPR 2025, arXiv 2503.13385), which groups by k-means, so that the
    number it visits is not known beforehand, and drops a random part first. Weights are 1: an epoch sees only a part of
    the difficulties, and its gradients are not those of the full data.

    Args:
        keep: the fraction of the whole set to keep, in (0, 1].
        groups: number of groups, at least 1.
        anneal: the last fraction of the epochs that sees the full data; in [0, 1], rounded up to whole epochs.
        epochs: number of epochs of the training; needed for `anneal`. Later epochs see the full data.
        epoch: which epoch it is; `at` sets it. A policy that you call yourself is that of epoch 0.
        unseen: "keep" by default, because no example has been seen when training begins.

    >>> policy, difficulty = EasyToHard(keep=0.5, groups=4), torch.arange(8.0)
    >>> [policy.at(epoch)(difficulty).index.tolist() for epoch in range(4)]
    [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [0, 1, 2, 3]]
    """

    redrawn: ClassVar[bool] = True
    drops_classes: ClassVar[bool] = True
    ranks: ClassVar[bool] = False  # live scores may well be the same at first; of fixed ones the sampler warns
    keep: float
    groups: int = 10
    anneal: float = 0.0
    epochs: int | None = None
    epoch: int = 0
    unseen: Unseen = field(default="keep", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number(self.groups, "groups", least=1)
        check_anneal(self.anneal, self.epochs)
        whole_number(self.epoch, "epoch")

    @property
    def full_from(self) -> int | None:
        """The first epoch that sees the full data, where `anneal` is set; ValueError without `epochs`."""
        return first_full_epoch(self.anneal, self.epochs, f"EasyToHard(keep={self.keep}")

    def at(self, epoch: int) -> EasyToHard:
        """The policy of an epoch.

        Raises:
            ValueError: `anneal` is set, but not `epochs`.
        """
        full_from = self.full_from
        if full_from is not None and epoch >= full_from:
            return replace(self, keep=1.0, epoch=full_from)
        return replace(self, epoch=epoch)

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        first = self._first(len(difficulty), kept)
        return equal_weights(hardest_first(-difficulty, generator)[first : first + kept])

    def chances(self, difficulty: Tensor, kept: int) -> Tensor:
        first = self._first(len(difficulty), kept)
        return share_of_ends(-difficulty, first + kept) - share_of_ends(-difficulty, first)

    def pick(self, everyone: Everyone, kept: list[int]) -> Choice:
        first = [self._first(size, count) for size, count in zip(everyone.sizes, kept, strict=True)]
        last = [start + count for start, count in zip(first, kept, strict=True)]
        return chosen(everyone.easiest(last) & ~everyone.easiest(first))

    def _first(self, size: int, kept: int) -> int:
        """How many of the easiest are left out."""
        steps = max(math.ceil(round((1 - kept / size) * self.groups, 9)), math.ceil((size - kept) / kept))
        return self.epoch % (steps + 1) * (size - kept) // max(1, steps)
