"""Coverage-centric selection: equally many from strata of difficulty."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral

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
)


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
