"""Scores as columns of a Hugging Face dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runs.run import Run
from ..runs.run_set import RunSet
from .csv_table import as_table
from .score_table import ScoreTable

_NOT_ADDED = ("id", "path", "index", "label")  # which the dataset has itself


def to_huggingface(
    runs: RunSet | Run | ScoreTable, dataset: Any, *, id_column: str | None = None, **options: Any
) -> Any:
    """The `datasets.Dataset` with a column for each score and its percentile, error and number of runs.

    Args:
        runs: one or several, or a table.
        dataset: a `datasets.Dataset`, also filtered or shuffled if it has ids.
        id_column: its column with the ids of the runs; default: rows are the examples in order.
        options: `scores`, see `ScoreTable.of`.

    Returns:
        A new dataset. A row whose id the runs lack has None.

    Raises:
        ValueError: another number of rows, no such column, no ids, no id that the runs know, or a column that the
            dataset has already.
    """
    table = as_table(runs, **options)
    names = [name for name in table.columns if name not in _NOT_ADDED]
    taken = [name for name in names if name in dataset.column_names]
    if taken:
        raise ValueError(f"dataset: it has a column {taken[0]!r} already; take it away with dataset.remove_columns")
    row = _rows(table, dataset, id_column)
    for name in names:
        values = table[name]
        known = row >= 0
        column = values[np.maximum(row, 0)]
        plain = column if known.all() else [v if k else None for v, k in zip(column.tolist(), known, strict=True)]
        dataset = dataset.add_column(name, plain)
    return dataset


def _rows(table: ScoreTable, dataset: Any, id_column: str | None) -> NDArray[np.int64]:
    """The row of the table for each row of the dataset; -1 for none."""
    if id_column is None:
        if len(dataset) != len(table):
            raise ValueError(
                f"dataset: got {len(dataset)} rows for {len(table)} examples; id_column= names the one with ids"
            )
        return np.arange(len(table))
    if id_column not in dataset.column_names:
        raise ValueError(f"id_column: got {id_column!r}, expected one of {', '.join(dataset.column_names)}")
    if "id" not in table:
        raise ValueError("id_column: the runs have no ids; wrap the data in dp.IndexedDataset(dataset, key=...)")
    position = {str(name): i for i, name in enumerate(table["id"].tolist())}
    found = np.array([position.get(str(name), -1) for name in dataset[id_column]], np.int64)
    if len(found) and (found < 0).all():
        raise ValueError(f"id_column: none of the {len(found)} ids in {id_column!r} is one of the runs'")
    return found
