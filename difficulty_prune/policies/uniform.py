"""Policies whose examples all have weight 1: ends or a window of the ranking, strata of it, or a random part."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from typing import ClassVar

import torch
from torch import Tensor

from .base import (
    Choice,
    Keeping,
    Unseen,
    check_left_out,
    equal_shares,
    equal_weights,
    finite_range,
    half_up,
    hardest_first,
)


@dataclass(frozen=True)
class Hardest(Keeping):
    """Keeps the hardest fraction `keep` of the examples, in (0, 1]."""

    keep: float
    unseen: Unseen = field(default="refuse", kw_only=True, repr=False)

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        return equal_weights(hardest_first(difficulty, generator)[:kept])


@dataclass(frozen=True)
class Easiest(Keeping):
    """Keeps the easiest fraction `keep` of the examples, in (0, 1]."""

    keep: float
    unseen: Unseen = field(default="refuse", kw_only=True, repr=False)

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        return equal_weights(hardest_first(-difficulty, generator)[:kept])


@dataclass(frozen=True)
class Window(Keeping):
    """Leaves out the hardest fraction `start`, which is often mislabelled, and keeps the next fraction `keep`.

    >>> Window(start=0.25, keep=0.5)(torch.tensor([4.0, 3.0, 2.0, 1.0])).index.tolist()
    [1, 2]
    """

    start: float
    keep: float
    unseen: Unseen = field(default="refuse", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_left_out(self.start, self.keep, "start")

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        first = min(half_up(self.start * len(difficulty)), len(difficulty) - kept)
        return equal_weights(hardest_first(difficulty, generator)[first : first + kept])


@dataclass(frozen=True)
class Random(Keeping):
    """Keeps a random fraction `keep` of the examples: the baseline every other policy has to beat."""

    ranks: ClassVar[bool] = False
    keep: float
    unseen: Unseen = field(default="refuse", kw_only=True, repr=False)

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        return equal_weights(torch.randperm(len(difficulty), generator=generator, device="cpu")[:kept])


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

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        finite_range(difficulty, "Stratified")
        dropped = min(half_up(self.drop_hardest * len(difficulty)), len(difficulty) - kept)
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

    def _stratum(self, difficulty: Tensor) -> Tensor:
        """The stratum of each example, 0..strata-1."""
        lowest, highest = (float(bound) for bound in difficulty.aminmax())
        if lowest == highest:
            return torch.zeros(len(difficulty), dtype=torch.int64, device="cpu")
        # Products before the quotient are exact for whole numbers; the power of two keeps them finite.
        scale = 2.0 ** -(self.strata.bit_length() + 1)
        above, width = difficulty * scale - lowest * scale, highest * scale - lowest * scale
        return (above * self.strata / width).long().clamp_(max=self.strata - 1)
