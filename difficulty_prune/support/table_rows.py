"""Rows of tables that people edit: CSV, JSON, JSON lines and Parquet, one after the other, each with its place."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from .file_errors import errors_name
from .files import MALFORMED, atomic_file
from .json_text import parse_json
from .optional import pyarrow_parquet

TABLE_SUFFIXES: Final = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_BATCH: Final = 1 << 16


class Row(NamedTuple):
    """A row, and where it stands: "line 3" of text, "entry 3" of JSON, "row 3" of Parquet, counted from 1."""

    place: str
    cells: Mapping[str, Any]


def check_suffix(path: str | os.PathLike[str], known: tuple[str, ...] = TABLE_SUFFIXES) -> str:
    """The suffix in lower case; ValueError if it is none of the known ones."""
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise ValueError(f"{path}: got a file of kind {suffix!r}, expected one of {', '.join(known)}")
    return suffix


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """The rows of a table, by the suffix of its name; only a part of a large one is in memory, but for `.json`.

    Cells of CSV are text. Lines without anything are passed over.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or a malformed line; the message names the file and the line.
        ImportError: `.parquet` without pyarrow.
        OSError: it cannot be read; the message names the file and says what to do.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "t.csv")
    ...     _ = path.write_text("id,label\\na.png,cat\\n")
    ...     list(read_rows(path))
    [Row(place='line 2', cells={'id': 'a.png', 'label': 'cat'})]
    """
    suffix = check_suffix(path)
    if suffix == ".parquet":
        yield from _read_parquet(path)
        return
    with open_text(path) as file:
        if suffix == ".jsonl":
            yield from read_json_lines(path, file)
        elif suffix == ".json":
            yield from _read_json(path, file)
        else:
            yield from _read_csv(path, file, "," if suffix == ".csv" else "\t")


def _read_csv(path: str | os.PathLike[str], file: IO[str], delimiter: str) -> Iterator[Row]:
    lines = csv_lines(path, file, delimiter)
    _, header = next(lines)
    for number, cells in lines:
        yield Row(f"line {number}", dict(zip(header, cells, strict=True)))


def csv_lines(path: str | os.PathLike[str], file: IO[str], delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The lines of CSV with their numbers, of which the first is the header and all have as many cells.

    Lines without anything are passed over; a line that has line breaks in quotes has the number of its beginning.

    Raises:
        ValueError: no header, a name of a column that is there twice, or a malformed line; the message names it.

    >>> import io
    >>> list(csv_lines("t.csv", io.StringIO("a,b\\n\\n1,2\\n")))
    [(1, ['a', 'b']), (3, ['1', '2'])]
    """
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    header: list[str] = []
    number = 1
    try:
        for cells in reader:
            if "".join(cells).strip():
                if not header:
                    header = cells = [cell.strip() for cell in cells]
                    if len(set(header)) < len(header) or "" in header[1:]:
                        raise ValueError(f"{path}: line {number} is {header}, expected different names of columns")
                elif len(cells) != len(header):
                    raise ValueError(
                        f"{path}: line {number} has {len(cells)} cells, expected {len(header)}: {', '.join(header)}"
                    )
                yield number, cells
            number = reader.line_num + 1  # a quoted cell may go over several lines
    except csv.Error as error:
        raise ValueError(f"{path}: line {number} is malformed ({error})") from error
    if not header:
        raise ValueError(f"{path}: the file is empty, expected a first line with the names of columns")


@contextlib.contextmanager
def open_text(path: str | os.PathLike[str]) -> Iterator[IO[str]]:
    """A file of text, whose errors name it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not in UTF-8.
        OSError: it cannot be read; the message names the file and says what to do.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with errors_name(path), open(path, encoding="utf-8-sig", newline="") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not text in UTF-8 ({error})") from error


def read_json_lines(path: str | os.PathLike[str], lines: Iterable[str]) -> Iterator[Row]:
    """The objects of JSON lines, one a line; ValueError names the file and the line."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            place = f"line {number}"
            try:
                entry = parse_json(line)
            except ValueError as error:
                raise ValueError(f"{path}: {place} is no JSON ({error})") from error
            yield _row(path, place, entry)


