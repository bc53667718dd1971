"""Policies whose examples all have weight 1: ends or a window of the ranking, or a random part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

import torch
from torch import Tensor

from .base import (
    Choice,
    Keeping,
    Unseen,
    check_left_out,
    chosen,
    equal_weights,
    half_up,
    hardest_first,
    number_kept,
    share_of_ends,
)
from .everyone import Everyone

_DRAW: Final = 1  # what random numbers are for that break no ties


@dataclass(frozen=True)
class Hardest(Keeping):
    """Keeps the hardest fraction `keep` of the examples, in (0, 1]."""

    keep: float
    unseen: Unseen = field(default="refuse", kw_only=True, repr=False)

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        return equal_weights(hardest_first(difficulty, generator)[:kept])

    def chances(self, difficulty: Tensor, kept: int) -> Tensor:
        return share_of_ends(difficulty, kept)

    def pick(self, everyone: Everyone, kept: list[int]) -> Choice:
        return chosen(everyone.hardest(kept))


@dataclass(frozen=True)
class Easiest(Keeping):
    """Keeps the easiest fraction `keep` of the examples, in (0, 1]."""

    keep: float
    unseen: Unseen = field(default="refuse", kw_only=True, repr=False)

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        return equal_weights(hardest_first(-difficulty, generator)[:kept])

    def chances(self, difficulty: Tensor, kept: int) -> Tensor:
        return share_of_ends(-difficulty, kept)

    def pick(self, everyone: Everyone, kept: list[int]) -> Choice:
        return chosen(everyone.easiest(kept))


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

    def with_keep(self, keep: float) -> Window:
        return super().with_keep(min(keep, 1 - self.start))

    def limits_of(self, known: int) -> tuple[int, int]:
        least, most = super().limits_of(known)
        return least, number_kept(1 - self.start, most)

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        first = self._first(len(difficulty), kept)
        return equal_weights(hardest_first(difficulty, generator)[first : first + kept])

    def chances(self, difficulty: Tensor, kept: int) -> Tensor:
        first = self._first(len(difficulty), kept)
        return share_of_ends(difficulty, first + kept) - share_of_ends(difficulty, first)

    def pick(self, everyone: Everyone, kept: list[int]) -> Choice:
        first = [self._first(size, count) for size, count in zip(everyone.sizes, kept, strict=True)]
        last = [start + count for start, count in zip(first, kept, strict=True)]
        return chosen(everyone.hardest(last) & ~everyone.hardest(first))

    def _first(self, size: int, kept: int) -> int:
        """How many of the hardest are left out."""
        return min(half_up(self.start * size), size - kept)


@dataclass(frozen=True)
class Random(Keeping):
    """Keeps a random fraction `keep` of the examples: the baseline every other policy has to beat."""

    ranks: ClassVar[bool] = False
    keep: float
    unseen: Unseen = field(default="refuse", kw_only=True, repr=False)

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        return equal_weights(torch.randperm(len(difficulty), generator=generator, device="cpu")[:kept])

    def chances(self, difficulty: Tensor, kept: int) -> Tensor:
        return torch.full((len(difficulty),), kept / len(difficulty), dtype=torch.float64, device="cpu")

    def pick(self, everyone: Everyone, kept: list[int]) -> Choice:
        return chosen(everyone.drawn(kept, purpose=_DRAW))
