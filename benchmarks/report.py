"""The rows of a benchmark run, as a table for people and as plain data."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from comparison import Row
from rich.console import Console
from rich.table import Table

from difficulty_prune.bench.ratio import duration

EXPLANATION = (
    "Times are medians over rounds in which theirs and ours take turns; the ratio is the median over the rounds of\n"
    "their time / ours (≥), or of our time / theirs where the target is not to be slower (≤), with its quartiles."
)


def table(rows: Sequence[Row]) -> str:
    """All rows, and how they were measured."""
    grid = Table(box=None, pad_edge=False, header_style="")
    words = ("work", "against", "target", "met")
    for name in (*words[:2], "ours", "theirs", "ratio", "quartiles", *words[2:], "must move", "GB/s", "of copy"):
        grid.add_column(name, justify="left" if name in words else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*_cells(row))
    console = Console(file=io.StringIO(), width=300, color_system=None)
    console.print(grid)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    notes = [f"{row.work}, against {row.against}:{row.note}" for row in rows if row.note and not row.met]
    return "\n".join([*lines, "", EXPLANATION, _copy_line(rows), *notes])


def as_data(row: Row) -> dict[str, Any]:
    """A row as it stands in the JSON file, in seconds and bytes."""
    low, ratio, high = (_significant(x) for x in row.ratio_quartiles)
    data: dict[str, Any] = {
        "work": row.work,
        "against": row.against,
        "our_median_seconds": _significant(float(np.median(row.ours))),
        "their_median_seconds": _significant(float(np.median(row.theirs))),
        "our_fastest_seconds": _significant(float(row.ours.min())),
        "their_fastest_seconds": _significant(float(row.theirs.min())),
        "rounds": len(row.ours),
        "ratio_is": "ours / theirs" if row.target.slower else "theirs / ours",
        "ratio": ratio,
        "ratio_quartiles": [low, high],
        "target": str(row.target) or None,
        "met": row.met,
    }
    if row.note:
        data["note"] = row.note
    if row.rate is not None:
        data |= {"bytes_that_must_move": row.moved, "bytes_per_second": _significant(row.rate)}
    if row.copy_rates is not None and row.of_copy is not None:
        data["copy_bytes_per_second"] = _significant(float(np.median(row.copy_rates)))
        data["fraction_of_copy"] = _significant(row.of_copy)
    return data


def _cells(row: Row) -> list[str]:
    low, ratio, high = row.ratio_quartiles
    digits = 3 if row.target.slower else 1
    return [
        row.work,
        row.against,
        duration(float(np.median(row.ours))),
        duration(float(np.median(row.theirs))),
        f"{ratio:.{digits}f}x",
        f"{low:.{digits}f}-{high:.{digits}f}",
        str(row.target),
        {True: "yes", False: "NO", None: ""}[row.met],
        "" if row.moved is None else f"{row.moved / 1e6:.1f} MB",
        "" if row.rate is None else f"{row.rate / 1e9:.1f}",
        "" if row.of_copy is None else f"{row.of_copy:.0%}",
    ]


def _copy_line(rows: Sequence[Row]) -> str:
    rates = [row.copy_rates for row in rows if row.copy_rates is not None]
    if not rates:
        return ""
    rate = np.median(np.concatenate(rates)) / 1e9
    return f"A copy of an array far larger than the caches reaches {rate:.1f} GB/s, read and written bytes counted."


def _significant(value: float) -> float:
    return float(f"{value:.4g}")
