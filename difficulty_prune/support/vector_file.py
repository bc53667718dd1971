"""Arrays that stay in a safetensors file and are read from it when asked for."""

from __future__ import annotations

import contextlib
import math
import os
import reprlib
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .arrays import read_only
from .digest import DIGEST_BLOCK, Digest, Digests, digest_of_text
from .file_errors import errors_name
from .remote import RemoteFile, Url, path_or_url
from .safetensors_header import Header, UnknownDtypeError, read_header

DIGESTS: Final = "difficulty_prune.digests"
"""Where the metadata of a file has the digests of all else in it."""


_File = BufferedReader | RemoteFile


class VectorFile(Mapping[str, NDArray[Any]]):
    """The arrays of a safetensors file by name, each read when it is asked for. Read-only.

    The header is read once and checked whole. An array is read into memory of its own. A map of the file would save
    that memory, but end the process (SIGBUS) if another program truncated the file meanwhile; `safetensors.safe_open`
    maps it too. And a map holds a descriptor: here nothing stays open, so hundreds of files can be in use.

    A file of this library holds digests of its arrays and texts. Whoever reads an array to its end, or the metadata by
    `check_metadata`, compares with them; some rows alone cannot be. Older files, without digests, are read as they are.

    Attributes:
        path: absolute, or a URL, of which only the ranges are read that are asked for.
        metadata: text by name, without the digests.
        kinds: dtype and shape of each array, known without reading it.

    Raises:
        FileNotFoundError: no such file, or it has vanished since.
        ValueError: not a safetensors file, damaged, or it has changed since; the message names the file.
        OSError: it cannot be read; the message names the file and says what to do.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path_or_url(path).absolute()
        if isinstance(self.path, Url):
            remote = RemoteFile(self.path)
            self._state: tuple[int, ...] | str = remote.state()
            self.metadata, self.kinds, self._offsets = _header_of(remote, remote.size, path)
        else:
            self._state, (self.metadata, self.kinds, self._offsets) = _read_local(self.path, path)
        self._digests = self._parse_digests(self.metadata.pop(DIGESTS, None))

    def _parse_digests(self, text: str | None) -> Digests | None:
        if text is None:
            return None
        try:
            digests = Digests.parse(text)
        except ValueError as error:
            raise ValueError(self._damaged(f"the list of its digests ({error})")) from error
        if digests.arrays.keys() != self.kinds.keys():
            raise ValueError(self._damaged(f"the list of its arrays ({reprlib.repr(sorted(self.kinds))})"))
        return digests

    def check_metadata(self) -> None:
        """ValueError for texts of the metadata that are not as they were written.

        Files without digests have a single one: beside it another is the list of digests, whose name is damaged.
        """
        found = {name: digest_of_text(text) for name, text in self.metadata.items()}
        if self._digests is None and len(found) > 1:
            raise ValueError(self._damaged("the name of the list of its digests"))
        if self._digests and found != self._digests.metadata:
            raise ValueError(self._damaged("the description of its content"))

    def check(self) -> None:
        """ValueError for arrays that are not as they were written; reads all of the file."""
        for name in self:
            for _ in self.blocks(name):
                pass

    def blocks(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """Position of the first row of each block of an array, and the block, read-only; last, the digest is checked.

        Raises:
            ValueError: besides the reasons of the class, the blocks together are not as they were written.
        """
        dtype, shape = kind = self.kinds[name]
        rows, width = (shape or (1,))[0], math.prod(shape[1:])
        step = max(1, DIGEST_BLOCK // max(1, width * dtype.itemsize))
        digest = Digest(kind)
        with self._open(name) as file:
            for start in range(0, rows, step):
                count = min(step, rows - start)
                content = read_only(self._next(file, count * width * dtype.itemsize))
                digest.update(content)
                yield start, _values(content, dtype).reshape(count, *shape[1:])
        self._compare(name, digest)

    def _compare(self, name: str, digest: Digest) -> None:
        if self._digests and digest.value() != self._digests.arrays[name]:
            raise ValueError(self._damaged(reprlib.repr(name)))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return read_only(self.read(name))

    def read(self, name: str, rows: slice | NDArray[np.int64] | None = None) -> NDArray[Any]:
        """An array, or some of its rows, in memory of its own that may be written to.

        Args:
            rows: a slice, or positions [n] from 0 on; default: all. Only the span of the file from the first of these
                rows to the last is read.

        Raises:
            ValueError: besides the reasons of the class, the array as a whole is not as it was written.
        """
        if rows is None:
            return self._whole(name)
        dtype, shape = self.kinds[name]
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

    def mapped(self, name: str) -> NDArray[Any]:
        """An array as a map of the file, for one that no process should have in memory; unchecked, read-only.

        A program that shortened the file meanwhile would end this one (SIGBUS); one that replaces it does no harm.

        Raises:
            ValueError, OSError: as the class says.
        """
        dtype, shape = self.kinds[name]
        if isinstance(self.path, Url):
            raise ValueError(f"{self.path}: cannot be mapped; copy the file to a disk of this machine")
        with self._open(name) as file:
            return np.asarray(np.memmap(file, dtype, "r", self._offsets[name], shape))

    def digest(self, name: str) -> str | None:
        """The digest of an array as it was written; None of an older file, which has none."""
        return None if self._digests is None else self._digests.arrays[name]

    def _whole(self, name: str) -> NDArray[Any]:
        """An array that is as it was written."""
        dtype, shape = kind = self.kinds[name]
        content = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
        digest = Digest(kind)
        with self._open(name) as file:
            for start in range(0, len(content), DIGEST_BLOCK):  # each is summed up while it is in the cache
                digest.update(self._fill(file, content[start : start + DIGEST_BLOCK]))
        self._compare(name, digest)
        return _values(content, dtype).reshape(shape)

    def _range(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Elements start..stop-1 of the flattened array."""
        dtype = self.kinds[name].dtype
        with self._open(name, start, stop) as file:
            return _values(self._next(file, (stop - start) * dtype.itemsize), dtype)

    def _next(self, file: _File, size: int) -> NDArray[np.uint8]:
        return self._fill(file, np.empty(size, np.uint8))

    def _fill(self, file: _File, content: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if file.readinto(content.data) < len(content):
            raise ValueError(self._changed())
        return content

    def __contains__(self, name: object) -> bool:
        return name in self.kinds  # Mapping's own would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    @contextlib.contextmanager
    def _open(self, name: str, start: int = 0, stop: int | None = None) -> Iterator[_File]:
        """The file, if it is still that of the header before and after the block, at elements start..stop of an array.

        Of a file under a URL it is found out after the block alone, which saves a request.
        """
        dtype, shape = self.kinds[name]
        stop = math.prod(shape) if stop is None else stop
        first, last = (self._offsets[name] + element * dtype.itemsize for element in (start, stop))
        try:
            if isinstance(self.path, Url):
                remote = RemoteFile(self.path)
                remote.expect(first, last)
                yield remote
                self._check_state(RemoteFile(self.path).state())
                return
            with errors_name(self.path), open(self.path, "rb") as file:
                self._check_state(_state(file))
                file.seek(first)
                yield file
                self._check_state(_state(file))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.path}: the file is gone since it was loaded; load it again") from error

    def _check_state(self, found: tuple[int, ...] | str) -> None:
        if found != self._state:
            raise ValueError(self._changed())

    def _changed(self) -> str:
        return f"{self.path}: the file has changed since it was loaded; load it again"

    def _damaged(self, what: str) -> str:
        return f"{self.path}: the file is damaged: {what} is not as it was written. Take a copy, or make the file again"


def _read_local(absolute: Path, path: str | os.PathLike[str]) -> tuple[tuple[int, ...], Header]:
    """The state and the header of a file of this machine, which messages call `path`."""
    with errors_name(path):
        is_file, is_folder = absolute.is_file(), absolute.is_dir()
    if not is_file:
        raise FileNotFoundError(f"{path}: {'a folder, expected a file' if is_folder else 'no such file'}")
    with errors_name(path), open(absolute, "rb") as file:
        return _state(file), _header_of(file, os.fstat(file.fileno()).st_size, path)


def _header_of(file: _File, size: int, path: str | os.PathLike[str]) -> Header:
    try:
        return read_header(file, size)
    except UnknownDtypeError as error:
        raise ValueError(f"{path}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: cut short or not a safetensors file ({error})") from error


def _values(content: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[Any]:
    # A byte of a bool is 0 or 1 to NumPy, but may be anything in a file.
    return content != 0 if dtype == np.bool_ else content.view(dtype)


def _state(file: BufferedReader) -> tuple[int, ...]:
    """What tells a file from one that replaced it, and from itself after a write."""
    stat = os.fstat(file.fileno())
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
