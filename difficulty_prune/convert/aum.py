"""Tables of the `aum` package, by the authors of the score."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.table_rows import Row, check_suffix, read_rows, write_rows
from .csv_table import whole_texts


def to_aum(runs: RunSet | Run, path: str | os.PathLike[str]) -> None:
    """Writes `aum_values.csv` as `AUMCalculator.finalize` does: `sample_id,aum`, the largest first.

    The sample ids are those of the runs, else the positions. Examples that were never presented are left out.

    Raises:
        ValueError: a run has no score "aum", or another suffix than `.csv`.
        OSError: it cannot be written; the message names the file and says what to do.
    """
    check_suffix(path, (".csv",))
    together = RunSet([runs]) if isinstance(runs, Run) else runs
    values = together.mean("aum")
    ids = together.ids
    names = np.arange(len(values)) if ids is None else ids
    order = np.argsort(-values, kind="stable")[: int((~np.isnan(values)).sum())]
    rows = ({"sample_id": names[i], "aum": float(values[i])} for i in order)
    write_rows(path, ("sample_id", "aum"), rows)


def from_aum(path: str | os.PathLike[str], *, architecture: str = "aum", seed: int = 0, **metadata: Any) -> Run:
    """Reads `aum_values.csv` or `full_aum_records.csv` as a run, whose ids are the sample ids.

    Of the full records the last of each sample counts, and the labels are known. Rows keep their order; sample ids that
    are all whole numbers become int64.

    Args:
        path: of the file.
        architecture, seed, metadata: of the run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a malformed line, with its number; a sample that is there twice; or no rows.
    """
    found: dict[str, tuple[int, float, int | None]] = {}
    for row in read_rows(path):
        name, full = row.cells.get("sample_id"), "num_measurements" in row.cells
        if not name or "aum" not in row.cells:
            raise ValueError(f"{path}: {row.place}: got {dict(row.cells)}, expected the columns sample_id and aum")
        number = _number(path, row, "num_measurements", int) if full else 0
        label = _number(path, row, "target_logit", int) if full else None
        before = found.get(name)
        if before is not None and not full:
            raise ValueError(f"{path}: {row.place}: sample {name!r} is there twice")
        if before is None or number > before[0]:
            found[name] = (number, _number(path, row, "aum", float), label)
    if not found:
        raise ValueError(f"{path}: got no rows, expected one for each sample")
    labels = [label for _, _, label in found.values() if label is not None]
    facts: dict[str, Any] = {"labels": np.array(labels)} if len(labels) == len(found) else {}
    values = np.array([value for _, value, _ in found.values()])
    return Run({"aum": values}, architecture=architecture, seed=seed, ids=whole_texts(list(found)), **facts, **metadata)


def _number(path: str | os.PathLike[str], row: Row, name: str, kind: Any) -> Any:
    try:
        value = kind(row.cells[name])
    except (KeyError, ValueError):
        value = math.nan
    if not -math.inf < value < math.inf:
        raise ValueError(f"{path}: {row.place}: {name}: got {row.cells.get(name)!r}, expected a finite number")
    return value
