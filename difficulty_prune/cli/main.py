"""The command `difficulty-prune`."""
# PYTHON_ARGCOMPLETE_OK: shells that complete all Python commands look for this

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor

from .interrupts import exit_status, sigterm_as_ctrl_c
from .parser import complete, make_parser
from .shown import shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command, whose module is imported only once the arguments are understood.

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
            return int(importlib.import_module(f"{__package__}.{options.command}").run(options))
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"{prefix}: {shown(' '.join(str(error).splitlines()))}", file=sys.stderr)
        return 2
    except BrokenExecutor:
        print(
            f"{prefix}: a training process was killed, perhaps because memory ran out; finished trainings are on disk, "
            "and the same command with fewer --workers continues from there",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt as stop:
        print(f"{prefix}: stopped", file=sys.stderr)
        return exit_status(stop)
