"""Results as plain data that JSON can hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """The value as JSON can hold it: lists for arrays and tuples, dicts for dataclasses, None for NaN.

    >>> plain({"pair": (1, np.float64(0.5)), "known": np.array([[1.0, np.nan]])})
    {'pair': [1, 0.5], 'known': [[1.0, None]]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain_fields(value)
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    return None if isinstance(value, float) and value != value else value


def plain_fields(result: Any, leave_out: Collection[str] = (), **extra: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, as JSON can hold them, but for those left out; `extra` adds or replaces some.

    >>> @dataclasses.dataclass
    ... class Point:
    ...     x: float
    ...     y: float
    >>> plain_fields(Point(1.0, np.nan), leave_out=["x"], z=2)
    {'y': None, 'z': 2}
    """
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name not in leave_out}
    return {name: plain(value) for name, value in {**fields, **extra}.items()}
