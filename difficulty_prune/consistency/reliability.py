"""Reliability: how well fresh runs would reproduce the ranking by the mean of these."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..support.checks import check_between, whole_number
from ..support.plain import plain_fields
from .intervals import (
    correlation_of_halves,
    departure,
    ends,
    half_width,
    jackknife_error,
    mean_known,
    pairs_of_runs,
    standard_error_of_groups,
)
from .run_agreement import run_agreement
from .spearman_brown import odds, step_up, to_pearson
from .splits import split_halves
from .streams import check_runs, count, generator, means_of, weights_of

_GROUPS: Final = 20
_GROUP_SIZE: Final = 10
"""Random groups of examples whose spread gives the interval: at most 20, of at least 10 examples. In simulations of 4
runs the interval covered the truth in at least 97 % of cases for any choice. With 5 groups it was 5 to 15 % wider, for
want of degrees of freedom; with 40 it was no narrower. Groups of 5 made it 20 % wider for scores with many ties."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """How far to trust the ranking by the mean of R runs.

    Attributes:
        value: the Spearman correlation that the mean of R fresh runs of the same architectures would have with this.
        interval: its confidence interval.
        level: of the interval.
        single_run: Spearman correlation of two single runs, averaged over all pairs of different runs.
        agreement: [R], the Spearman correlation of each run with the mean of all, as `run_agreement` gives it.
        score: by which the examples are ranked.
        runs: R.
        architectures: of the runs.
    """

    value: float
    interval: tuple[float, float]
    level: float
    single_run: float
    agreement: NDArray[Any]
    score: str
    runs: int
    architectures: tuple[str, ...]

    def at(self, runs: int) -> float:
        """The reliability of the mean of this many runs, by the formula of Spearman and Brown.

        Raises:
            TypeError, ValueError: not a whole number of runs, 1 or more.
        """
        return step_up(self.value, whole_number(runs, "runs", least=1) / self.runs)

    def runs_needed(self, target: float) -> int:
        """The smallest number of runs, of the same architectures, whose mean reaches the target.

        Several architectures count in the proportion that they have here, and need at least one run each.

        Raises:
            TypeError, ValueError: a target outside (0, 1), or runs whose rankings do not correlate: then the number
                cannot be estimated.
        """
        check_between(target, "target")
        if self.value <= 0:
            raise ValueError(
                f"runs_needed: the reliability by {self.score} is {self.value:.2f}: the runs do not agree at all, so "
                f"the number needed for {target:g} cannot be estimated"
            )
        if self.value >= 1:
            return len(self.architectures)
        factor = odds(to_pearson(target)) / odds(to_pearson(self.value))
        enough = math.ceil(self.runs * factor - 1e-6)  # a bit less, so that these runs reach their own value
        return max(len(self.architectures), enough)

    def describe(self, target: float = 0.95) -> str:
        """The answer in words, with the number of runs that the target takes.

        Raises:
            TypeError, ValueError: a target outside (0, 1).
        """
        check_between(target, "target")
        low, high = (_two_digits(end) for end in self.interval)
        between = " to " if low.startswith("-") else "-"
        text = (
            f"With {count(self.runs, 'run')} the ranking by {self.score} has reliability {_two_digits(self.value)} "
            f"({low}{between}{high}); "
        )
        if self.value <= 0:
            return text + f"the runs do not agree, so the number needed for {target:g} cannot be estimated."
        needed = self.runs_needed(target)
        if self.value < target:
            return text + f"{count(needed, 'run')} would reach {target:g}."
        return text + f"{count(needed, 'run')} {'is' if needed == 1 else 'are'} enough for {target:g}."

    def __str__(self) -> str:
        return self.describe()

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, as JSON can hold them; `runs_needed` is the number for 0.95, or None."""
        return plain_fields(self, runs_needed=self.runs_needed(0.95) if self.value > 0 else None)


def reliability(runs: RunSet, score: str, *, splits: int = 100, level: float = 0.95, seed: int = 0) -> Reliability:
    """How far to trust the ranking by the mean of all runs, and how many runs would do (arXiv 2401.01867).

    The runs are split at random into two halves of equal size, with the same architectures as far as possible. The
    Spearman correlation of the halves' means is the reliability of half the runs, and the formula of Spearman and Brown
    takes it to that of all. The formula holds for Pearson correlations, so Spearman's r becomes 2 sin(pi r / 6) before
    it and turns back after, as is exact for normal values. If one half is spread wider than the other, it counts as
    noisier (Flanagan, Rulon), by Gini's mean difference, so that one bad run does not go unnoticed.

    The interval is about examples and runs like these. It combines three uncertainties, added as squares: that of the
    examples (the estimate in 20 random groups of them); with three runs or more, that of the runs (each is left out in
    turn); and with four runs or more of one architecture, that of the formula (how far the halves depart from what it
    predicts from single runs). In simulations of scores with many equal values or very skewed errors the value was too
    high by up to 0.08. With four runs or more the interval covered the truth; with two or three, where the formula
    cannot be checked, it often did not.

    Args:
        runs: at least two. Examples that one of the halves did not present are left out.
        score: one that every run has.
        splits: how many splits to draw; all of them if there are no more.
        level: of the interval, in (0, 1).
        seed: of the splits and of the groups of examples.

    Raises:
        TypeError, ValueError: fewer than two runs, a score that not every run has, a level outside (0, 1), no split, or
            scores that rank nothing, because they are the same for all examples or no two runs share two examples.

    >>> from difficulty_prune import Run
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.normal(size=500)
    >>> runs = RunSet(Run({"el2n": hard + rng.normal(size=500)}, architecture="mlp", seed=s) for s in range(4))
    >>> print(reliability(runs, "el2n"))
    With 4 runs the ranking by el2n has reliability 0.79 (0.74-0.83); 21 runs would reach 0.95.
    """
    check_runs(runs, score, least=2)
    check_between(level, "level")
    number, rng = whole_number(splits, "splits", least=1), generator(seed)
    groups = np.array_split(rng.permutation(runs.num_examples), min(_GROUPS, runs.num_examples // _GROUP_SIZE) or 1)
    whole, in_groups = [], []
    splits_of_runs = split_halves([run.architecture for run in runs], number, rng)
    means = means_of(runs, score, weights_of(itertools.chain(*splits_of_runs), len(runs)))
    for _ in splits_of_runs:
        halves = np.stack([next(means), next(means)])
        whole.append(correlation_of_halves(halves))
        in_groups.append([correlation_of_halves(halves[:, group]) for group in groups])
    half = mean_known(np.array(whole))
    if math.isnan(half):
        raise ValueError(
            f"{score}: the runs rank nothing: their values are the same for all examples, or halves of the runs share "
            "fewer than two examples"
        )
    size = len(runs) // 2
    single, pairs, without = pairs_of_runs(runs, score)
    errors = [standard_error_of_groups(np.array(in_groups)), jackknife_error(without, size)]
    if size > 1 and len(runs.architectures) == 1:
        errors.append((departure(half, pairs, size, len(runs)), math.inf))
    value, low, high = ends(half, half_width(errors, level), len(runs) / size)
    return Reliability(
        value,
        (max(low, min(0.0, value)), high),
        float(level),
        single,
        run_agreement(runs, score),
        score,
        len(runs),
        runs.architectures,
    )


def _two_digits(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # + 0.0 makes 0 of -0
