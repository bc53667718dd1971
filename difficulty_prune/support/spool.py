"""Columns of numbers on disk, for tables that should not be in memory as a whole."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Spool:
    """Columns in temporary files without a name, which vanish with the object.

    >>> spool = Spool()
    >>> for block in ([1.0, 2.0], [3.0]):
    ...     spool.append("x", np.array(block))
    >>> spool.read("x", slice(1, 3))
    array([2., 3.])
    """

    def __init__(self) -> None:
        self._files: dict[str, tuple[Any, np.dtype[Any]]] = {}
        self._lengths: dict[str, int] = {}

    def append(self, name: str, values: NDArray[Any]) -> None:
        """Adds numbers [n] at the end of a column, in the dtype of the column's first."""
        if name not in self._files:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
            weakref.finalize(self, file.close)
            self._files[name], self._lengths[name] = (file, values.dtype), 0
        file, dtype = self._files[name]
        file.seek(0, 2)
        file.write(np.ascontiguousarray(values, dtype).data)
        self._lengths[name] += len(values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def length(self, name: str) -> int:
        """Numbers in a column."""
        return self._lengths[name]

    def read(self, name: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Numbers of a column, in a new array."""
        file, dtype = self._files[name]
        start, stop, _ = rows.indices(self._lengths[name])
        file.seek(start * dtype.itemsize)
        found = np.empty(max(0, stop - start), dtype)
        file.readinto(found.data)
        return found
