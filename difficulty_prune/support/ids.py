"""Ids of examples, text or whole numbers: checked, and as arrays for a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from .digest import digest_of_array

ID_PARTS: Final = ("ids", "ids.text", "ids.lengths")
"""Names of the arrays in which a file keeps ids: whole numbers in the first, text in the others."""

_EXPECTED: Final = "text such as paths, or whole numbers that int64 holds: what names each example for good"


def check_ids(values: Any, name: str = "ids") -> NDArray[Any]:
    """Ids as an array [N] of Python texts (dtype object) or of int64.

    Raises:
        TypeError: neither texts nor whole numbers, or both.
        ValueError: an empty text, a number that int64 does not hold, or an id that occurs twice.

    >>> check_ids(["cat/1.png", "dog/1.png"])
    array(['cat/1.png', 'dog/1.png'], dtype=object)
    >>> check_ids([7, 3])
    array([7, 3])
    """
    ids = id_array(values, name)
    positions_of(ids, name)
    return ids


def id_array(values: Any, name: str = "ids") -> NDArray[Any]:
    """`check_ids` without a look at whether each occurs once, which `positions_of` has."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, set | frozenset):
        raise TypeError(f"{name}: got a {type(values).__name__}, which has no order; expected a list of ids")
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: got {values!r}, expected one for each example: {_EXPECTED}")
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise ValueError(f"{name}: got shape {values.shape}, expected [N]")
        if values.dtype.kind == "i":
            return values.astype(np.int64)
        values = values.tolist()
    return _as_array(list(values), name)


def id_of(value: Any, name: str, where: str) -> str | int:
    """One id as Python text or number.

    Raises:
        TypeError, ValueError: none; `where` says of which example.
    """
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and value.shape == ():
        value = value.item()
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise TypeError(f"{name}: got {value!r} for {where}, expected {_EXPECTED}")
    if value == "":
        raise ValueError(f"{name}: got an empty text for {where}, expected {_EXPECTED}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}: got {value} for {where}, expected {_EXPECTED}")
    return str(value) if isinstance(value, str) else int(value)


def _as_array(items: list[Any], name: str) -> NDArray[Any]:
    kinds = set(map(type, items))
    if kinds - {str, int} or "" in items:
        items = [id_of(item, name, f"example {position}") for position, item in enumerate(items)]
        kinds = set(map(type, items))
    if len(kinds) > 1:
        texts, numbers = (next(item for item in items if type(item) is kind) for kind in (str, int))
        raise TypeError(f"{name}: got both texts and numbers, such as {texts!r} and {numbers}, expected one kind")
    if kinds == {int}:
        try:
            return np.array(items, np.int64)
        except OverflowError:
            large = next(item for item in items if not -(2**63) <= item < 2**63)
            raise ValueError(f"{name}: got {large}, expected {_EXPECTED}") from None
    return as_objects(items)


def as_objects(texts: list[str]) -> NDArray[Any]:
    """[N] of dtype object, which takes each text as it is, however long."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def positions_of(ids: NDArray[Any], name: str = "ids") -> dict[str | int, int]:
    """The position of each id.

    Raises:
        ValueError: an id that occurs twice, with both positions.

    >>> positions_of(np.array([7, 3]))
    {7: 0, 3: 1}
    """
    items = ids.tolist()
    found = dict(zip(items, range(len(items)), strict=True))
    if len(found) < len(items):
        second = next(position for position, item in enumerate(items) if found[item] != position)
        item = items[second]
        raise ValueError(
            f"{name}: {item!r} names both example {second} and example {items.index(item, second + 1)}, and "
            f"{len(items) - len(found) - 1} more are not unique; expected an id of its own for each example"
        )
    return found


def encode_ids(ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a file that hold ids, by name: 8 bytes for a number, 4 bytes for a text beside the text in UTF-8.

    >>> {name: part.tolist() for name, part in encode_ids(check_ids(["a", "bc"])).items()}
    {'ids.text': [97, 98, 99], 'ids.lengths': [1, 2]}
    """
    if ids.dtype != object:
        return {"ids": np.asarray(ids, np.int64)}
    texts = ids.tolist()
    content = "".join(texts).encode("utf-8", "surrogatepass")  # of names of files that are no UTF-8
    lengths = np.fromiter(map(len, texts), np.uint32, len(texts))  # in characters, so that texts are slices of one
    return {"ids.text": np.frombuffer(content, np.uint8), "ids.lengths": lengths}


def digest_of_ids(parts: Mapping[str, NDArray[Any]]) -> str:
    """A hash of the ids that `encode_ids` gave: others, or the same in another order, have another.

    >>> digest_of_ids(encode_ids(check_ids(["a", "bc"]))) == digest_of_ids(encode_ids(check_ids(["ab", "c"])))
    False
    """
    return " ".join(digest_of_array(parts[name]) for name in sorted(parts))


def number_of_ids(parts: Mapping[str, tuple[int, ...]]) -> int | None:
    """How many ids arrays of these shapes hold, None without any; ValueError if they do not belong together."""
    there = [name for name in ID_PARTS if name in parts]
    if not there:
        return None
    if there not in (["ids"], ["ids.text", "ids.lengths"]) or any(len(parts[name]) != 1 for name in there):
        raise ValueError(f"ids: got {dict(parts)}, expected numbers [N], or text and lengths [N]")
    return parts[there[-1]][0]


def decode_ids(parts: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The inverse of `encode_ids`; [N] of dtype object, or int64.

    Raises:
        ValueError: text that is no UTF-8, or lengths that do not fit it.
    """
    if "ids" in parts:
        return np.asarray(parts["ids"], np.int64)
    text = _decoded(parts)
    ends = accumulate(parts["ids.lengths"].tolist(), initial=0)
    return as_objects([text[start:end] for start, end in pairwise(ends)])


def check_encoded(parts: Mapping[str, NDArray[Any]]) -> None:
    """ValueError for text that is no UTF-8, or lengths that do not fit it; faster than to decode."""
    if "ids" not in parts:
        _decoded(parts)


def _decoded(parts: Mapping[str, NDArray[Any]]) -> str:
    try:
        text = parts["ids.text"].tobytes().decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ValueError(f"ids: the text is no UTF-8 ({error})") from error
    total = int(parts["ids.lengths"].sum(dtype=np.uint64))
    if total != len(text):
        raise ValueError(f"ids: the text has {len(text)} characters, the lengths say {total}")
    return text
