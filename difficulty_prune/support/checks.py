"""Checks of numbers that people pass: what came, what was expected, what to do."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any

import numpy as np


def whole_number(value: Any, name: str, least: int = 0) -> int:
    """The value as a Python number; TypeError or ValueError unless it is a whole number, `least` or more.

    >>> whole_number(np.int64(3), "epoch")
    3
    """
    try:
        whole = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name}: got {value!r}, expected a whole number") from error
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: got {value!r}, expected a whole number")
    if whole < least:
        raise ValueError(f"{name}: got {value}, expected {least} or more")
    return whole


def true_or_false(value: Any, name: str) -> bool:
    """The value as a Python bool; TypeError unless it is one, or NumPy's.

    >>> true_or_false(np.bool_(True), "weighted")
    True
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: got {value!r}, expected True or False")
    return bool(value)


def check_number(value: Any, name: str, interval: str) -> None:
    """TypeError unless the value is a real number."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name}: got {value!r}, expected a number in {interval}")


def check_fraction(value: Any, name: str) -> None:
    """TypeError or ValueError unless the value is a number in (0, 1]."""
    check_number(value, name, "(0, 1], the fraction of examples that is kept")
    if not 0 < value <= 1:  # NaN is neither
        raise ValueError(f"{name}: got {value}, expected a number in (0, 1]: the fraction of examples that is kept")


def check_between(value: Any, name: str) -> None:
    """TypeError or ValueError unless the value is a number in (0, 1)."""
    check_number(value, name, "(0, 1), such as 0.95")
    if not 0 < value < 1:  # NaN is neither
        raise ValueError(f"{name}: got {value!r}, expected a number between 0 and 1, such as 0.95")
