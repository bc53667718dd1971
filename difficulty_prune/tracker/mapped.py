"""Tensors in memory-mapped files, for state that is larger than memory."""

from __future__ import annotations

import math
import os
import tempfile

import numpy as np
import torch
from torch import Tensor


def mapped_zeros(shape: tuple[int, ...], dtype: torch.dtype, folder: str | os.PathLike[str]) -> Tensor:
    """Zeros in an unnamed file that vanishes with the tensor, in `folder`, which is made (with its parents) if missing.

    Raises:
        OSError: the folder cannot be written, or has no room for all of it.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mapped_zeros((2, 3), torch.bfloat16, folder).sum().item()
    0.0
    """
    size = math.prod(shape) * dtype.itemsize
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)
            words = np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,))
    except OSError as error:
        raise OSError(
            error.errno,
            f"mmap: {size:,} bytes of state cannot be held in {os.fspath(folder)!r} ({error.strerror}); "
            "name a folder that can be written and has room for them",
        ) from error
    return torch.from_numpy(words).view(dtype).view(shape)


def _reserve(descriptor: int, size: int) -> None:
    """Takes the room now: a hole in the file would end the process later, when the disk turns out to be full."""
    os.truncate(descriptor, size)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
