"""Digests of arrays and texts in a file, by which damage is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .json_text import parse_json
from .safetensors_header import ArrayKind

_WORD: Final = 8  # bytes
_COLUMNS: Final = 1021  # words; a prime, so that exchanged pages or sectors of a disk do not meet in the same columns
_ROW: Final = _COLUMNS * _WORD
DIGEST_BLOCK: Final = 128 * _ROW
"""Bytes that are summed up at once, 1 MB, which stay in the processor's cache meanwhile. It is part of the definition:
another number gives other digests."""

_SIZE: Final = 16  # bytes of a digest


class Digest:
    """A digest of an array's dtype, shape and bytes, from one part of the bytes after the other.

    The bytes are taken as words of 8 in blocks of 128 rows and 1,021 columns, the last block with fewer rows. The
    digest is the BLAKE2b hash of dtype and shape, of the sums of all rows and columns modulo 2^64, and of the bytes
    that fill no row. Whatever changes up to three words of a block changes a sum, as does any exchange of two words;
    other damage goes unnoticed only if a thousand sums stay what they were. BLAKE2b of all the bytes would also be safe
    from forgery, which is no aim here, and loading a run would take seven times as long.

    >>> digest = Digest(ArrayKind(np.dtype("<f4"), (3,)))
    >>> digest.update(np.array([0.5, 1.0, 2.0], "<f4").view(np.uint8))
    >>> digest.value()
    '27a574d0cf789c412646acf70156b9ac'
    """

    def __init__(self, kind: ArrayKind) -> None:
        self._hash = hashlib.blake2b(f"{kind.dtype.str} {list(kind.shape)}".encode(), digest_size=_SIZE)
        self._rest = np.empty(0, np.uint8)  # less than a block

    def update(self, content: NDArray[np.uint8]) -> None:
        """Adds the next bytes [n], n any number; they must not change before the next call."""
        if len(self._rest):
            content = np.concatenate([self._rest, content])
        whole = len(content) - len(content) % DIGEST_BLOCK
        for start in range(0, whole, DIGEST_BLOCK):
            _add(self._hash, content[start : start + DIGEST_BLOCK])
        self._rest = content[whole:]

    def value(self) -> str:
        """32 hexadecimal digits, of all bytes so far."""
        total = self._hash.copy()
        _add(total, self._rest)
        return total.hexdigest()


def _add(total: hashlib.blake2b, content: NDArray[np.uint8]) -> None:
    rows = len(content) // _ROW
    if rows:
        words = content[: rows * _ROW].view("<u8").reshape(rows, _COLUMNS)
        for axis in (0, 1):
            total.update(np.add.reduce(words, axis, dtype=np.uint64).astype("<u8", copy=False).data)
    total.update(content[rows * _ROW :].data)


def digest_of_array(array: NDArray[Any]) -> str:
    """The digest of an array that is little-endian and contiguous."""
    digest = Digest(ArrayKind(array.dtype, array.shape))
    digest.update(array.reshape(-1).view(np.uint8))
    return digest.value()


def digest_of_text(text: str) -> str:
    """The BLAKE2b hash of a text, 32 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_SIZE).hexdigest()


class Digests(NamedTuple):
    """The digests of all that a file holds.

    Attributes:
        arrays: of each array, by name.
        metadata: of each text of the metadata, by name.
    """

    arrays: Mapping[str, str]
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Digests:
        """From arrays that are little-endian and contiguous, and the metadata."""
        return cls(
            {name: digest_of_array(array) for name, array in arrays.items()},
            {name: digest_of_text(text) for name, text in metadata.items()},
        )

    @classmethod
    def parse(cls, text: str) -> Digests:
        """From what `str()` gave; ValueError for any other text."""
        found = parse_json(text)
        if not isinstance(found, dict) or set(found) != set(cls._fields):
            raise ValueError("the digests are damaged")
        for digests in found.values():
            if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
                raise ValueError("the digests are damaged")
        return cls(**found)

    def __str__(self) -> str:
        return json.dumps(self._asdict(), sort_keys=True)
