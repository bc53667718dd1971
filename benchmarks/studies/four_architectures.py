"""Several architectures on real images: how far to trust a ranking, and which examples tell architectures apart.

    python benchmarks/studies/four_architectures.py DEST/train --work WORK --out benchmarks/results/own-order

DEST/train is CIFAR-10 as an image folder; the study uses some of its images. It trains four architectures of `study`
(a small CNN, a residual CNN, an MLP and a small vision transformer) several times each. Runs are kept in WORK, and the
same command continues from there; --minutes M starts no further round of four after M minutes, and the answers are of
the rounds that are finished. It prints what the docs quote, and writes `summary.json` and figures to the folder of
--out. Given --show SUMMARY.json alone, it prints committed results.

Every run has its own order of the examples. With --shared-order the runs of a round, one of each architecture, share
it, as in `benchmarks/results/consistency`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from architectures import ARCHITECTURES, OF_ARCHITECTURE, SCORES, ScoringRun
from machine import machine
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import rankdata

import difficulty_prune as dp
from difficulty_prune import consistency, plots
from difficulty_prune.fingerprint.architecture_fingerprint import ArchitectureFingerprint
from difficulty_prune.fingerprint.compare_selectors import Comparison, compare_selectors
from difficulty_prune.fingerprint.sensitive_examples import sensitive_examples
from difficulty_prune.plots.axes import save_png
from difficulty_prune.study.executor import run_tasks
from difficulty_prune.study.tasks import slug
from difficulty_prune.support.files import write_atomically
from difficulty_prune.support.ranks import spearman_matrix

SCORE = "el2n"
TARGET = 0.95
SIZES = (1, 2, 5, 10, 100, 1000)
PROTOCOLS = ("held-out runs", "held-out architectures")
ALIKE = ("cnn", "resnet8")


def by_group(runs: dp.RunSet) -> dict[str, dp.RunSet]:
    """Each architecture's runs, and all of them."""
    return {**runs.group_by("architecture"), "all": runs}


