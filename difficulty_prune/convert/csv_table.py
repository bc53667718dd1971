"""Tables of scores as CSV."""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runs.run import Run
from ..runs.run_set import RunSet
from ..scores.catalogue import SCORES
from ..support.files import atomic_file
from ..support.table_rows import check_suffix, csv_lines, csv_writer, open_text
from .score_table import OF_A_SCORE, TEXT, WHOLE, ScoreTable

_LINES: Final = 1 << 10
"""Lines that are read at once: 65,536, which outlive young generations of Python's garbage, took twice as long."""


def to_csv(runs: RunSet | Run | ScoreTable, path: str | os.PathLike[str], **options: Any) -> None:
    """Writes the scores as CSV, with the columns of a `ScoreTable`, block by block, whole or not at all.

    Numbers are written so that they come back the same; an empty cell is NaN, or no suggested label.

    Args:
        runs: one or several, or a table.
        path: of the file.
        options: `scores` and `paths`, see `ScoreTable.of`.

    Raises:
        TypeError, ValueError: as for `ScoreTable.of`.
        OSError: it cannot be written; the message names the file and says what to do.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "scores.csv")
    ...     to_csv(Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0), path)
    ...     print(Path(path).read_text().splitlines()[0])
    index,el2n,el2n_percentile,el2n_standard_error,el2n_runs
    """
    table = as_table(runs, **options)
    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
        texts = any(name in table.text_columns for name in table.columns)
        writer = csv_writer(text.write) if texts else csv.writer(text, lineterminator="\n")
        writer.writerow(table.columns)
        for block in table.blocks():
            writer.writerows(zip(*(_cells(name, values) for name, values in block.items()), strict=True))
        text.flush()
        text.detach()  # the file is closed by the one who opened it


def as_table(runs: RunSet | Run | ScoreTable, **options: Any) -> ScoreTable:
    """The table of the runs, unless it is one."""
    return runs if isinstance(runs, ScoreTable) else ScoreTable.of(runs, **options)


def _cells(name: str, values: NDArray[Any]) -> list[Any]:
    given: list[Any] = values.tolist()
    if values.dtype.kind == "f":
        return ["" if value != value else value for value in given]
    if name == "suggested":
        return ["" if value < 0 else value for value in given]
    return given


def from_csv(path: str | os.PathLike[str]) -> ScoreTable:
    """Reads a table of scores, block by block. Columns that are not those of a `ScoreTable` are kept as text.

    Ids that are all whole numbers come back as int64.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a malformed line, with its number; an id or an index that is there twice.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "scores.csv")
    ...     to_csv(Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0), path)
    ...     from_csv(path)["el2n"]
    array([0.5, 1. ])
    """
    table = ScoreTable()
    check_suffix(path, (".csv",))
    with open_text(path) as file:
        lines = csv_lines(path, file)
        _, header = next(lines)
        while block := list(itertools.islice(lines, _LINES)):
            for name, cells in zip(header, zip(*(cells for _, cells in block), strict=True), strict=True):
                table.append(name, _column(path, name, cells, block))
    return whole_ids(table).check(os.fspath(path))


def _column(
    path: str | os.PathLike[str], name: str, cells: tuple[str, ...], lines: list[tuple[int, list[str]]]
) -> NDArray[Any]:
    kind = kind_of(name)
    if kind is None:
        return np.array([*cells, None], dtype=object)[:-1]
    empty = math.nan if kind is float else -1 if name == "suggested" else None
    try:
        return _numbers(cells, kind, empty)
    except (TypeError, ValueError, OverflowError) as error:
        for (number, _), cell in zip(lines, cells, strict=True):
            try:
                _numbers((cell,), kind, empty)
            except (TypeError, ValueError, OverflowError):
                expected = "a whole number" if kind is int else "a number, or nothing"
                raise ValueError(f"{path}: line {number}: {name}: got {cell!r}, expected {expected}") from error
        raise


def _numbers(cells: tuple[str, ...], kind: type[int] | type[float], empty: Any) -> NDArray[Any]:
    try:
        return np.array(list(map(kind, cells)), np.dtype(kind))  # the fast way, if no cell is empty
    except ValueError:
        return np.array([kind(cell) if cell.strip() else empty for cell in cells], np.dtype(kind))


def kind_of(name: str) -> type[int] | type[float] | None:
    """What a column of this name holds; None for text and for unknown columns."""
    if name in TEXT:
        return None
    if name in WHOLE:
        return int
    if name in SCORES or name in ("suggested_probability", "label_quality"):
        return float
    for suffix in OF_A_SCORE:
        if name.removesuffix(suffix) in SCORES:
            return int if suffix == "_runs" else float
    return None


def whole_ids(table: ScoreTable) -> ScoreTable:
    """The table, with ids of int64 if all of them read as such."""
    if "id" not in table or whole_texts(table["id"].tolist()).dtype == object:
        return table
    found = ScoreTable()
    for block in table.blocks():
        for name, values in block.items():
            found.append(name, values.astype(np.int64) if name == "id" else values)
    return found


def whole_texts(texts: list[Any]) -> NDArray[Any]:
    """Texts [N] as int64 if each is what Python writes for such a number, else as they are (dtype object).

    >>> whole_texts(["7", "-3"]), whole_texts(["7", "03"])
    (array([ 7, -3]), array(['7', '03'], dtype=object))
    """
    if texts and all(map(_is_whole, texts)):
        return np.array(texts, dtype=object).astype(np.int64)
    return np.array([*texts, None], dtype=object)[:-1]


def _is_whole(text: Any) -> bool:
    try:
        return str(int(text)) == str(text) and -(2**63) <= int(text) < 2**63
    except ValueError:
        return False
