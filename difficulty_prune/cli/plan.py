"""Write a plan: which examples to train on, by the mean difficulty of some runs and by what people decided."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..convert.paths import to_paths
from ..decisions.decisions import Decisions
from ..policies.base import Keeping, number_kept
from ..policies.compose import PerClass, within
from ..policies.plan import Plan, make_plan
from ..policies.without_wrong import WithoutWrong
from ..runs.run_files import EXPECTED, find_run_files
from ..runs.run_set import RunSet
from ..scores.catalogue import score_names
from ..study.options import add_options, option, read_options
from ..study.settings import POLICIES, WITHOUT_WRONG
from ..support.checks import check_fraction
from ..support.counted import counted
from ..support.randomness import generator_from
from ..support.remote import Url
from ..support.table_rows import write_rows
from .common_options import data_option, join_option, out_option
from .file_name import file_name
from .load_runs import load_runs, warn, warnings_in_words
from .out_file import check_out
from .output import choose_score, tell
from .read_decisions import check_decisions, decisions_in_words, entries_of, facts_of_decisions
from .suspects import find_suspects, warn_of_suspects
from .todays_data import TodaysData, labels_then, todays_data

SUFFIXES: Final = (".safetensors", ".csv", ".txt")
EXAMPLES: Final = """\
examples:
  a plan for dp.PruneSampler:
    difficulty-prune plan results --keep 0.7 -o plan.safetensors
  a list of today's files, for YOLO and others that train on one:
    difficulty-prune plan runs --keep 0.5 --data imagefolder:photos -o train.txt
  what people decided goes first:
    difficulty-prune plan runs --keep 0.9 --exclude decisions.csv -o plan.csv
  a random part of what does not look mislabelled:
    difficulty-prune plan results --keep 0.7 --policy without-wrong -o plan.safetensors
  the same share of every class:
    difficulty-prune plan runs --keep 0.3 --policy stratified --per-class -o plan.safetensors
