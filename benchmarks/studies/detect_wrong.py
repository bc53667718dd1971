"""Which score finds the wrong labels that people gave: all of the training step, windows, means of runs, folds.

    python benchmarks/studies/detect_wrong.py DEST/train TRUTH.npz --work WORK \
        --out benchmarks/results/detect-wrong.json

DEST/train and TRUTH.npz are those of `wrong_labels.py`, and so are the sets of 10,000 images and the small CNN. WORK
may be the one of that study, whose trainings by folds are then read and not repeated. Trainings are kept there, and the
same command continues; --minutes M starts nothing new after M minutes. The tables are of whatever is finished. Given
--show RESULTS.json alone, it prints the tables of committed results. One process; about an hour in all on a core of its
own.

Each score turns into a difficulty, and the wrong labels should be the hardest: AUROC, average precision (AP), and the
precision among as many of the hardest as there are wrong labels.

- "one run": a training of all images, scored while it trains. "since 6" is without the first six epochs.
- "mean of n runs": of the same scores of n seeds.
- "5 folds": probabilities of images that the training left out, as cleanlab wants them, and its own three scores of
  them. Where cleanlab is not installed, these are left out.
- "run and folds": the mean rank of el2n of one run and of the held-out probability.
- "learned": a logistic regression on the ranks of all scores of one run, learned on another set of labels. About a
  quarter of the images are in both sets.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from wrong_labels import FOLDED, FOLDS, NAMES, Array, Training, load, train

import difficulty_prune as dp
from difficulty_prune.study.progress import report_on
from difficulty_prune.support.files import write_atomically

SCORES = dp.score_names("loss", "logits")
WINDOWED = ("el2n", "margin", "aum", "confidence", "loss", "accuracy")
BURN_IN = {12: (2, 4, 6, 8, 11), 40: (4, 10, 20, 30, 39)}  # epochs left out, by epochs
CLEANLAB = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


@dataclass(frozen=True)
class Scored:
    """A training of all images of a set of labels, with every score of the training step, also of windows of it."""

    images: Path
    truth: Path
    size: int
    epochs: int
    labels: str
    seed: int
    work: Path

    @property
    def name(self) -> str:
        return f"{self.labels}, {self.epochs} epochs, seed {self.seed}"

    @property
    def path(self) -> Path:
        return self.work / f"{self.size}-images-{self.epochs}-epochs" / f"{self.labels}-scores-{self.seed}.npz"

    def run(self) -> None:
        """Keeps the difficulty [N] by score and window, the mean probabilities [N, C] and the seconds of CPU."""
        data, _ = load(self.images, self.truth, self.size, self.labels)
        windows = Windows(self.size, BURN_IN[self.epochs])
        start = time.process_time()
        train(data, torch.arange(self.size), self.epochs, self.seed, windows, windows.next_epoch)  # type: ignore[arg-type]
        content = io.BytesIO()
        np.savez(content, **windows.difficulties(), **windows.probabilities(), seconds=time.process_time() - start)
        write_atomically(self.path, content.getvalue())


class Windows:
    """Stands in for the tracker of a training: one tracker of all epochs, and one of all but the first few of each."""

    def __init__(self, size: int, starts: tuple[int, ...]) -> None:
        self._epoch = 0
        options = dp.TemporalOptions(window=5)
        self._trackers = {0: dp.DifficultyTracker(size, SCORES, temporal=options, mean_probabilities=True)}
        self._trackers |= {start: dp.DifficultyTracker(size, WINDOWED, mean_probabilities=True) for start in starts}

    def update(self, index: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        for start, tracker in self._trackers.items():
            if self._epoch >= start:
                tracker.update(index, logits, labels)

    def next_epoch(self, steps: int) -> None:
        self._epoch += 1

    def difficulties(self) -> dict[str, Array]:
        """The difficulty [N] by "score" or "score, since epoch"; high is hard."""
        found = {}
        for start, tracker in self._trackers.items():
            for score, values in tracker.compute().items():
                sign = 1 if dp.SCORES[score].higher_is_harder else -1
                found[f"{score}, since {start}" if start else score] = sign * values.numpy()
        return found

    def probabilities(self) -> dict[str, Array]:
        """Mean probabilities [N, C] by window."""
        return {f"probabilities {start}": each.mean_probabilities().numpy() for start, each in self._trackers.items()}


def measure(difficulty: Array, wrong: Array) -> dict[str, float]:
    """How well wrong labels are the hardest. Examples that were never presented count as the easiest."""
    known = np.where(np.isnan(difficulty), np.nanmin(difficulty) - 1, difficulty).astype(np.float64)
    found = dp.scores.ood(known[~wrong], known[wrong])
    hardest = np.argsort(-known, kind="stable")[: wrong.sum()]
    return {
        "auroc": round(found.auroc, 4),
        "ap": round(found.aupr, 4),
        "precision": round(float(wrong[hardest].mean()), 4),
    }


def quality(labels: Array, probabilities: Array) -> dict[str, Array]:
    """cleanlab's scores of labels as difficulties [N]; none where it is not installed."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ModuleNotFoundError as error:
        if error.name != "cleanlab":
            raise
        return {}
    return {
        f"cleanlab, {method}": -get_label_quality_scores(labels, probabilities, method=method) for method in CLEANLAB
    }


