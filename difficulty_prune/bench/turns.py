"""Functions timed in turns, round after round.

A busy machine slows down whatever runs at the same moment. So a ratio is the median over rounds in which theirs and
ours run one right after the other, never the quotient of two separate runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

Function = Callable[[], object]
Seconds = np.ndarray[Any, np.dtype[np.float64]]

TURN_SECONDS: Final = 0.004
"""A turn repeats its function for about this long: far longer than the timer's resolution and a thread's wake-up, and
short enough that some turns fall between the interruptions of a busy machine."""
FEWEST_ROUNDS: Final = 5
_LONG: Final = 0.1


def no_wait() -> None:
    """What is done when a function returns."""


def repeats(function: Function, wait: Function = no_wait) -> int:
    """How many calls make a turn."""
    fastest = turn(function, 1, wait)  # which also pays for what is done once
    for _ in range(3):  # any call may be interrupted; of a long one that matters little
        if fastest < _LONG:
            fastest = min(fastest, turn(function, 1, wait))
    return max(1, round(TURN_SECONDS / fastest))


def turn(function: Function, calls: int, wait: Function = no_wait) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    wait()
    return (time.perf_counter() - start) / calls


def in_turns(functions: Sequence[Function], rounds: int, seconds: float, wait: Function = no_wait) -> Seconds:
    """Seconds per call, [functions, rounds]: of as many rounds as fit into the time, at least 5 and at most `rounds`.

    Args:
        functions: at least one; each is called a few times before.
        rounds: the largest number.
        seconds: after which no new round begins.
        wait: waits until what a function started is done, as on a GPU.
    """
    calls = [repeats(function, wait) for function in functions]
    end = time.perf_counter() + seconds
    taken: list[list[float]] = []
    while len(taken) < min(FEWEST_ROUNDS, rounds) or (len(taken) < rounds and time.perf_counter() < end):
        taken.append([turn(function, number, wait) for function, number in zip(functions, calls, strict=True)])
    return np.array(taken).T
