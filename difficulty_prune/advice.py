"""Which policy to take, and why: rules that measurements gave, and random where it is the right answer."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from .audit.label_issues import LabelIssues, label_issues
from .consistency.reliability import Reliability, reliability
from .policies.base import Keeping, check_plan_labels, number_kept, ranks_nothing
from .policies.stratified import Stratified
from .policies.uniform import Random
from .policies.without_wrong import WithoutWrong
from .runs.run import Run
from .runs.run_set import RunSet
from .scores.catalogue import check_scores
from .support.checks import check_fraction
from .support.plain import plain_fields

WRONG: Final = 0.05
"""The share of wrong labels from which on to leave them out beat chance."""

MOST: Final = 0.8
"""The share to keep at which no policy was seen to beat chance on clean labels, with ten seeds."""

LEAST: Final = 0.5
"""The smallest share to keep that was measured on digits."""

PER_CLASS: Final = 50
"""The smallest number of examples per class that was measured."""

SOURCE: Final = "benchmarks/results/advice.json, handwritten digits, ten seeds"

PHOTOGRAPHS: Final = (
    "On photographs with labels that people gave, 17 % of them wrong, a half so chosen was 5.2 points better than a "
    "random half, and 6.3 worse than all data in twice the steps (benchmarks/results/prune.json)."
)
"""What leaving out was worth where labels were not made wrong on purpose."""

FEW_PHOTOGRAPHS: Final = (
    "Of photographs with clean labels 30 % so chosen were 3.8 points better than a random 30 %, and 10 % were not seen "
    "to differ (benchmarks/results/prune.json)."
)
"""What it was worth where little is kept; there what looked wrong was hard."""

STRATA_OF_PHOTOGRAPHS: Final = "on photographs no difference was seen at 50 or 70 % (benchmarks/results/prune.json)"

LITTLE_OF_PHOTOGRAPHS: Final = (
    "of photographs with clean labels neither the hardest nor strata were seen to beat a random 10 or 30 %, but "
    "BetaSampling by dual of the first epochs did, by 6.2 and 3.1 points (benchmarks/results/prune.json)"
)

_SCORES: Final = ("el2n", "margin", "aum")


@dataclass(frozen=True)
class Advice:
    """Which policy to take, and why.

    Attributes:
        policy: for `PruneSampler` and `dp.compare`.
        words: why, with the measurements that say so; also `str`.
        keep: the share to keep.
        per_class: how many examples of the smallest class the plan would keep on average; None where labels are not
            known.
        wrong: the estimated share of wrong labels; None where it is not known.
        reliability: of the ranking, and its interval; None where it is not known, as of a single run.
        score: the one that ranks.
    """

    policy: Keeping | WithoutWrong
    words: str
    keep: float
    per_class: float | None
    wrong: float | None
    reliability: tuple[float, float, float] | None
    score: str

    def __str__(self) -> str:
        return self.words

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return plain_fields(self, policy=repr(self.policy))


def advise(runs: RunSet | Run, keep: float, labels: Any = None, *, score: str | None = None) -> Advice:
    """Says in words which policy to take for this share, and why.

    The rules, with their source, `benchmarks/results/advice.json` (`benchmarks/studies/advice.py`: digits with 0 to
    40 % wrong labels, 50 and 80 % kept, ten seeds, against random parts of the same size):

    1. A ranking whose reliability may be 0 is chance: random. So is one that is the same for all, under rule 3.
    2. With an estimated 5 % of wrong labels or more: leave these out, as far as `keep` has room, and draw from the rest
       (`WithoutWrong`). That beat chance in all of those cases, by 0.9 to 13.8 points, and by 5.2 on a half of 10,000
       photographs with labels that people gave (`benchmarks/results/prune.json`), where all data in twice the steps
       were better by another 6.3, and the hardest half was 32.7 worse than chance.
    3. With fewer, 50 to 80 % to keep, and 50 examples or more left of each class: `Stratified`, which beat chance by
       1.7 points at 50 % of the digits; on photographs with clean labels it was not seen to differ from chance.
       `Hardest` did as well on the digits, but is worse than chance by up to 53 points where labels are wrong.
    4. Else random: at 80 % of clean labels nothing was seen to beat it, and below 50 %, or with fewer per class,
       nothing was measured on the digits; of photographs neither the hardest nor strata were seen to beat 10 or 30 %,
       but `BetaSampling` by `dual` of the first epochs did, by 6.2 and 3.1 points.

    `dp.compare` says whether it holds for your training.

    Args:
        runs: one or more, with "margin" or "aum", by which the wrong labels are estimated (`dp.audit.label_issues`).
        keep: the share to keep, in (0, 1].
        labels: [N] whole numbers, those trained on; default: those that the runs know.
        score: the one that ranks; default: el2n, margin or aum, the first that every run has.

    Raises:
        TypeError, ValueError: see `dp.audit.label_issues`; a share outside (0, 1]; a score that not every run has.

    >>> rng = np.random.default_rng(0)
    >>> margin = np.where(np.arange(400) < 40, -0.8, 0.8) + 0.1 * rng.normal(size=400)
    >>> run = Run({"margin": margin}, architecture="mlp", seed=0, labels=np.arange(400) % 2)
    >>> advise(run, keep=0.6).policy
    WithoutWrong(Random(keep=0.6), wrong=40 examples)
    """
    check_fraction(keep, "keep")
    several = RunSet([runs]) if isinstance(runs, Run) else runs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the caveat says the same
        issues = label_issues(several, labels)
    ranking = score if score is not None else next(name for name in _SCORES if name in several.scores)
    if ranking not in several.scores:
        check_scores([ranking])
        raise ValueError(f"score: got {ranking!r}, expected one that every run has: {', '.join(several.scores)}")
    known = several.labels if labels is None else labels
    classes = None if known is None else check_plan_labels(known, several.num_examples)
    trust = _reliability(several, ranking)
    kept = number_kept(keep, several.num_examples)
    facts = _Facts(
        float(keep),
        kept,
        None if classes is None else float(classes.unique(return_counts=True)[1].min()) * keep,
        issues,
        trust,
        several.num_examples,
        None if classes is None else classes.numpy(),
        ranks_nothing(torch.from_numpy(several.difficulty(ranking))),
    )
    policy, why = _choose(facts)
    trusted = _trusted(facts, ranking, len(several))
    return Advice(
        policy,
        f"Take {policy!r}: {why} {trusted} dp.compare says whether it pays for you.",
        float(keep),
        facts.per_class,
        facts.wrong,
        None if trust is None else (trust.value, *trust.interval),
        ranking,
    )


@dataclass(frozen=True)
class _Facts:
    """What the rules look at."""

    keep: float
    kept: int
    per_class: float | None
    issues: LabelIssues
    trust: Reliability | None
    examples: int
    classes: np.ndarray[Any, Any] | None
    all_alike: bool

    @property
    def wrong(self) -> float | None:
        """The estimated share of wrong labels, unless the estimate says little."""
        return None if self.issues.caveat else self.issues.number / self.issues.examples

    @property
    def suspects(self) -> np.ndarray[Any, Any]:
        """As many of them as there is room for, most likely wrong first."""
        return self.issues.index[: self.examples - self.kept]

    def empties_a_class(self) -> bool:
        """Whether nothing but suspects is in some class."""
        if self.classes is None:
            return False
        left = np.delete(self.classes, self.suspects)
        return len(np.unique(left)) < len(np.unique(self.classes))


def _choose(facts: _Facts) -> tuple[Keeping | WithoutWrong, str]:
    """The policy, and the rule that chose it."""
    chance = Random(facts.keep)
    if facts.kept == facts.examples:
        return chance, "nothing is to be left out."
    if facts.trust is not None and facts.trust.interval[0] <= 0:
        low, high = facts.trust.interval
        return chance, f"the ranking may be chance itself, its reliability is {low:.2f} to {high:.2f}: train more runs."
    if facts.wrong is None:
        return chance, f"what is wrong cannot be estimated ({facts.issues.caveat})."
    share = f"{facts.issues.number:,} of {facts.issues.examples:,} labels are likely wrong ({facts.wrong:.1%})"
    if facts.wrong >= WRONG and facts.empties_a_class():
        return chance, f"{share}, but among them are all examples of a class: look at its labels first."
    if facts.wrong >= WRONG:
        return WithoutWrong(chance, wrong=facts.suspects), f"{share}; {_leave_out(facts)}"
    if facts.all_alike:
        return chance, f"{share}, and the ranking is none, since all examples have the same score."
    if facts.keep >= MOST:
        return chance, f"{share}, and with so few nothing was seen to beat chance at 80 % ({SOURCE})."
    if facts.keep < LEAST:
        return chance, f"{share}, and nothing was measured below 50 % ({SOURCE}); {LITTLE_OF_PHOTOGRAPHS}."
    if facts.per_class is None or facts.per_class < PER_CLASS:
        left = "an unknown number" if facts.per_class is None else f"{facts.per_class:.0f}"
        return chance, f"{left} of the smallest class would be left, and with fewer than 50 nothing was measured."
    return Stratified(facts.keep), (
        f"{share}; with 2 % or fewer, a half in strata was 1.7 to 1.8 points better than chance ({SOURCE}); "
        f"{STRATA_OF_PHOTOGRAPHS}."
    )


def _leave_out(facts: _Facts) -> str:
    """What leaving out was worth at the nearest shares that were measured."""
    assert facts.wrong is not None
    worth = {0.05: "0.9 to 1.7", 0.1: "1.7 to 3.3", 0.2: "4.5 to 6.6", 0.4: "6.3 to 13.8"}
    nearest = min(worth, key=lambda share: abs(share - (facts.wrong or 0.0)))
    text = f"to leave them out was worth {worth[nearest]} points over chance at {nearest:.0%} wrong ({SOURCE})."
    number = len(facts.suspects)
    if number < facts.issues.number:
        text += (
            f" With keep {facts.keep:g} there is room to leave out {number:,} of them: a smaller keep leaves out more."
        )
    if facts.keep < LEAST:
        text += f" What is left is drawn at random. {FEW_PHOTOGRAPHS}"
    return f"{text} {PHOTOGRAPHS}"


def _trusted(facts: _Facts, score: str, runs: int) -> str:
    """How far the ranking is to be trusted."""
    if facts.trust is None:
        why = "of one run" if runs == 1 else f"of these {runs} runs"
        return f"How reliable the ranking by {score} is, is not known {why}."
    low, high = facts.trust.interval
    return f"The ranking by {score} has reliability {facts.trust.value:.2f} ({low:.2f} to {high:.2f})."


def _reliability(runs: RunSet, score: str) -> Reliability | None:
    """None of a single run, or where runs share too few examples."""
    if len(runs) < 2:
        return None
    try:
        return reliability(runs, score)
    except ValueError:
        if score in runs.scores:
            return None
        raise
