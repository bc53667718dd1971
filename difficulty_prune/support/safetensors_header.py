"""The header of a safetensors file: where each array is, written, or read and checked against the size of the file."""

from __future__ import annotations

import json
import math
import reprlib
import sys
from collections.abc import Mapping
from io import RawIOBase
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np

from .json_text import parse_json

_LARGEST_HEADER: Final = 100_000_000  # bytes, what the format allows
_MOST_DIMENSIONS: Final = 32  # NumPy 1.26 knows no more
_DTYPES: Final = {  # safetensors is little-endian
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "C64": "<c8",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "<u1",
    "BOOL": "?",
}
_NAMES: Final = {np.dtype(code): name for name, code in _DTYPES.items()}
_ALIGNMENT: Final = 8  # bytes, of the first array


class ArrayKind(NamedTuple):
    """What an array is, without its values."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Header(NamedTuple):
    """What the header says.

    Attributes:
        metadata: text by name.
        kinds: of each array, by name.
        offsets: of the first byte of each array in the file.
    """

    metadata: dict[str, str]
    kinds: Mapping[str, ArrayKind]
    offsets: Mapping[str, int]


class UnknownDtypeError(ValueError):
    """A valid header names a dtype that NumPy lacks."""


def in_order(arrays: Mapping[str, ArrayKind]) -> list[str]:
    """The names in the order in which the arrays follow each other: the widest numbers first, so that all are aligned.

    >>> in_order({"b": ArrayKind(np.dtype("<f4"), (3,)), "a": ArrayKind(np.dtype("?"), (1,))})
    ['b', 'a']
    """
    return sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))


def header_bytes(kinds: Mapping[str, ArrayKind], metadata: Mapping[str, str]) -> bytes:
    """The header of a file with these arrays, of little-endian dtypes, which follow it in the order of `in_order`.

    Raises:
        TypeError: a dtype that the format lacks.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in in_order(kinds):
        dtype, shape = kinds[name]
        if dtype not in _NAMES:
            raise TypeError(f"{name!r} is of {dtype}, expected one of {', '.join(map(str, _NAMES))}")
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def read_header(file: BinaryIO | RawIOBase, size: int) -> Header:
    """Reads the header of a file of `size` bytes and checks all of it, so that no array can lie outside the file.

    The arrays must fill the rest of the file without gaps, overlaps or leftover bytes, as the format demands. A file
    may say anything, so nothing is allocated on its word alone: only what the file is long enough to hold.

    Raises:
        ValueError: not a header of safetensors.
        UnknownDtypeError: an array of a dtype that NumPy lacks, such as bfloat16.
    """
    length = int.from_bytes(file.read(8) or b"", "little")
    if size < 8 or length > min(size - 8, _LARGEST_HEADER):
        raise ValueError(f"the header should have {length} bytes, the file has {size}")
    entries = _parse(file.read(length) or b"")
    metadata = _metadata(entries.pop("__metadata__", None))
    kinds, offsets = {}, {}
    begin = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: _place(*item)):
        kind, (start, end) = _kind(name, entry), _place(name, entry)
        if 8 + length + start != begin:
            raise ValueError(
                f"{reprlib.repr(name)} starts at {start}, expected {begin - 8 - length}: a gap or an overlap"
            )
        if math.prod(kind.shape) * kind.dtype.itemsize != end - start:
            raise ValueError(f"{reprlib.repr(name)} has {end - start} bytes, which do not fit its shape and dtype")
        kinds[name], offsets[name], begin = kind, begin, 8 + length + end
    if begin != size:
        raise ValueError(f"the arrays end at byte {begin}, the file at byte {size}")
    return Header(metadata, kinds, offsets)


def _parse(text: bytes) -> dict[str, Any]:
    entries = parse_json(text.decode())
    if not isinstance(entries, dict):
        raise ValueError("the header is not a JSON object")
    return entries


def _metadata(found: Any) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError("the metadata is not text by name")
    return found


def _place(name: str, entry: Any) -> tuple[int, int]:
    """First byte and end of an array, counted from the end of the header."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise ValueError(f"{reprlib.repr(name)} has data_offsets {reprlib.repr(offsets)}, expected two whole numbers")
    begin, end = offsets
    if not 0 <= begin <= end:
        raise ValueError(f"{reprlib.repr(name)} has data_offsets {reprlib.repr(offsets)}")
    return begin, end


def _kind(name: str, entry: dict[str, Any]) -> ArrayKind:
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str):
        raise ValueError(f"{reprlib.repr(name)} has the dtype {reprlib.repr(dtype)}, expected a name")
    if dtype not in _DTYPES:
        raise UnknownDtypeError(
            f"{reprlib.repr(name)} is of {reprlib.repr(dtype)}, expected one of {', '.join(_DTYPES)}"
        )
    found = np.dtype(_DTYPES[dtype])
    if not isinstance(shape, list) or not _is_shape(shape, found.itemsize):
        raise ValueError(f"{reprlib.repr(name)} has the shape {reprlib.repr(shape)}")
    return ArrayKind(found, tuple(shape))


def _is_shape(shape: list[Any], itemsize: int) -> bool:
    """Whether NumPy can make an array of this shape, which it limits even where the array has no elements."""
    if len(shape) > _MOST_DIMENSIONS or not all(type(n) is int and 0 <= n <= sys.maxsize for n in shape):
        return False
    size: int = math.prod(max(n, 1) for n in shape) * itemsize
    return size <= sys.maxsize
