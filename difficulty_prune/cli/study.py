"""Score real data over several training runs, average, prune, and show whether it paid."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from ..study.named_function import names_function
from ..study.options import add_options, read_options
from ..study.settings import Settings
from ..study.study import run_study
from ..support.counted import counted
from .interrupts import exit_status
from .output import make_console

EXAMPLES: Final = """\
examples:
  the handwritten digits of scikit-learn:
    difficulty-prune study
  photographs in a folder for each class, brought to 64 x 64 pixels; a fifth of each class is set aside for testing:
    difficulty-prune study --data imagefolder:photos --size 64 --out results
  with test data of their own, two models and three policies:
    difficulty-prune study --data imagefolder:photos/train --test imagefolder:photos/test \\
        --model cnn resnet18 --policy hardest stratified soft --keep 0.5 0.7
  photographs of any size, read from their files by workers, and a network of torchvision:
    difficulty-prune study --data imagefolder:photos --size 224 --model torchvision:resnet50 --batch-size 32 --lr 0.05
  a table, whose column "species" holds the labels:
    difficulty-prune study --data table:irises.csv --label species
  only score, by what finds wrong labels:
    difficulty-prune study --data torchvision:CIFAR10:data --scores aum el2n --runs 4 --keep
  memorization, from 20 runs that each leave out 30 %:
    difficulty-prune study --hold-out 0.3 --runs 20 --keep
  on the workers of a Dask cluster, which share the folder with this machine:
    difficulty-prune study --executor dask:tcp://10.0.0.1:8786 --out /shared/results
  your own data and model, from functions in a file my_code.py:
    difficulty-prune study --data my_code:make_data --model my_code:make_model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `study`."""
    add_options(parser, Settings)


def run(options: argparse.Namespace) -> int:
    """Runs the study and prints its tables; on Ctrl-C or SIGTERM says what is finished."""
    if any(names_function(name) for name in (options.data, options.test or "", *options.models)):
        look_in_current_folder()
    settings = read_options(options, Settings)
    progress = make_console(stderr=True)
    try:
        summary = run_study(settings, progress)
    except KeyboardInterrupt as stop:
        progress.print(describe_finished(settings.out / "runs"), soft_wrap=True)
        return exit_status(stop)
    if options.json:
        print(json.dumps(summary, default=list))
    else:
        show(summary, make_console())
    return 0


def look_in_current_folder() -> None:
    """Lets your.module:function be in the current folder, last, so that no file there replaces an installed module."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


def describe_finished(folder: Path) -> str:
    """What a study that was stopped leaves behind."""
    finished = len(list(folder.glob("*.safetensors")))
    if finished == 0:
        return "Stopped before the first scoring run was finished."
    runs = counted(finished, "finished scoring run is", "finished scoring runs are")
    return f"Stopped. {runs} in {folder}, ready for use; the same command continues from there."


def show(summary: dict[str, Any], console: Console) -> None:
    """Prints whether pruning pays, how far to trust the scores, how they agree, and every verdict."""
    show_verdicts(summary, console)
    for model, scores in summary["reliability"].items():
        console.print(f"\n{model}: {in_words(scores[summary['difficulty']])}", soft_wrap=True)
        console.print(reliability_table(scores, summary["agreement"][model]))

    names = summary["score_correlation"]["scores"]
    table = Table("score", *names)
    for name, values in zip(names, summary["score_correlation"]["spearman"], strict=True):
        table.add_row(name, *["-" if value is None else f"{value:+.2f}" for value in values])
    console.print("\nSpearman between scores, turned so that high = hard", table, sep="\n")
    console.print(f"\n{describe_together(summary['together'])}")
    console.print(f"\nTelling the models apart: {in_words(summary['fingerprint'])}", soft_wrap=True)
    show_comparison(summary, console)
    reused = summary["reused"]
    if any(reused.values()):
        console.print(
            f"\nReused, of the same data, test data, models and recipe: {counted(reused['runs'], 'scoring run')} "
            f"and {counted(reused['trainings'], 'training')}",
            soft_wrap=True,
        )
    if summary["runs_without_ids"]:
        console.print(
            f"{summary['runs_without_ids']} of the reused scoring runs are of an earlier version and do not say which "
            "files their examples are; remove them to have them trained again",
            soft_wrap=True,
        )
    if "planted" in summary:
        console.print(
            f"\n{len(summary['planted']['index']):,} of {summary['data']['train']:,} training labels were made wrong "
            "on purpose (--plant-wrong); summary.json says which",
            soft_wrap=True,
        )
    out = Path(summary["settings"]["out"])
    console.print(f"\nWritten: {out / 'summary.json'}, {out / 'runs'}, {out / 'figures'}", soft_wrap=True)
    console.print(f"More: difficulty-prune consistency {out}, difficulty-prune fingerprint {out}", soft_wrap=True)


