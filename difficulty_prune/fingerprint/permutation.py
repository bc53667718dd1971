"""The permutation test: it permutes which runs belong to which architecture, in the same way for all examples."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..support.native import host
from ..support.randomness import generator_from
from .effect import Variance

_ROUNDING: Final = 1e-10
"""Values of eta^2 that differ by no more are equal: far above rounding, far below a difference of discrete scores."""

_PERMUTATIONS: Final = 64
"""Assignments at once without the compiled module: 8 to 64 take the same time, 512 take four times as long."""


@dataclass(frozen=True, eq=False)
class Assignments:
    """Ways in which the runs could belong to the architectures.

    Attributes:
        groups: [A, R] int16, the group of each run.
        exact: whether these are all that differ; if not, they are a random sample.
        sizes: numbers of runs in each group.
    """

    groups: NDArray[Any]
    exact: bool
    sizes: tuple[int, ...]

    @property
    def smallest_p(self) -> float:
        """The smallest possible p-value."""
        if not self.exact:
            return 1 / (len(self.groups) + 1)
        swaps = math.prod(math.factorial(self.sizes.count(size)) for size in set(self.sizes))
        return swaps / len(self.groups)


def assignments(sizes: tuple[int, ...], permutations: int, seed: int) -> Assignments:
    """All different assignments if there are no more than `permutations`, else that many drawn at random.

    >>> assignments((1, 2), permutations=10, seed=0).groups
    array([[0, 1, 1],
           [1, 0, 1],
           [1, 1, 0]], dtype=int16)
    """
    different = math.factorial(sum(sizes)) // math.prod(math.factorial(size) for size in sizes)
    if different <= permutations:
        return Assignments(_all(sizes), True, sizes)
    draws = torch.rand(permutations, sum(sizes), generator=generator_from(seed), dtype=torch.float64, device="cpu")
    observed = np.repeat(np.arange(len(sizes), dtype=np.int16), sizes)
    return Assignments(observed[draws.numpy().argsort(1)], False, sizes)


def permutation_p_values(x: NDArray[Any], own: Variance, among: Assignments) -> NDArray[Any]:
    """p-value [n] of each column of x [R, n] in unit range, whose analysis of variance is `own`.

    The share of assignments whose eta^2 is not below the observed one. The observed assignment counts as one of a
    sample (Phipson and Smyth 2010), so that no p-value is 0; a constant example has 1.

    >>> from difficulty_prune.fingerprint.effect import variance
    >>> x = np.array([[0.0, 0.0], [0.1, 0.0], [0.8, 0.0], [1.0, 0.0]])
    >>> permutation_p_values(x, variance(x, (2, 2)), assignments((2, 2), 10, 0))
    array([0.33333333, 1.        ])
    """
    scores = (x - x.mean(0)) / np.sqrt(np.where(own.total > 0, own.total, 1))
    count = _count_as_large(scores, own.effect - _ROUNDING, among)
    assigned = len(among.groups)
    return count / assigned if among.exact else (count + 1) / (assigned + 1)


def _count_as_large(scores: NDArray[Any], threshold: NDArray[Any], among: Assignments) -> NDArray[Any]:
    """For each column of scores [R, n] with mean 0, how many assignments have an eta^2 of at least `threshold` [n]."""
    if host is not None:
        return host.count_as_large(scores, threshold, among.groups)
    count = np.zeros(len(threshold), np.int64)
    for start in range(0, len(among.groups), _PERMUTATIONS):
        groups = among.groups[start : start + _PERMUTATIONS]
        effect = np.zeros((len(groups), len(threshold)))
        for group, size in enumerate(among.sizes):
            effect += ((groups == group) @ scores) ** 2 / size
        count += (effect >= threshold).sum(0)
    return count


def _all(sizes: tuple[int, ...]) -> NDArray[Any]:
    """All different assignments, [A, R] int16."""
    total = sum(sizes)
    if len(sizes) == 1:
        return np.zeros((1, total), np.int16)
    others = 1 + _all(sizes[1:])
    places = list(itertools.combinations(range(total), sizes[0]))
    groups = np.zeros((len(places), len(others), total), np.int16)
    for block, own in zip(groups, places, strict=True):
        block[:, np.delete(np.arange(total), own)] = others
    return groups.reshape(-1, total)
