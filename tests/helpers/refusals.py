"""Bad input is refused by the right exception, with what was got and what was expected.

A test file holds one table: what is done, the exception, and patterns that its message must contain.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def refusals() -> tuple[list[Any], Callable[..., Any], Callable[..., None]]:
    """An empty table, and two ways to add to it: a function of a temporary folder, or one expression."""
    cases = []

    def case(name, exception, *patterns):
        def add(function):
            cases.append(pytest.param(function, exception, patterns, id=name))
            return function

        return add

    def expect(name, exception, *patterns, of):
        case(name, exception, *patterns)(lambda folder: of())

    return cases, case, expect


def check_refused(
    attempt: Callable[[Path], object], folder: Path, exception: type[Exception], patterns: tuple[str, ...]
) -> None:
    with pytest.raises(exception) as refusal:
        attempt(folder)
    assert type(refusal.value) is exception
    for pattern in patterns:
        assert re.search(pattern, str(refusal.value))
