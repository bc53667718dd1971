"""Writes `options.json`: what each command is for and its options, from the modules of the commands.

python -m difficulty_prune.cli.describe
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ..support.files import atomic_file
from . import audit, bench, consistency, convert, doctor, export, fingerprint, plan, study
from .parser import DESCRIBED, TYPES

COMMANDS: Final[dict[str, ModuleType]] = {
    "study": study,
    "consistency": consistency,
    "audit": audit,
    "plan": plan,
    "export": export,
    "convert": convert,
    "fingerprint": fingerprint,
    "doctor": doctor,
    "bench": bench,
}


class _Recorder(argparse.ArgumentParser):
    """Keeps what it is told of arguments, in a form that JSON can hold."""

    def __init__(self) -> None:
        self.told: list[tuple[list[str], dict[str, Any], argparse.Action]] = []
        super().__init__(add_help=False)

    def add_argument(self, *flags: Any, **how: Any) -> argparse.Action:
        action = super().add_argument(*flags, **how)
        self.told.append((list(flags), {name: _plain(name, value) for name, value in how.items()}, action))
        return action


def _plain(name: str, value: Any) -> Any:
    if name == "type":
        known = [kind for kind, made in TYPES.items() if made is value]
        if not known:
            raise TypeError(f"type: got {value!r}, expected one of {', '.join(TYPES)}")
        return known[0]
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _offered(action: argparse.Action) -> list[str] | str | None:
    """What a shell offers: names, or module:function where that depends on what is typed; None where argparse knows."""
    completer = getattr(action, "completer", None)
    if completer is None:
        return None
    if completer.__name__ == "<lambda>":
        return list(completer(prefix=""))
    return f"{completer.__module__}:{completer.__name__}"


def describe(commands: Mapping[str, ModuleType] = COMMANDS) -> dict[str, Any]:
    """The commands as `make_parser` takes them."""
    described = {}
    for name, module in commands.items():
        recorder = _Recorder()
        module.add_arguments(recorder)
        described[name] = {
            "summary": (module.__doc__ or "").strip().split("\n")[0],
            "examples": getattr(module, "EXAMPLES", None),  # which a command need not have
            "arguments": [{"flags": f, "how": how, "offer": _offered(action)} for f, how, action in recorder.told],
        }
    return described


def as_text(described: Mapping[str, Any]) -> str:
    """JSON with a line for each argument, so that changes are easy to read."""

    def dump(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    commands = []
    for name, about in described.items():
        arguments = ",\n".join(f"  {dump(argument)}" for argument in about["arguments"])
        head = f'"summary": {dump(about["summary"])},\n "examples": {dump(about["examples"])}'
        commands.append(f'"{name}": {{{head},\n "arguments": [\n{arguments}\n ]}}')
    return "{\n" + ",\n".join(commands) + "\n}\n"


if __name__ == "__main__":
    with atomic_file(DESCRIBED) as file:
        file.write(as_text(describe()).encode())
