"""Which examples a policy keeps whichever runs it is given."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..policies.base import Policy
from ..policies.plan import Plan
from ..runs.run_set import RunSet
from ..runs.score_of_runs import ScoreOfRuns
from ..scores.catalogue import SCORES
from ..support.checks import check_number, whole_number
from ..support.pieces import check_executor, run_pieces
from ..support.plain import plain_fields
from ..support.randomness import generator_from
from .correlation import architecture_of_runs
from .streams import batches, check_runs, count, generator, percent


@dataclass(frozen=True, eq=False)
class StableSubset:
    """The examples that a policy keeps in most resampled sets of runs.

    Attributes:
        index: [K] int64, ascending, the positions of examples kept in at least `share` of the sets.
        frequency: [N] float64, the share of the sets in which the example is kept.
        share: as asked for.
        kept: number of examples in the plan of all runs.
        kept_and_stable: how many of these are in `index`.
        resamples: number of sets.
        policy: its repr.
    """

    index: NDArray[Any]
    frequency: NDArray[Any]
    share: float
    kept: int
    kept_and_stable: int
    resamples: int
    policy: str

    def __str__(self) -> str:
        number = self.kept_and_stable
        return (
            f"Of the {count(self.kept, 'example')} that {self.policy} keeps, {number:,} "
            f"({percent(number / self.kept)}) {'is' if number == 1 else 'are'} kept by at least "
            f"{percent(self.share)} of {count(self.resamples, 'resampled set')} of runs."
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers that sum it up, as JSON can hold them."""
        return plain_fields(
            self, leave_out=("index", "frequency"), examples=len(self.frequency), stable=len(self.index)
        )


def stable_subset(
    runs: RunSet,
    score: str,
    policy: Policy,
    *,
    share: float = 0.9,
    resamples: int = 100,
    seed: int = 0,
    executor: Executor | None = None,
) -> StableSubset:
    """The examples that a policy keeps whichever runs it is given: in at least `share` of resampled sets of runs.

    Each set draws with replacement, from each architecture, as many runs as it has. The set's mean difficulty and a
    random generator of its own give a plan. So not only the runs vary, but also ties and what a policy draws.

    Args:
        runs: at least two.
        score: one that every run has.
        policy: one of `dp.policies`, or your own, called as `policy(difficulty, labels, generator=...)`.
        share: in (0, 1].
        resamples: number of sets.
        seed: of the draws and the generators.
        executor: makes the plans of the sets in pieces, as for `reliability`; default: this process. The policy must be
            one that it can send; what the policy warns of is heard for the plan of all runs.

    Raises:
        TypeError, ValueError: fewer than two runs, a score that not every run has, not a policy, a share outside
            (0, 1], no resamples, not an executor, or what the policy raises, such as for NaN difficulty.

    >>> from difficulty_prune import Run, policies
    >>> values = ([4.0, 1.0, 3.0, 2.0], [4.1, 1.1, 2.1, 2.2])
    >>> runs = RunSet(Run({"el2n": v}, architecture="mlp", seed=0) for v in values)
    >>> stable = stable_subset(runs, "el2n", policies.Hardest(keep=0.5))
    >>> print(stable)
    Of the 2 examples that Hardest(keep=0.5) keeps, 1 (50 %) is kept by at least 90 % of 100 resampled sets of runs.
    >>> stable.index
    array([0])
    """
    check_runs(runs, score, least=2)
    number, rng = whole_number(resamples, "resamples", least=1), generator(seed)
    if not callable(policy):
        raise TypeError(f"policy: got {policy!r}, expected one of dp.policies, such as Hardest(keep=0.5)")
    check_number(share, "share", "(0, 1], the share of the resampled sets")
    if not 0 < share <= 1:
        raise ValueError(f"share: got {share!r}, expected a number in (0, 1], the share of the resampled sets")
    check_executor(executor)
    kinds = architecture_of_runs(runs)
    sets = np.stack([_resampled(kinds, rng) for _ in range(number)])
    question = _Question(ScoreOfRuns(runs, score), SCORES[score].higher_is_harder, runs.labels, policy, seed)
    of_all = next(question.plans(np.ones((1, len(runs)), np.int64), 0))
    counts = np.zeros(runs.num_examples, np.int64)
    pieces, first = [], 1
    for some in batches(sets, runs.num_examples):
        pieces.append((question, some, first))
        first += len(some)
    for part in run_pieces(executor, _count, pieces):
        counts += part
    index = np.flatnonzero(counts >= share * number - 1e-9)  # 0.07 * 100 is more than 7, by rounding
    return StableSubset(
        index,
        counts / number,
        float(share),
        len(of_all),
        len(np.intersect1d(index, of_all.index.numpy())),
        number,
        repr(policy),
    )


def _resampled(kinds: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """How often each run is drawn, with replacement, into a set with as many of each architecture, [R] int64."""
    groups = [np.flatnonzero(kinds == kind) for kind in range(kinds.max() + 1)]
    drawn = np.concatenate([rng.choice(group, len(group)) for group in groups])
    return np.bincount(drawn, minlength=len(kinds))


@dataclass(frozen=True, eq=False)
class _Question:
    """What a worker needs to know to make the plans of some sets.

    Attributes:
        kept: the score of the runs.
        higher_is_harder: of the score.
        labels: [N], or None.
    """

    kept: ScoreOfRuns
    higher_is_harder: bool
    labels: NDArray[Any] | None
    policy: Policy
    seed: int

    def plans(self, sets: NDArray[Any], first: int) -> Iterator[Plan]:
        """The plan of each set [K, R], how often it has each run; set 0 is all of them."""
        for number, mean in enumerate(self.kept.means(sets), first):
            yield self._plan(mean, number)

    def _plan(self, mean: NDArray[Any], number: int) -> Plan:
        difficulty = mean if self.higher_is_harder else -mean
        try:
            plan = self.policy(difficulty, self.labels, generator=generator_from(self.seed, number))
        except ValueError as error:
            unknown = int(np.isnan(mean).sum())
            reason = f", none of which presented {unknown} of the examples" if unknown else ""
            which = f"of resampled set {number} of the runs" if number else "of all runs"
            raise ValueError(f"stable_subset: from the mean {which}{reason}: {error}") from error
        if not isinstance(plan, Plan):
            raise TypeError(f"policy: {self.policy!r} returned {plan!r}, expected a dp.Plan")
        return plan


def _count(question: _Question, sets: NDArray[Any], first: int) -> NDArray[Any]:
    """In how many plans of these sets [K, R] each example is, [N] int64."""
    counts = np.zeros(question.kept.num_examples, np.int64)
    for plan in question.plans(sets, first):
        counts[plan.index.numpy()] += 1
    return counts