def of_folds(trainings: list[Training]) -> Array | None:
    """Probabilities [N, C] of each image by the training that left it out; None unless all folds are finished."""
    if not all(task.is_done() for task in trainings):
        return None
    runs = [dp.Run.load(task.path) for task in trainings]
    held = np.zeros(runs[0].probabilities.shape, np.float64)
    for run in runs:
        held[~run.seen] = run.probabilities[~run.seen]
    return held / held.sum(1, keepdims=True)


def rows_of(labels: Array, wrong: Array, runs: list[dict[str, Array]], held: Array | None) -> dict[str, Any]:
    """The measures by way; of one run they are the mean over the seeds, with the smallest and the largest."""
    rows: dict[str, Any] = {}
    for score in (name for name in (runs[0] if runs else {}) if runs[0][name].ndim == 1):
        each = [measure(run[score], wrong) for run in runs if not np.isnan(run[score]).all()]
        if each:
            rows[f"one run: {score}"] = over(each)
        if len(each) > 1:
            rows[f"mean of {len(runs)} runs: {score}"] = measure(np.mean([run[score] for run in runs], 0), wrong)
    for name in (name for name in (runs[0] if runs else {}) if name.startswith("probabilities ")):
        start = name.split()[1]
        window = "" if start == "0" else f", since {start}"
        for way in quality(labels, runs[0][name]):
            each = [measure(quality(labels, normalised(run[name]))[way], wrong) for run in runs]
            rows[f"one run: {way} of mean probabilities{window}"] = over(each)
    if held is not None:
        own = held[np.arange(len(labels)), labels]
        rows["5 folds: held-out probability"] = measure(-own, wrong)
        others = held.copy()
        others[np.arange(len(labels)), labels] = -1
        rows["5 folds: held-out margin"] = measure(others.max(1) - own, wrong)
        rows |= {f"5 folds: {way}": measure(values, wrong) for way, values in quality(labels, held).items()}
        if runs:
            both = [rankdata(run["el2n"]) + rankdata(-own) for run in runs]
            rows["run and folds: el2n and held-out probability"] = over([measure(values, wrong) for values in both])
    return rows


def normalised(probabilities: Array) -> Array:
    """Rows that sum to 1 within cleanlab's tolerance."""
    values = probabilities.astype(np.float64)
    return values / values.sum(1, keepdims=True)


def over(each: list[dict[str, float]]) -> dict[str, Any]:
    """Means over the seeds, and the smallest and the largest AUROC."""
    found: dict[str, Any] = {key: round(float(np.mean([one[key] for one in each])), 4) for key in each[0]}
    return found | {"seeds": len(each), "auroc_of_seeds": [one["auroc"] for one in each]}


def ranks(run: dict[str, Array]) -> tuple[list[str], Array]:
    """The names of the scores of a run that are known for every image, and their ranks [N, scores] in 0 to 1."""
    names = [name for name in run if run[name].ndim == 1 and not np.isnan(run[name]).any()]
    return names, np.stack([rankdata(run[name]) / len(run[name]) for name in names], 1)


def learned(sets: dict[str, tuple[Array, list[dict[str, Array]]]]) -> dict[str, Any]:
    """A combination of the scores of one run, learned on the labels of one set and measured on those of another."""
    found: dict[str, Any] = {}
    for taught, (wrong, runs) in sets.items():
        if not runs:
            continue
        names, features = ranks(runs[0])
        model = LogisticRegression(C=0.01, max_iter=1000).fit(features, wrong)
        for name, (others, tested) in sets.items():
            if name != taught and tested and ranks(tested[0])[0] == names:
                each = [measure(model.decision_function(ranks(run)[1]), others) for run in tested]
                found.setdefault(name, {})[f"learned on {taught}"] = over(each)
    return found


