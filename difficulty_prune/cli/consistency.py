"""Say how far to trust the ranking of some runs, how many more are needed, and which examples are sure."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from .. import consistency, plots
from ..consistency.correlation import Correlation
from ..consistency.pca import PCA
from ..consistency.rank_error import RankError
from ..consistency.reliability import Reliability
from ..consistency.stable_subset import StableSubset
from ..consistency.variance_shares import VarianceShares
from ..plots.axes import save_png
from ..policies.base import check_fraction
from ..runs.run_set import RunSet
from ..study.study import POLICIES
from .output import WHERE, choose_score, describe, print_matrix, run_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `consistency`."""
    add = parser.add_argument
    add("runs", nargs="+", metavar="DIR", help=WHERE)
    add("--score", help="the ranking to judge; default: the first score of the runs")
    add("--target", type=float, default=0.95, help="the reliability that the needed runs are told for")
    add("--policy", default="hardest", choices=tuple(POLICIES), help="whose plan is judged")
    add("--keep", type=float, default=0.5, metavar="SHARE", help="fraction of the examples that it keeps")
    add("--figures", type=Path, metavar="DIR", help="where to write figures (PNG); default: none are written")
    add("--seed", type=int, default=0, help="of the resampling")


@dataclass(frozen=True)
class Answers:
    """What the command says, for all runs and for those of each architecture."""

    runs: str
    score: str
    target: float
    reliability: Reliability
    of_architectures: dict[str, Reliability]
    of_scores: dict[str, Reliability]
    rank_error: RankError
    variance: VarianceShares
    stable: StableSubset
    scores: Correlation
    architectures: Correlation | None
    components: PCA

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""

        def with_need(reliability: Reliability) -> dict[str, Any]:
            return {**reliability.to_dict(), "runs_needed": runs_needed(reliability, self.target)}

        return {
            "runs": self.runs,
            "score": self.score,
            "target": self.target,
            "reliability": with_need(self.reliability),
            "of_architectures": {name: with_need(value) for name, value in self.of_architectures.items()},
            "of_scores": {name: with_need(value) for name, value in self.of_scores.items()},
            "rank_error": self.rank_error.to_dict(),
            "variance": self.variance.to_dict(),
            "stable": self.stable.to_dict(),
            "scores": self.scores.to_dict(),
            "architectures": None if self.architectures is None else self.architectures.to_dict(),
            "components": self.components.to_dict(),
        }


def run(options: argparse.Namespace) -> int:
    """Prints answers in words, then the numbers behind them."""
    check_fraction(options.target, "target")
    check_fraction(options.keep, "keep")
    runs = RunSet.load(run_files(options.runs))
    answers = collect(runs, choose_score(runs, options.score), options)
    if options.figures is not None:
        write_figures(options.figures, answers)
    if options.json:
        print(json.dumps(answers.to_dict()))
    else:
        show(answers, Console())
        if options.figures is not None:
            print(f"\nWritten: {options.figures}")
    return 0


def collect(runs: RunSet, score: str, options: argparse.Namespace) -> Answers:
    """Asks everything."""
    seed = options.seed
    several = [own for own in runs.group_by("architecture").values() if len(own) > 1]
    progress = Console(stderr=True)
    of_scores = {
        name: consistency.reliability(runs, name, seed=seed)
        for name in track(runs.scores, "reliability of each score", console=progress, transient=True)
    }
    architectures = len(runs.architectures) > 1
    return Answers(
        runs=describe(runs),
        score=score,
        target=options.target,
        reliability=of_scores[score],
        of_architectures={
            own.architectures[0]: consistency.reliability(own, score, seed=seed) for own in several if architectures
        },
        of_scores=of_scores,
        rank_error=consistency.rank_error(runs, score, seed=seed),
        variance=consistency.variance_shares(runs, score),
        stable=consistency.stable_subset(runs, score, POLICIES[options.policy](options.keep), seed=seed),
        scores=consistency.correlation(runs),
        architectures=consistency.correlation(runs, score, between="architectures") if architectures else None,
        components=consistency.pca(runs),
    )


def runs_needed(reliability: Reliability, target: float) -> int | None:
    """How many runs reach the target, or None where the runs do not agree at all."""
    try:
        return reliability.runs_needed(target)
    except ValueError:
        return None


def show(answers: Answers, console: Console) -> None:
    """Words first, numbers second."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say(f"{answers.runs}\n")
    say("Can the ranking be trusted, and how many runs would do?")
    say(f"  {answers.reliability.describe(answers.target)}")
    for name, reliability in answers.of_architectures.items():
        say(f"  Of {name} alone: {reliability.describe(answers.target)}")
    say(f"  {answers.rank_error}")
    say(f"  {answers.variance}")
    say("\nWhich examples?")
    say(f"  {answers.stable}")
    say("\nWhich score?")
    say(f"  {answers.components}")
    console.print(score_table(answers))
    console.print()
    print_matrix(console, "means of runs", answers.scores.names, answers.scores.to_dict()["of_means"])
    if answers.architectures is not None:
        say("\nDo architectures agree?")
        say(f"  {answers.architectures}")
        found = answers.architectures.to_dict()
        for title, kind in (("means of runs", "of_means"), ("single runs", "of_runs")):
            console.print()
            print_matrix(console, title, answers.architectures.names, found[kind])


def score_table(answers: Answers) -> Table:
    """A row per score: how reliable its mean and a single run are, and how many runs reach the target."""
    table = Table("score", "mean of the runs", "interval", "one run", f"runs for {answers.target:g}")
    for name, reliability in answers.of_scores.items():
        low, high = reliability.interval
        needed = runs_needed(reliability, answers.target)
        table.add_row(
            name,
            f"{reliability.value:.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{reliability.single_run:.3f}",
            "-" if needed is None else f"{needed:,}",
        )
    return table


def write_figures(folder: Path, answers: Answers) -> None:
    """Writes a PNG file for each answer."""
    figures = {
        "reliability": plots.reliability_curve(answers.reliability, answers.target),
        "rank-error": plots.rank_error_curve(answers.rank_error),
        "variance": plots.variance_bars([answers.variance]),
        "stability": plots.stability(answers.stable),
        "scores": plots.correlation_heatmap(answers.scores),
        "components": plots.explained_variance(answers.components),
        "loadings": plots.loadings(answers.components),
    }
    if answers.architectures is not None:
        figures["architectures"] = plots.correlation_heatmap(answers.architectures)
    for name, axes in figures.items():
        save_png(axes, folder / f"{name}.png")
