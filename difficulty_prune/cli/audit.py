"""Write a page in which people look at suspicious examples and decide: one HTML file, which needs no network."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.progress import Progress

from ..audit.report import AuditReport
from ..audit.write import EMBEDDED, write
from ..data import IndexedDataset
from ..policies.plan import Plan
from ..runs.run_files import EXPECTED, find_run_files
from ..study.options import add_options, option, read_options
from ..study.plant import Planted, read_planted
from ..study.training_part import check_rows
from ..support.counted import counted
from ..support.remote import Url
from .common_options import data_option, join_option, out_option
from .file_name import file_name
from .load_runs import load_runs, warnings_in_words
from .out_file import check_out
from .output import make_console, tell
from .todays_data import left_out, open_training_part

SUFFIXES: Final = (".html", ".htm")
EXAMPLES: Final = """\
examples:
  difficulty-prune audit results --data imagefolder:photos -o audit.html
  difficulty-prune audit runs --data your.module:function -o audit.html     # texts, rows of numbers, your own images
  difficulty-prune audit runs --data imagefolder:photos --plan plan.safetensors -o audit.html   # and what is dropped
  difficulty-prune plan runs --exclude decisions.csv --keep 1 -o plan.safetensors     # what was decided, in a plan
"""


@dataclass(frozen=True)
class Options:
    """What the command is asked."""

    runs: tuple[str, ...] = field(metadata=option(EXPECTED, nargs="+", metavar="RUNS"))
    data: str = field(default="", metadata=data_option("the data that the runs are of", required=True))
    out: Path | Url = field(default=Path("audit.html"), metadata=out_option("the page to write"))
    score: str | None = field(
        default=None, metadata=option("the score to sort by; default: the one that finds wrong labels best")
    )
    plan: Path | Url | None = field(
        default=None, metadata=option("a plan, to look at what it drops", type=file_name, metavar="FILE")
    )
    most: int = field(
        default=EMBEDDED, metadata=option("how many examples the page shows at most", type=int, metavar="M")
    )
    sampled: int | None = field(
        default=None,
        metadata=option("how many of them are drawn at random; default: 500, or a fifth", type=int, metavar="S"),
    )
    side: int = field(default=128, metadata=option("pixels of the larger side of an image", type=int))
    seed: int = field(default=0, metadata=option("of what is drawn at random", type=int))
    title: str | None = field(default=None, metadata=option("of the page; default: its file name"))
    join: bool = field(default=False, metadata=join_option())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `audit`."""
    add_options(parser, Options)


def run(parsed: argparse.Namespace) -> int:
    """Writes the page, and prints what it shows, in a sentence or as JSON."""
    options = read_options(parsed, Options)
    files = find_run_files(options.runs)
    check_out(options.out, SUFFIXES, [*files, options.plan])
    plan = None if options.plan is None else Plan.load(options.plan)
    runs = load_runs(files, "audit", join=options.join)
    planted = next((found for found in map(read_planted, options.runs) if found is not None), None)
    with warnings_in_words("audit"):
        data, aside = open_training_part(runs, options.data, "audit")
        check_rows(runs, data)
        if planted is not None:
            data = IndexedDataset(data.dataset, data.key, ids=data.ids, decisions=planted.decisions())
        with Progress(console=make_console(stderr=True), transient=True) as progress:
            task = progress.add_task("reading examples", total=min(options.most, len(data)))
            report = write(
                runs,
                data,
                options.out,
                score=options.score,
                plan=plan,
                most=options.most,
                sampled=options.sampled,
                side=options.side,
                seed=options.seed,
                title=options.title,
                report=lambda number: progress.advance(task, number),
            )
    facts: dict[str, Any] = report.to_dict()
    sentence = str(report)
    if aside:
        facts["set_aside"] = aside
        sentence += f"; {left_out(aside)}"
    if planted is not None:
        facts["planted"] = found_among_first(report, planted, data)
        sentence += f"; {in_words(facts['planted'])}"
    tell(f"{sentence}.", facts, parsed.json)
    return 0


def found_among_first(report: AuditReport, planted: Planted, data: IndexedDataset) -> dict[str, int]:
    """How many of the labels that were made wrong are among as many cards, and among twice as many."""
    position = planted.decisions().check(data).position
    number = len(position)
    first = [int(np.isin(report.index[: count * number], position).sum()) for count in (1, 2)]
    return {"number": number, "cards": number, "among_first": first[0], "among_twice_as_many": first[1]}


def in_words(facts: dict[str, int]) -> str:
    """A part of a sentence.

    >>> in_words({"number": 43, "cards": 43, "among_first": 39, "among_twice_as_many": 43})
    '43 labels were made wrong on purpose, 39 of which are among the first 43 cards and 43 among the first 86'
    """
    labels, cards = counted(facts["number"], "label was", "labels were"), counted(facts["cards"], "card")
    return (
        f"{labels} made wrong on purpose, {facts['among_first']} of which are among the first {cards} and "
        f"{facts['among_twice_as_many']} among the first {2 * facts['cards']}"
    )
