"""Writing and reading by the name of a format, or by suffix."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.table_rows import check_suffix
from .aum import from_aum, to_aum
from .cartography import from_cartography
from .csv_table import from_csv, to_csv
from .fiftyone import to_fiftyone
from .label_studio import to_label_studio
from .npz import from_npz, to_npz
from .parquet import from_parquet, to_parquet
from .score_table import ScoreTable

WRITERS: Final[dict[str, Callable[..., None]]] = {
    "parquet": to_parquet,
    "csv": to_csv,
    "npz": to_npz,
    "aum": to_aum,
    "fiftyone": to_fiftyone,
    "label-studio": to_label_studio,
}
READERS: Final[dict[str, Callable[..., ScoreTable | Run]]] = {
    "parquet": from_parquet,
    "csv": from_csv,
    "npz": from_npz,
    "aum": from_aum,
    "cartography": from_cartography,
}
_BY_SUFFIX: Final = {".parquet": "parquet", ".csv": "csv", ".npz": "npz"}


def write(
    runs: RunSet | Run | ScoreTable, path: str | os.PathLike[str], format: str | None = None, **options: Any
) -> None:
    """Writes scores of runs.

    Args:
        runs: one or several; or a table, for the formats that take one.
        path: of the file.
        format: one of `WRITERS`; default: by the suffix, `.parquet`, `.csv` or `.npz`.
        options: those of the format's function.

    Raises:
        ValueError: an unknown format or suffix, or what the format's function raises.
    """
    _chosen(WRITERS, path, format)(runs, path, **options)


def read(path: str | os.PathLike[str], format: str | None = None, **options: Any) -> Run:
    """Reads scores as a run.

    Args:
        path: of the file, or of the folder of cartography's files.
        format: one of `READERS`; default: by the suffix, `.parquet`, `.csv` or `.npz`; a folder is cartography's.
        options: those of the format's function, or of `ScoreTable.to_run`.

    Raises:
        ValueError: an unknown format or suffix, or what the format's function raises.
    """
    if format is None and Path(path).is_dir():
        format = "cartography"
    reader = _chosen(READERS, path, format)
    if reader in (from_aum, from_cartography):
        run = reader(path, **options)
        assert isinstance(run, Run)
        return run
    table = reader(path)
    assert isinstance(table, ScoreTable)
    return table.to_run(**options)


def _chosen(
    known: dict[str, Callable[..., Any]], path: str | os.PathLike[str], format: str | None
) -> Callable[..., Any]:
    name = _BY_SUFFIX[check_suffix(path, tuple(_BY_SUFFIX))] if format is None else format
    if name not in known:
        raise ValueError(f"format: got {name!r}, expected one of {', '.join(known)}")
    return known[name]
