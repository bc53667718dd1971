"""Write a table of the examples: their scores, how certain these are, the labels that training suggests, decisions."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..convert.formats import write
from ..convert.score_table import ScoreTable
from ..convert.todays_table import todays_table
from ..decisions.decisions import Decisions
from ..decisions.entry import DECISIONS
from ..policies.plan import Plan
from ..runs.run_files import EXPECTED, find_run_files
from ..runs.run_set import RunSet
from ..scores.catalogue import score_names
from ..study.options import add_options, option, read_options
from ..support.counted import counted
from ..support.optional import pyarrow_parquet
from ..support.remote import Url
from .common_options import data_option, join_option, out_option
from .file_name import file_name
from .load_runs import load_runs, warnings_in_words
from .out_file import check_out
from .output import describe, tell
from .read_decisions import check_decisions, decisions_in_words, entries_of, facts_of_decisions
from .todays_data import TodaysData, todays_data

SUFFIXES: Final = (".parquet", ".csv", ".npz")
EXAMPLES: Final = """\
examples:
  a table for pandas, polars or DuckDB:
    difficulty-prune export results -o table.parquet
  two scores, for a spreadsheet:
    difficulty-prune export runs --scores el2n aum -o table.csv
  in the order of today's data, with the paths of its files:
    difficulty-prune export runs --data imagefolder:photos -o table.csv
  with what people decided, and the weights of a plan:
    difficulty-prune export runs --decisions decisions.csv --plan plan.safetensors -o table.parquet
"""


@dataclass(frozen=True)
class Options:
    """What the command is asked."""

    runs: tuple[str, ...] = field(metadata=option(EXPECTED, nargs="+", metavar="RUNS"))
    out: Path | Url = field(
        default=Path(), metadata=out_option("the table to write: .parquet, .csv or .npz", required=True)
    )
    scores: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "the scores to write; default: all that every run has", nargs="+", metavar="SCORE", offer=score_names()
        ),
    )
    data: str | None = field(
        default=None, metadata=data_option("the data as it is today, whose rows the table has", otherwise="as it was")
    )
    decisions: Path | Url | None = field(
        default=None, metadata=option("decisions of people, for a column of their own", type=file_name, metavar="FILE")
    )
    plan: Path | Url | None = field(
        default=None, metadata=option("a plan, for the weight of each example", type=file_name, metavar="FILE")
    )
    join: bool = field(default=False, metadata=join_option())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    add_options(parser, Options)


def run(parsed: argparse.Namespace) -> int:
    """Writes the table, and prints what it holds, in a sentence or as JSON."""
    options = read_options(parsed, Options)
    files = find_run_files(options.runs)
    if check_out(options.out, SUFFIXES, [*files, options.decisions, options.plan]) == ".parquet":
        pyarrow_parquet()
    decisions = None if options.decisions is None else Decisions.load(options.decisions)
    plan = None if options.plan is None else Plan.load(options.plan)
    runs = load_runs(files, "export", join=options.join)
    facts: dict[str, Any] = {"written": str(options.out), "of": describe(runs)}
    with warnings_in_words("export"):
        today = todays_data(runs, options.data, "export")
        if plan is not None:
            plan.check_data(today.size, today.ids)
        if decisions is not None:
            check_decisions(decisions, today, "export")
            facts["decisions"] = facts_of_decisions(decisions, today)
        table = table_of(runs, today, options.scores or None)
        if decisions is not None:
            add_decisions(table, decisions, today)
        if plan is not None or decisions is not None:
            table.append("weight", weights_of(plan, decisions, today))
        write(table, options.out)
    facts |= {"rows": len(table), "columns": list(table.columns), "scores": list(table.scores), "data": today.facts()}
    tell(in_words(facts, options, today), facts, parsed.json)
    return 0


def in_words(facts: dict[str, Any], options: Options, today: TodaysData) -> str:
    """One sentence."""
    size = f"{counted(facts['rows'], 'row')} and {counted(len(facts['columns']), 'column')}"
    said = [f"{options.out} has {size}: {' and '.join(facts['scores'])}"]
    said[0] += f" of {facts['of']}"
    matching = today.in_words()
    if matching is not None:
        said.append(matching)
    if options.decisions is not None:
        said.append(decisions_in_words(facts["decisions"], options.decisions))
    return "; ".join(said) + "."


def table_of(runs: RunSet, today: TodaysData, scores: tuple[str, ...] | None) -> ScoreTable:
    """A row for each of today's examples."""
    if today.match is None:
        table = ScoreTable.of(runs, scores=scores)
    else:
        facts: dict[str, Any] = {"ids": today.ids, "class_names": today.class_names, "files": today.files}
        table = todays_table(runs, today.match, scores=scores, **facts)
    table.name_classes()
    return table


def add_decisions(table: ScoreTable, decisions: Decisions, today: TodaysData) -> None:
    """A column with the decision on each example, None where there is none."""
    number = np.full(today.size, -1, np.int8)
    for place, entry in entries_of(decisions, today):
        number[place] = DECISIONS.index(entry.decision)
    table.append_words("decision", number, DECISIONS)


def weights_of(plan: Plan | None, decisions: Decisions | None, today: TodaysData) -> NDArray[np.float64]:
    """The weight of each example in the plan, or, without one, by the decisions; 0 for what is left out."""
    if plan is None:
        weight = np.ones(today.size)
        for place, entry in [] if decisions is None else entries_of(decisions, today):
            weight[place] = 0 if entry.leaves else entry.weight
        return weight
    weight = np.zeros(today.size)
    weight[plan.index.numpy()] = plan.weight.numpy()
    return weight
