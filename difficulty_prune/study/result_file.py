"""The file of a training that is compared: JSON with a digest, checked as a whole when it is read."""

from __future__ import annotations

import json
import os
import reprlib
import sys
from collections.abc import Callable
from typing import Any, Final

from ..support.digest import digest_of_text
from ..support.files import write_atomically
from ..support.json_text import read_json


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _number(most: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and 0 <= value <= most


def _shares(value: Any) -> bool:
    return isinstance(value, list) and all(entry is None or _number(1.0)(entry) for entry in value)


_FIELDS: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "task": ("a description of the training", lambda value: isinstance(value, dict)),
    "examples": ("a whole number, 1 or more", _whole(1)),
    "plan": ("a digest", lambda value: isinstance(value, str)),
    "peak_memory_bytes": ("a whole number or null", lambda value: value is None or _whole(0)(value)),
    "test_accuracy": ("a number in [0, 1] or null", lambda value: value is None or _number(1.0)(value)),
    "class_accuracy": ("a number in [0, 1] or null for each class", _shares),
    "presentations": ("a whole number, 1 or more", _whole(1)),
    "steps": ("a whole number, 1 or more", _whole(1)),
    "seconds": ("a number, 0 or more", _number(sys.float_info.max)),
}
_OF_NUMBERS: Final = {"test_loss": ("a number, 0 or more", _number(sys.float_info.max))}
"""What results have besides where numbers are predicted, and then no accuracy."""
_ADDED: Final = {"alone": ("true or false", lambda value: isinstance(value, bool))}
"""What results of earlier versions do not have."""


def write_result(path: str | os.PathLike[str], result: dict[str, Any]) -> None:
    """Writes the result of a training, whole or not at all, with a digest.

    Raises:
        ValueError: it is not what `read_result` reads.
        OSError: as for `write_atomically`.
    """
    _check(result)
    write_atomically(path, json.dumps({**result, "digest": _digest(result)}, indent=1))


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_result` was given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: damaged, edited, of an earlier version without digests, or no result; the message names the file.
    """
    try:
        found = read_json(path)
        if not isinstance(found, dict) or "digest" not in found:
            raise ValueError("it has no digest")
        digest = found.pop("digest")
        _check(found)
        if digest != _digest(found):
            raise ValueError("its content does not have the digest that it was written with")
    except ValueError as error:
        raise ValueError(
            f"{path}: not a result of a training as this version writes it, or changed since ({error}); remove it, and "
            "the study trains again"
        ) from error
    return found


def _check(result: dict[str, Any]) -> None:
    of_numbers = _OF_NUMBERS if result.get("test_accuracy") is None else {}
    known = {**_FIELDS, **of_numbers, **{name: added for name, added in _ADDED.items() if name in result}}
    if result.keys() != known.keys():
        raise ValueError(f"got the keys {reprlib.repr(list(result))}, expected {', '.join(known)}")
    for name, (expected, is_good) in known.items():
        if not is_good(result[name]):
            raise ValueError(f"{name}: got {reprlib.repr(result[name])}, expected {expected}")


def _digest(result: dict[str, Any]) -> str:
    return digest_of_text(json.dumps(result, sort_keys=True))
