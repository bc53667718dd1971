"""Show how far the ranking by some runs can be trusted, how many more it needs, and which examples are certain."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from ..consistency.correlation import Correlation, correlation
from ..consistency.pca import PCA, pca
from ..consistency.rank_error import RankError, rank_error
from ..consistency.reliability import Reliability, reliability
from ..consistency.stable_subset import StableSubset, stable_subset
from ..consistency.streams import RANK_NOTHING, RankNothingError
from ..consistency.variance_shares import VarianceShares, variance_shares
from ..plots.axes import save_png
from ..plots.consistency_figures import (
    correlation_heatmap,
    explained_variance,
    loadings,
    rank_error_curve,
    reliability_curve,
    stability,
    variance_bars,
)
from ..runs.run_files import EXPECTED, find_run_files
from ..runs.run_set import RunSet
from ..scores.catalogue import score_names
from ..study.cluster_address import cluster_address
from ..study.elsewhere import open_executor
from ..study.options import add_options, option, read_options
from ..study.progress import follow
from ..study.settings import POLICIES
from ..support.checks import check_between, check_fraction
from .common_options import executor_option, join_option
from .load_runs import load_runs, warnings_in_words
from .output import choose_score, describe, make_console, print_matrix

EXAMPLES: Final = """\
examples:
  the runs of a study, from the folder that it wrote:
    difficulty-prune consistency results
  another ranking, and how many runs would make it more reliable:
    difficulty-prune consistency results --score forgetting --target 0.98
  whether a plan keeps the same examples whichever runs it is made from, with figures:
    difficulty-prune consistency results --policy hardest --keep 0.7 --figures figures
  thousands of runs, on the workers of a Dask cluster:
    difficulty-prune consistency /shared/results --executor dask:tcp://10.0.0.1:8786
  some of the files, for a program to read:
    difficulty-prune consistency "results/runs/mlp-*.safetensors" --json
"""


@dataclass(frozen=True)
class Options:
    """What the command is asked.

    Raises:
        ValueError: the target or the share to keep is no such fraction, or the executor no address.
    """

    runs: tuple[str, ...] = field(metadata=option(EXPECTED, nargs="+", metavar="DIR"))
    score: str | None = field(
        default=None,
        metadata=option("the ranking to judge; default: the first score of the runs", offer=score_names()),
    )
    target: float = field(
        default=0.95, metadata=option("the reliability for which the number of runs is stated", type=float)
    )
    policy: str = field(default="hardest", metadata=option("the policy whose plan is judged", choices=tuple(POLICIES)))
    keep: float = field(
        default=0.5, metadata=option("fraction of the examples that the policy keeps", type=float, metavar="SHARE")
    )
    figures: Path | None = field(
        default=None, metadata=option("where to write figures (PNG); default: nowhere", type=Path, metavar="DIR")
    )
    join: bool = field(default=False, metadata=join_option())
    executor: str | None = field(default=None, metadata=executor_option())
    seed: int = field(default=0, metadata=option("of the resampling", type=int))

    def __post_init__(self) -> None:
        if self.executor is not None:
            cluster_address(self.executor)
        check_between(self.target, "target")
        check_fraction(self.keep, "keep")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `consistency`."""
    add_options(parser, Options)


@dataclass(frozen=True)
class Answers:
    """What the command answers, for all runs and for those of each architecture; None where the runs rank nothing."""

    runs: str
    score: str
    target: float
    reliability: Reliability
    of_architectures: dict[str, Reliability | None]
    of_scores: dict[str, Reliability | None]
    rank_error: RankError
    variance: VarianceShares
    stable: StableSubset
    scores: Correlation
    architectures: Correlation | None
    components: PCA

    def to_dict(self) -> dict[str, Any]:
        """The answers, as JSON can hold them."""

        def with_need(found: Reliability | None) -> dict[str, Any] | None:
            return None if found is None else found.to_dict(self.target)

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


def run(parsed: argparse.Namespace) -> int:
    """Prints answers in words and numbers, or all of them as JSON."""
    options = read_options(parsed, Options)
    runs = load_runs(find_run_files(options.runs), "consistency", join=options.join)
    with warnings_in_words("consistency"), open_executor(options.executor) as elsewhere:
        answers = collect(runs, options, elsewhere.executor if elsewhere else None)
    if options.figures is not None:
        write_figures(options.figures, answers)
    if parsed.json:
        print(json.dumps(answers.to_dict()))
    else:
        show(answers, make_console())
        if options.figures is not None:
            print(f"\nWritten: {options.figures}")
    return 0


