"""Files that are written whole or not at all, and arrays with metadata in safetensors."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from .vector_file import VectorFile, errors_name

_KEY: Final = "difficulty_prune"

MALFORMED: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What building an object from a file of any content may raise."""


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes beside `path`, flushes to disk, and renames: a reader sees the old file or the new one.

    Raises:
        OSError: it cannot be written; the message names the file, and the old one is untouched.
    """
    target = Path(path)
    data = content.encode() if isinstance(content, str) else content
    with errors_name(path):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # a file has the folder's name
            raise NotADirectoryError(errno.ENOTDIR, f"{target.parent} is not a folder") from error
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


def save_vectors(
    path: str | os.PathLike[str], kind: str, version: int, vectors: Mapping[str, NDArray[Any]], metadata: Any
) -> None:
    """Writes named arrays and JSON metadata as one safetensors file of the given kind and format version.

    Raises:
        OSError: as for `write_atomically`.
    """
    header = json.dumps({"kind": kind, "format": version, **metadata}, sort_keys=True)
    rows = {name: np.asarray(values, order="C") for name, values in vectors.items()}  # safetensors ignores strides
    write_atomically(path, safetensors.numpy.save(rows, metadata={_KEY: header}))


def open_vectors(path: str | os.PathLike[str], kind: str, version: int) -> tuple[VectorFile, dict[str, Any]]:
    """What `save_vectors` wrote: the arrays, which stay in the file, and the metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: cut short, not a file of ours, of another kind, or of a newer format; the message names the file.
        OSError: it cannot be read; the message names the file.
    """
    vectors = VectorFile(path)
    if _KEY not in vectors.metadata:
        raise ValueError(f"{path}: a safetensors file, but not one that difficulty_prune wrote")
    found_kind, found_version, metadata = _read_description(path, vectors.metadata[_KEY])
    if found_kind != kind:
        raise ValueError(f"{path}: holds a {found_kind}, expected a {kind}")
    if found_version > version:
        raise ValueError(f"{path}: format {found_version} is newer than {version}, the newest known here; upgrade")
    return vectors, metadata


def load_vectors(
    path: str | os.PathLike[str], kind: str, version: int
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """As `open_vectors`, with the arrays in memory; they may be written to."""
    vectors, metadata = open_vectors(path, kind, version)
    return {name: vectors.read(name) for name in vectors}, metadata


def _read_description(path: str | os.PathLike[str], text: str) -> tuple[str, int, dict[str, Any]]:
    try:
        description = json.loads(text)
        return str(description.pop("kind")), int(description.pop("format")), description
    except MALFORMED as error:
        raise ValueError(f"{path}: the description in the file is damaged ({error!r})") from error
