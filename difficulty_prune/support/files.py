"""Files that are written whole or not at all, and arrays with a description in safetensors."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import reprlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from .digest import Digest, Digests
from .file_errors import errors_name
from .json_text import check_depth, parse_json
from .remote import Url, path_or_url, write_remote
from .safetensors_header import ArrayKind, header_bytes, in_order
from .temporary import create_beside, remove_abandoned
from .vector_file import DIGESTS, VectorFile

_KEY: Final = "difficulty_prune"

MALFORMED: Final = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
    SyntaxError,  # NumPy reads the types in an array's header as Python
)
"""What building an object from a file of any content may raise."""


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes beside `path`, flushes to disk, and renames: a reader sees the old file or the new one.

    What killed writers of the same file left beside it is removed.

    Raises:
        OSError: it cannot be written; the message names the file and says what to do, and the old one is untouched.
    """
    _write(path, [content.encode() if isinstance(content, str) else content])


def _write(path: str | os.PathLike[str], parts: Iterable[bytes | memoryview]) -> None:
    place = path_or_url(path)
    if isinstance(place, Url):
        write_remote(place, b"".join(parts))
        return
    with atomic_file(place) as file:
        file.writelines(parts)


def local_path(path: str | os.PathLike[str]) -> Path:
    """The path of a file to write; ValueError for a URL."""
    target = path_or_url(path)
    if isinstance(target, Url):
        raise ValueError(f"{path}: such a file is written to a folder of this machine alone; copy it there afterwards")
    return target


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which takes the name `path` once the block ends without an error; else nothing is left of it.

    Raises:
        ValueError: a URL; or the block encoded a text that has no UTF-8, as names of files may be, which is shown.
        OSError: as for `write_atomically`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, atomic_file(Path(folder, "a.txt")) as file:
    ...     _ = file.write(b"whole or not at all")
    """
    target = local_path(path)
    with errors_name(path):
        _make_folder(target.parent)
        remove_abandoned(target)
        temporary, file = create_beside(target)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if sys.platform != "win32":  # renamed while it is locked, so that no other writer can remove it
                    temporary.replace(target)
            if sys.platform == "win32":  # which renames no open file
                temporary.replace(target)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, UnicodeEncodeError):
                raise ValueError(f"{path}: {_no_utf8(error)}") from error
            raise


def _no_utf8(error: UnicodeEncodeError) -> str:
    near = error.object[max(0, error.start - 60) : error.end + 20]
    return f"cannot be written, {near!r} is no text in UTF-8: rename the file or the class that it names"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file has the folder's name
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder") from error


def save_vectors(
    path: str | os.PathLike[str], kind: str, version: int, vectors: Mapping[str, NDArray[Any]], metadata: Any
) -> None:
    """Writes named arrays and JSON metadata as one safetensors file of the given kind and format version.

    The file holds digests of them, by which damage is noticed.

    Raises:
        TypeError: a dtype that the format lacks, or metadata that JSON cannot hold.
        ValueError: metadata that is nested too deeply to be read again.
        OSError: as for `write_atomically`.
    """
    description = {"kind": kind, "format": version, **metadata}
    check_depth(description)
    arrays = {name: _as_stored(values) for name, values in vectors.items()}
    texts = {_KEY: json.dumps(description, sort_keys=True)}
    texts[DIGESTS] = str(Digests.of(arrays, texts))
    kinds = {name: ArrayKind(array.dtype, array.shape) for name, array in arrays.items()}
    contents = (arrays[name].reshape(-1).view(np.uint8).data for name in in_order(kinds))
    _write(path, [header_bytes(kinds, texts), *contents])


def save_parts(
    path: str | os.PathLike[str],
    kind: str,
    version: int,
    kinds: Mapping[str, ArrayKind],
    parts: Iterable[tuple[str, NDArray[Any]]],
    metadata: Any,
) -> None:
    """As `save_vectors`, of arrays that are not in memory as a whole.

    Args:
        kinds: little-endian dtype and shape of each array, by name.
        parts: name and next part [n] of an array, the arrays one after another in the order of `in_order(kinds)`.

    Raises:
        RuntimeError: the parts are in another order, or do not make up the arrays.
        TypeError, ValueError, OSError: as `save_vectors`.
    """
    description = {"kind": kind, "format": version, **metadata}
    check_depth(description)
    texts = {_KEY: json.dumps(description, sort_keys=True)}
    of_texts = Digests.of({}, texts).metadata
    digests = {name: Digest(array) for name, array in kinds.items()}
    left = [(name, math.prod(kinds[name].shape) * kinds[name].dtype.itemsize) for name in in_order(kinds)]

    def header() -> bytes:  # as long before the parts as after them
        values = {name: digest.value() for name, digest in digests.items()}
        return header_bytes(kinds, {**texts, DIGESTS: str(Digests(values, of_texts))})

    with atomic_file(path) as file:
        file.write(header())
        for name, part in parts:
            content = _as_stored(part).reshape(-1).view(np.uint8)
            while left and left[0][1] == 0:
                left.pop(0)
            if not left or left[0][0] != name or part.dtype != kinds[name].dtype or len(content) > left[0][1]:
                raise RuntimeError(f"got {len(content)} bytes of {part.dtype} for {name!r}, with {left} to come")
            left[0] = name, left[0][1] - len(content)
            digests[name].update(content)
            file.write(content.data)
        if any(missing for _, missing in left):
            raise RuntimeError(f"got too few parts, with {left} to come")
        file.seek(0)
        file.write(header())


def _as_stored(values: NDArray[Any]) -> NDArray[Any]:
    """Contiguous and little-endian."""
    array = np.asarray(values, order="C")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def open_vectors(path: str | os.PathLike[str], kind: str, version: int) -> tuple[VectorFile, dict[str, Any]]:
    """What `save_vectors` wrote: the arrays, which stay in the file unchecked, and the metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: cut short, damaged, not a file of ours, of another kind, or of a newer format; the message names
            the file.
        OSError: it cannot be read; the message names the file and says what to do.
    """
    vectors = VectorFile(path)
    if _KEY not in vectors.metadata:
        raise ValueError(f"{path}: a safetensors file, but not one that difficulty_prune wrote")
    found_kind, found_version, metadata = _read_description(path, vectors.metadata[_KEY])
    if found_kind != kind:
        raise ValueError(f"{path}: holds a {found_kind[:40]}, expected a {kind}")
    if found_version > version:
        raise ValueError(f"{path}: format {found_version} is newer than {version}, the newest known here; upgrade")
    vectors.check_metadata()
    return vectors, metadata


def load_vectors(
    path: str | os.PathLike[str], kind: str, version: int
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """As `open_vectors`, with the arrays in memory and checked; they may be written to."""
    vectors, metadata = open_vectors(path, kind, version)
    return {name: vectors.read(name) for name in vectors}, metadata


def _read_description(path: str | os.PathLike[str], text: str) -> tuple[str, int, dict[str, Any]]:
    try:
        description = parse_json(text)
        kind, version = description.pop("kind"), description.pop("format")
        if not isinstance(kind, str) or type(version) is not int:
            raise ValueError(f"kind {reprlib.repr(kind)}, format {reprlib.repr(version)}")
        return kind, version, description
    except MALFORMED as error:
        raise ValueError(f"{path}: the description in the file is damaged ({error!r})") from error
