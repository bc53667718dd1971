"""Files that are written whole or not at all, and vectors with metadata in safetensors."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

Array = np.ndarray[Any, np.dtype[Any]]
_KEY = "difficulty_prune"


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


def save_vectors(
    path: str | os.PathLike[str], kind: str, version: int, vectors: Mapping[str, Array], metadata: Any
) -> None:
    """Writes named vectors and JSON metadata as one safetensors file of the given kind and format version."""
    header = json.dumps({"kind": kind, "format": version, **metadata}, sort_keys=True)
    write_atomically(path, safetensors.numpy.save(dict(vectors), metadata={_KEY: header}))


def load_vectors(path: str | os.PathLike[str], kind: str, version: int) -> tuple[dict[str, Array], dict[str, Any]]:
    """Reads what `save_vectors` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: cut short, not a file of ours, of another kind, or of a newer format; the message names the file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(_KEY)
            vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path}: cut short or not a safetensors file ({error})") from error
    if header is None:
        raise ValueError(f"{path}: a safetensors file, but not one that difficulty_prune wrote")
    found_kind, found_version, metadata = _read_header(path, header)
    if found_kind != kind:
        raise ValueError(f"{path}: holds a {found_kind}, expected a {kind}")
    if found_version > version:
        raise ValueError(f"{path}: format {found_version} is newer than {version}, the newest known here; upgrade")
    return vectors, metadata


def _read_header(path: str | os.PathLike[str], text: str) -> tuple[str, int, dict[str, Any]]:
    try:
        header = json.loads(text)
        return str(header.pop("kind")), int(header.pop("format")), header
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: the description in the file is damaged ({error!r})") from error
