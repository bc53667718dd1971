"""Arrays that refuse to be written to, rows of arrays by position, and tensors from whatever holds numbers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_WIDE_UNSIGNED: Final = (torch.uint16, torch.uint32, torch.uint64)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, which from now on refuses to be written to."""
    array.setflags(write=False)
    return array


def real_numbers(values: Any, name: str) -> NDArray[np.float64]:
    """The values as float64; TypeError unless they are numbers or bool, as text that looks like a number is not.

    >>> real_numbers([1, 0.5], "score")
    array([1. , 0.5])
    """
    if isinstance(values, Tensor):
        return as_tensor(values, name).cpu().double().numpy().copy()
    array = _array(values, name, "numbers")
    if array.dtype.kind not in "fiub":
        got = repr(values) if array.ndim == 0 else f"{array.dtype} {array.shape}"
        raise TypeError(f"{name}: got {got}, expected numbers")
    return array.astype(np.float64)


def _array(values: Any, name: str, expected: str) -> NDArray[Any]:
    """The values as NumPy takes them; ValueError where they are rows of several lengths, or some are masked."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):  # NumPy would hand out what is hidden
        hidden = int(np.asarray(values.mask).sum())
        raise ValueError(
            f"{name}: got a masked array with {hidden} hidden values, expected plain numbers: fill them first, such as "
            "with array.filled(nan)"
        )
    try:
        return np.asarray(values)
    except ValueError as error:  # NumPy's words for [[1, 2], [3]]
        raise ValueError(f"{name}: got a {type(values).__name__} of unequal parts, expected {expected}") from error


def as_tensor(values: Any, name: str, expected: str = "numbers [N]") -> Tensor:
    """A tensor from a tensor (detached, where it is), an array of any byte order, or a sequence of Python numbers.

    Raises:
        TypeError: no numbers, or complex ones.
        ValueError: whole numbers beyond int64, or rows of several lengths.

    >>> as_tensor(np.array([1, 2], dtype=">i2"), "labels")
    tensor([1, 2], dtype=torch.int16)
    """
    if isinstance(values, Tensor):
        given = values.detach()
        if given.is_complex():
            raise TypeError(f"{name}: got a tensor of {given.dtype}, expected {expected}")
        return _signed(given.cpu().numpy(), name).to(given.device) if given.dtype in _WIDE_UNSIGNED else given
    array = np.array(_array(values, name, expected))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: got {type(values).__name__}, expected {expected}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return _signed(array, name)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _signed(array: NDArray[Any], name: str) -> Tensor:
    """Of unsigned whole numbers, with which PyTorch can do next to nothing, a tensor of int64."""
    most = np.iinfo(np.int64).max
    if array.size and int(array.max()) > most:
        raise ValueError(f"{name}: got {int(array.max())}, expected whole numbers up to {most}, or floating point")
    return torch.from_numpy(array.astype(np.int64))


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
