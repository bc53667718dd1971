"""The command `difficulty-prune`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import NoReturn

from ..version import __version__
from . import consistency, doctor, fingerprint, study

COMMANDS = {"study": study, "consistency": consistency, "fingerprint": fingerprint, "doctor": doctor}


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names defaults, but for options that are off by default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        off = action.default is None or action.default is False or action.default == []
        return action.help if off else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog="difficulty-prune",
        description="Score how hard each training example is, and train on fewer of them.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        summary = module.__doc__.strip().split("\n")[0] if module.__doc__ else None
        command = commands.add_parser(name, help=summary, description=summary, formatter_class=Formatter)
        module.add_arguments(command)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 for success, 2 with one line on stderr for bad input, 130 after Ctrl-C."""
    options = make_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ValueError, TypeError, OSError) as error:
        print(f"difficulty-prune {options.command}: {error}", file=sys.stderr)
        return 2
    except BrokenProcessPool:
        print(
            f"difficulty-prune {options.command}: a training process was killed, perhaps for want of memory; what "
            "had finished is on disk, and the same command with fewer --workers goes on from there",
            file=sys.stderr,
        )
        return 1
