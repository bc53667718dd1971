"""Reliability: how well fresh runs would reproduce the ranking by the mean of these."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..runs.score_of_runs import ScoreOfRuns
from ..support.checks import check_between, whole_number
from ..support.pieces import check_executor, run_pieces
from ..support.plain import plain_fields
from .halves import compare_halves
from .intervals import (
    departure,
    ends,
    groups_of_examples,
    half_width,
    jackknife_error,
    mean_known,
    standard_error_of_groups,
)
from .pairs import pairs_of_runs
from .spearman_brown import odds, step_up, to_pearson
from .splits import split_halves
from .streams import RankNothingError, batches, check_runs, count, generator, warn_of_equal_runs, weights_of

_TOO_WIDE: Final = 10
"""If the largest plausible number of runs is more than so many times the smallest, the number needed is not known."""

_NO_AGREEMENT: Final = 1e-9
"""A reliability that is 0 up to rounding, so that no number of runs reaches a target."""

_AGREEMENT: Final = 0.5
"""Runs that do not correlate are said not to agree, unless their reliability may be as high as this."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """How far to trust the ranking by the mean of R runs.

    Attributes:
        value: the Spearman correlation that the mean of R fresh runs of the same architectures would have with this.
        interval: its confidence interval.
        level: of the interval.
        single_run: Spearman correlation of two single runs, averaged over all pairs of different runs.
        agreement: [R], the Spearman correlation of each run with the mean of all, as `run_agreement` gives it.
        score: the one that ranks the examples.
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
        needed = self._needed(self.value, target)
        if needed is None:
            raise ValueError(
                f"runs_needed: the reliability by {self.score} is {self.value:.2f}: the runs do not agree at all, so "
                f"the number needed for {target:g} cannot be estimated"
            )
        return needed

    def runs_needed_interval(self, target: float) -> tuple[int | None, int | None]:
        """The numbers of runs needed if the reliability is the upper, and the lower, end of its interval.

        None in place of a number if that end is 0 or less: then no number of runs would reach the target.

        Raises:
            TypeError, ValueError: a target outside (0, 1).
        """
        check_between(target, "target")
        low, high = self.interval
        return self._needed(high, target), self._needed(low, target)

    def _needed(self, value: float, target: float) -> int | None:
        """How many runs reach the target, if the mean of these has this reliability."""
        if value <= _NO_AGREEMENT:
            return None
        if value >= 1:
            return len(self.architectures)
        factor = odds(to_pearson(target)) / odds(to_pearson(value))
        enough = math.ceil(self.runs * factor - 1e-6)  # a bit less, so that these runs reach their own value
        return max(len(self.architectures), enough)

    def _knows(self, target: float) -> bool:
        """Whether the interval is narrow enough to say how many runs the target takes."""
        few, many = self.runs_needed_interval(target)
        return self.value > _NO_AGREEMENT and few is not None and many is not None and many <= _TOO_WIDE * few

    def describe(self, target: float = 0.95) -> str:
        """The answer in words, with the number of runs that the target takes, or what to do where that is not known.

        Raises:
            TypeError, ValueError: a target outside (0, 1).
        """
        check_between(target, "target")
        low, high = self.interval
        between = " to " if _two_digits(low).startswith("-") else "-"
        text = (
            f"With {count(self.runs, 'run')} the ranking by {self.score} has reliability {_two_digits(self.value)} "
            f"({_two_digits(low)}{between}{_two_digits(high)}); "
        )
        few, many = self.runs_needed_interval(target)
        next_step = f"train {count(self.runs, 'more run')} like these and ask again"
        if self.value <= _NO_AGREEMENT and high < _AGREEMENT:
            return text + f"the runs do not agree, so the number needed for {target:g} cannot be estimated."
        if self.value <= _NO_AGREEMENT:
            return text + f"whether the runs agree is not known, nor how many would reach {target:g}: {next_step}."
        if not self._knows(target):
            between = f"{few:,} to {many:,}" if many is not None else f"{few:,} or more"
            return text + f"how many runs would reach {target:g} is not known ({between}): {next_step}."
        needed = self.runs_needed(target)
        number = count(needed, "run") + (f" ({few:,} to {many:,})" if few != many else "")
        if low >= target:
            return text + f"{number} {'is' if needed == 1 else 'are'} enough for {target:g}."
        return (
            text
            + f"{number} would reach {target:g}"
            + (f", so these {self.runs:,} may be enough." if self.value >= target else ".")
        )

    def __str__(self) -> str:
        return self.describe()

    def to_dict(self, target: float = 0.95) -> dict[str, Any]:
        """The numbers by name, as JSON can hold them; `runs_needed` is None if the interval is too wide to say.

        Raises:
            TypeError, ValueError: a target outside (0, 1).
        """
        return plain_fields(
            self,
            runs_needed=self.runs_needed(target) if self._knows(target) else None,
            runs_needed_interval=self.runs_needed_interval(target),
        )


