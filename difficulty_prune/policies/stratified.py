"""Coverage-centric selection: equally many from strata of difficulty."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from .base import (
    Choice,
    Keeping,
    Unseen,
    check_left_out,
    chosen,
    equal_shares,
    equal_weights,
    finite_range,
    finite_ranges,
    half_up,
    number_kept,
    share_of_ends,
)
from .everyone import Everyone

_DRAW, _NUMBERING = 1, 2  # what random numbers are for that break no ties


@dataclass(frozen=True)
class Stratified(Keeping):
    """Keeps examples of every difficulty: coverage-centric coreset selection (Zheng et al., ICLR 2023).

    First the hardest fraction `drop_hardest` is dropped. The rest is cut into strata of equal width in difficulty, and
    each stratum gives the same number of examples, drawn at random; larger strata make up for what small ones lack.

    Args:
        keep: fraction of the whole set to keep, in (0, 1].
        drop_hardest: fraction of the whole set to drop first, in [0, 1); `keep + drop_hardest` is at most 1.
        strata: number of strata, at least 1.

    >>> difficulty = torch.tensor([0.0] * 6 + [0.6, 1.0, 9.0, 9.0])
    >>> Stratified(keep=0.4, drop_hardest=0.2, strata=2)(difficulty).index[-2:].tolist()
    [6, 7]
    """

    keep: float
    drop_hardest: float = 0.0
    strata: int = 50
    unseen: Unseen = field(default="refuse", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_left_out(self.drop_hardest, self.keep, "drop_hardest")
        if isinstance(self.strata, bool) or not isinstance(self.strata, Integral):
            raise TypeError(f"strata: got {self.strata!r}, expected a whole number")
        if self.strata < 1:
            raise ValueError(f"strata: got {self.strata}, expected at least 1")

    def with_keep(self, keep: float) -> Stratified:
        return super().with_keep(min(keep, 1 - self.drop_hardest))

    def limits_of(self, known: int) -> tuple[int, int]:
        least, most = super().limits_of(known)
        return least, number_kept(1 - self.drop_hardest, most)

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        finite_range(difficulty, "Stratified")
        dropped = self._dropped(len(difficulty), kept)
        left = torch.randperm(len(difficulty), generator=generator, device="cpu")
        if dropped:
            left = left[difficulty[left].argsort(stable=True)[: len(left) - dropped].sort().values]
        # Numbered at random: if there are fewer examples to keep than strata, the hardest strata must not get them all.
        stratum = torch.randperm(self.strata, generator=generator, device="cpu")[self._stratum(difficulty[left])]
        sizes = stratum.bincount(minlength=self.strata)
        shares = torch.tensor(equal_shares(sizes.tolist(), kept), device="cpu")
        last = (sizes.cumsum(0) - sizes + shares).repeat_interleave(
            sizes
        )  # where the examples kept of each stratum end
        return equal_weights(left[stratum.argsort(stable=True)][torch.arange(len(left), device="cpu") < last])

    def chances(self, difficulty: Tensor, kept: int) -> Tensor:
        finite_range(difficulty, "Stratified")
        dropped = self._dropped(len(difficulty), kept)
        stays = 1 - share_of_ends(difficulty, dropped)
        left = (stays > 0).nonzero()[:, 0]
        stratum, ties = self._stratum(difficulty[left]), stays[left] < 1
        sizes = stratum.bincount(minlength=self.strata)
        hardest = int(stratum.max())  # where the ties are, of which the first in random order stay
        gone = dropped - (len(difficulty) - len(left))  # of the ties
        sizes[hardest] -= gone
        shares = torch.tensor(equal_shares(sizes.tolist(), kept), dtype=torch.float64, device="cpu")
        kind = sizes.unique(return_inverse=True)[1]  # strata of one size are numbered at random, so they share alike
        share = (kind.bincount(shares) / kind.bincount())[kind]
        found = torch.zeros(len(difficulty), dtype=torch.float64, device="cpu")
        found[left] = (share / sizes)[stratum]
        if gone:
            of_one_size = shares[kind == kind[hardest]].tolist()
            tied, others = left[ties], left[(stratum == hardest) & ~ties]
            taken = [_ties_taken(len(tied), gone, len(others), int(number)) for number in of_one_size]
            found[tied] = sum(taken) / len(taken) / len(tied)
            found[others] = (share[hardest] - sum(taken) / len(taken)) / max(1, len(others))
        return found

    def pick(self, everyone: Everyone, kept: list[int]) -> Choice:
        finite_ranges(everyone, "Stratified")
        dropped = [self._dropped(size, count) for size, count in zip(everyone.sizes, kept, strict=True)]
        stays = ~everyone.hardest(dropped)
        left = everyone.only(stays)
        lowest, highest = (end[left.group] for end in left.range())
        numbers = torch.randperm(self.strata, generator=everyone.generator(_NUMBERING), device="cpu")
        stratum = numbers[self._stratum_between(left.difficulty, lowest, highest)]
        strata = left.grouped(left.group * self.strata + stratum, len(kept) * self.strata)
        rows = torch.tensor(strata.sizes, device="cpu").view(-1, self.strata).tolist()
        shares = [share for row, count in zip(rows, kept, strict=True) for share in equal_shares(row, count)]
        stays[stays.nonzero()[:, 0]] = strata.drawn(shares, purpose=_DRAW)
        return chosen(stays)

    def _dropped(self, size: int, kept: int) -> int:
        return min(half_up(self.drop_hardest * size), size - kept)

    def _stratum(self, difficulty: Tensor) -> Tensor:
        """The stratum of each example, 0..strata-1."""
        return self._stratum_between(difficulty, *difficulty.aminmax())

    def _stratum_between(self, difficulty: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
        """The same between given bounds, [] or [n]; 0 where they are equal."""
        # Products before the quotient are exact for whole numbers; the power of two keeps them finite.
        scale = 2.0 ** -(self.strata.bit_length() + 1)
        above, width = difficulty * scale - lowest * scale, highest * scale - lowest * scale
        width = torch.where(width > 0, width, 1.0)
        return (above * self.strata / width).long().clamp_(max=self.strata - 1)


def _ties_taken(ties: int, gone: int, others: int, number: int) -> float:
    """How many of the ties are expected in the first `number` of ties and others in random order.

    The last `gone` of the ties in that order are passed over, so they count only until all that stay are taken: it is
    the mean of min(ties - gone, X), where X of the first `number` would be ties if none were passed over.

    >>> _ties_taken(ties=2, gone=1, others=1, number=1)  # two of the three may come first, and are ties
    0.6666666666666666
    """
    from scipy.stats import hypergeom

    mean = number * ties / (ties + others)
    far = 12 * math.sqrt(mean) + 12  # twelve standard deviations or more: what lies beyond is nothing in float64
    lowest, highest = max(0, number - others, int(mean - far)), min(ties, number, int(mean + far))
    x = np.arange(lowest, highest + 1)
    probability = hypergeom(ties + others, ties, number).pmf(x)
    return float((np.minimum(x, ties - gone) * probability).sum() / probability.sum())
