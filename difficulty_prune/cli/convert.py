"""Turn runs, plans and what people decided into files of other tools, and theirs into runs and decisions."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..convert.cleanlab import from_cleanlab, to_cleanlab
from ..convert.csv_table import from_csv
from ..convert.fiftyone import from_fiftyone
from ..convert.formats import read, write
from ..convert.label_studio import from_label_studio
from ..convert.npz import from_npz
from ..convert.parquet import from_parquet
from ..convert.paths import to_paths
from ..convert.score_table import ScoreTable
from ..convert.weights import to_weights
from ..data import IndexedDataset
from ..dataset_facts import files_of
from ..decisions.decisions import Decisions
from ..decisions.entry import DECISIONS
from ..policies.plan import Plan
from ..runs.run import Run
from ..runs.run_files import EXPECTED, find_run_files
from ..runs.run_set import RunSet
from ..scores.catalogue import score_names
from ..study.options import add_options, option, read_options
from ..study.training_part import part_of_plan
from ..support.counted import counted
from ..support.files import atomic_file
from ..support.optional import pyarrow_parquet
from ..support.remote import Url, path_or_url
from ..support.table_rows import TABLE_SUFFIXES
from .common_options import data_option, out_option
from .load_runs import load_runs, warnings_in_words
from .named_data import open_named_data
from .out_file import check_out
from .output import choose_score, describe, tell
from .todays_data import left_out

SOURCES: Final = {
    **dict.fromkeys(("runs", "csv", "parquet", "npz", "aum", "cartography"), "scores"),
    "plan": "a plan",
    **dict.fromkeys(("cleanlab", "fiftyone", "label-studio"), "decisions"),
}
"""What `--from` may be, and what comes from there."""

TARGETS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "run": ("scores", (".safetensors",)),
    "csv": ("scores", (".csv",)),
    "parquet": ("scores", (".parquet",)),
    "npz": ("scores", (".npz",)),
    "aum": ("scores", (".csv",)),
    "cleanlab": ("scores", (".npz",)),
    "fiftyone": ("scores", (".csv", ".json")),
    "label-studio": ("scores", (".json",)),
    "weights": ("a plan", (".csv", ".parquet")),
    "paths": ("a plan", (".txt",)),
    "decisions": ("decisions", TABLE_SUFFIXES),
}
"""What `--to` may be, what it is made of, and the suffixes of its files."""

NOT_FILES: Final = {
    "cartography": "it records the logits of each epoch, which runs do not hold; see dp.convert.to_cartography",
    "huggingface": "datasets are objects in Python; see dp.convert.to_huggingface, or let them read a .parquet by id",
    "spotlight": "issues are objects in Python; see dp.convert.to_spotlight, or open a .csv or .parquet in Spotlight",
}
"""Formats that no file of ours can be, and why."""

NEEDED_BY: Final = {
    "architecture": ("to run",),
    "seed": ("to run",),
    "score": ("to label-studio",),
    "root": ("to fiftyone", "to label-studio", "to paths", "from fiftyone"),
    "data": ("to weights", "to paths", "from cleanlab"),
    "tags": ("from fiftyone",),
    "label_field": ("from fiftyone",),
    "choices": ("from label-studio",),
    "relabel": ("from cleanlab",),
}
"""Options that only some conversions know."""

EXAMPLES: Final = """\
examples:
  a table, by the suffix: .csv, .parquet or .npz:
    difficulty-prune convert runs -o scores.csv
  tasks for people to judge, and what they said:
    difficulty-prune convert runs --to label-studio --root https://host/photos -o tasks.json
    difficulty-prune convert export.json --from label-studio -o decisions.csv
  scores of another tool as a run:
    difficulty-prune convert aum_values.csv --from aum -o runs/aum.safetensors
  index and weight of every example, from a plan:
    difficulty-prune convert plan.safetensors --to weights -o weights.csv
