"""One study at a time in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other studies out of the folder. The lock dies with the process, however that ends.

    On Windows, which has no such lock, nothing keeps them out.

    Raises:
        BlockingIOError: another study runs in the folder.
    """
    try:
        import fcntl  # Linux and macOS
    except ImportError:
        yield
        return
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)  # which the workers do not inherit
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"out: another study is running in {folder}; wait until it has ended, or choose another --out"
            ) from error
        yield
    finally:
        os.close(descriptor)
