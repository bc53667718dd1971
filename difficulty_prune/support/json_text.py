"""JSON from files, which may hold anything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from .file_errors import errors_name

DEEPEST: Final = 100
"""How deep lists and dictionaries may be nested. Python reads about 1,000 levels, but cannot copy them."""


def parse_json(text: str) -> Any:
    """The value that the text stands for.

    Raises:
        ValueError: not JSON, a key that occurs twice, or nested more than `DEEPEST` deep.

    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    check_depth(value)
    return value


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value that a file stands for.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not text in UTF-8, or as `parse_json`. It does not name the file: whoever reads it says what the
            file should have been, in the same message.
        OSError: it cannot be read; the message names the file and says what to do.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.json")
    ...     _ = path.write_text('{"a": 1}')
    ...     read_json(path)
    {'a': 1}
    """
    with errors_name(path):
        text = Path(path).read_text(encoding="utf-8")
    return parse_json(text)


def check_depth(value: Any, above: int = 0) -> None:
    """ValueError for lists and dictionaries that are nested more than `DEEPEST` deep.

    Args:
        above: how many lists and dictionaries the value is to stand inside.

    >>> check_depth([[], {"a": [1]}])
    """
    level, depth = [value], above
    while level := [entry for outer in level for entry in _entries(outer)]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"nested too deeply: more than {DEEPEST} lists and dictionaries inside each other")


def _entries(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found
