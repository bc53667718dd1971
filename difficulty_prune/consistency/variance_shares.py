"""Shares of variance: what belongs to the example, to the architecture, to the run, and what is noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..support.plain import plain_fields
from .correlation import architecture_of_runs
from .streams import check_runs, known_to_all, percent, read

_ROUNDING: Final = 1e-24
"""A variance no larger than this share of the squared scores is rounding: float64 rounds a score by 1e-16 of it."""


@dataclass(frozen=True, eq=False)
class VarianceShares:
    """Shares of the variance of a score; they sum to 1.

    Attributes:
        example: what an example keeps in every run of every architecture.
        architecture: what depends on the architecture, both a shift of all examples and what is special to an example.
            With one architecture it is 0, and the example's share includes it.
        run: a shift of all examples of one run.
        rest: what is special to one example in one run: noise.
        components: the variances themselves, in squared units of the score: "example", "architecture", "example x
            architecture", "run", "rest".
        score: whose variance it is.
        architectures: of the runs.
    """

    example: float
    architecture: float
    run: float
    rest: float
    components: Mapping[str, float]
    score: str
    architectures: tuple[str, ...]

    def __str__(self) -> str:
        text = f"Of the variance of {self.score}, {percent(self.example)} belongs to the example, "
        several = len(self.architectures) > 1
        if several:
            text += f"{percent(self.architecture)} depends on the architecture, "
        text += f"{percent(self.run)} is a shift of the whole run, {percent(self.rest)} is noise of single runs"
        return text + ("." if several else "; with one architecture, what depends on it counts as the example's.")

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, as JSON can hold them."""
        return plain_fields(self)


def variance_shares(runs: RunSet, score: str) -> VarianceShares:
    """How much of a score's variance belongs to the example, to the architecture, to the run, and is noise.

    Analysis of variance with random effects, by the method of moments, of the score as stored:
    y = mean + example + architecture + example x architecture + run + rest. Architectures may have different numbers
    of runs; they are compared by unweighted cell means. Estimates below 0 are set to 0.

    Args:
        runs: at least two of one architecture. Only the examples that every run presented are used.
        score: one that every run has.

    Raises:
        TypeError, ValueError: no two runs of one architecture, a score that not every run has, fewer than two examples
            that every run presented, or a score that is the same for all of them in all runs.

    >>> from difficulty_prune import Run
    >>> hard = np.array([0.0, 1.0, 2.0, 3.0])
    >>> runs = RunSet(
    ...     Run({"el2n": k * hard + shift}, architecture=name, seed=0)
    ...     for name, k in (("mlp", 1), ("cnn", 2))
    ...     for shift in (0, 0.1)
    ... )
    >>> print(variance_shares(runs, "el2n"))
    Of the variance of el2n, 66 % belongs to the example, 34 % depends on the architecture, 0 % is a shift of the \
whole run, 0 % is noise of single runs.
    """
    check_runs(runs, score, least=2)
    kinds = architecture_of_runs(runs)
    numbers = np.bincount(kinds)
    if numbers.max() < 2:
        raise ValueError(
            f"variance_shares: got one run of each of {', '.join(runs.architectures)}, expected two of at least one "
            "architecture: otherwise noise cannot be told from what depends on the architecture"
        )
    known = known_to_all(runs, score)
    components = _components(runs, score, known, kinds, numbers)
    total = sum(components.values())
    if total <= _ROUNDING * float(np.square(read(runs, 0, score)[known]).mean()):
        raise ValueError(f"variance_shares: {score} is equal for all examples in all runs: there is nothing to share")
    share = {name: value / total for name, value in components.items()}
    return VarianceShares(
        share["example"],
        share["architecture"] + share["example x architecture"],
        share["run"],
        share["rest"],
        components,
        score,
        runs.architectures,
    )


def _components(
    runs: RunSet, score: str, known: NDArray[Any], kinds: NDArray[Any], numbers: NDArray[Any]
) -> dict[str, float]:
    """The variances, from mean squares whose expectations are, with v = rest, h = mean over architectures of 1 / R_a:

    within architectures, of values less the means of their example and run: v;
    of run means around their architecture's: run + v / N;
    of cell means (example, architecture) less those of example and architecture: interaction + h v;
    of example means over cells: example + (interaction + h v) / A;
    of architecture means over cells: architecture + h run + (interaction + h v) / N.
    """
    size, several = len(known), len(numbers)
    cells, run_means = np.zeros((several, size)), np.zeros(len(runs))
    for run, kind in enumerate(kinds):
        values = read(runs, run, score)[known]
        run_means[run] = values.mean()
        cells[kind] += values / numbers[kind]
    kind_means = cells.mean(1)
    squares = 0.0
    for run, kind in enumerate(kinds):
        left = read(runs, run, score)[known] - cells[kind] - (run_means[run] - kind_means[kind])
        squares += float(left @ left)
    freedom = int((numbers - 1).sum())
    rest = squares / ((size - 1) * freedom)
    run_variance = float(((run_means - kind_means[kinds]) ** 2).sum()) / freedom - rest / size
    per_cell = float((1 / numbers).mean())
    example_means = cells.mean(0)
    interaction_square, architecture = rest * per_cell, 0.0
    if several > 1:
        left = cells - example_means - (kind_means - kind_means.mean())[:, None]
        interaction_square = float((left**2).sum()) / ((size - 1) * (several - 1))
        architecture = float(kind_means.var(ddof=1)) - per_cell * run_variance - interaction_square / size
    estimates = {
        "example": float(example_means.var(ddof=1)) - interaction_square / several,
        "architecture": architecture,
        "example x architecture": interaction_square - per_cell * rest,
        "run": run_variance,
        "rest": rest,
    }
    return {name: max(0.0, estimate) for name, estimate in estimates.items()}
