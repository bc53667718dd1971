"""Arrays that stay in a safetensors file and are read from it when asked for."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import read_only
from .safetensors_header import UnknownDtypeError, read_header


@contextlib.contextmanager
def errors_name(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes every OSError of the block name the file that was asked for."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


class VectorFile(Mapping[str, NDArray[Any]]):
    """The arrays of a safetensors file by name, each read when it is asked for. Read-only.

    The header is read once and checked whole. An array is read into memory of its own. A map of the file would save
    that memory, but end the process (SIGBUS) if another program truncated the file meanwhile; `safetensors.safe_open`
    maps it too. And a map holds a descriptor: here nothing stays open, so hundreds of files can be in use.

    Attributes:
        path: absolute.
        metadata: text by name.
        kinds: dtype and shape of each array, known without reading it.

    Raises:
        FileNotFoundError: no such file, or it has vanished since.
        ValueError: not a safetensors file, or it has changed since; the message names the file.
        OSError: it cannot be read; the message names the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: {'a folder, expected a file' if self.path.is_dir() else 'no such file'}")
        with errors_name(path), open(self.path, "rb") as file:
            self._state = _state(file)
            try:
                self.metadata, self.kinds, self._offsets = read_header(file, os.fstat(file.fileno()).st_size)
            except UnknownDtypeError as error:
                raise ValueError(f"{path}: {error}") from error
            except ValueError as error:
                raise ValueError(f"{path}: cut short or not a safetensors file ({error})") from error

    def __getitem__(self, name: str) -> NDArray[Any]:
        return read_only(self.read(name))

    def read(self, name: str, rows: slice | NDArray[np.int64] | None = None) -> NDArray[Any]:
        """An array, or some of its rows, in memory of its own that may be written to.

        Args:
            rows: a slice, or positions [n] from 0 on; default: all. Only the span of the file from the first of these
                rows to the last is read.
        """
        dtype, shape = self.kinds[name]
        if rows is None:
            return self._range(name, 0, math.prod(shape)).reshape(shape)
        width = math.prod(shape[1:])
        if isinstance(rows, slice):
            chosen = range(shape[0])[rows]
            ends = [chosen[0], chosen[-1]] if chosen else []
        else:
            ends = [int(rows.min()), int(rows.max())] if len(rows) else []
        if not ends:
            return np.empty((0, *shape[1:]), dtype)
        first, last = min(ends), max(ends)
        span = self._range(name, first * width, (last + 1) * width).reshape(last - first + 1, *shape[1:])
        if not isinstance(rows, slice):
            return span[rows - first]
        return span if chosen.step == 1 else span[:: chosen.step].copy()

    def _range(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Elements start..stop-1 of the flattened array."""
        dtype = self.kinds[name].dtype
        content = np.empty((stop - start) * dtype.itemsize, np.uint8)
        with self._open() as file:
            file.seek(self._offsets[name] + start * dtype.itemsize)
            if file.readinto(content.data) < len(content):
                raise ValueError(self._changed())
        # A byte of a bool is 0 or 1 to NumPy, but may be anything in a file.
        return content != 0 if dtype == np.bool_ else content.view(dtype)

    def __contains__(self, name: object) -> bool:
        return name in self.kinds  # Mapping's own would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    @contextlib.contextmanager
    def _open(self) -> Iterator[BufferedReader]:
        """The file, if it is still the one of the header before and after the block."""
        try:
            with errors_name(self.path), open(self.path, "rb") as file:
                self._check_state(file)
                yield file
                self._check_state(file)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.path}: the file is gone since it was loaded; load it again") from error

    def _check_state(self, file: BufferedReader) -> None:
        if _state(file) != self._state:
            raise ValueError(self._changed())

    def _changed(self) -> str:
        return f"{self.path}: the file has changed since it was loaded; load it again"


def _state(file: BufferedReader) -> tuple[int, ...]:
    """What tells a file from one that replaced it, and from itself after a write."""
    stat = os.fstat(file.fileno())
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
