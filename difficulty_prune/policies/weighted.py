"""Policies that draw examples with different probabilities, and weight what they keep by 1 / inclusion probability.

In expectation the weighted gradient is that of the full data (Horvitz and Thompson 1952): an example kept with
probability q and then counted 1 / q times counts once on average. The epoch's sum of weighted gradients estimates the
sum over all examples; their mean times the plan's share of the set (`keep`, once all have been seen) estimates the
mean.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

import numpy as np
import torch
from torch import Tensor

from ..support.checks import check_fraction, check_number
from .base import (
    Choice,
    Keeping,
    Unseen,
    check_anneal,
    finite_range,
    finite_ranges,
    first_full_epoch,
    hardest_first,
    share_of_ends,
)
from .everyone import Everyone

_DRAW: Final = 1  # what random numbers are for that break no ties


class Weighted(Keeping):
    """Draws without replacement, each example with its own probability."""

    redrawn: ClassVar[bool] = True
    drops_classes: ClassVar[bool] = True
    unbiased: ClassVar[bool] = True
    ranks: ClassVar[bool] = False  # live losses may well be the same at first; of fixed ones the sampler warns

    @abstractmethod
    def probability(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Tensor:
        """The probability of keeping each example, [N] float64 in (0, 1], adding up to `kept`; ties may be broken."""

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        probability = self.probability(difficulty, kept, generator)
        chosen = draw(probability, kept, generator)
        return chosen, 1 / probability[chosen]


@dataclass(frozen=True)
class SoftPrune(Weighted):
    """Unbiased dynamic pruning: each epoch leaves out random easy examples, and the other easy ones stand in for them.

    The easiest examples are kept with probability `easy_keep` and then weigh 1 / `easy_keep`; all others are kept with
    weight 1. `keep` determines how many count as easy: (1 - keep) / (1 - easy_keep) of the set. Every epoch keeps the
    same number, and the weights add up to the size of the set. The idea is InfoBatch's (Qin et al., ICLR 2024).
    InfoBatch calls easy whatever is below the mean loss, so the fraction it keeps is not known beforehand.

    Args:
        keep: the fraction of the whole set to keep, in (0, 1].
        anneal: the last fraction of the epochs that sees the full data, with weights of exactly 1; in [0, 1], rounded
            up to whole epochs. The sampler knows which epoch it is; a policy that you call yourself does not.
        epochs: number of epochs of the training; needed for `anneal`. Later epochs see the full data.
        easy_keep: in (0, keep]; default: keep / 2. Raised slightly if that makes the number of easy examples whole.
        unseen: "keep" by default, because no example has been seen when training begins.

    >>> plan = SoftPrune(keep=0.75)(torch.arange(8.0))
    >>> len(plan), float(plan.weight.sum())
    (6, 8.0)
    >>> SoftPrune(keep=0.75, anneal=0.25, epochs=10).at(8)(torch.arange(8.0)).weight.tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    keep: float
    anneal: float = 0.0
    epochs: int | None = None
    easy_keep: float | None = None
    unseen: Unseen = field(default="keep", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_anneal(self.anneal, self.epochs)
        if self.easy_keep is not None:
            check_fraction(self.easy_keep, "easy_keep")
            if self.easy_keep > self.keep:
                raise ValueError(f"easy_keep: got {self.easy_keep}, expected at most keep, {self.keep}")

    def at(self, epoch: int) -> SoftPrune:
        """The policy of an epoch: the full data from the first epoch that belongs to the last `anneal` on.

        Raises:
            ValueError: `anneal` is set, but not `epochs`.
        """
        full_from = self.full_from
        return self if full_from is None or epoch < full_from else replace(self, keep=1.0, easy_keep=None)

    @property
    def full_from(self) -> int | None:
        """The first epoch that sees the full data, where `anneal` is set; ValueError without `epochs`."""
        return first_full_epoch(self.anneal, self.epochs, f"SoftPrune(keep={self.keep}")

    def with_keep(self, keep: float) -> SoftPrune:
        return super().with_keep(keep if self.easy_keep is None else max(keep, self.easy_keep))

    def limits_of(self, known: int) -> tuple[int, int]:
        least, most = super().limits_of(known)
        return max(least, math.ceil(round((self.easy_keep or 0) * most, 9))), most

    def probability(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Tensor:
        size, easy = len(difficulty), self._easy(len(difficulty), kept)
        probability = torch.ones(size, dtype=torch.float64, device="cpu")
        if easy:
            probability[hardest_first(difficulty, generator)[size - easy :]] = 1 - (size - kept) / easy
        return probability

    def chances(self, difficulty: Tensor, kept: int) -> Tensor:
        """Ties at the border of the easy examples are easy in a part of the plans only, so theirs is in between."""
        size, easy = len(difficulty), self._easy(len(difficulty), kept)
        if easy == 0:
            return torch.ones(size, dtype=torch.float64, device="cpu")
        return 1 - share_of_ends(-difficulty, easy) * ((size - kept) / easy)

    def pick(self, everyone: Everyone, kept: list[int]) -> Choice:
        easy = [self._easy(size, count) for size, count in zip(everyone.sizes, kept, strict=True)]
        left_out = [size - count for size, count in zip(everyone.sizes, kept, strict=True)]
        is_easy = everyone.easiest(easy)
        stays = [number - gone for number, gone in zip(easy, left_out, strict=True)]
        taken = ~is_easy
        taken[is_easy] = everyone.only(is_easy).drawn(stays, purpose=_DRAW)
        share = [1 - gone / number if number else 1.0 for number, gone in zip(easy, left_out, strict=True)]
        probability = torch.where(is_easy, torch.tensor(share, dtype=torch.float64, device="cpu")[everyone.group], 1.0)
        return taken.nonzero()[:, 0], 1 / probability[taken]

    def _easy(self, size: int, kept: int) -> int:
        """How many examples are easy."""
        if kept == size:
            return 0
        wanted = self.keep / 2 if self.easy_keep is None else self.easy_keep
        easy = math.ceil(round((size - kept) / (1 - min(wanted, kept / size)), 9))
        return min(size, max(size - kept + 1, easy))  # at least one of them is kept


@dataclass(frozen=True)
class Importance(Weighted):
    """Draws hard examples more often than easy ones, anew in every epoch, and gives them smaller weights in return.

    The probability of keeping an example is proportional to exp(z / temperature), where z is its difficulty minus the
    mean, over the standard deviation. Where that would exceed 1, the example is always kept. The draw is systematic
    sampling in random order (Madow 1949), whose inclusion probabilities are exactly these. The number of examples is
    not limited.

    Args:
        temperature: above 0. The higher it is, the more alike the probabilities; infinity makes them equal.
        keep: the fraction of the whole set to keep, in (0, 1].

    >>> plan = Importance(temperature=1.0, keep=0.5)(torch.arange(8.0))
    >>> len(plan), bool(plan.weight[0] > plan.weight[-1])
    (4, True)
    """

    temperature: float = 1.0
    keep: float = 0.5
    unseen: Unseen = field(default="refuse", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.temperature, "temperature", "(0, inf]")
        if not self.temperature > 0:
            raise ValueError(f"temperature: got {self.temperature}, expected a number above 0")

    def probability(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Tensor:
        return self.chances(difficulty, kept)

    def chances(self, difficulty: Tensor, kept: int) -> Tensor:
        lowest, highest = (bound / 2 for bound in finite_range(difficulty, "Importance"))
        width = highest - lowest  # of halves: the difference of two finite numbers may overflow
        share = (difficulty / 2 - lowest) / width if width > 0 else torch.ones_like(difficulty)
        spread = float(share.std(correction=0)) or 1.0
        probability = proportional(((share - 1) / (spread * self.temperature)).exp(), kept)
        if not float(probability.min()) > 1 / torch.finfo(torch.float32).max:
            self._refuse_temperature()
        return probability

    def pick(self, everyone: Everyone, kept: list[int]) -> Choice:
        """By priority sampling (Duffield, Lund and Thorup 2007): as many as `choose` takes, and unbiased as well.

        Each example has a priority u / size, with u random in (0, 1), and the lowest are kept. With t the first that is
        not, an example was kept with the probability min(1, size * t), whatever the others had.
        """
        size, random, group = self._relative_size(everyone), everyone.random(_DRAW), everyone.group
        priority = everyone.each(lambda places: _uniform(random(places)) / size[places])
        taken = everyone.lowest(priority, kept)
        first_not = everyone.lowest_of(lambda places: torch.where(taken[places], torch.inf, priority[places]))
        smallest = everyone.lowest_of(lambda places: size[places])
        least = torch.where(smallest > 0, smallest * first_not, 0.0)
        if bool((least <= 1 / torch.finfo(torch.float32).max).any()):
            self._refuse_temperature()
        places = taken.nonzero()[:, 0]
        return places, 1 / (size[places] * first_not[group[places]]).clamp_(max=1.0)

    def _relative_size(self, everyone: Everyone) -> Tensor:
        """exp(z / temperature) [n] float64, of which the largest is 1 in each group."""
        lowest, highest = (end / 2 for end in finite_ranges(everyone, "Importance"))
        difficulty, group = everyone.difficulty, everyone.group
        width = torch.where(highest > lowest, highest - lowest, 1.0)

        def share(places: Tensor) -> Tensor:
            of = group[places]
            within = (difficulty[places] / 2 - lowest[of]) / width[of]
            return torch.where((highest > lowest)[of], within, 1.0)

        mean = everyone.mean(share)
        spread = everyone.mean(lambda places: (share(places) - mean[group[places]]).square()).sqrt()
        scale = torch.where(spread > 0, spread, 1.0) * self.temperature
        # NumPy's exp gives the same bits wherever in an array the number stands.
        return everyone.each(
            lambda places: torch.from_numpy(np.exp(((share(places) - 1) / scale[group[places]]).numpy()))
        )

    def _refuse_temperature(self) -> None:
        raise ValueError(
            f"temperature: got {self.temperature}, at which the easiest examples would hardly ever be drawn, and "
            "have weights beyond the range of float32; choose a higher one"
        )


def _uniform(words: Tensor) -> Tensor:
    """A number in (0, 1) of 64 random bits each, [k] float64."""
    return torch.from_numpy(((words.numpy().view(np.uint64) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


def proportional(size: Tensor, kept: int) -> Tensor:
    """Probabilities in proportion to `size` [N] > 0, at most 1, adding up to `kept`; [N] float64.

    >>> proportional(torch.tensor([1.0, 1.0, 2.0, 9.0], dtype=torch.float64), 2)
    tensor([0.2500, 0.2500, 0.5000, 1.0000], dtype=torch.float64)
    """
    largest, order = size.sort(descending=True)
    rest = largest.flip(0).cumsum(0).flip(0)  # sum of each size and all smaller ones
    left = kept - torch.arange(len(size), dtype=torch.float64, device="cpu")
    below = largest * left < rest  # whether its probability stays below 1 once all larger ones are certain
    certain = min(kept, int((~below).sum()))
    probability = torch.ones_like(size)
    if certain < len(size):
        probability[order[certain:]] = largest[certain:] * (kept - certain) / rest[certain]
    return probability


def draw(probability: Tensor, kept: int, generator: torch.Generator) -> Tensor:
    """Positions [kept] by systematic sampling in random order; each is drawn with exactly its probability.

    Lay the examples along a line, each as long as its probability; the whole line is a whole number long. Points at
    distance 1 from each other, after a random start, hit every example at most once.
    """
    certain = probability >= 1
    always = certain.nonzero()[:, 0]
    points = kept - len(always)
    if points == 0:
        return always
    others = (~certain).nonzero()[:, 0]
    others = others[torch.randperm(len(others), generator=generator, device="cpu")]
    ends = probability[others].cumsum(0)
    start = torch.rand((), dtype=torch.float64, generator=generator, device="cpu")
    hits = (start + torch.arange(points, dtype=torch.float64, device="cpu")) * (ends[-1] / points)
    hit = torch.searchsorted(ends, hits, right=True).clamp_(max=len(others) - 1)  # rounding may pass the end
    return torch.cat([always, others[hit]])