"""


@dataclass(frozen=True)
class Options:
    """What the command is asked.

    Raises:
        TypeError, ValueError: a share to keep that is no such fraction, or a policy that cannot be made with it.
    """

    runs: tuple[str, ...] = field(metadata=option(EXPECTED, nargs="+", metavar="RUNS"))
    out: Path | Url = field(
        default=Path(),
        metadata=out_option(
            "the file to write: .safetensors for dp.Plan.load, .csv with id, index and weight, .txt with a path a line",
            required=True,
        ),
    )
    keep: float = field(
        default=0.0,
        metadata=option("fraction of the examples to keep, in (0, 1]", type=float, required=True, metavar="SHARE"),
    )
    policy: str = field(
        default="hardest", metadata=option("which examples to keep", choices=(*POLICIES, WITHOUT_WRONG))
    )
    per_class: bool = field(default=False, metadata=option("keep the same share of every class", action="store_true"))
    score: str | None = field(
        default=None, metadata=option("what ranks them; default: the first score of the runs", offer=score_names())
    )
    data: str | None = field(
        default=None,
        metadata=data_option("the data as it is today, compared with the runs by id", otherwise="as it was"),
    )
    exclude: Path | Url | None = field(
        default=None,
        metadata=option(
            "decisions of people: examples to drop, with wrong labels, with weights", type=file_name, metavar="FILE"
        ),
    )
    join: bool = field(default=False, metadata=join_option())
    seed: int = field(default=0, metadata=option("of ties and draws", type=int))

    def __post_init__(self) -> None:
        check_fraction(self.keep, "keep")
        make_policy(self)
        generator_from(self.seed)


def make_policy(options: Options) -> Keeping | PerClass:
    """The policy, which keeps examples without a score; of `without-wrong`, that of what is left."""
    name = "random" if options.policy == WITHOUT_WRONG else options.policy
    made = cast("Keeping | PerClass", POLICIES[name](options.keep))
    if isinstance(made, PerClass) and options.per_class:
        raise ValueError(f"per_class: {options.policy} keeps the same share of every class already; leave it out")
    inner = made.policy if isinstance(made, PerClass) else made
    keeping = cast("Keeping", replace(cast("Any", inner), unseen="keep"))
    return PerClass(keeping) if isinstance(made, PerClass) or options.per_class else keeping


def folder_of(file: Path | Url) -> str:
    """Of a file of this machine, or of one under a URL."""
    return str(file).rpartition("/")[0] if isinstance(file, Url) else str(file.absolute().parent)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    add_options(parser, Options)


def run(parsed: argparse.Namespace) -> int:
    """Writes the plan, and prints what it keeps and why, in a sentence or as JSON."""
    options = read_options(parsed, Options)
    files = find_run_files(options.runs)
    suffix = check_out(options.out, SUFFIXES, [*files, options.exclude])
    if suffix == ".safetensors" and folder_of(options.out) in map(folder_of, files):
        raise ValueError(f"{options.out}: this folder holds the runs, and is read as such; write the plan elsewhere")
    decisions = None if options.exclude is None else Decisions.load(options.exclude)
    runs = load_runs(files, "plan", join=options.join)
    score = choose_score(runs, options.score)
    with warnings_in_words("plan"):
        today = todays_data(runs, options.data, "plan")
        names = None if suffix != ".txt" else names_of_files(today)
        made = collect(runs, score, today, decisions, options)
        if names is not None:
            to_paths(made.plan, names, options.out)
        elif suffix == ".csv":
            write_csv(made, today, options.out)
        else:
            made.plan.save(options.out)
    if suffix == ".txt" and made.facts.get("decisions", {}).get("relabelled"):
        warn(
            "plan", "a list of paths holds no corrected labels: the relabelled examples are in it under their old ones"
        )
    tell(made.in_words(options), {"written": str(options.out), **made.facts}, parsed.json)
    return 0


@dataclass(frozen=True)
class Made:
    """A plan and how it came about.

    Attributes:
        labels: [N], corrected, or None.
        facts: for JSON.
        data: how today's examples match the runs, in words; None where the runs are the data.
    """

    plan: Plan
    labels: NDArray[np.int64] | None
    facts: dict[str, Any]
    data: str | None

    def in_words(self, options: Options) -> str:
        """One sentence."""
        facts = self.facts
        mean = "one run" if facts["runs"] == 1 else f"the mean of {facts['runs']:,} runs"
        share = f"{facts['kept']:,} of {facts['examples']:,} examples ({facts['kept'] / facts['examples']:.1%})"
        said = [f"{options.out} keeps {share}: {options.policy}{' per class' * options.per_class} by {facts['score']}"]
        said[0] += f", {mean}"
        if self.data is not None:
            said.append(self.data)
        without = {name: number for name, number in facts["without_score"].items() if number}
        if without:
            kinds = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in without.items())
            said.append(f"kept without a score: {kinds}")
        if facts["likely_wrong"]["number"] or options.policy == WITHOUT_WRONG:
            said.append("left out: {left_out:,} of {number:,} that are likely wrong".format(**facts["likely_wrong"]))
        if options.exclude is not None:
            said.append(decisions_in_words(facts["decisions"], options.exclude))
        return "; ".join(said) + "."


def collect(runs: RunSet, score: str, today: TodaysData, decisions: Decisions | None, options: Options) -> Made:
    """Plans what is left after the decisions.

    Raises:
        TypeError, ValueError: decisions that do not fit the data, nothing to rank, or a class that would be dropped.
    """
    difficulty = today.align(runs.difficulty(score))
    new = np.zeros(today.size, bool) if today.match is None else today.match.positions < 0
    never = np.isnan(difficulty) & ~new
    relabelled, labels = np.zeros(today.size, bool), today.labels
    corrections = {} if decisions is None else check_decisions(decisions, today, "plan")
    if decisions is not None and corrections:
        positions = np.fromiter(corrections, np.int64, len(corrections))
        then = labels_then(runs, today)[positions]
        relabelled[positions] = then != np.fromiter(corrections.values(), np.int64, len(corrections))
        difficulty[relabelled] = np.nan  # its score is of another question
        labels = None if labels is None else decisions.relabel(labels, today.source, today.class_names)
    everything = torch.arange(today.size)
    base = Plan(everything, torch.ones(today.size)) if decisions is None else decisions.plan(today.source)
    among = base.index.numpy()
    if np.isnan(difficulty[among]).all():
        raise ValueError(f"score: none of the {len(among)} examples to choose from has a {score}, so nothing is ranked")
    inner = make_policy(options)
    policy: Keeping | PerClass | WithoutWrong = inner
    per_class = isinstance(inner, PerClass)
    classes = None if labels is None else torch.tensor(labels)
    if per_class and classes is None:
        raise ValueError("per_class: the labels are not known; give --data, or score with tracker.finish(dataset=...)")
    decided = [] if decisions is None else [place for place, _ in entries_of(decisions, today)]
    ranked = among[~np.isnan(difficulty[among])]
    suspects = find_suspects(runs, today, np.setdiff1d(ranked, decided), options.policy)
    if options.policy == WITHOUT_WRONG:
        policy = WithoutWrong(inner, wrong=suspects[: len(ranked) - number_kept(options.keep, len(ranked))])
    chosen = within(
        base,
        policy,
        difficulty,
        classes if per_class else None,
        generator_from(options.seed, 0),  # as a PruneSampler of this seed
    )
    if classes is not None:
        check_classes(chosen.index, base.index, classes, today.class_names, options)
    kept = int(np.isin(suspects, chosen.index.numpy()).sum())
    warn_of_suspects(options.policy, kept, len(suspects), len(chosen.index), len(among))
    if policy.redrawn:
        warn("plan", f"{options.policy} draws anew in every epoch; a plan holds one draw, that of seed {options.seed}")
    whole = make_plan(chosen.index, chosen.weight, today.size, repr(policy), classes, may_drop_classes=True)
    kinds = {"new": new, "never_presented": never & ~relabelled, "relabelled": relabelled & ~new}
    facts: dict[str, Any] = {
        **whole.summary(),
        "score": score,
        "runs": len(runs),
        "seed": options.seed,
        "without_score": {name: int(mask[among].sum()) for name, mask in kinds.items()},
        "data": today.facts(),
        "likely_wrong": {"number": len(suspects), "left_out": len(suspects) - kept},
    }
    if decisions is not None:
        facts["decisions"] = facts_of_decisions(decisions, today)
    plan = Plan(chosen.index, chosen.weight, facts)
    return Made(plan if today.ids is None else plan.with_ids(today.ids), labels, facts, today.in_words())


def check_classes(kept: Tensor, among: Tensor, labels: Tensor, names: tuple[str, ...] | None, options: Options) -> None:
    """ValueError if the policy drops a whole class of those to choose from."""
    total = np.bincount(labels[among].numpy())
    left = np.bincount(labels[kept].numpy(), minlength=len(total))
    lost = np.flatnonzero((total > 0) & (left == 0))
    if len(lost):
        name = str(lost[0]) if names is None else repr(names[lost[0]])
        raise ValueError(
            f"{options.policy} with keep {options.keep:g} would drop class {name} entirely "
            f"({counted(int(total[lost[0]]), 'example')}): keep more, or give --per-class"
        )


def names_of_files(today: TodaysData) -> list[str]:
    """What a list of paths holds for each example.

    Raises:
        ValueError: nothing names their files.
    """
    if today.files is not None:
        return today.files
    if today.ids is None or today.ids.dtype != object:
        got = "there are no ids" if today.ids is None else f"ids are numbers, such as {today.ids[0]}"
        raise ValueError(
            f"a list of paths needs the names of files, but {got}; give --data imagefolder:DIR, or -o x.csv"
        )
    return list(today.ids.tolist())


def write_csv(made: Made, today: TodaysData, path: Path | Url) -> None:
    """Writes a row for each example that the plan keeps."""
    known = {"id": today.ids, "path": today.files, "index": np.arange(today.size), "label": made.labels}
    columns = {name: values for name, values in known.items() if values is not None}
    names = None if made.labels is None else today.class_names
    header = (*columns, *(() if names is None else ("label_name",)), "weight")

    def rows() -> Iterator[dict[str, Any]]:
        for place, weight in zip(made.plan.index.tolist(), made.plan.weight.tolist(), strict=True):
            row = {name: values[place] for name, values in columns.items()}
            if names is not None:
                row["label_name"] = names[row["label"]] if row["label"] < len(names) else None
            yield {**row, "weight": weight}

    write_rows(path, header, rows())
