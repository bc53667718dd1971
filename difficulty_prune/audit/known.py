"""What runs know of the examples of today's dataset: the columns of the audit page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..convert.score_table import ScoreTable, percentile
from ..convert.todays_table import renumbered
from ..data import IndexedDataset, dataset_fingerprint
from ..policies.plan import Plan
from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.counted import counted

FIND_WRONG_LABELS: Final = ("late_aum", "el2n", "margin", "aum", "loss", "confidence")
"""Scores by how well they find wrong labels, the best first; docs/wrong_labels.md has the numbers."""


@dataclasses.dataclass(frozen=True)
class ScoreColumns:
    """One score of each example: mean over the runs as stored, its standard error, and percentile of difficulty."""

    name: str
    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    percentile: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Known:
    """The n examples that both the runs and the dataset know, in the order of the dataset.

    Attributes:
        index: [n] int64, positions in today's dataset.
        ids: [n] texts or whole numbers, or None.
        class_names: the name of each class, or None.
        num_classes: one more than the largest class that anything mentions.
        label: [n] int64, the given label; -1 where there is none.
        suggested: [n] int64, what training suggests; -1 where it suggests nothing. None if the runs do not know.
        probability: [n] float64, of the suggested label; NaN where there is none.
        suggested_from: what the suggestion was taken from, in words.
        agreed, asked: [n] int64, how many of how many runs suggest the given label.
        difficulty: [n] float64 of the score that sorts, high = hard; NaN for an example that was never presented.
        score: its name.
        scores: all scores of the runs, that one first.
        by_architecture: name -> [n] mean percentile of difficulty in the runs of this architecture.
        dropped: [n] bool, what the plan drops; None without a plan.
        matched: how ids went together, in words; empty where everything matches.
    """

    index: NDArray[np.int64]
    ids: NDArray[Any] | None
    class_names: tuple[str, ...] | None
    num_classes: int
    label: NDArray[np.int64]
    suggested: NDArray[np.int64] | None
    probability: NDArray[np.float64]
    suggested_from: str
    agreed: NDArray[np.int64]
    asked: NDArray[np.int64]
    difficulty: NDArray[np.float64]
    score: str
    scores: tuple[ScoreColumns, ...]
    by_architecture: dict[str, NDArray[np.float64]]
    dropped: NDArray[np.bool_] | None
    matched: str

    def __len__(self) -> int:
        return len(self.index)


def collect(runs: RunSet, dataset: IndexedDataset, score: str | None, plan: Plan | None) -> Known:
    """Everything that is known, after checks that runs, plan and dataset are of the same data.

    Raises:
        ValueError: another dataset, a plan of another one, or a score that not every run has.
    """
    name = choose_score(runs, score)
    places, index, matched = _match(runs, dataset)
    ids = _ids(runs, dataset, places, index)
    label = _labels(runs, dataset, places, index)
    table = ScoreTable.of(runs)
    if np.isnan(table[name]).all():
        raise ValueError(
            f"score: none of the {len(table)} examples of the runs has a {name}, so that nothing is sorted"
        )
    names = dataset.class_names or runs.class_names
    suggested, probability, source = _suggested(runs, table, places)
    if suggested is not None:
        suggested = renumbered(suggested, runs.class_names, names)
    agreed, asked = _agreement(runs, label, places, source, names)
    highest = max(int(label.max()), -1 if suggested is None else int(suggested.max()))
    order = [name, *(other for other in runs.scores if other != name)]
    difficulty = table[name] if runs.higher_is_harder(name) else -table[name]
    return Known(
        index=index,
        ids=ids,
        class_names=names,
        num_classes=max(highest + 1, len(names or ())),
        label=label,
        suggested=suggested,
        probability=probability,
        suggested_from=source,
        agreed=agreed,
        asked=asked,
        difficulty=difficulty[places],
        score=name,
        scores=tuple(_columns(table, each, places) for each in order),
        by_architecture={
            str(key): percentile(own.difficulty(name))[places] for key, own in runs.group_by("architecture").items()
        },
        dropped=None if plan is None else _dropped(plan, dataset, index),
        matched=matched,
    )


def choose_score(runs: RunSet, asked: str | None) -> str:
    """The score that was asked for, or of those that all runs have the one that finds wrong labels best.

    Raises:
        ValueError: not all runs have it, or they have none in common.
    """
    if asked is not None:
        if asked not in runs.scores:
            raise ValueError(f"score: got {asked!r}; all runs have {', '.join(runs.scores) or 'none in common'}")
        return asked
    if not runs.scores:
        which = counted(len(runs), "run has", "runs have")
        raise ValueError(f"the {which} no score in common, expected one to sort the examples by")
    return next((name for name in FIND_WRONG_LABELS if name in runs.scores), runs.scores[0])


def _match(runs: RunSet, dataset: IndexedDataset) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Places in the runs [n], positions in the dataset [n], and what did not match, in words."""
    if runs.ids is not None and dataset.ids is not None:
        match = runs.match(dataset)
        index = np.flatnonzero(match.positions >= 0)
        return match.positions[index], index, "" if match.report.all_match else str(match.report)
    if len(dataset) != runs.num_examples:
        raise ValueError(
            f"dataset: got {len(dataset)} examples, expected {runs.num_examples} as in the runs: it is other data. "
            "Runs and datasets with ids may be of different versions; see docs/identity.md"
        )
    _check_same_data(runs, dataset)
    everything = np.arange(len(dataset))
    return everything, everything, ""


