"""Splits of runs into two halves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np

Split = tuple[tuple[int, ...], tuple[int, ...]]

_LISTED: Final = 10
"""Up to this many runs, all splits are listed: at most 315, of 9 runs. Of 13 there are 6,006 already."""


def split_halves(architectures: list[str], splits: int, rng: np.random.Generator) -> list[Split]:
    """Pairs of halves of the runs, floor(R / 2) each, with the same architectures as far as possible.

    All different ones, if there are at most `splits`; else that many at random.
    """
    if len(architectures) > _LISTED:
        return [_deal(architectures, rng) for _ in range(splits)]
    listed = list(_all_splits(len(architectures)))
    unlike = [_unlike(split, architectures) for split in listed]
    least = min(unlike)
    best = [split for split, differing in zip(listed, unlike, strict=True) if differing == least]
    if len(best) <= splits:
        return best
    return [best[k] for k in rng.choice(len(best), splits, replace=False)]


def _all_splits(runs: int) -> Iterator[Split]:
    for chosen in itertools.combinations(range(runs), runs // 2 * 2):
        for others in itertools.combinations(chosen[1:], runs // 2 - 1):
            first = (chosen[0], *others)
            yield first, tuple(run for run in chosen if run not in first)


def _unlike(split: Split, architectures: list[str]) -> int:
    first, second = ([architectures[run] for run in half] for half in split)
    return sum(abs(first.count(name) - second.count(name)) for name in set(architectures))


def _deal(architectures: list[str], rng: np.random.Generator) -> Split:
    """Pairs runs of one architecture, then the odd ones out; each half gets one of each pair."""
    pairs, odd = [], []
    for name in dict.fromkeys(architectures):
        own = rng.permutation([run for run, other in enumerate(architectures) if other == name])
        pairs += list(own[: len(own) // 2 * 2].reshape(-1, 2))
        odd += list(own[len(own) // 2 * 2 :])
    pairs += list(rng.permutation(odd)[: len(odd) // 2 * 2].reshape(-1, 2))
    dealt = rng.permuted(np.array(pairs, dtype=np.int64), axis=1)
    return tuple(dealt[:, 0].tolist()), tuple(dealt[:, 1].tolist())
