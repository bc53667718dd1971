"""Runs grouped by architecture, and their scores in blocks of examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.blocks import blocks


@dataclass(frozen=True, eq=False)
class Groups:
    """One score of runs, sorted by architecture and seed, so that the order in which they came changes no result.

    Attributes:
        runs: R of them, sorted.
        score: the one that is compared.
        architectures: G names, sorted.
        sizes: numbers of runs of each.
    """

    runs: RunSet
    score: str
    architectures: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def members(self) -> NDArray[Any]:
        """[R] int64, the position of each run's architecture in `architectures`."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def blocks(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Positions [n] and scores [R, n] of examples that every run presented, block after block."""
        for block in blocks(self.runs.num_examples, width=len(self.runs)):
            x = self.runs.matrix(self.score, block)
            known = ~np.isnan(x).any(0)
            yield block.start + np.flatnonzero(known), x[:, known]

    def known(self) -> NDArray[Any]:
        """[N] bool, whether every run presented the example.

        Raises:
            ValueError: no example was.
        """
        known = np.zeros(self.runs.num_examples, bool)
        for positions, _ in self.blocks():
            known[positions] = True
        self.check_comparable(int(known.sum()))
        return known

    def check_comparable(self, known: int) -> None:
        """ValueError if no example was presented in every run; `known` is the number of those that were."""
        if known == 0:
            raise ValueError(
                f"none of {self.runs.num_examples:,} examples was presented in each of the {len(self.runs)} runs, so "
                f"the runs cannot be compared by {self.score!r}; take runs that trained on the same examples"
            )

    def matrix(self, examples: NDArray[Any]) -> NDArray[Any]:
        """Scores [R, k] of the examples at these positions."""
        return self.runs.matrix(self.score, examples)

    def subset(self, chosen: NDArray[Any]) -> Groups:
        """The runs for which `chosen` [R] is true."""
        return _grouped([run for run, wanted in zip(self.runs, chosen, strict=True) if wanted], self.score)


def group_runs(runs: RunSet, score: str, at_least: int) -> Groups:
    """The runs by architecture.

    Raises:
        TypeError: `runs` is not a RunSet.
        ValueError: a score that a run lacks, only one architecture, or fewer than `at_least` runs of one.
    """
    if not isinstance(runs, RunSet):
        raise TypeError(f"runs: got {type(runs).__name__}, expected a RunSet; dp.RunSet(runs) makes one from a list")
    runs.matrix(score, slice(0, 0))  # raises unless every run has the score
    groups = _grouped(list(runs), score)
    if len(groups.architectures) < 2:
        raise ValueError(f"got runs of {groups.architectures[0]!r} only, expected at least two architectures")
    for name, size in zip(groups.architectures, groups.sizes, strict=True):
        if size < at_least:
            raise ValueError(
                f"runs of {name!r}: got {size}, expected at least {at_least} of each architecture, "
                "without those to identify: train more, or leave it out"
            )
    return groups


def name_all(names: tuple[str, ...]) -> str:
    """The names as a sentence lists them.

    >>> name_all(("cnn", "mlp", "vit"))
    'cnn, mlp and vit'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]])


def _grouped(runs: list[Run], score: str) -> Groups:
    ordered = sorted(runs, key=lambda run: (run.architecture, run.seed))
    names, sizes = np.unique([run.architecture for run in ordered], return_counts=True)
    return Groups(RunSet(ordered), score, tuple(map(str, names)), tuple(map(int, sizes)))
