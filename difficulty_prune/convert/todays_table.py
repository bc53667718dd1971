"""A table of scores in the order of today's dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..matched_ids import Match
from ..runs.run_set import RunSet
from .score_table import ScoreTable, percentile


def todays_table(
    runs: RunSet,
    match: Match,
    *,
    ids: NDArray[Any] | None,
    class_names: Sequence[str] | None,
    files: Iterable[str] | None = None,
    scores: Iterable[str] | None = None,
) -> ScoreTable:
    """A row for each example of today's dataset, with what the runs know of it.

    New examples have no scores. Percentiles are those among today's examples. Suggested labels have today's numbers,
    and the quality of a label is not known where the example moved to another class.

    Args:
        runs: one or several.
        match: of today's dataset, from `runs.match(dataset)`.
        ids, class_names, files: of today's dataset, as far as known.
        scores: see `ScoreTable.of`.

    Raises:
        ValueError: as for `ScoreTable.of`.
    """
    before, table = ScoreTable.of(runs, scores=scores), ScoreTable()
    known, at = match.positions >= 0, np.maximum(match.positions, 0)
    names = runs.class_names if class_names is None else tuple(class_names)
    table.class_names = names

    def today(column: str, missing: Any) -> NDArray[Any]:
        return np.where(known, before[column][at], missing)

    if ids is not None:
        table.append("id", ids)
    if files is not None:
        table.append("path", np.array([*files, None], dtype=object)[:-1])
    table.append("index", np.arange(len(at)))
    if match.labels is not None:
        table.append("label", match.labels)
    if "suggested" in before:
        suggested = renumbered(today("suggested", -1), runs.class_names, names)
        table.append("suggested", suggested)
        table.append("suggested_probability", np.where(suggested < 0, np.nan, today("suggested_probability", np.nan)))
    if "label_quality" in before and match.labels is not None:
        same = renumbered(today("label", -1), runs.class_names, names) == match.labels
        table.append("label_quality", np.where(same, today("label_quality", np.nan), np.nan))
    for score in before.scores:
        values = today(score, np.nan)
        table.append(score, values)
        table.append(f"{score}_percentile", percentile(values if runs.higher_is_harder(score) else -values))
        table.append(f"{score}_standard_error", today(f"{score}_standard_error", np.nan))
        table.append(f"{score}_runs", today(f"{score}_runs", 0))
    return table


def renumbered(
    classes: NDArray[np.int64], before: Sequence[str] | None, today: Sequence[str] | None
) -> NDArray[np.int64]:
    """Numbers of classes [N] as today's dataset has them, by their names; -1 for none, and for a class that it lacks.

    Where names are not known, the numbers stay as they are.

    >>> renumbered(np.array([0, 1, -1, 1]), ["cat", "dog"], ["ape", "cat"])
    array([ 1, -1, -1, -1])
    """
    if before is None or today is None or tuple(before) == tuple(today):
        return classes
    number = {name: place for place, name in enumerate(today)}
    new = np.array([*(number.get(name, -1) for name in before), -1])
    return np.asarray(new[np.where(classes < len(before), classes, -1)])
