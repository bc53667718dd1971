"""Reading the runs that a command was given, with warnings in a line each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from ..runs.run_set import RunSet


def load_runs(files: Iterable[Path], command: str) -> RunSet:
    """`RunSet.load`, whose warnings go to stderr in the words of a command, without a place in the code.

    Raises:
        FileNotFoundError, ValueError: as for `RunSet.load`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = RunSet.load(files)
    for warning in caught:
        print(f"difficulty-prune {command}: warning: {warning.message}", file=sys.stderr)
    return runs
