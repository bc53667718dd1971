"""Say which examples tell architectures apart, and which architecture made the scores of a run."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import plots
from ..fingerprint.architecture_fingerprint import ArchitectureFingerprint
from ..fingerprint.compare_selectors import Comparison, compare_selectors
from ..fingerprint.sensitive_examples import SensitiveExamples, sensitive_examples
from ..plots.axes import save_png
from ..runs.run_set import Run, RunSet
from .output import WHERE, choose_score, describe, run_files

RUNS_TO_COMPARE = 4  # of each architecture: half of them choose the examples, the other half is clustered


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fingerprint`."""
    add = parser.add_argument
    add("runs", nargs="+", metavar="DIR", help=f"runs of known architectures: {WHERE}")
    add("--score", help="the score to compare; default: the first of the runs")
    add("--examples", type=int, default=10, metavar="K", help="how many sensitive examples make the fingerprint")
    add("--test", default="permutation", choices=("permutation", "welch"), help="what decides if one is sensitive")
    add("--identify", nargs="+", default=[], metavar="RUN", help="runs to recognise; they are not learned from")
    add("--compare", action="store_true", help="also compare with random, hardest and PCA-chosen examples")
    add("--save", type=Path, metavar="FILE", help="where to keep the fingerprint (.safetensors)")
    add("--figures", type=Path, metavar="DIR", help="where to write figures (PNG); default: none are written")
    add("--seed", type=int, default=0, help="of permutations and folds")


@dataclass(frozen=True)
class Answers:
    """What the command says."""

    runs: str
    sensitive: SensitiveExamples
    fingerprint: ArchitectureFingerprint
    comparison: Comparison | None
    identified: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "runs": self.runs,
            "sensitive": self.sensitive.to_dict(),
            "examples": self.fingerprint.examples.tolist(),
            "accuracy": self.fingerprint.accuracy.to_dict(),
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "identified": self.identified,
        }


def run(options: argparse.Namespace) -> int:
    """Prints answers in words, then the numbers behind them."""
    unknown = run_files(options.identify)
    known = [path for path in run_files(options.runs) if not any(path.samefile(other) for other in unknown)]
    if not known:
        raise ValueError("every run is one to identify, expected others of known architectures to learn from")
    runs = RunSet.load(known)
    score = choose_score(runs, options.score)
    fewest = min(len(own) for own in runs.group_by("architecture").values())
    if options.compare and fewest < RUNS_TO_COMPARE:
        raise ValueError(f"--compare: got {fewest} runs of an architecture, expected {RUNS_TO_COMPARE}; leave it out")
    with Console(stderr=True).status("testing which examples are sensitive"):
        sensitive = sensitive_examples(runs, score, options.test, seed=options.seed)
        fingerprint = ArchitectureFingerprint.fit(runs, score, options.examples, seed=options.seed)
        sizes = [k for k in (1, 10, 100, 1000) if k <= len(sensitive.index)]
        comparison = compare_selectors(runs, score, examples=sizes, seed=options.seed) if options.compare else None
    answers = Answers(
        runs=describe(runs),
        sensitive=sensitive,
        fingerprint=fingerprint,
        comparison=comparison,
        identified={str(path): identify(fingerprint, Run.load(path)) for path in unknown},
    )
    if options.save is not None:
        fingerprint.save(options.save)
    if options.figures is not None:
        write_figures(options.figures, answers)
    if options.json:
        print(json.dumps(answers.to_dict()))
    else:
        show(answers, Console())
        written = [str(path) for path in (options.save, options.figures) if path is not None]
        if written:
            print(f"\nWritten: {', '.join(written)}")
    return 0


def identify(fingerprint: ArchitectureFingerprint, run: Run) -> dict[str, Any]:
    """What a run is taken for, and how probable each known architecture is."""
    return {
        "predicted": fingerprint.predict(run),
        "probabilities": fingerprint.predict_proba(run),
        "said to be": run.architecture,
    }


def show(answers: Answers, console: Console) -> None:
    """Words first, numbers second."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say(f"{answers.runs}\n")
    for path, found in answers.identified.items():
        nearest, probability = max(found["probabilities"].items(), key=lambda pair: pair[1])
        if found["predicted"] is None:
            say(f"{path} is unlike any known architecture; of those, {nearest} is nearest.")
        else:
            say(f"{path} was made by {found['predicted']} (probability {probability:.2f}).")
    say(str(answers.sensitive))
    say(str(answers.fingerprint))
    say(f"The examples, most sensitive first: {', '.join(map(str, answers.fingerprint.examples.tolist()))}")
    if answers.comparison is not None:
        say(f"\n{answers.comparison}")


def write_figures(folder: Path, answers: Answers) -> None:
    """Writes a PNG file for each answer."""
    save_png(plots.manhattan(answers.sensitive), folder / "manhattan.png")
    if answers.comparison is not None:
        save_png(plots.fingerprint_accuracy(answers.comparison), folder / "fingerprint-accuracy.png")
