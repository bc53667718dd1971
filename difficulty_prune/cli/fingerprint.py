"""Show which examples tell architectures apart, and which architecture made the scores of a run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from numpy.typing import NDArray
from rich.console import Console

from ..fingerprint.accuracy import Accuracy
from ..fingerprint.architecture_fingerprint import ArchitectureFingerprint
from ..fingerprint.compare_selectors import Comparison, compare_selectors
from ..fingerprint.sensitive_examples import SensitiveExamples, Test, sensitive_examples
from ..plots.axes import save_png
from ..plots.fingerprint_figures import fingerprint_accuracy, manhattan
from ..runs.run import Run
from ..runs.run_files import EXPECTED, find_run_files
from ..runs.run_set import RunSet
from ..scores.catalogue import score_names
from ..study.cluster_address import cluster_address
from ..study.elsewhere import open_executor
from ..study.options import add_options, option, read_options
from ..support.counted import counted
from ..support.remote import Url
from .common_options import executor_option, join_option
from .file_name import file_name
from .load_runs import load_runs, warn
from .output import choose_score, describe, make_console
from .shown import shown

RUNS_TO_COMPARE: Final = 4  # of each architecture: half of them choose the examples, the other half is clustered

EXAMPLES: Final = """\
examples:
  which examples tell the architectures of a study apart:
    difficulty-prune fingerprint results
  which architecture made a run that somebody gave you:
    difficulty-prune fingerprint results --identify given.safetensors
  a fingerprint of 100 examples, kept for later, with figures:
    difficulty-prune fingerprint results --examples 100 --save fingerprint.safetensors --figures figures
  thousands of runs, on the workers of a Dask cluster:
    difficulty-prune fingerprint /shared/results --executor dask:tcp://10.0.0.1:8786
  whether the sensitive examples do better than random and hardest ones:
    difficulty-prune fingerprint results --compare
"""


@dataclass(frozen=True)
class Options:
    """What the command is asked.

    Raises:
        ValueError: the executor is no address.
    """

    runs: tuple[str, ...] = field(metadata=option(f"runs of known architectures: {EXPECTED}", nargs="+", metavar="DIR"))
    score: str | None = field(
        default=None,
        metadata=option("the score to compare; default: the first score of the runs", offer=score_names()),
    )
    examples: int = field(
        default=10, metadata=option("how many sensitive examples make the fingerprint", type=int, metavar="K")
    )
    test: Test = field(
        default="permutation", metadata=option("how an example is tested for being sensitive", choices=get_args(Test))
    )
    identify: tuple[str, ...] = field(
        default=(), metadata=option("runs to recognise; they are not learned from", nargs="+", metavar="RUN")
    )
    compare: bool = field(
        default=False, metadata=option("also compare with random, hardest and PCA-chosen examples", action="store_true")
    )
    save: Path | Url | None = field(
        default=None, metadata=option("where to keep the fingerprint (.safetensors)", type=file_name, metavar="FILE")
    )
    figures: Path | None = field(
        default=None, metadata=option("where to write figures (PNG); default: nowhere", type=Path, metavar="DIR")
    )
    join: bool = field(default=False, metadata=join_option())
    executor: str | None = field(default=None, metadata=executor_option())
    seed: int = field(default=0, metadata=option("of permutations and folds", type=int))

    def __post_init__(self) -> None:
        if self.executor is not None:
            cluster_address(self.executor)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fingerprint`."""
    add_options(parser, Options)


@dataclass(frozen=True)
class Answers:
    """What the command answers."""

    runs: str
    sensitive: SensitiveExamples
    fingerprint: ArchitectureFingerprint
    comparison: Comparison | None
    identified: dict[str, dict[str, Any]]
    ids: NDArray[Any] | None

    @property
    def names(self) -> list[str | int]:
        """The examples of the fingerprint: their ids where the runs have them, else their places in the data."""
        places = self.fingerprint.examples
        found: list[str | int] = (places if self.ids is None else self.ids[places]).tolist()
        return found

    def to_dict(self) -> dict[str, Any]:
        """The answers, as JSON can hold them."""
        return {
            "runs": self.runs,
            "sensitive": self.sensitive.to_dict(),
            "examples": self.fingerprint.examples.tolist(),
            "ids": None if self.ids is None else self.names,
            "accuracy": self.fingerprint.accuracy.to_dict(),
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "identified": self.identified,
        }


def run(parsed: argparse.Namespace) -> int:
    """Prints answers in words, or all of them as JSON."""
    options = read_options(parsed, Options)
    files = find_run_files(options.identify)
    runs, unknown = load(all_but(find_run_files(options.runs), files), files, options.join)
    fewest = min(len(own) for own in runs.group_by("architecture").values())
    if options.compare and fewest < RUNS_TO_COMPARE:
        raise ValueError(
            f"--compare: got {counted(fewest, 'run')} of an architecture, expected {RUNS_TO_COMPARE} of each; leave "
            "--compare out"
        )
    with open_executor(options.executor) as elsewhere:
        answers = collect(runs, unknown, options, elsewhere.executor if elsewhere else None)
    if options.save is not None:
        answers.fingerprint.save(options.save)
    if options.figures is not None:
        write_figures(options.figures, answers)
    if parsed.json:
        print(json.dumps(answers.to_dict()))
    else:
        show(answers, make_console())
        written = [str(path) for path in (options.save, options.figures) if path is not None]
        if written:
            print(f"\nWritten: {', '.join(written)}")
    return 0


