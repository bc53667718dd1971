"""Which labels are likely wrong, without a reviewer and without another training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..consistency.run_agreement import run_agreement
from ..consistency.streams import RankNothingError, check_run_set
from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.arrays import as_tensor
from ..support.plain import plain_fields

_SCORES: Final = ("margin", "aum")  # the first that every run has
_SHARE: Final = 0.25
"""Of the mean |margin| of the class: by how much another class has to lead. Chosen on trainings with 18 % and 41 % of
people's labels wrong, so that the list is about as long as that of cleanlab; docs/wrong_labels.md has others."""


@dataclass(frozen=True)
class LabelIssues:
    """Labels that training disbelieves.

    Attributes:
        index: [n] int64, their positions in the dataset, most likely wrong first.
        number: n, the number of labels that are likely wrong.
        suggested: [n] int64, the class that the training suggests for each; -1 where the runs do not know it.
        examples: how many examples were compared: all that were presented.
        caveat: why these numbers say little, or None.
    """

    index: NDArray[np.int64]
    number: int
    suggested: NDArray[np.int64]
    examples: int
    caveat: str | None

    def __str__(self) -> str:
        share = self.number / self.examples
        text = f"{self.number:,} of {self.examples:,} labels are likely wrong ({share:.1%}), most likely first"
        return text if self.caveat is None else f"{text}; {self.caveat}"

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as JSON can hold them."""
        return plain_fields(self)


def label_issues(runs: RunSet | Run, labels: Any = None) -> LabelIssues:
    """Labels that training disbelieves: the list that a person should look at, and how long it is.

    While a model trains, it follows the many right labels before it memorises a wrong one, so that the margin of a
    wrong label is low on average over the training (area under the margin, Pleiss et al. 2020, arXiv 2001.10528). Here
    a label is listed if another class leads it, by a quarter or more of how far margins of its class are from 0 on
    average: as in confident learning (arXiv 1911.00068), a class that is hard to tell has a threshold of its own. Where
    the runs suggest labels, a listed one is also another than the one that they suggest. Hard examples with right
    labels are listed too: docs/wrong_labels.md says how many.

    Args:
        runs: with the score "margin" or "aum", which is averaged over them. Runs of trackers with
            `mean_probabilities=True` suggest labels.
        labels: [N] whole numbers, those trained on; default: those that the runs know. If nobody knows them, all
            examples count as of one class, and what is suggested is not compared with them.

    Raises:
        TypeError: neither runs nor a run, or labels that are not whole numbers.
        ValueError: runs without these scores, or that rank nothing; labels of another number, or others than those that
            the runs were trained on.

    Warns:
        UserWarning: the numbers say little, because runs do not agree or most labels would be wrong: `caveat`.

    >>> facts = dict(architecture="mlp", labels=[0, 0, 1, 1], suggested=[0, 1, 1, 1])
    >>> run = Run({"margin": [0.9, -0.8, 0.7, 0.6]}, seed=0, suggested_probability=[0.9, 0.8, 0.8, 0.8], **facts)
    >>> issues = label_issues(run)
    >>> issues.index, issues.number, issues.suggested
    (array([1]), 1, array([1]))
    >>> print(issues)
    1 of 4 labels are likely wrong (25.0%), most likely first
    """
    several = RunSet([runs]) if isinstance(runs, Run) else runs
    check_run_set(several)
    score = next((name for name in _SCORES if name in several.scores), None)
    if score is None:
        raise ValueError(
            f"runs: all have {', '.join(several.scores) or 'no score'}, expected margin or aum, which say whether "
            'another class leads: record them with DifficultyTracker(..., scores=("margin", ...))'
        )
    lead = several.difficulty(score)
    presented = np.flatnonzero(~np.isnan(lead))
    if not len(presented) or np.ptp(lead[presented]) == 0:
        raise RankNothingError(score)
    classes = _labels(several, labels)
    listed = np.zeros(len(lead), np.bool_)
    of_class = np.zeros(len(lead), np.int64) if classes is None else np.unique(classes, return_inverse=True)[1]
    listed[presented] = _leads(lead[presented], of_class[presented])
    suggested = np.full(len(lead), -1)
    if all(run.has("suggested") for run in several):
        suggested = several.suggested()
        if classes is not None:
            listed &= suggested != classes
    found = np.flatnonzero(listed)
    index = found[np.argsort(-lead[found], kind="stable")]
    caveat = _caveat(several, score, len(index), len(presented))
    if caveat is not None:
        warnings.warn(f"label_issues: {caveat}", stacklevel=2)
    return LabelIssues(index, len(index), suggested[index], len(presented), caveat)


def _leads(lead: NDArray[Any], of_class: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether another class leads by more than a quarter of the mean |lead| in the class, [n]."""
    usual = np.bincount(of_class, np.abs(lead)) / np.maximum(np.bincount(of_class), 1)
    return lead > _SHARE * usual[of_class]


def _labels(runs: RunSet, labels: Any) -> NDArray[np.int64] | None:
    """The labels that the runs were trained on, [N], or None if not known."""
    known = runs.labels
    if labels is None:
        return known
    given = as_tensor(labels, "labels", "whole numbers [N]").cpu().numpy()
    if given.dtype.kind not in "iu":
        raise TypeError(f"labels: got {given.dtype}, expected whole numbers [{runs.num_examples}]")
    if given.shape != (runs.num_examples,):
        raise ValueError(f"labels: got the shape {given.shape}, expected ({runs.num_examples},), one per example")
    other = np.flatnonzero(given != (given if known is None else known))
    if len(other):
        raise ValueError(
            f"labels: {len(other)} of {len(given)} are others than the runs were trained on, the first at {other[0]}: "
            "give those that were trained on, or load the runs with RunSet.load(..., decisions=) if they were corrected"
        )
    return given.astype(np.int64)


def _caveat(runs: RunSet, score: str, number: int, examples: int) -> str | None:
    """Why the list says little, or None."""
    if len(runs) > 1:
        agreement = float(np.nanmean(run_agreement(runs, score)))
        by_chance = len(runs) ** -0.5  # of a run with a mean that it is part of
        if agreement < (1 + by_chance) / 2:
            return (
                f"the runs do not agree on {score} (Spearman {agreement:.2f} with their mean, {by_chance:.2f} by "
                "chance): train longer"
            )
    if number > examples / 2:
        return (
            f"the training disbelieves {number:,} of {examples:,} labels: it learned little, or most labels are wrong"
        )
    return None