"""


@dataclass(frozen=True)
class Options:
    """What the command is asked."""

    inputs: tuple[str, ...] = field(
        metadata=option(f"one file, or the folder of cartography's; of runs: {EXPECTED}", nargs="+", metavar="INPUT")
    )
    out: Path | Url = field(default=Path(), metadata=out_option("the file to write", required=True))
    source: str | None = field(
        default=None,
        metadata=option(
            "what the input is; default: a table of scores by its suffix .csv, .parquet or .npz, else runs",
            flag="--from",
            choices=tuple(SOURCES),
        ),
    )
    target: str | None = field(
        default=None,
        metadata=option(
            "what to write; default: by the suffix a run (.safetensors) or a table of scores; of a plan, paths (.txt)",
            flag="--to",
            choices=(*TARGETS, *NOT_FILES),
        ),
    )
    root: str | None = field(
        default=None, metadata=option("what goes before each path, or is taken from it", metavar="DIR")
    )
    score: str | None = field(
        default=None,
        metadata=option(
            "what orders the tasks of Label Studio; default: the first score of the runs", offer=score_names()
        ),
    )
    data: str | None = field(default=None, metadata=data_option("the data, for ids and paths of its examples"))
    tags: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "FiftyOne's tags and what they mean, as in mislabeled=wrong; default: each decision is a tag",
            nargs="+",
            metavar="TAG=DECISION",
        ),
    )
    label_field: str | None = field(
        default=None, metadata=option("FiftyOne's field with the corrected label", metavar="NAME")
    )
    choices: str | None = field(
        default=None, metadata=option("Label Studio's <Choices> to read, where there are several", metavar="NAME")
    )
    relabel: bool = field(
        default=False, metadata=option("take the label that cleanlab predicts for the right one", action="store_true")
    )
    architecture: str | None = field(
        default=None, metadata=option("of the run to write; default: the name of the format", metavar="NAME")
    )
    seed: int | None = field(default=None, metadata=option("of the run to write; default: 0", type=int))


@dataclass(frozen=True)
class Job:
    """What is to be turned into what."""

    source: str
    target: str
    options: Options

    @classmethod
    def of(cls, options: Options) -> Job:
        """What is asked, with what follows from suffixes.

        Raises:
            ValueError: it is not clear, or cannot be; or an option that is of no use here.
        """
        source = options.source or _guessed_source(options)
        target = options.target or _guessed_target(options.out, SOURCES[source])
        if target in NOT_FILES:
            raise ValueError(f"to: {target} is no file that can be written here: {NOT_FILES[target]}")
        gives, takes = SOURCES[source], TARGETS[target][0]
        if gives != takes:
            raise ValueError(f"to: {target} is made of {takes}, but from {source} come {gives}")
        if source == "runs" and target == "run":
            raise ValueError("to: the input is runs already; a table takes their means, as in -o scores.csv")
        if source != "runs" and len(options.inputs) > 1:
            raise ValueError(f"got {len(options.inputs)} inputs, expected one: only runs may be several")
        for name, users in NEEDED_BY.items():
            given = getattr(options, name)
            asked = given is not None and given != () and given is not False
            if asked and not {f"from {source}", f"to {target}"} & set(users):
                flags = ", ".join(f"--{user}" for user in users)
                said = name.replace("_", "-")
                raise ValueError(f"--{said}: it is of no use from {source} to {target}, but with {flags}")
        return cls(source, target, options)


def _guessed_source(options: Options) -> str:
    first = Path(options.inputs[0]).suffix.lower()
    if options.target in ("weights", "paths") or (options.target is None and options.out.suffix.lower() == ".txt"):
        if Path(options.inputs[0]).is_dir() or first in (".csv", ".parquet", ".npz"):
            raise ValueError(
                f"to: {options.target or 'paths'} is made of a plan, but {options.inputs[0]} is none; see "
                "`difficulty-prune plan`"
            )
        return "plan"
    if first in (".json", ".jsonl"):
        raise ValueError(f"from: {options.inputs[0]} may be of several tools; say --from label-studio or fiftyone")
    return first[1:] if first in (".csv", ".parquet", ".npz") else "runs"


def _guessed_target(out: Path | Url, gives: str) -> str:
    if gives == "decisions":
        return "decisions"
    suffix = out.suffix.lower()
    by_suffix = {".txt": "paths"} if gives == "a plan" else {".safetensors": "run"}
    by_suffix |= {} if gives == "a plan" else {".csv": "csv", ".parquet": "parquet", ".npz": "npz"}
    if suffix not in by_suffix:
        raise ValueError(
            f"{out}: of {gives}, the suffix {suffix!r} does not say what to write, but {', '.join(by_suffix)} do; "
            f"else say --to {' or '.join(name for name, (takes, _) in TARGETS.items() if takes == gives)}"
        )
    return by_suffix[suffix]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `convert`."""
    add_options(parser, Options)


