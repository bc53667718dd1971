"""Arrays in mapped files without a name, which vanish with them."""

from __future__ import annotations

import math
import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def zeros_in_file(shape: tuple[int, ...], dtype: DTypeLike, folder: str | os.PathLike[str]) -> NDArray[Any]:
    """Zeros in a file of the folder, whose room is taken at once.

    A hole in the file would end the process later, by a signal, when the disk turns out to be full.

    Raises:
        OSError: the folder cannot be written, or has no room for all of it.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     zeros_in_file((2,), np.float32, folder)
    memmap([0., 0.], dtype=float32)
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        os.truncate(file.fileno(), size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "r+", shape=shape)
