"""Tensors in memory-mapped files, for state that is larger than memory."""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from torch import Tensor

from ..support.unnamed_file import zeros_in_file


def mapped_zeros(shape: tuple[int, ...], dtype: torch.dtype, folder: str | os.PathLike[str]) -> Tensor:
    """Zeros in an unnamed file that vanishes with the tensor, in `folder`, which is made (with its parents) if missing.

    Raises:
        OSError: the folder cannot be written, or has no room for all of it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mapped_zeros((2, 3), torch.bfloat16, folder).sum().item()
    0.0
    """
    size = math.prod(shape) * dtype.itemsize
    try:
        os.makedirs(folder, exist_ok=True)
        words = zeros_in_file((size,), np.uint8, folder)
    except OSError as error:
        raise OSError(
            error.errno,
            f"mmap: {size:,} bytes of state cannot be held in {os.fspath(folder)!r} ({error.strerror}); "
            "name a folder that can be written and has room for them",
        ) from error
    return torch.from_numpy(words).view(dtype).view(shape)
