"""Dataclasses whose fields are the options of a command, so that each option is named and explained in one place."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, fields
from typing import Any, TypeVar

Kind = TypeVar("Kind")


def option(help: str, *, flag: str | None = None, **how: Any) -> dict[str, Any]:
    """The metadata of a field that is an option of a command, or, if it has no default, a positional argument.

    Args:
        help: what `--help` says; the default is added to it.
        flag: as in "--model", or several as in "-o --output"; default: the field's name.
        how: for `argparse.ArgumentParser.add_argument`, such as type=int.
    """
    return {"flag": flag, "how": {"help": help, **how}}


def add_options(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """Adds every field of the dataclass `kind` to the parser; the metadata of each comes from `option`.

    >>> from dataclasses import dataclass, field
    >>> @dataclass(frozen=True)
    ... class Walk:
    ...     places: tuple[str, ...] = field(metadata=option("where to go", nargs="+"))
    ...     top_speed: float = field(default=5.0, metadata=option("in km/h", type=float))
    >>> parser = argparse.ArgumentParser()
    >>> add_options(parser, Walk)
    >>> read_options(parser.parse_args(["home", "--top-speed", "4"]), Walk)
    Walk(places=('home',), top_speed=4.0)
    """
    for entry in fields(kind):
        how = entry.metadata["how"]
        if entry.default is MISSING:
            parser.add_argument(entry.name, **how)
        else:
            flags = (entry.metadata["flag"] or f"--{entry.name.replace('_', '-')}").split()
            default = None if how.get("required") else entry.default  # which nobody would see
            parser.add_argument(*flags, dest=entry.name, default=default, **how)


def read_options(parsed: argparse.Namespace, kind: type[Kind]) -> Kind:
    """The dataclass `kind` from parsed arguments; lists become tuples."""
    values = {entry.name: getattr(parsed, entry.name) for entry in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
