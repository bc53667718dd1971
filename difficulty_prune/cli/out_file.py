"""The file that a command is to write, checked before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..support.files import local_path
from ..support.remote import Url
from ..support.table_rows import check_suffix


def check_out(path: Path | Url, suffixes: tuple[str, ...], inputs: Iterable[str | os.PathLike[str] | None]) -> str:
    """The suffix of a file to write, in lower case.

    Raises:
        ValueError: another suffix, or the file is one that the command reads, or a table or page under a URL.
        OSError: it is a folder, or cannot be written there.
    """
    suffix = check_suffix(path, suffixes)
    if isinstance(path, Url) and suffix == ".safetensors":
        if str(path) in map(str, inputs):
            raise ValueError(f"{path}: it is also read, and would be overwritten; choose another name")
        return suffix
    path = local_path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: it is a folder, expected the name of a file")
    real = os.path.realpath(path)
    for given in inputs:
        if given is not None and os.path.realpath(given) == real:
            raise ValueError(f"{path}: it is also read, and would be overwritten; choose another name")
    folder = path.absolute().parent
    while not folder.exists() and folder != folder.parent:  # which is made when the file is written
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{path}: {folder} is not a folder; choose another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: {folder} cannot be written to; change its permissions, or choose another")
    return suffix
