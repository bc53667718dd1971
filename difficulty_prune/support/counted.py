"""Numbers of things in words."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """The number and what there is of it, in the singular or the plural.

    Args:
        one: of a single one.
        many: of none and of several; default: `one` with an "s".

    >>> counted(1, "run"), counted(1200, "run"), counted(1, "is new", "are new")
    ('1 run', '1,200 runs', '1 is new')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