def summarise(options: argparse.Namespace, tasks: list[Scored]) -> dict[str, Any]:
    """The tables by "set, epochs" of all that is finished."""
    found: dict[str, Any] = {}
    for epochs in sorted({task.epochs for task in tasks}):
        sets: dict[str, tuple[Array, list[dict[str, Array]]]] = {}
        for name in options.sets:
            data, clean = load(options.images, options.truth, options.size, name)
            labels = data.train.labels.numpy()
            finished = [task for task in tasks if (task.labels, task.epochs) == (name, epochs) and task.path.exists()]
            runs = []
            for task in finished:
                with np.load(task.path) as file:
                    runs.append(dict(file))
            seconds = [float(run.pop("seconds")) for run in runs]
            if not runs and (earlier := fold_of(options, name, epochs, -1)).is_done():  # with fewer scores
                known = dp.RunSet.load([earlier.path])
                runs = [{score: known.difficulty(score) for score in known.scores}]
                seconds = [known[0].metadata["outcome"]["seconds"]]
            held = of_folds([fold_of(options, name, epochs, fold) for fold in range(FOLDS)])
            if not runs and held is None:
                continue
            wrong = labels != clean
            sets[name] = (wrong, runs)
            found[f"{name}, {epochs} epochs"] = {
                "wrong": int(wrong.sum()),
                "runs": len(runs),
                "cpu_seconds_of_a_run": round(float(np.mean(seconds)), 1) if seconds else None,
                "rows": rows_of(labels, wrong, runs, held),
            }
        for name, rows in learned(sets).items():
            found[f"{name}, {epochs} epochs"]["rows"] |= rows
    return found


def fold_of(options: argparse.Namespace, labels: str, epochs: int, fold: int) -> Training:
    """A training of `wrong_labels.py`, by the same name in the same folder."""
    work = options.work / f"{options.size}-images-{epochs}-epochs"
    return Training(options.images, options.truth, options.size, epochs, labels, fold, 0, work)


def print_tables(result: dict[str, Any], console: Console) -> None:
    for name, found in result["sets"].items():
        labels, _, epochs = name.partition(", ")
        grid = Table("way", "AUROC", "AP", "precision", "AUROC of seeds", box=None, title_justify="left")
        grid.title = f"\n{NAMES[labels]}, {epochs}: {found['wrong']:,} wrong labels"
        for way, row in sorted(found["rows"].items(), key=lambda item: -item[1]["ap"]):
            seeds = row.get("auroc_of_seeds", [])
            spread = f"{min(seeds):.3f} to {max(seeds):.3f}" if len(seeds) > 1 else ""
            grid.add_row(way, *(f"{row[key]:.3f}" for key in ("auroc", "ap", "precision")), spread)
        console.print(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("truth", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, help="where trainings are kept")
    parser.add_argument("--size", type=int, default=10_000, help="images to train on (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of 12 epochs of each set (default %(default)s)")
    parser.add_argument("--long", type=int, default=1, help="trainings of 40 epochs of each set (default %(default)s)")
    parser.add_argument("--sets", nargs="+", choices=FOLDED, default=list(FOLDED))
    parser.add_argument("--no-folds", action="store_true", help="do not train on folds; those in WORK are still read")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so many")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="print committed results and train nothing")
    options = parser.parse_args()
    console = Console(width=140)
    if options.show:
        print_tables(json.loads(options.show.read_text()), console)
        return
    if options.images is None or options.truth is None or options.work is None:
        parser.error("the images, the truth and --work are needed, or --show")

    start = time.monotonic()
    torch.set_num_threads(1)
    what = (options.images, options.truth, options.size)
    lengths = [(12, seed) for seed in range(options.seeds)] + [(40, seed) for seed in range(options.long)]
    tasks = [Scored(*what, epochs, name, seed, options.work) for epochs, seed in lengths for name in options.sets]
    left: list[tuple[str, Callable[[], None]]] = [(task.name, task.run) for task in tasks if not task.path.exists()]
    if not options.no_folds:
        folds = [fold_of(options, name, 12, fold) for name in options.sets for fold in range(FOLDS)]
        left += [(task.describe(), partial(task.run, lambda steps: None)) for task in folds if not task.is_done()]
    done = 0
    with report_on(Console(stderr=True), "wrong labels", len(left), len(left), "training") as report:
        for name, run in left:
            if time.monotonic() - start > 60 * options.minutes:
                break
            report.update(done, [name])
            began = time.monotonic()
            run()
            done += 1
            report.finished(name, time.monotonic() - began)
    if done < len(left):
        console.print(f"{len(left) - done} trainings are left: run the same command again")
    result = {"machine": machine(), "size": options.size, "sets": summarise(options, tasks)}
    print_tables(result, console)
    if options.out:
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
