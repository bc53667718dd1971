"""A sampler that knows how much was trained on."""

from __future__ import annotations

from collections.abc import Iterator

from ..sampler import PruneSampler


class CountingSampler(PruneSampler):
    """A PruneSampler that counts the positions that it yields.

    Attributes:
        presentations: how many, since it was made.
    """

    presentations = 0

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        for position in super().__iter__():
            self.presentations += 1
            yield position
