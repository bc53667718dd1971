"""Stable hashes of ids, and draws that depend on them: the same in every process, on every machine, in every version.

Both are XXH3 with 64 bits (xxhash.com), of the UTF-8 of a text or the eight bytes of a number. Of eight bytes it is a
permutation of 64 bits, so numbers never share a hash, and a few steps of NumPy give it for a whole array.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from struct import Struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .optional import optional_module

_SECRET: Final = 0xC73AB174C5ECD5A2  # of XXH3 for four to eight bytes: bytes 8-15 of its secret, xor bytes 16-23
_PRIME: Final = np.uint64(0x9FB21C651E98DF25)
_BLOCK: Final = 1 << 16  # numbers that stay in the processor's cache through all steps

pack_signed: Final = Struct("<q").pack
pack_unsigned: Final = Struct("<Q").pack


@cache
def xxh3() -> Callable[..., int]:
    """`xxhash.xxh3_64_intdigest(data, seed)`; ImportError if xxhash is not there."""
    module = optional_module("xxhash", "pip install 'difficulty-prune[streams]'", "a stream of samples")
    hasher: Callable[..., int] = module.xxh3_64_intdigest
    return hasher


def hash_words(words: NDArray[Any], seed: int = 0) -> NDArray[np.uint64]:
    """XXH3 of each number's eight bytes, [n] uint64 of [n] int64 or uint64.

    >>> import xxhash
    >>> int(hash_words(np.array([7]), seed=5)[0]) == xxhash.xxh3_64_intdigest((7).to_bytes(8, "little"), seed=5)
    True
    """
    low = seed & 0xFFFFFFFF
    seed ^= int.from_bytes(low.to_bytes(4, "little"), "big") << 32
    flip = np.uint64((_SECRET - seed) % 2**64)
    given, found = words.view(np.uint64), np.empty(len(words), np.uint64)
    for start in range(0, len(words), _BLOCK):
        part = given[start : start + _BLOCK]
        word = _rotated(part, 32)  # the first four bytes are the high ones
        word ^= flip
        word ^= _rotated(word, 49) ^ _rotated(word, 24)
        word *= _PRIME
        word ^= (word >> np.uint64(35)) + np.uint64(8)
        word *= _PRIME
        word ^= word >> np.uint64(28)
        found[start : start + _BLOCK] = word
    return found


def _rotated(word: NDArray[np.uint64], by: int) -> NDArray[np.uint64]:
    """Bits moved to the left, and around."""
    return (word << np.uint64(by)) | (word >> np.uint64(64 - by))


def hash_ids(ids: NDArray[Any], salt: int = 0) -> NDArray[np.uint64]:
    """The hash of each id, [n] uint64, of [n] int64 or texts (dtype object)."""
    if ids.dtype != object:
        return hash_words(ids, salt)
    hasher = partial(xxh3(), seed=salt) if salt else xxh3()
    texts = ids.tolist()
    try:
        return np.fromiter(map(hasher, map(str.encode, texts)), np.uint64, len(texts))
    except UnicodeEncodeError:  # names of files that are no UTF-8
        return np.fromiter((hasher(text.encode("utf-8", "surrogatepass")) for text in texts), np.uint64, len(texts))


def seed_of(seed: int, *words: int) -> int:
    """64 bits that depend on the seed and on whole numbers, such as an epoch."""
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0])


def uniform(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each hash, [n] float64, as if it was drawn with that seed."""
    return (hash_words(hashes, seed) >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)
