"""The command `difficulty-prune`."""
# PYTHON_ARGCOMPLETE_OK: shells that complete all Python commands look for this

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Final, NoReturn

from ..version import __version__
from . import audit, consistency, convert, doctor, export, fingerprint, plan, study
from .interrupts import exit_status, sigterm_as_ctrl_c
from .output import shown

COMMANDS = {
    "study": study,
    "consistency": consistency,
    "audit": audit,
    "plan": plan,
    "export": export,
    "convert": convert,
    "fingerprint": fingerprint,
    "doctor": doctor,
}
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
        if action.default is None or action.default is False or action.default in ([], ()):
            return action.help
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog="difficulty-prune",
        description="Score how hard each training example is, and train on fewer of them.",
        epilog=EXAMPLES,
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        summary = module.__doc__.strip().split("\n")[0] if module.__doc__ else None
        examples = getattr(module, "EXAMPLES", None)  # which a command need not have
        command = commands.add_parser(
            name, help=summary, description=summary, epilog=examples, formatter_class=Formatter
        )
        module.add_arguments(command)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        command.set_defaults(run=module.run)
    return parser


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers a shell that asks how the line being typed may go on, and ends the process; see `argcomplete`."""
    import argcomplete

    argcomplete.autocomplete(parser, always_complete_options="long")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit status: 0 for success; 1 if a training process was killed, or if `doctor` finds no compiled kernels;
        2 for bad input, with one line on stderr; 130 after Ctrl-C and 143 after SIGTERM, which does the same.
    """
    parser = make_parser()
    if "_ARGCOMPLETE" in os.environ:
        complete(parser)
    options = parser.parse_args(arguments)
    prefix = f"difficulty-prune {options.command}"
    try:
        with sigterm_as_ctrl_c():
            return int(options.run(options))
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"{prefix}: {shown(' '.join(str(error).splitlines()))}", file=sys.stderr)
        return 2
    except BrokenProcessPool:
        print(
            f"{prefix}: a training process was killed, perhaps because memory ran out; finished trainings are on disk, "
            "and the same command with fewer --workers continues from there",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt as stop:
        print(f"{prefix}: stopped", file=sys.stderr)
        return exit_status(stop)