def run(parsed: argparse.Namespace) -> int:
    """Converts, and prints what was written, in a sentence or as JSON."""
    options = read_options(parsed, Options)
    job = Job.of(options)
    files = find_run_files(options.inputs) if job.source == "runs" else [path_or_url(options.inputs[0])]
    if isinstance(files[0], Path) and not files[0].exists():
        raise FileNotFoundError(f"{files[0]}: no such file")
    if isinstance(files[0], Url) and SOURCES[job.source] != "a plan" and job.source != "runs":
        raise ValueError(f"{files[0]}: such a file is read from a folder of this machine alone; copy it there first")
    if check_out(options.out, TARGETS[job.target][1], files) == ".parquet":
        pyarrow_parquet()
    with warnings_in_words("convert"):
        work: Callable[[Job, Sequence[Path | Url]], tuple[str, dict[str, Any]]] = {
            "scores": convert_scores,
            "a plan": convert_plan,
            "decisions": convert_decisions,
        }[SOURCES[job.source]]
        said, facts = work(job, files)
    facts = {"written": str(options.out), "from": job.source, "to": job.target, **facts}
    tell(f"{options.out} {said}.", facts, parsed.json)
    return 0


def convert_scores(job: Job, files: Sequence[Path | Url]) -> tuple[str, dict[str, Any]]:
    """From runs, or from scores of another tool."""
    scores, of = read_scores(job, files)
    size = scores.num_examples if isinstance(scores, RunSet) else len(scores)
    if isinstance(scores, ScoreTable) and job.target in ("run", "aum", "cleanlab", "label-studio"):
        scores = RunSet([scores.to_run(**facts_of_run(job))])
    written = write_scores(scores, job)
    return f"holds {' and '.join(written)} of {of}", {"examples": size, "holds": list(written)}


def write_scores(scores: RunSet | ScoreTable, job: Job) -> tuple[str, ...]:
    """Writes them, and gives the names of what was written."""
    out, root, names = job.options.out, job.options.root, scores.scores
    if isinstance(scores, ScoreTable) or job.target not in ("run", "cleanlab", "label-studio"):
        options = {"root": root or ""} if job.target == "fiftyone" else {}
        write(scores, out, job.target, **options)
        return ("aum",) if job.target == "aum" else names
    if job.target == "run":
        scores[0].save(out)
        return names
    if job.target == "cleanlab":
        arrays = to_cleanlab(scores)
        with atomic_file(out) as file:
            np.savez(file, labels=arrays["labels"], pred_probs=arrays["pred_probs"])
        return tuple(arrays)
    score = choose_score(scores, job.options.score)
    write(scores, out, job.target, score=score, data=_shown(scores, root))
    return (score,)


def _shown(runs: RunSet, root: str | None) -> list[str]:
    """What Label Studio shows of each example."""
    if runs.ids is None:
        raise ValueError("to: tasks show the files that the ids of the runs name, but the runs have no ids")
    start = "" if root is None else f"{root.rstrip('/')}/"
    return [f"{start}{name}" for name in runs.ids.tolist()]


def facts_of_run(job: Job) -> dict[str, Any]:
    """Architecture and seed of a run that is made."""
    return {"architecture": job.options.architecture or job.source, "seed": job.options.seed or 0}