def reliability(
    runs: RunSet,
    score: str,
    *,
    splits: int = 100,
    level: float = 0.95,
    seed: int = 0,
    executor: Executor | None = None,
) -> Reliability:
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
        executor: a `concurrent.futures.Executor`, such as that of a Dask cluster, to do the work in pieces; default: a
            few threads here. Its workers must find the run files under the same paths or URLs; runs in memory are sent
            to them. The result is the same.

    Raises:
        TypeError, ValueError: fewer than two runs, a score that not every run has, a level outside (0, 1), no split,
            not an executor, or scores that rank nothing, because they are the same for all examples or no two runs
            share two examples.
        FileNotFoundError: a worker of the executor does not find a run file.

    Warns:
        UserWarning: two runs of different seeds have the same values, as if the seed had not been used.

    >>> from difficulty_prune import Run
    >>> rng = np.random.default_rng(0)
    >>> hard = rng.normal(size=500)
    >>> runs = RunSet(Run({"el2n": hard + rng.normal(size=500)}, architecture="mlp", seed=s) for s in range(4))
    >>> print(reliability(runs, "el2n"))
    With 4 runs the ranking by el2n has reliability 0.79 (0.74-0.83); 21 runs (16 to 27) would reach 0.95.
    """
    check_runs(runs, score, least=2)
    check_between(level, "level")
    number, rng = whole_number(splits, "splits", least=1), generator(seed)
    check_executor(executor)
    groups = groups_of_examples(runs.num_examples, rng)
    splits_of_runs = split_halves([run.architecture for run in runs], number, rng)
    weights = weights_of(itertools.chain(*splits_of_runs), len(runs))
    kept = ScoreOfRuns(runs, score)
    pieces = ((kept, some, groups) for some in batches(weights, runs.num_examples))
    compared = np.concatenate(list(run_pieces(executor, _compare_means, pieces)))
    half, in_groups = mean_known(compared[:, 0]), compared[:, 1:]
    if math.isnan(half):
        raise RankNothingError(score)
    warn_of_equal_runs(runs, score)
    size = len(runs) // 2
    pairs = pairs_of_runs(runs, score, executor)
    errors = [standard_error_of_groups(in_groups, runs.num_examples), jackknife_error(pairs.without, size)]
    if size > 1 and len(runs.architectures) == 1:
        errors.append((departure(half, pairs.pearson, size, len(runs)), math.inf))
    value, low, high = ends(half, half_width(errors, level), len(runs) / size)
    return Reliability(
        value,
        (max(low, min(0.0, value)), high),
        float(level),
        pairs.spearman,
        pairs.agreement,
        score,
        len(runs),
        runs.architectures,
    )


def _compare_means(kept: ScoreOfRuns, weights: NDArray[Any], groups: list[NDArray[Any]]) -> NDArray[Any]:
    """The correlations [K, 1 + G] of halves, whose runs are given by each two rows of weights [2 K, R]."""
    return compare_halves(kept.means(weights), groups)


def _two_digits(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # + 0.0 makes 0 of -0
