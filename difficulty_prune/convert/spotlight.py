"""Scores for Renumics Spotlight and other users of pandas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.checks import whole_number
from ..support.counted import counted
from ..support.optional import optional_module
from .csv_table import as_table
from .score_table import ScoreTable


def to_pandas(runs: RunSet | Run | ScoreTable, **options: Any) -> Any:
    """The scores as a `pandas.DataFrame`, with the columns of a `ScoreTable`. Needs pandas.

    Args:
        runs: one or several, or a table.
        options: `scores` and `paths`, see `ScoreTable.of`.

    Raises:
        ImportError: pandas is not installed.
        TypeError, ValueError: as for `ScoreTable.of`.
    """
    pandas = optional_module("pandas", "pip install pandas", "to_pandas")
    table = as_table(runs, **options)
    return pandas.DataFrame({name: table[name] for name in table.columns})


def to_spotlight(
    runs: RunSet | Run | ScoreTable, *, scores: Iterable[str] | None = None, paths: Any = None, worst: int = 100
) -> tuple[Any, list[Any]]:
    """A DataFrame and issues, for `spotlight.show(frame, issues=issues)`. Needs pandas and renumics-spotlight.

    There is an issue for the hardest examples by each score, and one for those where training suggests another label.
    With names of classes, `label_name` and `suggested_name` hold them.

    Args:
        runs: one or several, or a table.
        scores: those to give; default: all.
        paths: [N] of files, which Spotlight shows.
        worst: at most so many rows in an issue.

    Raises:
        ImportError: a package is missing.
        TypeError, ValueError: as for `ScoreTable.of`.
    """
    number = whole_number(worst, "worst", least=1)
    analysis = optional_module("renumics.spotlight.analysis", "pip install renumics-spotlight", "to_spotlight")
    table = runs if isinstance(runs, ScoreTable) else ScoreTable.of(runs, scores=scores, paths=paths)
    frame = to_pandas(table)
    names = table.class_names
    for column in ("label", "suggested"):
        if names is not None and column in table:
            named = [names[i] if 0 <= i < len(names) else None for i in table[column].tolist()]
            frame[f"{column}_name"] = np.array(named, dtype=object)
    issues = []
    for score in table.scores:
        hardest = np.argsort(-table[f"{score}_percentile"], kind="stable")  # NaN last
        known = int((~np.isnan(table[score])).sum())
        rows = hardest[: min(number, known)].tolist()
        about = f"The {len(rows)} examples that {score} says are the hardest, the hardest first."
        columns = [score, f"{score}_percentile"]
        issues.append(analysis.DataIssue(title=f"Hard by {score}", rows=rows, columns=columns, description=about))
    if "suggested" in table and "label" in table:
        issues += _other_label(table, analysis, number)
    return frame, issues


def _other_label(table: ScoreTable, analysis: Any, number: int) -> list[Any]:
    suggested, sure = table["suggested"], table["suggested_probability"]
    other = np.flatnonzero((suggested >= 0) & (suggested != table["label"]))
    rows = other[np.argsort(-sure[other], kind="stable")][:number].tolist()
    about = f"{counted(len(other), 'example')} for which training suggests another label; the surest first."
    columns = ["label", "suggested", "suggested_probability"]
    facts = {"rows": rows, "columns": columns, "severity": "high", "description": about}
    return [analysis.DataIssue(title="Another label suggested", **facts)] if rows else []