def _check_same_data(runs: RunSet, dataset: IndexedDataset) -> None:
    """ValueError where labels or a fingerprint say that a dataset without ids is not that of the runs."""
    labels, known = dataset.labels, runs.labels
    if labels is not None and known is not None:
        known = renumbered(known, runs.class_names, dataset.class_names or runs.class_names)
    if labels is not None and known is not None and dataset.decisions is None and not np.array_equal(labels, known):
        differing = int((labels != known).sum())
        raise ValueError(
            f"dataset: {differing:,} of {len(dataset):,} labels differ from those of the runs, which say which data "
            "they are of only by position and label: it is another dataset, or its labels were changed since. Give "
            "examples ids (docs/identity.md), so that changed labels are known as such"
        )
    fingerprint = next((run.dataset_fingerprint for run in runs if run.dataset_fingerprint and not _encoded(run)), None)
    if fingerprint is None or (labels is None and known is None):
        return  # without labels, every example would have to be read
    try:
        found = dataset_fingerprint(dataset.dataset, labels=labels if labels is not None else known)
    except (TypeError, ValueError):
        return  # augmented at random, or of a kind that has none
    if found != fingerprint and labels is not None and dataset.decisions is None:
        raise ValueError(
            f"dataset: its fingerprint is {found}, that of the runs {fingerprint}: it is another dataset, or its "
            "examples are transformed in another way; give the one that the runs were fingerprinted with, or give "
            "examples ids (docs/identity.md)"
        )


def _encoded(run: Run) -> bool:
    """Whether the run is of a study of a table, whose fingerprint is of rows as they were encoded for the model."""
    return "test_digest" in run.metadata and str(run.metadata.get("data")).startswith(("table:", "regression:"))


def _ids(
    runs: RunSet, dataset: IndexedDataset, places: NDArray[np.int64], index: NDArray[np.int64]
) -> NDArray[Any] | None:
    if dataset.ids is not None:
        return np.asarray(dataset.ids[index])
    known = runs.ids
    return None if known is None else np.asarray(known[places])


def _labels(
    runs: RunSet, dataset: IndexedDataset, places: NDArray[np.int64], index: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Today's labels, else those of the runs; -1 where nobody knows them without reading every example."""
    if dataset.labels is not None:
        return np.asarray(dataset.labels[index])
    known = runs.labels
    if known is None:
        return np.full(len(index), -1)
    return renumbered(known[places], runs.class_names, dataset.class_names or runs.class_names)


def _suggested(
    runs: RunSet, table: ScoreTable, places: NDArray[np.int64]
) -> tuple[NDArray[np.int64] | None, NDArray[np.float64], str]:
    """Suggested labels, their probabilities, and what they are taken from: "training", "trained models" or ""."""
    if "suggested" in table:
        return table["suggested"][places], table["suggested_probability"][places].astype(np.float64), "training"
    if all(run.has("probabilities") for run in runs):
        widths = {run.read("probabilities", slice(1)).shape[1] for run in runs}
        if len(widths) == 1:
            total = np.zeros((runs.num_examples, widths.pop()))
            for run in runs:
                total += run.read("probabilities")
            total /= len(runs)
            return total.argmax(1)[places], total.max(1)[places], "trained models"
    return None, np.full(len(places), np.nan), ""


def _agreement(
    runs: RunSet, label: NDArray[np.int64], places: NDArray[np.int64], source: str, names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many runs suggest the given label, and how many suggest one at all."""
    agreed, asked = np.zeros(len(places), np.int64), np.zeros(len(places), np.int64)
    what = "suggested" if source == "training" else "predictions"
    for run in runs:
        if run.has(what):
            chosen = renumbered(run.read(what)[places], runs.class_names, names)
            agreed += (chosen == label) & (chosen >= 0)
            asked += chosen >= 0
    return agreed, asked


def _columns(table: ScoreTable, name: str, places: NDArray[np.int64]) -> ScoreColumns:
    return ScoreColumns(
        name,
        table[name][places],
        table[f"{name}_standard_error"][places],
        table[f"{name}_percentile"][places],
    )


def _dropped(plan: Plan, dataset: IndexedDataset, index: NDArray[np.int64]) -> NDArray[np.bool_]:
    plan.check_data(len(dataset), dataset.ids)
    return ~np.isin(index, plan.index.numpy())


def disagreement(known: Known) -> NDArray[np.float64]:
    """Largest difference between the mean percentiles of two architectures, [n]; NaN where one has none, 0 for one."""
    columns: Sequence[NDArray[np.float64]] = list(known.by_architecture.values())
    together = np.stack(columns)
    return np.asarray(together.max(0) - together.min(0))
