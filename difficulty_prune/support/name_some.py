"""The first few of many names, for messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def name_some(names: Sequence[Any], most: int = 5) -> str:
    """The first `most` in quotes, and how many more there are.

    >>> name_some(["a", "b"]), name_some(range(9), most=3)
    ("'a', 'b'", '0, 1, 2 and 6 more')
    """
    first = ", ".join(repr(name) for name in names[:most])
    return f"{first} and {len(names) - most:,} more" if len(names) > most else first
