"""Temporary files beside their target, locked while they are written: one that is not locked has lost its writer."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl


def create_beside(target: Path) -> tuple[Path, BinaryIO]:
    """A new, empty, hidden file in the folder of the target, open and locked until it is closed.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            file = open(path, "xb")  # noqa: SIM115 - the caller closes it
        except FileExistsError:
            continue
        if _lock(file.fileno()) is not False and _is_at(path, file.fileno()):
            return path, file
        file.close()  # another writer took it for a dead one's in the moment before it was locked


def remove_abandoned(target: Path) -> None:
    """Removes the temporary files of this target whose writers have died; nothing where there are no locks."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.tmp")
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:  # what cannot be removed does no harm
        found = [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name)]
        for path in found:
            with contextlib.suppress(OSError):
                _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if _lock(descriptor) and _is_at(path, descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """True: locked until it is closed, at the latest by the death of this process. False: another has it locked.

    None: this file system has no locks.
    """
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
