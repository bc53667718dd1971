"""The data that a command is about: that of `--data`, compared with the runs, or that of the runs themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..convert.todays_table import renumbered
from ..data import IndexedDataset
from ..dataset_facts import files_of
from ..matched_ids import NEW, IdReport, Match, are_row_numbers
from ..runs.run_set import RunSet
from ..study.training_part import training_part
from ..support.counted import counted
from .load_runs import warn
from .named_data import open_named_data


@dataclass(frozen=True)
class TodaysData:
    """Today's examples.

    Attributes:
        source: what names them: a dataset, or runs.
        size: N.
        ids, labels: [N], or None.
        class_names: the name of each class, or None.
        files: [N], as the dataset opens them, or None.
        match: where each example is among those of the runs; None if these are the data.
        set_aside: how many further examples the study of the runs set aside for testing.
    """

    source: IndexedDataset | RunSet
    size: int
    ids: NDArray[Any] | None
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    files: list[str] | None
    match: Match | None
    set_aside: int = 0

    def align(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of the runs' examples in today's order; NaN for new ones."""
        return values if self.match is None else self.match.align(values)

    @property
    def changed(self) -> bool:
        """Whether the examples are others than those of the runs, or in another order."""
        match = self.match
        return match is not None and not np.array_equal(match.positions, np.arange(match.earlier))

    def facts(self) -> dict[str, int] | None:
        """How many examples match and do not, for JSON; None where the runs are the data."""
        if self.match is None:
            return None
        report = self.match.report
        names = ("matched", "vanished", "new", "moved_class")
        found = {name: int(getattr(report, name)) for name in names}
        return {**found, "set_aside": self.set_aside} if self.set_aside else found

    def in_words(self) -> str | None:
        """How many examples match and do not; None where the runs are the data."""
        facts = self.facts()
        if facts is None:
            return None
        said = {"vanished": ("vanished",) * 2, "new": NEW, "moved_class": ("moved to another class",) * 2}
        others = [counted(facts[name], *words) for name, words in said.items() if facts[name]]
        if self.set_aside:
            others.append(left_out(self.set_aside))
        return ", ".join([f"{facts['matched']:,} of {self.size:,} examples match the runs", *others])


def labels_then(runs: RunSet, today: TodaysData) -> NDArray[np.int64]:
    """The classes that today's examples had in the runs, [N] with today's numbers; -1 where that is not known."""
    labels = runs.labels
    if labels is None:
        return np.full(today.size, -1)
    if today.match is not None:
        positions = today.match.positions
        labels = np.where(positions >= 0, labels[np.maximum(positions, 0)], -1)
    return renumbered(labels, runs.class_names, today.class_names)


def todays_data(runs: RunSet, spec: str | None, command: str) -> TodaysData:
    """Opens what `--data` names, and compares it with the runs; a warning says what changed since.

    Raises:
        TypeError, ValueError, FileNotFoundError: a spec that names no data, or data that are not those of the runs.
    """
    if spec is None:
        return TodaysData(runs, runs.num_examples, runs.ids, runs.labels, runs.class_names, None, None)
    data, aside = open_training_part(runs, spec, command)
    match = _in_order(runs, data, spec, command) if runs.ids is None else _by_id(runs, data, spec)
    if not match.report.all_match:
        warn(command, f"the data changed since the runs: {match.report}")
    labels = match.labels
    if labels is None and runs.labels is not None and not match.report.new:
        labels = runs.labels[match.positions]
    names = runs.class_names if data.class_names is None else data.class_names
    return TodaysData(data, len(data), data.ids, labels, names, files_of(data.dataset), match, aside)


def open_training_part(runs: RunSet, spec: str, command: str) -> tuple[IndexedDataset, int]:
    """What `--data` names, without the test data of the study that the runs are of, and how many examples these are.

    Raises:
        TypeError, ValueError, FileNotFoundError: a spec that names no data, or nothing shows that the runs are of it.
    """
    data = open_named_data(spec)
    _check_shown(runs, data, spec, command)
    part = training_part(runs, data, spec)
    return part, len(data) - len(part)


def left_out(number: int) -> str:
    """Words for the examples that a study set aside.

    >>> left_out(1)
    'left out is 1 more, which the study set aside for testing'
    """
    return f"left out {'is' if number == 1 else 'are'} {number:,} more, which the study set aside for testing"


def _check_shown(runs: RunSet, data: IndexedDataset, spec: str, command: str) -> None:
    """A warning, or ValueError, where ids are numbers of rows, and there are no classes by which to check them."""
    if runs.ids is None or data.ids is None or (runs.labels is not None and data.labels is not None):
        return
    if not (are_row_numbers(runs.ids) and are_row_numbers(data.ids)):
        return
    of = {run.metadata["data"] for run in runs if isinstance(run.metadata.get("data"), str)}
    said = "the ids of the runs are numbers of rows, which match whatever the data is, and no classes can be compared"
    if not of:
        warn(command, f"{said}: nothing shows that {spec} is their data")
    elif of != {spec}:
        raise ValueError(
            f"data: got {spec}, but the runs say that they are of {', '.join(sorted(of))}, and {said}; name the data "
            "as the study did, or give ids that name examples, with dp.IndexedDataset(dataset, key=...)"
        )


def _by_id(runs: RunSet, data: IndexedDataset, spec: str) -> Match:
    if data.ids is None:
        raise ValueError(
            f"data: {spec} names no examples, but the runs have ids: give a function of yours, your.module:function, "
            "that returns dp.IndexedDataset(dataset, key=...), with ids"
        )
    return runs.match(data)


def _in_order(runs: RunSet, data: IndexedDataset, spec: str, command: str) -> Match:
    """Of runs without ids: the same number of examples, with the same labels."""
    size = runs.num_examples
    if len(data) != size:
        raise ValueError(
            f"data: {spec} has {len(data)} examples, but the runs are of {size} and have no ids to tell which; give "
            "the data that they are of, or score it anew with tracker.finish(dataset=...)"
        )
    labels = runs.labels
    if labels is None or data.labels is None:
        warn(command, "the runs have no ids, and no labels to compare with those of the data: taken in order")
    else:
        differing = int((renumbered(labels, runs.class_names, data.class_names) != data.labels).sum())
        if differing:
            raise ValueError(
                f"data: {differing} of {size} examples of {spec} have other labels than in the runs, which have no ids "
                "to tell why: it is other data, or in another order"
            )
    report = IdReport(size, 0, 0, 0, f"{size} of {size} examples match, in order")
    return Match(np.arange(size), data.labels, report, size)