def load(known: Sequence[Path | Url], files: Sequence[Path | Url], join: bool) -> tuple[RunSet, dict[str, Run]]:
    """The runs to learn from, and those to recognise by their files; joined, all are over the same examples."""
    if not join:
        return load_runs(known, "fingerprint"), {str(path): Run.load(path) for path in files}
    runs = load_runs([*known, *files], "fingerprint", join=True)
    return RunSet(list(runs)[: len(known)]), dict(zip(map(str, files), list(runs)[len(known) :], strict=True))


def all_but(files: Sequence[Path | Url], others: Sequence[Path | Url]) -> list[Path | Url]:
    """The run files to learn from.

    Raises:
        ValueError: there are none.
    """
    known = [path for path in files if not any(_same(path, other) for other in others)]
    if not known:
        raise ValueError(
            f"every run is one to identify ({len(others)}), expected others of known architectures to learn from"
        )
    return known


def _same(a: Path | Url, b: Path | Url) -> bool:
    return a == b if isinstance(a, Url) or isinstance(b, Url) else a.samefile(b)


def collect(runs: RunSet, unknown: Mapping[str, Run], options: Options, executor: Executor | None) -> Answers:
    """Answers every question about the runs, and about those to recognise."""
    score, seed = choose_score(runs, options.score), options.seed
    with make_console(stderr=True).status("testing which examples are sensitive"):
        sensitive = sensitive_examples(runs, score, options.test, seed=seed, executor=executor)
        fingerprint = ArchitectureFingerprint.fit(runs, score, options.examples, seed=seed, executor=executor)
        sizes = [k for k in (1, 10, 100, 1000) if k <= len(sensitive.index)]
        comparison = None
        if options.compare:
            comparison = compare_selectors(runs, score, examples=sizes, seed=seed, executor=executor)
    return Answers(
        runs=describe(runs),
        sensitive=sensitive,
        fingerprint=fingerprint,
        comparison=comparison,
        ids=runs.ids,
        identified={path: identify(fingerprint, runs, path, run, options.join) for path, run in unknown.items()},
    )


def identify(
    fingerprint: ArchitectureFingerprint, known: RunSet, path: str, run: Run, joined: bool = False
) -> dict[str, Any]:
    """The architecture that the run seems to have, how probable each known one is, and what the run's file says.

    Warns if nothing shows that the run is of the same data as the known ones.

    Raises:
        ValueError: it is of other data.
    """
    predicted = fingerprint.predict(run)
    same_data = joined or is_of_same_data(known, run)  # joined by ids that name the examples for good
    if not same_data:
        warn(
            "fingerprint",
            f"nothing shows that {path} is of the same data in the same order as the known runs: they have no dataset "
            "fingerprint and no labels in common with it. What it is recognised as says nothing if it is of other "
            "data; give tracker.finish dataset_fingerprint=dp.dataset_fingerprint(dataset), or labels=",
        )
    return {
        "predicted": predicted,
        "probabilities": fingerprint.predict_proba(run),
        "said to be": run.architecture,
        "agree": predicted == run.architecture,
        "shown to be of the same data": same_data,
    }


def is_of_same_data(known: RunSet, run: Run) -> bool:
    """Whether its dataset fingerprint or its labels show that the run is of the same data as the known ones.

    Raises:
        ValueError: its labels are others.
    """
    if known.labels is not None and run.labels is not None:
        differing = int((known.labels != run.labels).sum())
        if differing:
            others = counted(differing, "example has", "examples have")
            raise ValueError(
                f"{run!r} is of other data than the known runs: {others} other labels; compare it "
                "with runs of its own data"
            )
        return True
    return run.dataset_fingerprint is not None and run.dataset_fingerprint == known[0].dataset_fingerprint


def describe_identified(path: str, found: dict[str, Any], accuracy: Accuracy) -> str:
    """What the fingerprint finds, what the file says, and whether these agree.

    >>> found = {"predicted": "mlp", "probabilities": {"cnn": 0.03, "mlp": 0.97}, "said to be": "vit", "agree": False}
    >>> describe_identified("a.safetensors", found, Accuracy.of(9, 10))
    'a.safetensors looks like mlp (probability 0.97), but its file says vit, which the fingerprint does not know.'
    """
    nearest, probability = max(found["probabilities"].items(), key=lambda pair: pair[1])
    said, known = found["said to be"], found["said to be"] in found["probabilities"]
    how_sure = f"probability {probability:.2f}" if probability < 0.995 else "probability above 0.99"
    if found["agree"]:
        return f"{path} was made by {nearest} ({how_sure}), as its file says."
    if found["predicted"] is None:
        text = f"{path} is unlike any known architecture; of those, {nearest} is nearest. Its file says {said}"
    else:
        text = f"{path} looks like {nearest} ({how_sure}), but its file says {said}"
    if not known:
        return f"{text}, which the fingerprint does not know."
    return f"{text}: they disagree. The fingerprint recognised {accuracy} held-out runs."


def show(answers: Answers, console: Console) -> None:
    """Prints the answers in words."""

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    say(f"{answers.runs}\n")
    for path, found in answers.identified.items():
        say(describe_identified(path, found, answers.fingerprint.accuracy))
    say(str(answers.sensitive))
    say(answers.fingerprint.describe(answers.sensitive))
    say(f"The examples, most sensitive first: {', '.join(map(shown, answers.names))}")
    if answers.comparison is not None:
        say(f"\n{answers.comparison}")


def write_figures(folder: Path, answers: Answers) -> None:
    """Writes a PNG file for each answer."""
    save_png(manhattan(answers.sensitive), folder / "manhattan.png")
    if answers.comparison is not None:
        save_png(fingerprint_accuracy(answers.comparison), folder / "fingerprint-accuracy.png")
