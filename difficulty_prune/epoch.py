"""One epoch of a sampler: what it visits, in which order, and how far an iterator has come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import length_hint
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from .plan import Plan
from .randomness import generator_from

if TYPE_CHECKING:
    from .sampler import PruneSampler

_CHUNK: Final = 65_536  # positions that are Python numbers at a time


@dataclass(frozen=True)
class Epoch:
    """The order of an epoch is a function of these alone.

    Attributes:
        number: the epoch.
        plan: what is visited.
        length: positions in the epoch, over all processes. More than the plan has: passes over it, one after another;
            fewer: some are left out, others in every epoch.
        shuffle: a random order; otherwise ascending.
        words: the seed, and what else its generator depends on.
    """

    number: int
    plan: Plan
    length: int
    shuffle: bool
    words: tuple[int, ...]

    def order(self) -> Tensor:
        """Places in the plan's index in the order of the visit, [length]."""
        generator, size = generator_from(*self.words, self.number), len(self.plan)
        passes = [self._one_pass(min(size, self.length - start), generator) for start in range(0, self.length, size)]
        return passes[0] if len(passes) == 1 else torch.cat(passes)

    def _one_pass(self, length: int, generator: torch.Generator) -> Tensor:
        size = len(self.plan)
        places = torch.int32 if size < 2**31 else torch.int64
        if self.shuffle:
            return torch.randperm(size, generator=generator, dtype=places)[:length]
        if length == size:
            return torch.arange(size, dtype=places)
        left_out = torch.randperm(size, generator=generator)[length:]
        return torch.ones(size, dtype=torch.bool).index_fill_(0, left_out, False).nonzero()[:, 0].to(places)


class EpochIterator(Iterator[int]):
    """Yields this process's positions of one epoch, a chunk of memory at a time.

    It is `Stateful` as torchdata means it: `state_dict` tells the epoch and the position in it, and
    `load_state_dict` goes on there.
    """

    def __init__(self, sampler: PruneSampler, epoch: Epoch, start: int) -> None:
        self._sampler = sampler
        self._begin(epoch, start)

    def _begin(self, epoch: Epoch, start: int) -> None:
        """From position `start` of the epoch, counted over all processes."""
        rank, world_size = self._sampler.rank, self._sampler.world_size
        length = (epoch.length - start) // world_size
        self.epoch = epoch
        self._start, self._fetched = start, 0
        self._drawn_from = False
        # As arrays: to index a chunk of a tensor, its threads would wait for each other on a busy machine.
        self._index = epoch.plan.index.numpy()
        self._places = epoch.order().numpy()[start + rank :: world_size][:length]
        self._chunk: Iterator[int] = iter(())

    def __next__(self) -> int:
        position = next(self._chunk, None)
        return self._next_chunk() if position is None else position

    def _next_chunk(self) -> int:
        if not self._drawn_from:
            self._drawn_from = True
            self._sampler.drawn_from(self)
        places = self._places[self._fetched : self._fetched + _CHUNK]
        self._fetched += len(places)
        self._chunk = iter(self._index[places].tolist())
        return next(self._chunk)

    @property
    def finished(self) -> bool:
        """Whether nothing is left."""
        return self._fetched == len(self._places) and length_hint(self._chunk) == 0

    @property
    def untouched(self) -> bool:
        """Whether nobody asked for a position."""
        return not self._drawn_from

    @property
    def yielded(self) -> int:
        """Positions yielded since the beginning of the epoch, over all processes."""
        return self._start + (self._fetched - length_hint(self._chunk)) * self._sampler.world_size

    def state_dict(self) -> dict[str, Any]:
        """See `PruneSampler.state_dict`."""
        return self._sampler.state_of(self.epoch, self.yielded)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `PruneSampler.load_state_dict`; this iterator goes on there."""
        self._begin(*self._sampler.restore(state))
