"""Files that are written whole or not at all, and vectors with metadata in safetensors."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

_KEY: Final = "difficulty_prune"
_DTYPES: Final = {  # of safetensors, which is little-endian
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "C64": "<c8",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "<u1",
    "BOOL": "?",
}


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes beside `path`, flushes to disk, and renames: a reader sees the old file or the new one."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class VectorFile(Mapping[str, NDArray[Any]]):
    """The vectors of a safetensors file, each mapped into memory when it is asked for. Read-only.

    An array holds its map, and the map its place in memory and a file descriptor, until the array is dropped; the
    mapping itself holds neither, so that hundreds of files may be open in this sense.

    Args:
        path: a file that `safetensors.safe_open` accepts.
        state: `file_state` of before it did.

    Raises:
        FileNotFoundError: of `file[name]`: the file is gone.
        ValueError: of `file[name]`: it is another file now, or was written to; or a dtype that NumPy has not.
    """

    def __init__(self, path: str | os.PathLike[str], state: tuple[int, ...]) -> None:
        self.path = Path(path).absolute()
        self._state = state
        with self._open() as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        self.metadata: dict[str, str] = header.pop("__metadata__", None) or {}
        for name, entry in header.items():
            if entry["dtype"] not in _DTYPES:
                raise ValueError(f"{path}: {name!r} is of {entry['dtype']}, expected one of {', '.join(_DTYPES)}")
        self._vectors = {
            name: (tuple(entry["shape"]), np.dtype(_DTYPES[entry["dtype"]]), 8 + size + entry["data_offsets"][0])
            for name, entry in header.items()
        }

    def __getitem__(self, name: str) -> NDArray[Any]:
        shape, dtype, offset = self._vectors[name]
        with self._open() as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        array: NDArray[Any] = np.ndarray(shape, dtype, mapped, offset)
        return array if array.flags.aligned else read_only(array.copy())

    def __contains__(self, name: object) -> bool:
        return name in self._vectors  # without opening the file

    def __iter__(self) -> Iterator[str]:
        return iter(self._vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    @contextlib.contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        try:
            with open(self.path, "rb") as file:
                if file_state(os.fstat(file.fileno())) != self._state:
                    raise ValueError(f"{self.path}: the file has changed since it was loaded; load it again")
                yield file
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.path}: the file is gone since it was loaded; load it again") from error


def file_state(stat: os.stat_result) -> tuple[int, ...]:
    """By which a file that was replaced or written to is told from what it was."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, which refuses to be written to."""
    array.setflags(write=False)
    return array


def parts(size: int, step: int) -> Iterator[slice]:
    """Slices that together are 0..size-1, for work on vectors that should not be in memory as a whole.

    >>> list(parts(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def save_vectors(
    path: str | os.PathLike[str], kind: str, version: int, vectors: Mapping[str, NDArray[Any]], metadata: Any
) -> None:
    """Writes named vectors and JSON metadata as one safetensors file of the given kind and format version."""
    header = json.dumps({"kind": kind, "format": version, **metadata}, sort_keys=True)
    rows = {name: np.asarray(values, order="C") for name, values in vectors.items()}  # safetensors ignores strides
    write_atomically(path, safetensors.numpy.save(rows, metadata={_KEY: header}))


def open_vectors(path: str | os.PathLike[str], kind: str, version: int) -> tuple[VectorFile, dict[str, Any]]:
    """What `save_vectors` wrote: the vectors, which stay in the file, and the metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: cut short, not a file of ours, of another kind, or of a newer format; the message names the file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    state = file_state(os.stat(path))
    try:
        with safe_open(path, framework="numpy"):
            pass  # it checks that shapes and offsets agree and cover the file
    except SafetensorError as error:
        raise ValueError(f"{path}: cut short or not a safetensors file ({error})") from error
    vectors = VectorFile(path, state)
    if _KEY not in vectors.metadata:
        raise ValueError(f"{path}: a safetensors file, but not one that difficulty_prune wrote")
    found_kind, found_version, metadata = _read_header(path, vectors.metadata[_KEY])
    if found_kind != kind:
        raise ValueError(f"{path}: holds a {found_kind}, expected a {kind}")
    if found_version > version:
        raise ValueError(f"{path}: format {found_version} is newer than {version}, the newest known here; upgrade")
    return vectors, metadata


def load_vectors(
    path: str | os.PathLike[str], kind: str, version: int
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """As `open_vectors`, with vectors in memory that may be written to."""
    vectors, metadata = open_vectors(path, kind, version)
    return {name: np.array(values) for name, values in vectors.items()}, metadata


def _read_header(path: str | os.PathLike[str], text: str) -> tuple[str, int, dict[str, Any]]:
    try:
        header = json.loads(text)
        return str(header.pop("kind")), int(header.pop("format")), header
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: the description in the file is damaged ({error!r})") from error
