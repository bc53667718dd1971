"""A sampler that knows how much was trained on."""

from __future__ import annotations

from collections.abc import Iterator

from ..sampler import PruneSampler


class CountingSampler(PruneSampler):
    """A PruneSampler that counts the positions that it yields.

    Attributes:
        presentations: how many, since it was made.
        epochs: those that they are of.
    """

    presentations = 0
    epochs: frozenset[int] = frozenset()

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        for number, position in enumerate(super().__iter__()):
            if number == 0:
                self.epochs |= {self.epoch}
            self.presentations += 1
            yield position
