"""The run files that a command is given, and the tables that it prints."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..runs.run_set import RunSet

_WIDEST = 10_000
WHERE = "run files, a folder of them, or the --out of a study"


def run_files(named: Iterable[str]) -> list[Path]:
    """The run files of what was named, sorted and each once: files, patterns, folders, or the folder of a study.

    Raises:
        FileNotFoundError: nothing there.
    """
    found: list[Path] = []
    for name in named:
        path = Path(name)
        if path.is_dir():
            folder = path / "runs" if (path / "runs").is_dir() else path
            files = sorted(folder.glob("*.safetensors"))
        else:
            files = [path] if path.is_file() else sorted(map(Path, glob.glob(name)))
        if not files:
            raise FileNotFoundError(f"{name}: no run files there; expected {WHERE}")
        found += files
    return list({os.path.realpath(path): path for path in found}.values())


def choose_score(runs: RunSet, asked: str | None) -> str:
    """The score that was asked for, or the first that all runs have.

    Raises:
        ValueError: there is none.
    """
    if asked is not None:
        if asked not in runs.scores:
            raise ValueError(f"score: got {asked!r}; all runs have {', '.join(runs.scores) or 'none in common'}")
        return asked
    if not runs.scores:
        raise ValueError("the runs have no score in common")
    return runs.scores[0]


def describe(runs: RunSet) -> str:
    """How many runs of what.

    >>> from difficulty_prune import Run
    >>> describe(RunSet(Run({"el2n": [0, s]}, architecture="mlp", seed=s) for s in range(3)))
    '3 runs of 2 examples: 3 mlp'
    """
    counts = [f"{len(runs.where(architecture=name))} {name}" for name in runs.architectures]
    return f"{len(runs)} runs of {runs.num_examples:,} examples: {', '.join(counts)}"


def print_matrix(console: Console, title: str, names: Sequence[str], rows: Sequence[Sequence[float | None]]) -> None:
    """Prints a square matrix of correlations, its columns by number; a dash where one is not known."""
    table = Table(title, *map(str, range(1, len(names) + 1)), box=None, padding=(0, 1, 0, 0))
    for number, (name, row) in enumerate(zip(names, rows, strict=True), start=1):
        table.add_row(f"{number} {name}", *["-" if value is None else f"{value:.2f}" for value in row])
    whole = console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
    Console(file=console.file, width=max(console.width, whole)).print(table)  # else rich would shorten the numbers
