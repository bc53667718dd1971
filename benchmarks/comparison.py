"""Our function against theirs in one run of pytest-benchmark, taking turns round after round.

A busy machine slows down whatever runs at the same moment. So a ratio is the median over rounds in which theirs and
ours run one right after the other, never the quotient of two separate runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from difficulty_prune.bench.turns import Function, Seconds, repeats, turn


@dataclass(frozen=True)
class Target:
    """What a row has to reach.

    Attributes:
        faster: their time is at least this many times ours.
        slower: our time is at most this many times theirs. Give this or `faster`, or neither.
        of_copy: our rate is at least this fraction of the measured copy bandwidth.
        seconds: our time is at most this long.
    """

    faster: float | None = None
    slower: float | None = None
    of_copy: float | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        parts = [
            f"≥ {self.faster:g}x" if self.faster else "",
            f"≤ {self.slower:g}x" if self.slower else "",
            f"≥ {self.of_copy:.0%} of copy" if self.of_copy else "",
            f"≤ {self.seconds:g} s" if self.seconds else "",
        ]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Row:
    """One comparison: seconds per call in each round, ours and theirs, and the memory traffic.

    Attributes:
        moved: bytes that one call of ours must move; None if memory is not the limit.
        copy_rates: bytes per second of a plain copy, in the same rounds.
        note: what limits the speed, and so why a target may be out of reach.
    """

    work: str
    against: str
    target: Target
    ours: Seconds
    theirs: Seconds
    moved: int | None = None
    copy_rates: Seconds | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        """Their time / ours; ours / theirs if the target is not to be slower."""
        return self.ratio_quartiles[1]

    @property
    def ratio_quartiles(self) -> tuple[float, float, float]:
        """Quartiles of the ratio over rounds."""
        ratios = self.ours / self.theirs if self.target.slower else self.theirs / self.ours
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        return float(low), float(middle), float(high)

    @property
    def rate(self) -> float | None:
        """Bytes that must move, per second."""
        return None if self.moved is None else self.moved / float(np.median(self.ours))

    @property
    def of_copy(self) -> float | None:
        """Our rate as a fraction of the copy's, median over rounds."""
        if self.moved is None or self.copy_rates is None:
            return None
        return float(np.median(self.moved / self.ours / self.copy_rates))

    @property
    def met(self) -> bool | None:
        """Whether the row meets its target; None without a target."""
        kept = [
            self.target.faster and self.ratio >= self.target.faster,
            self.target.slower and self.ratio <= self.target.slower,
            self.target.of_copy and self.of_copy is not None and self.of_copy >= self.target.of_copy,
            self.target.seconds and float(np.median(self.ours)) <= self.target.seconds,
        ]
        kept = [k for k in kept if k is not None]
        return all(kept) if kept else None


Compare = Callable[..., Row]
"""The fixture `compare` of conftest.py."""


def in_turns(benchmark: Any, ours: Function, others: Sequence[Function], rounds: int) -> list[Seconds]:
    """Seconds per call in each round: ours first, then the others.

    pytest-benchmark times ours; the others run in the setup of each of its rounds.
    """
    calls = [repeats(function) for function in (ours, *others)]
    times: list[list[float]] = [[] for _ in others]

    def turn_of_others() -> None:
        for function, number, record in zip(others, calls[1:], times, strict=True):
            record.append(turn(function, number))

    def our_turn() -> None:
        for _ in range(calls[0]):
            ours()

    benchmark.pedantic(our_turn, setup=turn_of_others, rounds=rounds, warmup_rounds=1)
    own = np.array(benchmark.stats.stats.data) / calls[0]
    return [own, *(np.array(record[-rounds:]) for record in times)]
