"""Dataclasses whose fields are the options of a command, so that each option is named and explained in one place."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

Kind = TypeVar("Kind")
Completer = Callable[..., Iterable[str]]


def option(
    help: str, *, flag: str | None = None, offer: Iterable[str] | Completer | None = None, **how: Any
) -> dict[str, Any]:
    """The metadata of a field that is an option of a command, or, if it has no default, a positional argument.

    Args:
        help: what `--help` says; the default is added to it.
        flag: as in "--model", or several as in "-o --output"; default: the field's name.
        offer: what a shell offers when the value is typed: names, or a function of `prefix=` and more. Default: the
            choices; nothing for numbers; else files.
        how: for `argparse.ArgumentParser.add_argument`, such as type=int.
    """
    if offer is None and how.get("type") in (int, float):
        offer = ()
    return {"flag": flag, "offer": offer, "how": {"help": help, **how}}


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
            action = parser.add_argument(entry.name, **how)
        else:
            flags = (entry.metadata["flag"] or f"--{entry.name.replace('_', '-')}").split()
            default = None if how.get("required") else entry.default  # which nobody would see
            action = parser.add_argument(*flags, dest=entry.name, default=default, **how)
        offer = entry.metadata["offer"]
        if offer is not None:
            action.completer = offer if callable(offer) else _offering(offer)  # type: ignore[attr-defined]


def _offering(names: Iterable[str]) -> Completer:
    """A completer, as argcomplete calls it, that always offers the same; argcomplete leaves out what does not fit."""
    known = tuple(names)
    return lambda **_: known


def read_options(parsed: argparse.Namespace, kind: type[Kind]) -> Kind:
    """The dataclass `kind` from parsed arguments; lists become tuples."""
    values = {entry.name: getattr(parsed, entry.name) for entry in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
