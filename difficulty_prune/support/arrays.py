"""Arrays that refuse to be written to, rows of arrays by position, and tensors from whatever holds numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, which from now on refuses to be written to."""
    array.setflags(write=False)
    return array


def real_numbers(values: Any, name: str) -> NDArray[np.float64]:
    """The values as float64; TypeError unless they are numbers or bool, as text that looks like a number is not.

    >>> real_numbers([1, 0.5], "score")
    array([1. , 0.5])
    """
    _refuse_masked(values, name)
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        got = repr(values) if array.ndim == 0 else f"{array.dtype} {array.shape}"
        raise TypeError(f"{name}: got {got}, expected numbers")
    return array.astype(np.float64)


def _refuse_masked(values: Any, name: str) -> None:
    """ValueError for a masked array that hides values, since NumPy would hand these out."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        hidden = int(np.asarray(values.mask).sum())
        raise ValueError(
            f"{name}: got a masked array with {hidden} hidden values, expected plain numbers: fill them first, such as "
            "with array.filled(nan)"
        )


def as_tensor(values: Any, name: str, expected: str = "numbers [N]") -> Tensor:
    """A tensor from a tensor (detached, where it is), an array of any byte order, or a sequence of Python numbers.

    Raises:
        TypeError: no numbers.

    >>> as_tensor(np.array([1, 2], dtype=">i2"), "labels")
    tensor([1, 2], dtype=torch.int16)
    """
    if isinstance(values, Tensor):
        return values.detach()
    _refuse_masked(values, name)
    array = np.array(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: got {type(values).__name__}, expected {expected}")
    wide_unsigned = array.dtype.kind == "u" and array.dtype.itemsize > 1  # with which PyTorch can do next to nothing
    return torch.from_numpy(array.astype(np.int64 if wide_unsigned else array.dtype.newbyteorder("="), copy=False))


def check_rows(rows: Any, size: int, name: str) -> slice | NDArray[np.int64]:
    """Which of `size` rows are meant: a slice as it is, or positions [n] in 0..size-1.

    Args:
        rows: a slice, positions [n] (negative ones count from the end), or a mask [size] of bool.
        name: for messages.

    Raises:
        TypeError: none of these.
        IndexError: a position outside, or a mask of another length.

    >>> check_rows([2, -1], size=5, name="examples")
    array([2, 4])
    """
    if isinstance(rows, slice):
        return rows
    given = np.asarray(rows)
    if given.dtype == np.bool_ and given.ndim == 1:
        if len(given) != size:
            raise IndexError(f"{name}: got a mask of {len(given)}, expected {size}, one per example")
        return np.flatnonzero(given)
    if given.ndim != 1 or (given.dtype.kind not in "iu" and len(given)):
        got = f"{given.dtype} {given.shape}" if given.ndim else repr(rows)
        raise TypeError(
            f"{name}: got {got}, expected a slice, positions [n] as whole numbers, or a mask [{size}] of bool"
        )
    outside = (given < -size) | (given >= size)
    if outside.any():
        raise IndexError(f"{name}: got position {given[outside][0]}, expected {-size} to {size - 1}")
    positions = given.astype(np.int64)
    return np.where(positions < 0, positions + size, positions)
