"""Which examples a run leaves out of its training, so that memorization can be estimated from several runs."""

from __future__ import annotations

import math
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..support.randomness import generator_from

_HOLD_OUT = 2  # the purpose of the generator; those of a sampler's plan and orders are 0 and 1


def held_out(run: int, size: int, share: float, seed: int = 0) -> NDArray[Any]:
    """Which examples a run leaves out, [size] bool, True for those left out.

    They are dealt like cards: each run in turn takes its hand from a shuffled deck of all examples, and a new shuffled
    deck follows when one is used up; no run gets an example twice. So what a single run leaves out is random, while
    after R runs each example was left out `R * share` times, rounded up or down.

    Args:
        run: number of the run, from 0.
        size: N.
        share: in [0, 1), taken as the decimal number that is written: 0.1 is a tenth exactly. A run leaves out
            `share * size` examples, rounded up or down.
        seed: of the decks.

    >>> first, second = held_out(0, size=4, share=0.5), held_out(1, size=4, share=0.5)
    >>> int(first.sum()), int(second.sum()), bool((first ^ second).all())
    (2, 2, True)
    """
    exact = Fraction(str(float(share)))
    dealt, deck = np.empty(0, np.int64), np.empty(0, np.int64)
    decks = 0
    for player in range(run + 1):
        count = math.floor((player + 1) * exact * size) - math.floor(player * exact * size)
        dealt, deck = deck[:count], deck[count:]
        missing = count - len(dealt)
        if missing:
            deck = torch.randperm(size, generator=generator_from(seed, _HOLD_OUT, decks), device="cpu").numpy()
            decks += 1
            new = deck[~np.isin(deck, dealt)][:missing]
            deck = deck[~np.isin(deck, new)]
            dealt = np.concatenate([dealt, new])
    left_out = np.zeros(size, bool)
    left_out[dealt] = True
    return left_out


def check_hold_out(share: float, runs: int) -> None:
    """TypeError or ValueError unless each run can leave out the share and every example is still seen by some run."""
    if isinstance(share, bool) or not isinstance(share, Real):
        raise TypeError(f"hold_out: got {share!r}, expected a number in [0, 1), the fraction of examples")
    if not 0 <= share < 1:  # NaN is neither
        raise ValueError(
            f"hold_out: got {share}, expected a number in [0, 1): the fraction of examples that each run leaves out"
        )
    if math.ceil(runs * Fraction(str(float(share)))) >= runs and share > 0:
        raise ValueError(
            f"hold_out: got {share} with runs {runs}, so that no run would train on some of the examples; expected at "
            f"most {math.floor(1000 * (runs - 1) / runs) / 1000}, or more runs"
        )
