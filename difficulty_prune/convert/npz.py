"""Tables of scores as NumPy archives."""

from __future__ import annotations

import os
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.file_errors import errors_name
from ..support.files import MALFORMED, atomic_file
from .csv_table import as_table
from .score_table import ScoreTable


def to_npz(runs: RunSet | Run | ScoreTable, path: str | os.PathLike[str], **options: Any) -> None:
    """Writes the scores as an `.npz` with an array for each column of a `ScoreTable`, whole or not at all.

    Args:
        runs: one or several, or a table.
        path: of the file.
        options: `scores` and `paths`, see `ScoreTable.of`.

    Raises:
        TypeError, ValueError: as for `ScoreTable.of`.
        OSError: it cannot be written; the message names the file and says what to do.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "scores.npz")
    ...     to_npz(Run({"el2n": [0.5, 1.0]}, architecture="mlp", seed=0), path)
    ...     np.load(path)["el2n"]
    array([0.5, 1. ])
    """
    table = as_table(runs, **options)
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name in table.columns:
            values = table[name]
            array = _texts(name, values) if values.dtype == object else values
            with archive.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, array, allow_pickle=False)


def _texts(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """As NumPy's text, which drops zeros at the end."""
    found = values.astype(str)
    lost = next((value for value in values.tolist() if str(value).endswith("\0")), None)
    if lost is not None:
        raise ValueError(f"{name} {lost!r} ends in a zero, which .npz drops; write .csv or .parquet")
    return found


def from_npz(path: str | os.PathLike[str]) -> ScoreTable:
    """Reads a table of scores from an `.npz`. Nothing is unpickled.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an `.npz`, a damaged one, columns of different lengths, or an id or index that is there twice.
    """
    table = ScoreTable()
    with errors_name(path), open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                for name in archive.files:
                    values = archive[name]
                    if values.ndim != 1:
                        raise ValueError(f"column {name!r} is {values.shape}, expected one value per row")
                    table.append(name, values.astype(object) if values.dtype.kind in "US" else values)
        except (*MALFORMED, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path}: not a table in .npz, or damaged ({error})") from error
    return table.check(os.fspath(path))