def in_words(found: dict[str, Any]) -> str:
    """The answer, or why there is none."""
    return str(found.get("in_words") or f"not known: {found['not_known']}")


def reliability_table(scores: dict[str, dict[str, Any]], agreement: dict[str, list[float | None]]) -> Table:
    """A row per score: how reliable the mean of the runs and a single run are, and how runs agree with the mean."""
    runs = len(next(iter(agreement.values())))
    table = Table(
        "score", f"reliability of {counted(runs, 'run')}", "interval", "one run", "Spearman of a run with the mean"
    )
    for score, found in scores.items():
        known = [value for value in agreement[score] if value is not None]
        agreements = f"{min(known):.3f} to {max(known):.3f}" if known else "-"
        if "not_known" in found:
            table.add_row(score, "-", "-", "-", agreements)
            continue
        low, high = found["interval"]
        one_run = "-" if found["single_run"] is None else f"{found['single_run']:.3f}"
        table.add_row(score, f"{found['value']:.3f}", f"{low:.3f}-{high:.3f}", one_run, agreements)
    return table


def show_verdicts(summary: dict[str, Any], console: Console) -> None:
    """Prints the answer, for each model in a line."""
    for model, found in summary["verdicts"].items():
        name = f"{model}: " if len(summary["verdicts"]) > 1 else ""
        console.print(f"{name}{found['first_line']}", soft_wrap=True, markup=False, highlight=False)
    for line in summary["not_compared"]:
        console.print(f"{line}.", soft_wrap=True, markup=False, highlight=False)


def show_comparison(summary: dict[str, Any], console: Console) -> None:
    """Prints what pruning cost and gained, if it was tried."""
    if not summary["verdicts"]:
        return
    if summary["wrong_labels"]:
        console.print(f"\n{summary['wrong_labels']['in_words']}", soft_wrap=True)
    console.print(f"\nTrained afresh, pruned by the mean {summary['difficulty']} of all scoring runs")
    for model, found in summary["verdicts"].items():
        console.print(f"\n{model}\n{found['details']}", soft_wrap=True, markup=False, highlight=False)
    if summary["workers"] != 1:
        console.print("Wall times are not told, since trainings ran side by side: --workers 1 has them.")


def describe_together(together: dict[str, Any]) -> str:
    """What the trained models together say about the examples, in a line or two.

    >>> describe_together({"runs": 4, "model_accuracy": {"examples": 9, "never": 1, "always": 6, "sometimes": 2}})
    'Of 9 examples, 6 are always, 1 never and 2 sometimes predicted correctly by the 4 trained models'
    """
    if "left_out" in together:
        return str(together["left_out"])
    counts = together["model_accuracy"]
    text = (
        f"Of {counts['examples']:,} examples, {counts['always']:,} are always, {counts['never']:,} never and "
        f"{counts['sometimes']:,} sometimes predicted correctly by the {counted(together['runs'], 'trained model')}"
    )
    if "memorization" not in together:
        return text
    estimates = [together["memorization"], together["held_out_consistency"]]

    def both(key: str) -> str:
        return " and ".join("unknown" if e[key] is None else f"{e[key]:.3f}" for e in estimates)

    return (
        f"{text}\nmemorization and held-out consistency from {counted(together['runs'], 'run')}: mean {both('mean')}, "
        f"standard error {both('rms_standard_error')} (root mean square), {both('median_standard_error')} (median), "
        f"{counted(estimates[0]['too_few_runs'], 'example')} with fewer than 2 runs of a kind"
    )
