"""The parser of all commands, made from `options.json`, so that `--help`, a slip and a shell's Tab wait for no PyTorch.

`python -m difficulty_prune.cli.describe` writes that file from the commands, whose modules are imported when they run.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from ..version import __version__
from .file_name import file_name

DESCRIBED: Final = Path(__file__).with_name("options.json")
TYPES: Final[dict[str, Callable[[str], Any]]] = {"int": int, "float": float, "Path": Path, "file_name": file_name}
"""What the value of an option may be, other than text."""

EXAMPLES: Final = """\
examples:
  score your images over several runs, prune, and see whether it paid:
    difficulty-prune study --data imagefolder:photos --out results
  ask how far to trust the ranking, and how many runs it takes:
    difficulty-prune consistency results
  write a table of scores for a spreadsheet, and a plan without what people decided against:
    difficulty-prune export results -o table.csv
    difficulty-prune plan results --keep 0.9 --exclude decisions.csv -o plan.safetensors
  see what a command can do, and examples of it:
    difficulty-prune study --help
"""


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of options, unless the default is to do nothing; and text of several lines as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text.strip() else super()._fill_text(text, width, indent)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        if isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def read_description() -> dict[str, Any]:
    """What each command is for, and its options: as `describe` makes it."""
    described: dict[str, Any] = json.loads(DESCRIBED.read_text(encoding="utf-8"))
    return described


def make_parser(described: Mapping[str, Any] | None = None) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        described: the commands; default: those of the package.
    """
    parser = Parser(
        prog="difficulty-prune",
        description="Score how hard each training example is, and train on fewer of them.",
        epilog=EXAMPLES,
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (read_description() if described is None else described).items():
        command = commands.add_parser(
            name,
            help=about["summary"],
            description=about["summary"],
            epilog=about["examples"],
            formatter_class=Formatter,
        )
        for argument in about["arguments"]:
            _add_argument(command, **argument)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_argument(
    parser: argparse.ArgumentParser, flags: list[str], how: dict[str, Any], offer: list[str] | str | None
) -> None:
    kind = {"type": TYPES[how["type"]]} if "type" in how else {}
    action = parser.add_argument(*flags, **{**how, **kind})
    if offer is not None:
        action.completer = _completer(offer)  # type: ignore[attr-defined]


def _completer(offer: list[str] | str) -> Callable[..., Iterable[str]]:
    """What argcomplete calls: it offers these names, or what the function offers that is named as module:function."""
    if not isinstance(offer, str):
        return lambda **_: offer  # argcomplete leaves out what does not fit
    module, _, name = offer.partition(":")
    return lambda **typed: getattr(importlib.import_module(module), name)(**typed)


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers a shell that asks how the line being typed may go on, and ends the process; see `argcomplete`."""
    import argcomplete

    argcomplete.autocomplete(parser, always_complete_options="long")