def read_scores(job: Job, files: Sequence[Path | Url]) -> tuple[RunSet | ScoreTable, str]:
    """Runs, a run with the scores of another tool, or a table of scores; and of what they are."""
    if job.source == "runs":
        runs = load_runs(files, "convert")
        return runs, describe(runs)
    readers: dict[str, Callable[[Path], ScoreTable]] = {"csv": from_csv, "parquet": from_parquet, "npz": from_npz}
    if job.source in readers:
        table = readers[job.source](Path(files[0]))
        if not len(table) or not table.scores:
            named = ", ".join(table.columns) or "none"
            raise ValueError(
                f"{files[0]}: got {counted(len(table), 'row')} with the columns {named}, none of which is a score; if "
                "it is of another tool, say --from aum, cleanlab or fiftyone"
            )
        return table, f"{counted(len(table), 'example')} in {files[0]}"
    made: Run = read(files[0], job.source, **facts_of_run(job))
    return RunSet([made]), f"{counted(len(made), 'example')} in {files[0]}"


def convert_plan(job: Job, files: Sequence[Path | Url]) -> tuple[str, dict[str, Any]]:
    """From a plan: weights of all examples, or the files that it keeps."""
    plan, options = Plan.load(files[0]), job.options
    data, more = None, ""
    if options.data is not None:
        whole = open_named_data(options.data)
        data = part_of_plan(plan, whole, options.data)
        plan.check_data(len(data), data.ids)
        more = "" if len(data) == len(whole) else f"; {left_out(len(whole) - len(data))}"
    facts: dict[str, Any] = {"kept": len(plan)}
    if job.target == "paths":
        to_paths(plan, _paths(data, options.root), options.out)
        return f"lists the {counted(len(plan), 'file')} that {files[0]} keeps{more}", facts
    size = plan.summary().get("examples") if data is None else len(data)
    if not isinstance(size, int):
        raise ValueError(f"{files[0]}: the plan does not say how many examples its data has; give --data")
    to_weights(plan, options.out, size)
    of = counted(size, "example")
    return f"has the weights of {of}, {len(plan):,} of which {files[0]} keeps{more}", {**facts, "examples": size}


def _paths(data: IndexedDataset | None, root: str | None) -> list[str]:
    if data is None:
        raise ValueError("to: a plan knows no names of files; give --data, or let `difficulty-prune plan` write .txt")
    files = files_of(data.dataset)
    if files is None or data.ids is None:
        raise ValueError(f"data: {type(data.dataset).__name__} does not know its files, as an image folder does")
    return files if root is None else [str(Path(root, name)) for name in data.ids.tolist()]


def convert_decisions(job: Job, files: Sequence[Path | Url]) -> tuple[str, dict[str, Any]]:
    """From what people, or cleanlab, said of examples."""
    options = job.options
    if job.source == "cleanlab":
        ids = None
        if options.data is not None:
            ids = open_named_data(options.data).ids
            if ids is None:
                raise ValueError(f"data: {options.data} names no examples; leave --data out to name them by index")
        decisions = from_cleanlab(files[0], ids=ids, relabel=options.relabel)
    elif job.source == "fiftyone":
        tags = _meanings(options.tags) if options.tags else None
        decisions = from_fiftyone(files[0], root=options.root, tags=tags, label_field=options.label_field)
    else:
        decisions = from_label_studio(files[0], from_name=options.choices)
    if not len(decisions):
        raise ValueError(f"{files[0]}: there are no decisions in it, as {job.source} would give them")
    Decisions.save(decisions, options.out)
    number = {word: sum(entry.decision == word for entry in decisions) for word in DECISIONS}
    return f"holds {decisions}", {"decisions": len(decisions), **number}


def _meanings(tags: tuple[str, ...]) -> dict[str, str]:
    """Tag -> decision."""
    for tag in tags:
        if not all(tag.partition("=")):
            raise ValueError(f"tags: got {tag!r}, expected a tag and what it means, as in mislabeled=wrong")
    return {tag.rpartition("=")[0]: tag.rpartition("=")[2] for tag in tags}
