"""Published scores from files: which column holds what, and which row is which example."""

from __future__ import annotations

import contextlib
import csv
import io
import lzma
import os
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from ..scores.catalogue import SCORES, Score, check_scores
from ..support.file_errors import errors_name
from ..support.files import MALFORMED
from ..support.table_rows import parquet_batches

SUFFIXES: Final = (".npz", ".npy", ".csv", ".tsv", ".parquet", ".safetensors")
PUBLISHED_NAMES: Final[Mapping[str, str]] = {"tr_mem": "memorization"}
"""Other names that published files give a score: Feldman and Zhang 2020, arXiv 2008.03703."""

_ID: Final = "id"
_LABELS: Final = ("labels", "label", "targets", "target", "tr_labels")
_INDEX: Final = ("index", "idx", "id", "")
"""Names of the columns with the class and the position of an example, in upper or lower case; "" is pandas' index."""

_VALUES: Final = "values"  # the only column of an .npy without names
_DAMAGED: Final = (
    *MALFORMED,
    *(OSError, EOFError, MemoryError, RuntimeError, csv.Error, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What NumPy, csv and zipfile raise for a damaged file, found by damaging files at random."""


@contextlib.contextmanager
def open_table(path: str | os.PathLike[str]) -> Iterator[Mapping[str, Any]]:
    """The columns of an `.npz`, `.npy`, `.csv`, `.tsv` or `.parquet` file by name.

    Those of an `.npz` are read when asked for. A `.parquet` needs pyarrow.

    Nothing is ever unpickled.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a damaged one, or one without a header.
        OSError: it cannot be opened; the message names the file and says what to do.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: got a file of kind {suffix!r}, expected one of {', '.join(SUFFIXES)}")
    with errors_name(path):
        is_file = Path(path).is_file()
    if not is_file:
        raise FileNotFoundError(f"{path}: no such file")
    if suffix == ".parquet":
        yield _read_parquet(path)
        return
    with errors_name(path):
        file = open(path, "rb")  # noqa: SIM115 - closed below, where errors are those of the content
    with file:
        try:
            columns = _read_text(file, suffix) if suffix in (".csv", ".tsv") else _read_numpy(file)
        except _DAMAGED as error:
            raise ValueError(f"{path}: not a {suffix} table ({error})") from error
        yield columns


def read_table(
    path: str | os.PathLike[str],
    columns: Mapping[str, Any],
    score: str | Score | None,
    column: str | None,
    labels: NDArray[Any] | None,
    num_examples: int,
    ids: NDArray[Any] | None = None,
) -> tuple[Score, NDArray[Any]]:
    """A published score: what it is, and its values [N] float64, NaN for examples that are not in the table.

    Warns of rows whose id the runs lack.

    Args:
        path: for messages.
        columns: by name; one such as `index` says which example a row is, one such as `labels` what its class is.
        score, column: see `RunSet.with_table`.
        labels: [N], to compare with those of the table.
        num_examples: N.
        ids: [N] of the examples, to be looked up in a column `id`.

    Raises:
        ValueError: see `RunSet.with_table`; the message names the file and the column, and says what is there.

    >>> score, values = read_table("table.csv", {"index": ["2", "0"], "tr_mem": ["0.5", "0"]}, None, None, None, 3)
    >>> score.name, values
    ('memorization', array([0. , nan, 0.5]))
    """
    found, name = _choose(path, columns, score, column)
    values = _numbers(path, columns, name)
    if np.isinf(values).any():
        raise ValueError(f"{path}: column {name!r} is infinite in row {int(np.isinf(values).argmax())}")
    rows = _positions_by_id(path, columns, len(values), ids)
    if rows is None:
        rows = _positions(path, columns, len(values), num_examples)
    there = rows >= 0
    if labels is not None:
        _check_labels(path, columns, labels[rows[there]], there)
    result = np.full(num_examples, np.nan)
    result[rows[there]] = values[there]
    return found, result


def _choose(
    path: str | os.PathLike[str], columns: Mapping[str, Any], score: str | Score | None, column: str | None
) -> tuple[Score, str]:
    """What the score is, and the name of its column."""
    there = f"{path} has the columns {', '.join(columns) or 'none'}"
    if column is not None and column not in columns:
        raise ValueError(f"column: got {column!r}, but {there}")
    named = {name: _catalogued(name) for name in ([column] if column is not None else columns) if _catalogued(name)}
    if score is None:
        if len(named) != 1:
            raise ValueError(
                f"{there}, {len(named)} of them named like a score of the catalogue; say score=, and column= if its "
                "column has another name"
            )
        name, known = next(iter(named.items()))
        return SCORES[str(known)], name
    definition = _definition(score)
    if column is not None:
        return definition, column
    fitting = [name for name in columns if definition.name in (name, _catalogued(name))]
    fitting = fitting or [
        name for name in columns if name.lower() not in (*_INDEX, *_LABELS) and _catalogued(name) is None
    ]
    if len(fitting) != 1:
        raise ValueError(f"{there}, {len(fitting)} of which may be {definition.name!r}; say which one with column=")
    return definition, fitting[0]


def _catalogued(column: str) -> str | None:
    """The score of the catalogue that a column of this name holds, if any."""
    name = PUBLISHED_NAMES.get(column, column)
    return name if name in SCORES else None


def _definition(score: str | Score) -> Score:
    if isinstance(score, str):
        return SCORES[check_scores((score,))[0]]
    if not isinstance(score, Score):
        raise TypeError(f"score: got {score!r}, expected a name of the catalogue or a dp.Score")
    if SCORES.get(score.name, score) != score:
        raise ValueError(
            f"score: the name {score.name!r} is taken by the catalogue; say score={score.name!r} if you mean that one, "
            "or choose another name"
        )
    return score


def _positions_by_id(
    path: str | os.PathLike[str], columns: Mapping[str, Any], rows: int, ids: NDArray[Any] | None
) -> NDArray[Any] | None:
    """Which example each row is, [rows] int64, by the column `id`; -1 where the runs lack it. None without such ids.

    A column `id` of which the runs know nothing holds positions, or else is refused as such.
    """
    name = _find(columns, (_ID,))
    if ids is None or name is None:
        return None
    given = [str(value) for value in np.asarray(columns[name]).tolist()]
    places = {str(item): place for place, item in enumerate(ids.tolist())}
    found = np.fromiter((places.get(item, -1) for item in given), np.int64, len(given))
    known = found[found >= 0]
    if len(given) != rows or not len(known):
        return None
    counts = np.bincount(known)
    if (counts > 1).any():
        raise ValueError(f"{path}: column {name!r} has {ids[int(counts.argmax())]!r} more than once")
    if len(known) < rows:
        first = given[int((found < 0).argmax())]
        warnings.warn(
            f"{path}: {rows - len(known)} of {rows} rows are of ids that the runs lack, the first is {first!r}; they "
            "are left out",
            stacklevel=4,
        )
    return found


def _positions(path: str | os.PathLike[str], columns: Mapping[str, Any], rows: int, num_examples: int) -> NDArray[Any]:
    """Which example each row is, [rows] int64."""
    index = _find(columns, _INDEX)
    if index is None:
        if rows != num_examples:
            raise ValueError(
                f"{path}: {rows} rows for {num_examples} examples; a table of some examples, or in another order, "
                f"needs a column {_INDEX[0]!r} with their positions"
            )
        return np.arange(num_examples)
    given = _numbers(path, columns, index)
    wrong = ~((given >= 0) & (given < num_examples) & (given == np.floor(given)))  # NaN too
    if len(given) != rows or wrong.any():
        got = f"{given[wrong][0]:g} in row {int(wrong.argmax())}" if wrong.any() else f"{len(given)} rows, not {rows}"
        raise ValueError(f"{path}: column {index!r} has {got}; expected whole numbers from 0 to {num_examples - 1}")
    positions = given.astype(np.int64)
    counts = np.bincount(positions)
    if (counts > 1).any():
        raise ValueError(f"{path}: column {index!r} has {int(counts.argmax())} more than once")
    return positions


def _check_labels(
    path: str | os.PathLike[str], columns: Mapping[str, Any], expected: NDArray[Any], rows: NDArray[Any]
) -> None:
    """ValueError if the table has other labels than those expected for these rows, a mask."""
    name = _find(columns, _LABELS)
    if name is None:
        return
    found = _numbers(path, columns, name)
    if len(found) == len(rows):
        found = found[rows]
    differing = int((found != expected).sum()) if len(found) == len(expected) else max(len(found), len(expected))
    if differing:
        raise ValueError(
            f"{path}: column {name!r} differs from the labels of the runs for {differing} of {len(expected)} "
            "examples: the table is of other data, or in another order"
        )


def _find(columns: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first column with one of the names, in upper or lower case."""
    return next((column for name in names for column in columns if column.lower() == name), None)


def _numbers(path: str | os.PathLike[str], columns: Mapping[str, Any], name: str) -> NDArray[Any]:
    """A column as [rows] float64."""
    try:
        array = np.asarray(columns[name])
        if array.ndim != 1 or array.dtype.kind not in "fiuU":
            raise ValueError(f"got {array.dtype} {array.shape}, expected one number per row")
        return array.astype(np.float64)
    except _DAMAGED as error:
        raise ValueError(f"{path}: column {name!r} cannot be read ({error}); there are {', '.join(columns)}") from error


def _read_numpy(file: BinaryIO) -> Mapping[str, Any]:
    """The arrays of an `.npz`, each read when asked for, or the fields of an `.npy`."""
    loaded = np.load(file, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        archive: Mapping[str, Any] = loaded
        return archive
    names = loaded.dtype.names
    return {_VALUES: loaded} if names is None else {name: loaded[name] for name in names}


def _read_text(file: BinaryIO, suffix: str) -> Mapping[str, Any]:
    """Columns of text, named by the first line; an empty cell is NaN."""
    lines = io.StringIO(file.read().decode("utf-8-sig"), newline="")
    header, *rows = list(csv.reader(lines, delimiter="," if suffix == ".csv" else "\t")) or [[]]
    if not header or len(set(header)) < len(header):
        raise ValueError(f"the first line is {header}, expected different names of columns")
    rows = [row for row in rows if row]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} cells, expected {len(header)}")
    return {
        name: [row[i] or "nan" if name.lower() == _ID else row[i].strip() or "nan" for row in rows]
        for i, name in enumerate(header)
    }


def _read_parquet(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Columns of numbers, or of texts."""
    parts: dict[str, list[NDArray[Any]]] = {}
    for batch in parquet_batches(path):
        for name in batch.schema.names:
            values = np.asarray(batch.column(name).to_numpy(zero_copy_only=False))
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}
