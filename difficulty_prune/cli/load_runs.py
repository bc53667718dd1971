"""Reading the runs that a command was given, and warnings in a line each."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..runs.run_set import RunSet
from .shown import shown


def load_runs(files: Iterable[str | os.PathLike[str]], command: str, *, join: bool = False) -> RunSet:
    """`RunSet.load`, whose warnings are in the words of a command.

    Args:
        files: of runs.
        command: for the words.
        join: join runs over several versions of the data by their ids.

    Raises:
        FileNotFoundError, ValueError: as for `RunSet.load`.
    """
    with warnings_in_words(command):
        return RunSet.load(files, join="ids" if join else None)


@contextmanager
def warnings_in_words(command: str) -> Iterator[None]:
    """What the block warns users of goes to stderr in the words of a command: once, without a place in the code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        warn(command, message)


def warn(command: str, message: str) -> None:
    """Writes a warning in a line to stderr."""
    print(f"difficulty-prune {command}: warning: {shown(message)}", file=sys.stderr)
