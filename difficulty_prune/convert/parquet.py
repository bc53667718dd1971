"""Tables of scores as Parquet."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runs.run import Run, definitions
from ..runs.run_set import RunSet
from ..support.files import atomic_file
from ..support.optional import pyarrow_parquet
from ..support.table_rows import parquet_batches
from .csv_table import as_table, kind_of
from .score_table import ScoreTable


def to_parquet(runs: RunSet | Run | ScoreTable, path: str | os.PathLike[str], **options: Any) -> None:
    """Writes the scores as Parquet, with the columns of a `ScoreTable`, block by block, whole or not at all.

    The metadata of the file says of each score what it is and which direction is hard. Needs pyarrow.

    Args:
        runs: one or several, or a table.
        path: of the file.
        options: `scores` and `paths`, see `ScoreTable.of`.

    Raises:
        ImportError: pyarrow is not installed.
        TypeError, ValueError: as for `ScoreTable.of`.
        OSError: it cannot be written; the message names the file and says what to do.
    """
    parquet = pyarrow_parquet()
    import pyarrow

    table = as_table(runs, **options)
    about = {"difficulty_prune": json.dumps({"definitions": definitions(table.scores)})}
    with atomic_file(path) as file:
        writer = None
        for block in table.blocks():
            part = pyarrow.table({name: _array(values) for name, values in block.items()})
            if writer is None:
                writer = parquet.ParquetWriter(file, part.schema.with_metadata(about))
            writer.write_table(part.cast(writer.schema))
        if writer is None:
            raise ValueError("to_parquet: the table has no rows")
        writer.close()


def _array(values: NDArray[Any]) -> Any:
    import pyarrow

    if values.dtype != object:
        return pyarrow.array(values)
    given = values.tolist()
    texts = all(value is None or isinstance(value, str) for value in given)  # also of a block without any
    return pyarrow.array(given, pyarrow.string()) if texts else pyarrow.array(given)


def from_parquet(path: str | os.PathLike[str]) -> ScoreTable:
    """Reads a table of scores, block by block. Other columns of one value per row are kept. Needs pyarrow.

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: no such file.
        ValueError: not a Parquet file, a column that does not hold what its name says, or an id or an index that is
            there twice.
    """
    table = ScoreTable()
    for batch in parquet_batches(path):
        for name in batch.schema.names:
            column = batch.column(name)
            values = np.asarray(column.to_numpy(zero_copy_only=False))
            kind = kind_of(name)
            if kind is not None and values.dtype.kind not in ("iu" if kind is int else "iuf"):
                expected = "whole numbers in every row" if kind is int else "numbers"
                raise ValueError(
                    f"{path}: column {name!r} holds {column.type}, {column.null_count} empty; expected {expected}"
                )
            if kind is None and values.dtype.kind not in "iufb":
                values = np.array([*column.to_pylist(), None], dtype=object)[:-1]
            table.append(name, values)
    return table.check(os.fspath(path))
