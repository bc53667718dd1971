"""Exact answers about the examples of all processes, of which each holds some, by sums of counts alone.

Every process asks the same questions in the same order. All that travels are sums of whole numbers and maxima, which
come out the same however the examples are shared out. So a plan made of the answers is that of one process, bit for
bit; and one process is the same code, whose sums are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from ..support.hashing import hash_words, seed_of
from ..support.randomness import generator_from

_BLOCK: Final = 1 << 18  # examples that are looked at at once
_COUNTERS: Final = 1 << 18  # at most, of one exchange: 2 MB
_LOWEST: Final = torch.iinfo(torch.int64).min
_FRACTION: Final = 30  # bits of each of two whole numbers that hold a fraction; sums of 2^33 of them fit into int64

Reduce = Callable[[Tensor], Tensor]
"""Of the values of all processes, element by element, the sum or the largest."""

Key = Callable[[Tensor], Tensor]
"""Of examples at some places [k], a number of 64 bits each, without a sign, that says their order."""

Values = Callable[[Tensor], Tensor]
"""Of examples at some places [k], a float64 each."""


@dataclass(frozen=True)
class Everyone:
    """The examples of all processes, in groups; tensors are of those that this process holds, on the CPU.

    Attributes:
        difficulty: [n] float64, without NaN.
        words: [n] int64, what names each example for good; no two of all processes have the same.
        seed: whole numbers on which ties and draws depend.
        sum, largest: over the processes; sums are of int64.
        labels: [n] int64, or None.
        group: [n] int64, 0..len(sizes)-1; each group is asked about by itself.
        sizes: examples in each group, over all processes.

    >>> everyone = Everyone.alone(torch.tensor([0.1, 0.9, 0.5, 0.9]), seed=(0,))
    >>> everyone.hardest([2]), everyone.easiest([1]), int(everyone.drawn([2], purpose=0).sum())
    (tensor([False,  True, False,  True]), tensor([ True, False, False, False]), 2)
    """

    difficulty: Tensor
    words: Tensor
    seed: tuple[int, ...]
    sum: Reduce
    largest: Reduce
    labels: Tensor | None
    group: Tensor
    sizes: list[int]

    @classmethod
    def of(
        cls,
        difficulty: Tensor,
        words: Tensor,
        seed: tuple[int, ...],
        sums: Reduce,
        largest: Reduce,
        labels: Tensor | None,
    ) -> Everyone:
        """All of them in one group."""
        group = _one_group(len(difficulty))
        return cls(difficulty, words, seed, sums, largest, labels, group, _sizes(group, 1, sums))

    @classmethod
    def alone(cls, difficulty: Tensor, seed: tuple[int, ...], labels: Tensor | None = None) -> Everyone:
        """The examples of one process, named by their positions."""
        words = torch.arange(len(difficulty), device="cpu")
        return cls.of(difficulty.double(), words, seed, Tensor.clone, Tensor.clone, labels)

    def only(self, kept: Tensor) -> Everyone:
        """Those of a mask [n]."""
        labels = None if self.labels is None else self.labels[kept]
        group = self.group[kept] if len(self.sizes) > 1 else _one_group(int(kept.sum()))
        parts = {"difficulty": self.difficulty[kept], "words": self.words[kept], "labels": labels, "group": group}
        return replace(self, **parts, sizes=_sizes(group, len(self.sizes), self.sum))  # type: ignore[arg-type]

    def grouped(self, group: Tensor, groups: int) -> Everyone:
        """In other groups [n], 0..groups-1."""
        return replace(self, group=group, sizes=_sizes(group, groups, self.sum))

    def by_class(self) -> Everyone:
        """In a group for each class that any process has, in the order of the labels; ValueError without labels."""
        if self.labels is None:
            raise ValueError("PerClass: got no labels, expected the class of every example, [N]")
        classes = (
            int(self.largest(self.labels.max()[None] if len(self.labels) else torch.tensor([-1], device="cpu"))) + 1
        )
        found = (torch.tensor(_sizes(self.labels, classes, self.sum), device="cpu") > 0).long()
        return self.grouped((found.cumsum(0) - 1)[self.labels], int(found.sum()))

    # Choosing

    def hardest(self, counts: list[int]) -> Tensor:
        """[n] bool: the hardest of each group, as many as `counts` says; the seed breaks ties."""
        return self._first([lambda places: _ordered(-self.difficulty[places]), self.random(0)], counts)

    def easiest(self, counts: list[int]) -> Tensor:
        """[n] bool: the easiest of each group."""
        return self.lowest(self.difficulty, counts)

    def lowest(self, values: Tensor, counts: list[int]) -> Tensor:
        """[n] bool: those of the lowest values [n] float64 in each group; the seed breaks ties."""
        return self._first([lambda places: _ordered(values[places]), self.random(0)], counts)

    def drawn(self, counts: list[int], purpose: int) -> Tensor:
        """[n] bool: random ones of each group; draws for other purposes, 0 or more, have nothing in common."""
        return self._first([self.random(purpose)], counts)

    def random(self, purpose: int) -> Key:
        """Random 64 bits of each example that differ from all others'."""
        seed = seed_of(self.seed[0], *self.seed[1:], purpose)
        return lambda places: torch.from_numpy(hash_words(self.words[places].numpy(), seed).view("i8"))

    def generator(self, purpose: int) -> torch.Generator:
        """The same in every process."""
        return generator_from(*self.seed, purpose)

    def _first(self, keys: list[Key], counts: list[int]) -> Tensor:
        """[n] bool: the first `counts` of each group in the order of the keys, of 64 bits each.

        From the highest bits to the lowest, a few at a time: of the examples that are still candidates, how many have
        which digit? Those below the digit at which the count is reached are chosen, those above are not, and those that
        have it remain.
        """
        groups = len(self.sizes)
        bits = next(bits for bits in (16, 8, 4, 2, 1) if bits == 1 or groups << bits <= _COUNTERS)
        left, total = torch.tensor(counts, device="cpu"), torch.tensor(self.sizes, device="cpu")
        chosen = torch.zeros(len(self.group), dtype=torch.bool, device="cpu")
        candidates: Tensor | None = None  # places; None for all
        for key in keys:
            for shift in range(64 - bits, -1, -bits):
                candidates = self._settle(chosen, candidates, left, total)
                if not bool((left > 0).any()):
                    return chosen
                table = torch.zeros(groups << bits, dtype=torch.int64, device="cpu")
                for places in self._blocks(candidates):
                    table += torch.bincount(
                        (self.group[places] << bits) + _digit(key(places), shift, bits), minlength=len(table)
                    )
                upto = (table := self.sum(table).view(groups, -1)).cumsum(1)
                border = (upto < left[:, None]).sum(1).clamp_(max=2**bits - 1)
                total = table.gather(1, border[:, None])[:, 0]
                left = torch.where(left > 0, left - upto.gather(1, border[:, None])[:, 0] + total, 0)
                rest = []
                for places in self._blocks(candidates):
                    digit, group = _digit(key(places), shift, bits), self.group[places]
                    chosen[places[(digit < border[group]) & (left[group] > 0)]] = True
                    rest.append(places[digit == border[group]])
                candidates = torch.cat(rest)
        self._settle(chosen, candidates, left, total)
        if bool((left > 0).any()):
            raise ValueError(
                f"ids: {int(total[left > 0][0])} examples have the same id, or texts with the same hash, so that "
                "nothing tells them apart; each example belongs to one process, and has an id of its own"
            )
        return chosen

    def _blocks(self, places: Tensor | None) -> Iterator[Tensor]:
        """Some places at a time, which bounds the temporary memory; at least one block, which may be empty."""
        if places is not None:
            yield from places.split(_BLOCK)
            return
        size = len(self.group)
        for start in range(0, max(1, size), _BLOCK):
            yield torch.arange(start, min(start + _BLOCK, size), dtype=_places_type(size), device="cpu")

    def _settle(self, chosen: Tensor, candidates: Tensor | None, left: Tensor, total: Tensor) -> Tensor | None:
        """The candidates of groups of which some are wanted, but not all; where all are, they are chosen."""
        whole = left == total
        if bool((~whole & (left > 0)).all()):
            return candidates
        rest = []
        for places in self._blocks(candidates):
            group = self.group[places]
            chosen[places[whole[group]]] = True
            rest.append(places[(~whole & (left > 0))[group]])
        left[whole] = 0
        return torch.cat(rest)

    # Measuring

    def range(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest difficulty of each group, [groups] float64 each; of an empty one inf and -inf."""
        ends = torch.full((2, len(self.sizes)), -torch.inf, dtype=torch.float64, device="cpu")
        for places in self._blocks(None):
            for end, sign in zip(ends, (-1, 1), strict=True):
                end.scatter_reduce_(0, self.group[places], sign * self.difficulty[places], "amax")
        ends = self.largest(ends)
        return -ends[0], ends[1]

    def lowest_of(self, values: Values) -> Tensor:
        """The lowest of some values in each group, over all processes, [groups] float64; inf where there is none."""
        ends = torch.full((len(self.sizes),), -torch.inf, dtype=torch.float64, device="cpu")
        for places in self._blocks(None):
            ends.scatter_reduce_(0, self.group[places], -values(places), "amax")
        return -self.largest(ends)

    def mean(self, values: Values) -> Tensor:
        """The mean of values in [0, 1] over each group, [groups] float64; the sum is exact to 2^-60."""
        sums = torch.zeros((2, len(self.sizes)), dtype=torch.int64, device="cpu")
        for places in self._blocks(None):
            scaled = values(places) * 2.0**_FRACTION
            high = scaled.floor()
            low = ((scaled - high) * 2.0**_FRACTION).floor()
            for total, part in zip(sums, (high, low), strict=True):
                total.index_add_(0, self.group[places], part.long())
        means = [
            ((above << _FRACTION) + below) / (max(size, 1) << 2 * _FRACTION)
            for above, below, size in zip(*self.sum(sums).tolist(), self.sizes, strict=True)
        ]
        return torch.tensor(means, dtype=torch.float64, device="cpu")

    def each(self, values: Values) -> Tensor:
        """Some values, [n] float64."""
        found = torch.empty(len(self.group), dtype=torch.float64, device="cpu")
        for places in self._blocks(None):
            found[places] = values(places)
        return found


def _places_type(size: int) -> torch.dtype:
    """The smallest whole numbers that name each of so many places."""
    return torch.int32 if size < 2**31 else torch.int64


def _one_group(size: int) -> Tensor:
    """[size] zeros, in no memory."""
    zeros: Tensor = torch.zeros(1, dtype=torch.int64, device="cpu").expand(size)
    return zeros


def _sizes(group: Tensor, groups: int, sums: Reduce) -> list[int]:
    own = torch.tensor([len(group)], device="cpu") if groups == 1 else torch.bincount(group, minlength=groups)
    found: list[int] = sums(own).tolist()
    return found


def _ordered(values: Tensor) -> Tensor:
    """Whole numbers of 64 bits, without a sign, that are in the order of float64; -0 is 0.

    >>> [f"{word & (2**64 - 1):x}" for word in _ordered(torch.tensor([-1.0, -0.0, 0.0, 1.0]).double()).tolist()]
    ['400fffffffffffff', '8000000000000000', '8000000000000000', 'bff0000000000000']
    """
    bits = (values + 0.0).view(torch.int64)
    flipped: Tensor = bits ^ ((bits >> 63) | _LOWEST)
    return flipped


def _digit(key: Tensor, shift: int, bits: int) -> Tensor:
    digit: Tensor = (key >> shift) & (2**bits - 1)
    return digit