def collect(runs: RunSet, options: Options, executor: Executor | None = None) -> Answers:
    """Answers every question about the runs.

    Raises:
        ValueError: a single run, a score that not all runs have, or one by which they rank nothing.
    """
    score, seed = choose_score(runs, options.score), options.seed
    several = len(runs.architectures) > 1
    repeated = {name: own for name, own in runs.group_by("architecture").items() if len(own) > 1}
    of_scores = {
        name: reliability_if_any(runs, name, seed, executor)
        for name in follow(runs.scores, make_console(stderr=True), "reliability of score")
    }
    ranking = [name for name, found in of_scores.items() if found is not None]
    judged = of_scores[score]
    if judged is None:
        others = f"ask for another score, --score {' or '.join(ranking)}" if ranking else "train for more epochs"
        raise ValueError(f"{score}: {RANK_NOTHING}; {others}")
    return Answers(
        runs=describe(runs),
        score=score,
        target=options.target,
        reliability=judged,
        of_architectures={name: reliability_if_any(own, score, seed, executor) for name, own in repeated.items()}
        if several
        else {},
        of_scores=of_scores,
        rank_error=rank_error(runs, score, seed=seed, executor=executor),
        variance=variance_shares(runs, score),
        stable=stable_subset(runs, score, POLICIES[options.policy](options.keep), seed=seed, executor=executor),
        scores=correlation(runs, executor=executor),
        architectures=correlation(runs, score, between="architectures", executor=executor) if several else None,
        components=pca(runs, ranking),
    )


def reliability_if_any(runs: RunSet, score: str, seed: int, executor: Executor | None) -> Reliability | None:
    """The reliability of the ranking by the score; None if the runs rank nothing by it."""
    try:
        return reliability(runs, score, seed=seed, executor=executor)
    except RankNothingError:
        return None


def runs_needed(found: Reliability, target: float) -> str:
    """How many runs reach the target, with the range; a dash if the runs do not agree at all.

    >>> import numpy as np
    >>> runs_needed(Reliability(0.9, (0.86, 0.95), 0.95, 0.7, np.ones(4), "el2n", 4, ("mlp",)), 0.95)
    '9 (4-13)'
    """
    few, many = found.runs_needed_interval(target)
    if few is None:
        return "-"
    needed = found.to_dict(target)["runs_needed"]
    if needed is None:
        return f"not known ({few:,}-{many:,})" if many else f"not known ({few:,} or more)"
    return f"{needed:,} ({few:,}-{many:,})" if few != many else f"{needed:,}"


def show(answers: Answers, console: Console) -> None:
    """Prints the answers in words, and then the numbers behind them."""

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    say(f"{answers.runs}\n")
    say("Can the ranking be trusted, and how many runs does it take?")
    say(f"  {answers.reliability.describe(answers.target)}")
    for name, own in answers.of_architectures.items():
        say(f"  Of {name} alone: {f'not known: {RANK_NOTHING}' if own is None else own.describe(answers.target)}")
    say(f"  {answers.rank_error}")
    say(f"  {answers.variance}")
    say("\nWhich examples?")
    say(f"  {answers.stable}")
    say("\nWhich score?")
    say(f"  {answers.components}")
    for name, found in answers.of_scores.items():
        if found is None:
            say(f"  {name}: not known: {RANK_NOTHING}")
    console.print(score_table(answers))
    console.print()
    print_matrix(console, "means of runs", answers.scores.names, answers.scores.to_dict()["of_means"])
    if answers.architectures is not None:
        say("\nDo architectures agree?")
        say(f"  {answers.architectures}")
        matrices = answers.architectures.to_dict()
        for title, kind in (("means of runs", "of_means"), ("single runs", "of_runs")):
            console.print()
            print_matrix(console, title, answers.architectures.names, matrices[kind])


def score_table(answers: Answers) -> Table:
    """A row per score: how reliable its mean and a single run are, and how many runs reach the target."""
    table = Table("score", "mean of the runs", "interval", "one run", f"runs for {answers.target:g}")
    for name, found in answers.of_scores.items():
        if found is None:
            table.add_row(name, "-", "-", "-", "-")
            continue
        low, high = found.interval
        table.add_row(
            name,
            f"{found.value:.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{found.single_run:.3f}",
            runs_needed(found, answers.target),
        )
    return table


def write_figures(folder: Path, answers: Answers) -> None:
    """Writes a PNG file for each answer."""
    figures = {
        "reliability": reliability_curve(answers.reliability, answers.target),
        "rank-error": rank_error_curve(answers.rank_error),
        "variance": variance_bars([answers.variance]),
        "stability": stability(answers.stable),
        "scores": correlation_heatmap(answers.scores),
        "components": explained_variance(answers.components),
        "loadings": loadings(answers.components),
    }
    if answers.architectures is not None:
        figures["architectures"] = correlation_heatmap(answers.architectures)
    for name, axes in figures.items():
        save_png(axes, folder / f"{name}.png")
