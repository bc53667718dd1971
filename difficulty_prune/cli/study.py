"""Score real data over several training runs, average, prune, and show whether it paid."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..scores.catalogue import TRACKED, score_names
from ..study.models import MODELS
from ..study.study import POLICIES, Settings, run_study
from ..study.study_data import FORMS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `study`."""
    d = Settings()
    add = parser.add_argument
    add("--data", default=d.data, metavar="DATA", help=FORMS)
    add("--test", metavar="DATA", help="test data; without, a fifth of the data is set aside unless it brings its own")
    add("--model", nargs="+", default=[], metavar="NAME", help=f"{', '.join(MODELS)} or your.module:function")
    add("--runs", type=int, default=d.runs, help="scoring runs per model")
    add("--epochs", type=int, help="epochs of every training; default: 12 for digits, else 10")
    add(
        "--scores",
        nargs="+",
        default=list(d.scores),
        metavar="SCORE",
        help=f"the first one prunes; {', '.join(score_names(*TRACKED))}",
    )
    add(
        "--keep",
        nargs="*",
        type=float,
        default=list(d.keep),
        metavar="SHARE",
        help="fractions of examples to keep; none: only score",
    )
    add("--policy", nargs="+", default=list(d.policies), metavar="POLICY", help=", ".join(POLICIES))
    add(
        "--hold-out",
        type=float,
        default=d.hold_out,
        metavar="SHARE",
        help="fraction of examples that each scoring run leaves out, others each time: tells memorization",
    )
    add("--out", type=Path, default=d.out, metavar="DIR", help="where results go; finished trainings there are reused")
    add("--seed", type=int, default=d.seed, help="of the first run; the others count up")
    add("--workers", type=int, metavar="W", help="trainings at a time; default: one per core, one on a GPU")


def run(options: argparse.Namespace) -> int:
    """Runs the study and prints its tables."""
    if str(Path.cwd()) not in sys.path:  # your.module:function is looked for in the current folder too
        sys.path.insert(0, str(Path.cwd()))
    settings = Settings(
        data=options.data,
        test=options.test,
        models=tuple(options.model),
        runs=options.runs,
        epochs=options.epochs,
        scores=tuple(options.scores),
        keep=tuple(options.keep),
        policies=tuple(options.policy),
        out=options.out,
        seed=options.seed,
        workers=options.workers,
        hold_out=options.hold_out,
    )
    progress = Console(stderr=True)
    try:
        summary = run_study(settings, progress)
    except KeyboardInterrupt:
        finished = len(list((settings.out / "runs").glob("*.safetensors")))
        progress.print(
            f"Stopped. {finished} finished scoring runs are in {settings.out / 'runs'} and can be used as they are; "
            "the same command goes on from there."
        )
        return 130
    if options.json:
        print(json.dumps(summary, default=list))
    else:
        show(summary, Console())
    return 0


def show(summary: dict[str, Any], console: Console) -> None:
    """Prints how far to trust the scores, how they agree, and what pruning cost and gave."""
    for model, scores in summary["reliability"].items():
        console.print(f"\n{model}: {in_words(scores[summary['difficulty']])}", highlight=False, soft_wrap=True)
        console.print(reliability_table(scores, summary["agreement"][model]))

    names = summary["score_correlation"]["scores"]
    table = Table("score", *names)
    for name, values in zip(names, summary["score_correlation"]["spearman"], strict=True):
        table.add_row(name, *[f"{value:+.2f}" for value in values])
    console.print("\nSpearman between scores, turned so that high = hard", table, sep="\n")
    console.print(f"\n{describe_together(summary['together'])}", highlight=False)
    console.print(f"\nTelling the models apart: {in_words(summary['fingerprint'])}", highlight=False, soft_wrap=True)
    show_comparison(summary, console)
    out = Path(summary["settings"]["out"])
    console.print(f"\nWritten: {out / 'summary.json'}, {out / 'runs'}, {out / 'figures'}", soft_wrap=True)
    console.print(f"More: difficulty-prune consistency {out}, difficulty-prune fingerprint {out}", soft_wrap=True)


def in_words(found: dict[str, Any]) -> str:
    """The answer, or why there is none."""
    return str(found.get("in_words") or f"not known: {found['not_known']}")


def reliability_table(scores: dict[str, dict[str, Any]], agreement: dict[str, list[float]]) -> Table:
    """A row per score: how reliable the mean of the runs and a single run are, and how runs agree with the mean."""
    runs = len(next(iter(agreement.values())))
    table = Table("score", f"reliability of {runs} runs", "interval", "one run", "Spearman of a run with the mean")
    for score, found in scores.items():
        agreements = f"{min(agreement[score]):.3f} to {max(agreement[score]):.3f}"
        if "not_known" in found:
            table.add_row(score, "-", "-", "-", agreements)
            continue
        low, high = found["interval"]
        table.add_row(score, f"{found['value']:.3f}", f"{low:.3f}-{high:.3f}", f"{found['single_run']:.3f}", agreements)
    return table


def show_comparison(summary: dict[str, Any], console: Console) -> None:
    """Prints what pruning cost and gave, where it was tried."""
    if not summary["comparison"]:
        return
    seeds = summary["comparison"][0]["seeds"]
    console.print(
        f"\nTrained afresh, {seeds} seeds each, pruned by the mean {summary['difficulty']} of all scoring runs"
    )
    console.print(comparison_table(summary))
    console.print("Fewer examples are fewer steps: compare a policy with random at the same number of steps.")


def describe_together(together: dict[str, Any]) -> str:
    """What the trained models together say, in a line or two.

    >>> describe_together({"runs": 4, "model_accuracy": {"examples": 9, "never": 1, "always": 6, "sometimes": 2}})
    'Of 9 examples, 6 are always, 1 never and 2 sometimes predicted correctly by the 4 trained models'
    """
    if "left_out" in together:
        return str(together["left_out"])
    counts = together["model_accuracy"]
    text = (
        f"Of {counts['examples']:,} examples, {counts['always']:,} are always, {counts['never']:,} never and "
        f"{counts['sometimes']:,} sometimes predicted correctly by the {together['runs']} trained models"
    )
    if "memorization" not in together:
        return text
    estimates = [together["memorization"], together["held_out_consistency"]]

    def both(key: str) -> str:
        return " and ".join("unknown" if e[key] is None else f"{e[key]:.3f}" for e in estimates)

    return (
        f"{text}\nmemorization and held-out consistency from {together['runs']} runs: mean {both('mean')}, "
        f"standard error {both('rms_standard_error')} (root mean square), {both('median_standard_error')} (median), "
        f"{estimates[0]['too_few_runs']:,} examples with fewer than 2 runs of a kind"
    )


def comparison_table(summary: dict[str, Any]) -> Table:
    """A row per model, policy and share; lines between models."""
    table = Table("model", "trained on", "kept", "steps", "wall time", "test accuracy")
    previous = summary["comparison"][0]["model"]
    for row in summary["comparison"]:
        if row["model"] != previous:
            table.add_section()
        previous = row["model"]
        table.add_row(
            row["model"],
            row["policy"],
            f"{row['examples']:,} ({row['keep']:.0%})",
            f"{row['steps']:,}",
            f"{row['seconds']:.1f} s",
            f"{row['test_accuracy']:.4f} ± {row['spread']:.4f}",
        )
    return table
