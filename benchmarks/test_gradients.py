"""The running moments of input gradients: memory-bound, so they are also compared with a plain copy.

The state is far larger than the last cache, and every call uses other rows of it. The gradients come from a ring of
buffers that together do not fit the cache either.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from comparison import Compare, Target
from torch import Tensor

from difficulty_prune import ops
from difficulty_prune.bench import eager
from difficulty_prune.bench.copy_bandwidth import Copy

LINE = 64
"""Bytes of a cache line, the smallest piece that memory delivers."""

SCATTERED = """
  Every value lies in a cache line of its own; "must move" counts these lines. They are scattered all over memory, most
  of them miss the address translation cache, and so they arrive at a fraction of the rate of a copy."""

SHORT_ROWS = """
  The state of an example is two rows of 4 kB anywhere in memory. For each row the hardware prefetchers start anew and
  an address must be translated. Rows of 200 kB arrive faster than a copy, which also reads what it overwrites."""

Record = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]


class Moments(NamedTuple):
    """The state of one recorder."""

    count: Tensor
    mean: Tensor
    m2: Tensor


class Workload(NamedTuple):
    """Batches of input gradients [batch, 3, side, side], and a state for that many examples."""

    examples: int
    batch: int
    side: int

    def __str__(self) -> str:
        return f"B {self.batch}, P 3 x {self.side} x {self.side}"

    @property
    def pixels(self) -> int:
        return self.side**2

    @property
    def gradient_bytes(self) -> int:
        return self.batch * 3 * self.pixels * 4

    def new_moments(self, pixels: int | None = None) -> Moments:
        shape = (self.examples, pixels or self.pixels)
        count = torch.zeros(self.examples, dtype=torch.int32)
        return Moments(count, torch.zeros(shape).fill_(0), torch.zeros(shape).fill_(0))  # filled: the pages exist

    def batches(self) -> itertools.cycle[Tensor]:
        """Index [batch] without duplicates; every example comes once before any comes again."""
        index = torch.randperm(self.examples, generator=torch.Generator().manual_seed(0))
        return itertools.cycle([part for part in index.split(self.batch) if len(part) == self.batch])

    def gradients(self) -> itertools.cycle[Tensor]:
        """[batch, 3, side, side] from a ring of at least 128 MB."""
        buffers = math.ceil((128 << 20) / self.gradient_bytes)
        return itertools.cycle(torch.randn(buffers, self.batch, 3, self.side, self.side))


SMALL = Workload(50_000, 256, 32)
LARGE = Workload(600, 64, 224)


@pytest.mark.parametrize(("load", "of_copy"), [(SMALL, 0.75), (LARGE, None)], ids=str)
def test_eager(compare: Compare, copy: Copy, load: Workload, of_copy: float | None) -> None:
    mine, yours = load.new_moments(), load.new_moments()
    index, gradients, skipped = load.batches(), load.gradients(), ops.new_skipped()
    assert_same_moments(mine, yours, next(index), [next(gradients) for _ in range(2)])
    compare(
        f"record_gradients_, {load}",
        "eager PyTorch",
        lambda: ops.record_gradients_(*mine, next(index), next(gradients), skipped=skipped),
        lambda: eager.record_gradients_(*yours, next(index), next(gradients)),
        Target(faster=2.5, of_copy=of_copy),
        note=SHORT_ROWS if of_copy else "",
        moved=load.gradient_bytes + 4 * load.batch * load.pixels * 4,
        copy=copy,
    )


def assert_same_moments(mine: Moments, yours: Moments, index: Tensor, gradients: list[Tensor]) -> None:
    for gradient in gradients:
        ops.record_gradients_(*mine, index, gradient)
        eager.record_gradients_(*yours, index, gradient)
    for ours, theirs in zip(mine, yours, strict=True):
        torch.testing.assert_close(ours[index], theirs[index], rtol=1e-5, atol=1e-6)


def test_pixels(compare: Compare, copy: Copy) -> None:
    load = LARGE
    pixels = torch.randperm(load.pixels, generator=torch.Generator().manual_seed(0))[:256].sort().values
    some, every = load.new_moments(len(pixels)), load.new_moments()
    index, gradients, skipped = load.batches(), load.gradients(), ops.new_skipped()
    lines = len((pixels * 4 // LINE).unique())
    compare(
        f"record_gradients_, pixels=256, {load}",
        "exact",
        lambda: ops.record_gradients_(*some, next(index), next(gradients), pixels=pixels, skipped=skipped),
        lambda: ops.record_gradients_(*every, next(index), next(gradients), skipped=skipped),
        Target(faster=20),
        note=SCATTERED,
        moved=load.batch * (3 * lines * LINE + 4 * len(pixels) * 4),
        copy=copy,
    )
