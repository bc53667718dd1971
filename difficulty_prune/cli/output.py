"""What commands have in common: a console for any text, the score that is meant, tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from ..runs.run_set import RunSet
from ..support.counted import counted
from .shown import shown

_WIDEST: Final = 10_000  # characters: wider than any table here


def make_console(**options: Any) -> Console:
    """A console that prints text as it is: names and paths may have brackets and colons, which rich would interpret.

    >>> make_console(width=40).print("my.module:net[small]")
    my.module:net[small]
    """
    return Console(markup=False, emoji=False, highlight=False, **options)


def tell(sentence: str, facts: dict[str, Any], as_json: bool) -> None:
    """Prints what a command did: a sentence, or the facts as JSON, in whatever the terminal can show."""
    encoding = sys.stdout.encoding or "utf-8"
    text = json.dumps(facts) if as_json else shown(sentence)
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def choose_score(runs: RunSet, asked: str | None) -> str:
    """The score that was asked for, or the first that all runs have.

    Raises:
        ValueError: the runs do not all have it, or have no score in common.
    """
    if asked is not None:
        if asked not in runs.scores:
            raise ValueError(f"score: got {asked!r}; all runs have {', '.join(runs.scores) or 'none in common'}")
        return asked
    if not runs.scores:
        raise ValueError(
            f"the {counted(len(runs), 'run has', 'runs have')} no score in common, expected one to judge them by"
        )
    return runs.scores[0]


def describe(runs: RunSet) -> str:
    """How many runs there are, of how many examples and of which architectures.

    >>> from difficulty_prune import Run
    >>> describe(RunSet(Run({"el2n": [0, s]}, architecture="mlp", seed=s) for s in range(3)))
    '3 runs of 2 examples: 3 mlp'
    """
    counts = [f"{len(runs.where(architecture=name))} {name}" for name in runs.architectures]
    return f"{counted(len(runs), 'run')} of {counted(runs.num_examples, 'example')}: {', '.join(counts)}"


def print_matrix(console: Console, title: str, names: Sequence[str], rows: Sequence[Sequence[float | None]]) -> None:
    """Prints a square matrix of correlations; columns have numbers for names, and unknown values are dashes."""
    table = Table(title, *map(str, range(1, len(names) + 1)), box=None, padding=(0, 1, 0, 0))
    for number, (name, row) in enumerate(zip(names, rows, strict=True), start=1):
        table.add_row(f"{number} {name}", *["-" if value is None else f"{value:.2f}" for value in row])
    print_whole(console, table)


def print_whole(console: Console, table: Table) -> None:
    """Prints a table as wide as it is, since rich shortens numbers and names to the width of the console."""
    whole = console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
    make_console(file=console.file, width=max(console.width, whole)).print(table)