def _read_json(path: str | os.PathLike[str], file: IO[str]) -> Iterator[Row]:
    try:
        entries = parse_json(file.read())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path}: got {type(entries).__name__}, expected a list of objects, one for each row")
    for number, entry in enumerate(entries, 1):
        yield _row(path, f"entry {number}", entry)


def _row(path: str | os.PathLike[str], place: str, entry: Any) -> Row:
    if not isinstance(entry, dict):
        raise ValueError(f'{path}: {place} is {type(entry).__name__}, expected an object such as {{"id": ...}}')
    return Row(place, entry)


def _read_parquet(path: str | os.PathLike[str]) -> Iterator[Row]:
    number = 0
    for batch in parquet_batches(path):
        for cells in batch.to_pylist():
            number += 1
            yield Row(f"row {number}", cells)


def parquet_batches(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The record batches of a Parquet file.

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: no such file.
        ValueError: not a Parquet file, or a damaged one; the message names it.
    """
    parquet = pyarrow_parquet()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with errors_name(path), open(path, "rb") as file:
        try:
            with parquet.ParquetFile(file, pre_buffer=False) as table:
                yield from table.iter_batches(_BATCH, use_threads=False)
        except (*MALFORMED, OSError) as error:
            raise ValueError(f"{path}: not a Parquet file, or damaged ({error})") from error


def write_rows(path: str | os.PathLike[str], columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table, by the suffix of its name, whole or not at all; None is an empty cell.

    Raises:
        ValueError: another kind of file.
        ImportError: `.parquet` without pyarrow.
        OSError: it cannot be written; the message names the file and says what to do.
    """
    suffix = check_suffix(path)
    if suffix == ".parquet":
        _write_parquet(path, columns, list(rows))
        return
    with atomic_file(path) as file:
        for text in _lines(suffix, columns, rows):
            file.write(text.encode())


def _lines(suffix: str, columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    if suffix in (".csv", ".tsv"):
        line: list[str] = []
        writer = csv_writer(line.append, "," if suffix == ".csv" else "\t")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([row.get(name) for name in columns])
            yield "".join(line)
            line.clear()
        yield "".join(line)
        return
    text = (json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False) for row in rows)
    if suffix == ".jsonl":
        yield from (f"{entry}\n" for entry in text)
        return
    yield "["
    for number, entry in enumerate(text):
        yield f"{',' if number else ''}\n{entry}"
    yield "\n]\n"


class _Lines:
    """What csv.writer writes to, a line at a time."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write

    def write(self, line: str) -> None:
        self._write(f"{line[:-2]}\n")


def csv_writer(write: Callable[[str], Any], delimiter: str = ",") -> Any:
    """A csv.writer of lines that end in a line feed, which `read_rows` reads as they were.

    Told to end lines so itself, csv.writer of Python 3.11 does not quote carriage returns.

    >>> lines = []
    >>> _ = csv_writer(lines.append).writerow(["a", chr(13)])
    >>> lines == ['a,"' + chr(13) + '"' + chr(10)]
    True
    """
    return csv.writer(_Lines(write), delimiter=delimiter, lineterminator="\r\n")


def _write_parquet(path: str | os.PathLike[str], columns: tuple[str, ...], rows: list[Mapping[str, Any]]) -> None:
    parquet = pyarrow_parquet()
    import pyarrow

    with atomic_file(path) as file:
        arrays = {}
        for name in columns:
            values = [row.get(name) for row in rows]
            if len({type(value) for value in values if value is not None}) > 1:  # a column has one type
                values = [None if value is None else str(value) for value in values]
            arrays[name] = pyarrow.array(values)
        parquet.write_table(pyarrow.table(arrays), file)
