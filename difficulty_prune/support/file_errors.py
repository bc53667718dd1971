"""Errors of reading and writing that name the file and say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

_REMEDIES: Final = {
    errno.ENOSPC: "make room there, or choose another disk",
    errno.EDQUOT: "remove files of yours there, or choose another disk",
    errno.EFBIG: "choose a disk that can hold larger files",
    errno.EROFS: "choose a folder on a disk that can be written to",
    errno.EACCES: "change the permissions of the file or its folder, or choose another",
    errno.EPERM: "change the permissions of the file or its folder, or choose another",
    errno.EISDIR: "name a file in that folder, or choose another name",
    errno.ENOTDIR: "choose another folder",
    errno.ENOENT: "check the path; another program may have removed or renamed the file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "choose a path without links that lead in a circle",
    errno.EMFILE: "close files, or raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close files: this machine can open no more",
    errno.EIO: "check the disk or the network; read a copy, or write elsewhere",
}
_OTHERWISE: Final = "check the disk and the path, then try again"


@contextlib.contextmanager
def errors_name(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes every OSError of the block name the file that was asked for, and say what to do.

    >>> with errors_name("runs/mlp-0.safetensors"):
    ...     raise OSError(errno.ENOSPC, "No space left on device")
    Traceback (most recent call last):
        ...
    OSError: [Errno 28] No space left on device; make room there, or choose another disk: 'runs/mlp-0.safetensors'
    """
    try:
        yield
    except OSError as error:
        number = errno.EIO if error.errno is None else error.errno
        remedy = _REMEDIES.get(number, _OTHERWISE)
        raise OSError(number, f"{error.strerror or error}; {remedy}", os.fspath(path)) from error
