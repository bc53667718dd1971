"""Sensitive examples: those whose score differs between architectures."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..runs.run_set import RunSet
from ..runs.score_of_runs import ScoreOfRuns
from ..support.blocks import blocks
from ..support.checks import check_number, whole_number
from ..support.pieces import check_executor, run_pieces
from ..support.plain import plain_fields
from .effect import unit_range, variance
from .groups import group_runs, name_all
from .permutation import Assignments, assignments, permutation_p_values
from .welch import welch_p_values

Test = Literal["permutation", "welch"]

_PIECE: Final = 1 << 15
"""Examples of a piece of work: with 300 runs and 10,000 permutations some seconds of a core."""

_RATE: Final = 0.05  # the customary false-discovery rate
_SHOWN: Final = 10  # most sensitive examples in a summary, as many as a fingerprint takes by default


@dataclass(frozen=True, eq=False)
class SensitiveExamples:
    """Which examples tell architectures apart. Examples that a run did not present are NaN.

    Attributes:
        index: [tested] int64 positions, most sensitive first: by p-value, then by effect, then by position.
        p_value: [N] float64.
        q_value: [N] float64, the smallest false-discovery rate at which the example counts as sensitive
            (Benjamini and Hochberg 1995).
        effect: [N] float64, the share of the score's variance over runs that lies between architectures, eta^2.
        score, test: as asked for.
        architectures: their names, sorted.
        runs: number of runs of each architecture.
        permutations: how many assignments of runs to architectures were tried; 0 for Welch's test.
        exact: whether these were all there are.
        smallest_p: the smallest possible p-value.
    """

    index: NDArray[Any]
    p_value: NDArray[Any]
    q_value: NDArray[Any]
    effect: NDArray[Any]
    score: str
    test: Test
    architectures: tuple[str, ...]
    runs: tuple[int, ...]
    permutations: int
    exact: bool
    smallest_p: float

    def significant(self, rate: float = _RATE) -> NDArray[Any]:
        """Positions [S] int64 of the examples called sensitive, most sensitive first.

        Args:
            rate: the false-discovery rate, in (0, 1]: the expected share of these that are not sensitive at all.

        Raises:
            TypeError, ValueError: not a number in (0, 1].
        """
        check_number(rate, "rate", "(0, 1], a false-discovery rate such as 0.05")
        if not 0 < rate <= 1:
            raise ValueError(f"rate: got {rate!r}, expected a false-discovery rate in (0, 1] such as 0.05")
        chosen: NDArray[Any] = self.index[self.q_value[self.index] <= rate]
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """The numbers that sum it up, as JSON can hold them, with the most sensitive examples."""
        return plain_fields(
            self,
            leave_out=("index", "p_value", "q_value", "effect", "architectures"),
            runs=dict(zip(self.architectures, self.runs, strict=True)),
            examples=len(self.p_value),
            tested=len(self.index),
            false_discovery_rate=_RATE,
            significant=len(self.significant()),
            most_sensitive=[self._one(int(i)) for i in self.index[:_SHOWN]],
        )

    def __str__(self) -> str:
        facts = self.to_dict()
        how = "Welch's test"
        if self.test == "permutation":
            which = f"all {self.permutations:,} assignments" if self.exact else f"{self.permutations:,} permutations"
            how = f"permutation test, {which}"
        missing = facts["examples"] - facts["tested"]
        text = (
            f"{facts['significant']:,} of {facts['tested']:,} examples tell {name_all(self.architectures)} apart "
            f"({self.score}, false-discovery rate {_RATE}; {how} of {sum(self.runs)} runs)."
        )
        if missing:
            text += f" {missing:,} more were not presented in every run and are left out."
        return text + ("" if facts["significant"] else self._out_of_reach())

    def _out_of_reach(self) -> str:
        """Why so few runs or permutations could not have found a sensitive example, if they could not."""
        needed = math.ceil(len(self.index) * self.smallest_p / _RATE)
        if needed <= 1:
            return ""
        cause, remedy = f"{self.permutations:,} permutations", "take more permutations"
        if self.exact:
            cause, remedy = f"{' + '.join(map(str, self.runs))} runs", "train more runs"
        survivors = f"unless {needed:,} examples have it" if needed <= len(self.index) else "however many have it"
        return (
            f" With {cause} no p-value is below {self.smallest_p:.2g}, which does not survive the correction for "
            f"{len(self.index):,} tests {survivors}: {remedy}, or test='welch'."
        )

    def _one(self, example: int) -> dict[str, Any]:
        return {
            "example": example,
            "p_value": float(self.p_value[example]),
            "q_value": float(self.q_value[example]),
            "effect": float(self.effect[example]),
        }


def sensitive_examples(
    runs: RunSet,
    score: str,
    test: Test = "permutation",
    *,
    permutations: int = 10_000,
    seed: int = 0,
    executor: Executor | None = None,
) -> SensitiveExamples:
    """Tests for each example whether its score differs between architectures (arXiv 2401.01867, section 5).

    Statistical genetics looks for places in the genome that go with a trait; this does the same with examples: one
    test per example, over runs, and a correction for the number of tests.

    "permutation" asks how often runs assigned to architectures at random would differ as much, in eta^2. It assumes
    only that the runs are independent. "welch" is Welch's t-test, or with more than two architectures his analysis of
    variance: it assumes normal scores, and can find something with few runs too. For scores that take few values, such
    as counts, trust the permutation test.

    Args:
        runs: at least two of each of at least two architectures. They are read in blocks of examples.
        score: one that every run has.
        test: "permutation" or "welch".
        permutations: of the runs, the same for all examples; all different ones if there are no more.
        seed: of random permutations. The order in which the runs come does not change the result.
        executor: does the work in pieces, as for `consistency.reliability`; default: this process.

    Raises:
        TypeError: `runs` is not a RunSet, not an executor, or numbers that are not whole.
        ValueError: an unknown test or score, only one architecture, too few runs of one, no permutations, or no
            example that every run presented.

    >>> from difficulty_prune import Run
    >>> runs = RunSet(
    ...     Run({"el2n": [0.1 * seed, far + 0.1 * seed]}, architecture=name, seed=seed)
    ...     for name, far in (("cnn", 0), ("mlp", 5)) for seed in range(4)
    ... )
    >>> found = sensitive_examples(runs, "el2n")
    >>> found.index, found.p_value.round(3), found.effect.round(3)
    (array([1, 0]), array([1.   , 0.029]), array([0.   , 0.998]))
    >>> print(sensitive_examples(runs, "el2n", "welch"))
    1 of 2 examples tell cnn and mlp apart (el2n, false-discovery rate 0.05; Welch's test of 8 runs).
    """
    from scipy.stats import false_discovery_control

    if test not in get_args(Test):
        raise ValueError(f"test: got {test!r}, expected 'permutation' or 'welch'")
    whole_number(permutations, "permutations", least=1)
    whole_number(seed, "seed")
    check_executor(executor)
    groups = group_runs(runs, score, at_least=2)

    among = assignments(groups.sizes, permutations, seed) if test == "permutation" else None
    p, q, effect = (np.full(runs.num_examples, np.nan) for _ in range(3))
    kept, size = ScoreOfRuns(groups.runs, score), runs.num_examples
    pieces = ((kept, start, min(start + _PIECE, size), groups.sizes, among) for start in range(0, size, _PIECE))
    for start, of_piece in zip(range(0, size, _PIECE), run_pieces(executor, _test_some, pieces), strict=True):
        p[start : start + _PIECE], effect[start : start + _PIECE] = of_piece
    tested = np.flatnonzero(~np.isnan(p))
    groups.check_comparable(len(tested))
    q[tested] = false_discovery_control(p[tested])
    return SensitiveExamples(
        index=tested[np.lexsort((tested, -effect[tested], p[tested]))],
        p_value=p,
        q_value=q,
        effect=effect,
        score=score,
        test=test,
        architectures=groups.architectures,
        runs=groups.sizes,
        permutations=0 if among is None else len(among.groups),
        exact=among is not None and among.exact,
        smallest_p=0.0 if among is None else among.smallest_p,
    )


def _test_some(
    kept: ScoreOfRuns, start: int, stop: int, sizes: tuple[int, ...], among: Assignments | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """p-value and effect [n] of the examples start..stop-1; NaN where a run did not present one.

    Args:
        among: for the permutation test; None for Welch's.
    """
    p, effect = np.full(stop - start, np.nan), np.full(stop - start, np.nan)
    for block in blocks(stop - start, width=len(kept)):
        x = kept.matrix(slice(start + block.start, start + block.stop))
        known = ~np.isnan(x).any(0)
        positions, x = block.start + np.flatnonzero(known), unit_range(x[:, known])
        own = variance(x, sizes)
        effect[positions] = own.effect
        p[positions] = welch_p_values(own, sizes) if among is None else permutation_p_values(x, own, among)
    return p, effect