def rounded(value: Any) -> Any:
    """The same value with four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def worded(found: Any) -> dict[str, Any]:
    """The numbers of a result, and the result in words."""
    return {**found.to_dict(), "in_words": str(found)}


def reliabilities(runs: dp.RunSet) -> dict[str, dict[str, Any]]:
    """The reliability of every score, for each architecture and for all runs."""
    found: dict[str, dict[str, Any]] = {}
    for group, own in by_group(runs).items():
        found[group] = {}
        for score in track(SCORES, f"reliability, {group}", console=Console(stderr=True), transient=True):
            known = consistency.reliability(own, score)
            found[group][score] = {**known.to_dict(), "runs_needed": known.runs_needed(TARGET)}
    return found


def measured_and_predicted(runs: dp.RunSet, score: str, pairs: int = 50) -> list[dict[str, float]]:
    """Spearman between the means of m runs and of m others, and its prediction from pairs of single runs."""
    generator = np.random.default_rng(0)
    matrix = runs.matrix(score)
    rows = []
    for m in range(1, len(runs) // 2 + 1):
        values = []
        for _ in range(pairs):
            order = generator.permutation(len(runs))
            halves = np.stack([matrix[order[:m]].mean(0), matrix[order[m : 2 * m]].mean(0)])
            values.append(spearman_matrix(halves)[0, 1])
        rows.append({"runs": m, "measured": float(np.mean(values))})
    single = rows[0]["measured"]
    for row in rows:
        row["predicted"] = row["runs"] * single / (1 + (row["runs"] - 1) * single)
    return rows


def shared_order(runs: dp.RunSet) -> dict[str, dict[str, float]]:
    """Spearman between single runs of different architectures, of the same round (which may share the order) or not."""
    architecture = np.array([run.architecture for run in runs])
    number = np.array([run.seed % OF_ARCHITECTURE for run in runs])
    different, same = architecture[:, None] != architecture, number[:, None] == number
    found = {}
    for score in SCORES:
        matrix = spearman_matrix(runs.matrix(score))
        found[score] = {
            "same": float(matrix[different & same].mean()),
            "other": float(matrix[different & ~same].mean()),
        }
    return found


def ranked(runs: dp.RunSet) -> dp.RunSet:
    """The same runs with ranks as scores, so that their level does not give away an architecture that learns less."""
    return dp.RunSet(
        dp.Run({SCORE: rankdata(run.scores[SCORE])}, architecture=run.architecture, seed=run.seed) for run in runs
    )


def comparisons(runs: dp.RunSet) -> dict[str, Comparison]:
    """Fingerprints of all architectures and of the two most similar, by the score and by ranks within each run."""
    found = {}
    for kind, own in ((SCORE, runs), (f"ranks of {SCORE}", ranked(runs))):
        for protocol in PROTOCOLS:
            found[f"{kind}, {protocol}"] = compare_selectors(own, SCORE, examples=SIZES, protocol=protocol)
        alike = dp.RunSet(run for run in own if run.architecture in ALIKE)
        found[f"{kind}, {' and '.join(ALIKE)} only"] = compare_selectors(alike, SCORE, examples=SIZES)
    return found


def unknown_architectures(runs: dp.RunSet, examples: int) -> dict[str, dict[str, int]]:
    """Leaves out each architecture in turn: how many of its runs are called unlike any known architecture."""
    found = {}
    for name in runs.architectures:
        known = ArchitectureFingerprint.fit(dp.RunSet(r for r in runs if r.architecture != name), SCORE, examples)
        answers = [known.predict(run) for run in runs.where(architecture=name)]
        found[name] = {"runs": len(answers), "unlike_any_known": answers.count(None)}
    return found


def refused_though_known(runs: dp.RunSet, examples: int) -> dict[str, int]:
    """Leaves out one run per architecture at a time: how many are recognised, mistaken, or called unlike any known."""
    counts = {"recognised": 0, "mistaken": 0, "unlike any known": 0}
    rounds = min(len(own) for own in runs.group_by("architecture").values())
    for k in track(range(rounds), "held-out runs", console=Console(stderr=True), transient=True):
        held = [own[k] for own in runs.group_by("architecture").values()]
        known = ArchitectureFingerprint.fit(dp.RunSet(r for r in runs if r not in held), SCORE, examples)
        for run in held:
            answer = known.predict(run)
            counts[
                "unlike any known" if answer is None else ("mistaken", "recognised")[answer == run.architecture]
            ] += 1
    return counts


def summarise(runs: dp.RunSet, figures: Path) -> dict[str, Any]:
    """Everything that the study finds; writes the figures as well."""
    reliability = consistency.reliability(runs.where(architecture="cnn"), SCORE)
    save_png(plots.reliability_curve(reliability, TARGET), figures / "reliability-cnn.png")
    rank_error = {group: consistency.rank_error(own, SCORE) for group, own in by_group(runs).items()}
    save_png(plots.rank_error_curve(rank_error["cnn"]), figures / "rank-error-cnn.png")
    architectures = consistency.correlation(runs, SCORE, between="architectures")
    save_png(plots.correlation_heatmap(architectures), figures / "architectures.png")
    scores = {group: consistency.correlation(own) for group, own in by_group(runs).items()}
    save_png(plots.correlation_heatmap(scores["all"]), figures / "scores.png")
    shares = {score: consistency.variance_shares(runs, score) for score in SCORES}
    save_png(plots.variance_bars(list(shares.values())), figures / "variance.png")
    components = {group: consistency.pca(own) for group, own in by_group(runs).items()}
    save_png(plots.explained_variance(components["all"]), figures / "components.png")
    stable = {
        group: consistency.stable_subset(own, SCORE, dp.policies.Hardest(0.5)) for group, own in by_group(runs).items()
    }
    sensitive = {test: sensitive_examples(runs, SCORE, test) for test in ("permutation", "welch")}
    save_png(plots.manhattan(sensitive["welch"]), figures / "manhattan.png")
    of_pairs = {
        f"{a}, {b}": worded(sensitive_examples(dp.RunSet(r for r in runs if r.architecture in (a, b)), SCORE))
        for a, b in combinations(runs.architectures, 2)
    }
    compared = comparisons(runs)
    for name, comparison in compared.items():
        save_png(plots.fingerprint_accuracy(comparison), figures / f"fingerprint-{slug(name)}.png")
    return {
        "reliability": reliabilities(runs),
        "curve": {group: measured_and_predicted(own, SCORE) for group, own in by_group(runs).items()},
        "rank_error": {group: worded(found) for group, found in rank_error.items()},
        "architectures": architectures.to_dict(),
        "scores": {group: worded(found) for group, found in scores.items()},
        "variance": {score: worded(found) for score, found in shares.items()},
        "components": {group: worded(found) for group, found in components.items()},
        "stable": {group: worded(found) for group, found in stable.items()},
        "sensitive": {test: worded(found) for test, found in sensitive.items()},
        "sensitive_by_ranks": worded(sensitive_examples(ranked(runs), SCORE)),
        "sensitive_of_pairs": of_pairs,
        "shared_order": shared_order(runs),
        "fingerprint": {name: worded(found) for name, found in compared.items()},
        "held_out_runs": refused_though_known(runs, 10),
        "left_out_architectures": unknown_architectures(runs, 10),
    }


def table(title: str, columns: list[str], rows: dict[str, list[str]]) -> Table:
    """A table of text."""
    made = Table("", *columns, title=title, title_justify="left")
    for name, cells in rows.items():
        made.add_row(name, *cells)
    return made


def show(summary: dict[str, Any], console: Console) -> None:
    """Prints the tables that the docs quote."""
    groups = [*ARCHITECTURES, "all"]
    console.print(f"test accuracy: {summary['test_accuracy']}", highlight=False)
    found = summary["reliability"]

    def cells(score: str, cell: Callable[[dict[str, Any]], str]) -> list[str]:
        return [cell(found[group][score]) for group in groups]

    def both(known: dict[str, Any]) -> str:
        return f"{known['single_run']:.2f}, {known['value']:.3f}"

    console.print(table("one run, mean of all runs", groups, {s: cells(s, both) for s in found["all"]}))
    needed = {s: cells(s, lambda known: str(known["runs_needed"])) for s in found["all"]}
    console.print(table(f"runs for {TARGET}", groups, needed))
    curves = {
        group: [f"{row['measured']:.3f} ({row['predicted']:.3f})" for row in summary["curve"][group][:5]]
        for group in groups
    }
    console.print(table(f"{SCORE}: m against m runs, measured (predicted)", list("12345"), curves))
    matrix = summary["architectures"]
    for kind in ("of_runs", "of_means"):
        rows = {n: [f"{v:.2f}" for v in row] for n, row in zip(matrix["names"], matrix[kind], strict=True)}
        console.print(table(f"{SCORE} between architectures, {kind}", matrix["names"], rows))
    shares = ("example", "architecture", "run", "rest")
    rows = {s: [f"{v[share]:.1%}" for share in shares] for s, v in summary["variance"].items()}
    console.print(table("shares of variance", list(shares), rows))
    for group in groups:
        if "rank_error" in summary:  # not of the committed study with shared orders
            console.print(f"{group}: {summary['rank_error'][group]['in_words']}", highlight=False)
        console.print(f"{group}: {summary['components'][group]['in_words']}", highlight=False)
        console.print(f"{group}: {summary['stable'][group]['in_words']}", highlight=False)
    for test in summary["sensitive"].values():
        console.print(test["in_words"], highlight=False)
    console.print(f"by ranks: {summary['sensitive_by_ranks']['in_words']}", highlight=False)
    for pair, test in summary["sensitive_of_pairs"].items():
        console.print(f"{pair}: {test['in_words']}", highlight=False)
    rows = {
        score: [f"{found['same']:.3f}", f"{found['other']:.3f}"] for score, found in summary["shared_order"].items()
    }
    console.print(table("single runs of different architectures", ["same round", "other rounds"], rows))
    for name, comparison in summary["fingerprint"].items():
        console.print(f"\n{name}\n{comparison['in_words']}", highlight=False)
    console.print(f"\none run of each left out, 10 examples: {summary['held_out_runs']}", highlight=False)
    console.print(f"an architecture left out, 10 examples: {summary['left_out_architectures']}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=10, help="per architecture")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shared-order", action="store_true")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further round after so many")
    parser.add_argument("--show", type=Path, metavar="SUMMARY", help="print committed results and train nothing")
    options = parser.parse_args()
    console = Console(width=140)
    if options.show:
        show(json.loads(options.show.read_text()), console)
        return
    if options.images is None or options.work is None or options.out is None:
        parser.error("the images, --work and --out are needed, or --show")

    start, what = time.monotonic(), (options.images, options.size, options.epochs)
    rounds = [
        [ScoringRun(*what, architecture, number, options.work, options.shared_order) for architecture in ARCHITECTURES]
        for number in range(options.runs)
    ]
    for tasks in rounds:
        if time.monotonic() - start > 60 * options.minutes:
            break
        left = [task for task in tasks if not task.is_done()]
        run_tasks(left, options.workers, options.size, Console(stderr=True), "training")
    finished = [tasks for tasks in rounds if all(task.is_done() for task in tasks)]
    if len(finished) < len(rounds):
        console.print(f"{len(rounds) - len(finished)} rounds are left: run the same command again")
    if len(finished) < 4:
        return
    tasks = [task for each in finished for task in each]
    runs = dp.RunSet.load(task.path for task in tasks)
    accuracies = {
        name: round(float(np.mean([run.metadata["outcome"]["test_accuracy"] for run in own])), 3)
        for name, own in runs.group_by("architecture").items()
    }
    summary = {
        "machine": machine(),
        "images": options.size,
        "epochs": options.epochs,
        "runs_per_architecture": len(finished),
        "order": "shared by a round" if options.shared_order else "own",
        "test_accuracy": accuracies,
        **summarise(runs, options.out),
    }
    write_atomically(options.out / "summary.json", json.dumps(rounded(summary)) + "\n")
    show(summary, console)


if __name__ == "__main__":
    main()
