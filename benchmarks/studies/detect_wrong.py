"""Which score finds the wrong labels that people gave: all of the training step, windows, means of runs, folds.

    python benchmarks/studies/detect_wrong.py DEST/train TRUTH.npz --work WORK \
        --out benchmarks/results/detect-wrong.json

DEST/train and TRUTH.npz are those of `wrong_labels.py`, and so are the sets of 10,000 images and the small CNN.
Trainings are kept in WORK, and the same command continues; --minutes M starts nothing new after M minutes. The tables
are of whatever is finished. Given --show RESULTS.json alone, it prints the tables of committed results. About 50
minutes in all on a core of its own, half as many on two.

Each score turns into a difficulty, and the wrong labels should be the hardest: AUROC, average precision (AP), and the
precision among as many of the hardest as there are wrong labels.

- "one run": a training of all images, scored while it trains. "since 6" is without the first six epochs.
- "mean of n runs": of the same scores of n seeds.
- "cnn and resnet8", and so on: the mean rank of runs of these architectures.
- "5 folds": probabilities of images that the training left out, as cleanlab wants them, and its own three scores of
  them. Where cleanlab is not installed, these are left out. "2 folds": of two trainings on a half each.
- "5 folds, in step": the mean of the scores of the four trainings that an image was in; "and held out": the mean rank
  of that and of the held-out probability.
- "run and folds": the mean rank of el2n of one run and of the held-out probability.
- "learned": a logistic regression on the ranks of all scores of one run, learned on another set of labels. About a
  quarter of the images are in both sets.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from pieces import finish, processes
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from wrong_labels import FOLDED, NAMES, Array, folds, load, train

import difficulty_prune as dp
from difficulty_prune.study.study_data import Images
from difficulty_prune.study.train import predict
from difficulty_prune.support.files import write_atomically

SCORES = dp.score_names("loss", "logits")
WINDOWED = ("el2n", "margin", "aum", "confidence", "loss", "accuracy")
BURN_IN = {12: (2, 4, 6, 8, 11), 40: (10, 20, 30, 39)}  # epochs left out, by epochs; folds leave out a half
CLEANLAB = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
OTHERS = ("resnet8", "mlp")  # architectures beside the small CNN


@dataclass(frozen=True)
class Part:
    """The images of a training: all but one of so many folds; of one fold, all."""

    folds: int = 1
    left_out: int = 0

    def seen(self, labels: Array, seed: int) -> Array:
        """Whether the training sees it [N]."""
        if self.folds == 1:
            return np.ones(len(labels), bool)
        seen: Array = folds(labels, seed, self.folds) != self.left_out
        return seen


@dataclass(frozen=True)
class Scored:
    """A training with a set of labels, with every score of the training step, also of windows of it."""

    images: Path
    truth: Path
    size: int
    work: Path
    labels: str
    epochs: int
    seed: int = 0
    model: str = "cnn"
    part: Part = Part()

    @property
    def name(self) -> str:
        left_out = f", fold {self.part.left_out} of {self.part.folds}" if self.part.folds > 1 else ""
        return f"{self.labels}, {self.epochs} epochs, {self.model}, seed {self.seed}{left_out}"

    @property
    def path(self) -> Path:
        name = f"{self.labels}-{self.model}-{self.seed}-fold-{self.part.left_out}-of-{self.part.folds}.npz"
        return self.work / f"{self.size}-images-{self.epochs}-epochs" / name

    def is_done(self) -> bool:
        return self.path.exists()

    def run(self) -> str:
        """Keeps the difficulty [N] by score and window, the mean probabilities [N, C] and the seconds of CPU.

        Of folds also the probabilities of what was left out, `held` [N, C]. What a training did not see has NaN.
        """
        data, _ = load(self.images, self.truth, self.size, self.labels)
        seen = self.part.seen(data.train.labels.numpy(), self.seed)
        starts = BURN_IN[self.epochs] if self.part.folds == 1 else (self.epochs // 2,)
        windows = Windows(self.size, starts)
        start = time.process_time()
        used = torch.from_numpy(np.flatnonzero(seen))
        model = train(data, used, self.epochs, self.seed, windows, windows.next_epoch, self.model)
        found: dict[str, Any] = {**windows.difficulties(), **windows.probabilities()}
        if not seen.all():
            found["held"] = np.full((self.size, data.num_classes), np.nan, np.float32)
            left_out = torch.from_numpy(np.flatnonzero(~seen))
            found["held"][~seen] = predict(
                model, data, Images(data.train.images[left_out], data.train.labels[left_out])
            )
        seconds = time.process_time() - start
        content = io.BytesIO()
        np.savez(content, **found, seconds=seconds)
        write_atomically(self.path, content.getvalue())
        return f"{seconds:.0f} s of CPU"

    def result(self) -> dict[str, Array]:
        with np.load(self.path) as file:
            return dict(file)


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


def rows_of(labels: Array, wrong: Array, runs: list[dict[str, Array]]) -> dict[str, Any]:
    """The measures by way; of one run they are the mean over the seeds, with the smallest and the largest."""
    rows: dict[str, Any] = {}
    for score in scores_of(runs[0]):
        each = [measure(run[score], wrong) for run in runs if not np.isnan(run[score]).all()]
        if each:
            rows[f"one run: {score}"] = over(each)
        for number in range(2, len(each) + 1):
            rows[f"mean of {number} runs: {score}"] = measure(np.mean([run[score] for run in runs[:number]], 0), wrong)
    for name in (name for name in runs[0] if name.startswith("probabilities ")):
        start = name.split()[1]
        window = "" if start == "0" else f", since {start}"
        for way in quality(labels, runs[0][name]):
            each = [measure(quality(labels, normalised(run[name]))[way], wrong) for run in runs]
            rows[f"one run: {way} of mean probabilities{window}"] = over(each)
    return rows


def scores_of(run: dict[str, Array]) -> list[str]:
    return [name for name, values in run.items() if values.ndim == 1]


def rows_of_architectures(wrong: Array, runs: dict[str, dict[str, Array]]) -> dict[str, Any]:
    """Of runs by architecture: each alone but the first, and the mean rank of the first few."""
    rows: dict[str, Any] = {}
    names = list(runs)
    for score in scores_of(runs[names[0]]):
        if any(np.isnan(run[score]).any() for run in runs.values()):
            continue
        for name in names[1:]:
            rows[f"{name}: {score}"] = measure(runs[name][score], wrong)
        for number in range(2, len(names) + 1):
            ranked = [rankdata(runs[name][score]) for name in names[:number]]
            rows[f"{' and '.join(names[:number])}: {score}"] = measure(np.mean(ranked, 0), wrong)
    return rows


def rows_of_folds(
    labels: Array, wrong: Array, runs: list[dict[str, Array]], parts: list[dict[str, Array]]
) -> dict[str, Any]:
    """Of trainings that each leave a fold out: held-out probabilities, the scores of the step, and both together."""
    rows: dict[str, Any] = {}
    ways = f"{len(parts)} folds"
    held = normalised(np.nansum([part["held"] for part in parts], 0))
    own = held[np.arange(len(labels)), labels]
    others = held.copy()
    others[np.arange(len(labels)), labels] = -1
    rows[f"{ways}: held-out probability"] = measure(-own, wrong)
    rows[f"{ways}: held-out margin"] = measure(others.max(1) - own, wrong)
    rows |= {f"{ways}: {way}": measure(values, wrong) for way, values in quality(labels, held).items()}
    for score in scores_of(parts[0]):
        each = np.stack([part[score] for part in parts])
        if np.isfinite(each).any(0).all():
            in_step = np.nanmean(each, 0)
            rows[f"{ways}, in step: {score}"] = measure(in_step, wrong)
            rows[f"{ways}, in step and held out: {score}"] = measure(rankdata(in_step) + rankdata(-own), wrong)
    both = [rankdata(run["el2n"]) + rankdata(-own) for run in runs]
    rows[f"run and {ways}: el2n and held-out probability"] = over([measure(values, wrong) for values in both])
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


def trainings(options: argparse.Namespace) -> list[Scored]:
    """All, the most informative first."""
    what = (options.images, options.truth, options.size, options.work)
    found = [Scored(*what, labels, 12, seed) for seed in range(options.seeds) for labels in options.sets]
    if options.folds:
        found += [Scored(*what, labels, 12, part=part) for labels in options.sets for part in parts(5)]
        found += [Scored(*what, labels, 12, part=part) for labels in options.sets for part in parts(2)]
    found += [Scored(*what, labels, 12, model=model) for model in options.models for labels in options.sets]
    for labels in options.sets:
        found += [Scored(*what, labels, 40, seed) for seed in range(options.long)]
        if options.folds and options.long:
            found += [Scored(*what, labels, 40, part=part) for part in parts(5)]
    return found


def parts(number: int) -> list[Part]:
    return [Part(number, left_out) for left_out in range(number)]


def summarise(options: argparse.Namespace, tasks: list[Scored]) -> dict[str, Any]:
    """The tables by "set, epochs" of all that is finished."""
    found: dict[str, Any] = {}
    done = [task for task in tasks if task.is_done()]
    for epochs in sorted({task.epochs for task in tasks}):
        sets: dict[str, tuple[Array, list[dict[str, Array]]]] = {}
        for name in options.sets:
            of_set = [task for task in done if (task.labels, task.epochs) == (name, epochs)]
            of_cnn = [task.result() for task in of_set if task.model == "cnn" and task.part.folds == 1]
            if not of_cnn:
                continue
            data, clean = load(options.images, options.truth, options.size, name)
            labels = data.train.labels.numpy()
            wrong = labels != clean
            sets[name] = (wrong, of_cnn)
            rows, seconds = rows_of(labels, wrong, of_cnn), {"one run": seconds_of(of_cnn)}
            for number in (5, 2):
                of_folds = [task.result() for task in of_set if task.part.folds == number]
                if len(of_folds) == number:
                    rows |= rows_of_folds(labels, wrong, of_cnn, of_folds)
                    seconds[f"{number} folds"] = number * seconds_of(of_folds)
            others = {task.model: task.result() for task in of_set if task.model != "cnn"}
            if others:
                rows |= rows_of_architectures(wrong, {"cnn": of_cnn[0], **others})
                seconds |= {model: seconds_of([run]) for model, run in others.items()}
            seconds = {what: round(value, 1) for what, value in seconds.items()}
            found[f"{name}, {epochs} epochs"] = {
                "wrong": int(wrong.sum()),
                "runs": len(of_cnn),
                "cpu_seconds": seconds,
                "rows": rows,
            }
        for name, rows in learned(sets).items():
            found[f"{name}, {epochs} epochs"]["rows"] |= rows
    return found


def seconds_of(runs: list[dict[str, Array]]) -> float:
    """The mean over runs; windows, each with a tracker of its own, are in it."""
    return float(np.mean([run["seconds"] for run in runs]))


def print_tables(result: dict[str, Any], console: Console) -> None:
    for name, found in result["sets"].items():
        labels, _, epochs = name.partition(", ")
        grid = Table("way", "AUROC", "AP", "precision", "AUROC of seeds", box=None, title_justify="left")
        cost = ", ".join(f"{what} {seconds:,.0f} s" for what, seconds in found["cpu_seconds"].items())
        grid.title = f"\n{NAMES[labels]}, {epochs}: {found['wrong']:,} wrong labels; CPU time, with windows: {cost}"
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
    parser.add_argument("--models", nargs="*", default=OTHERS, help="other architectures (default %(default)s)")
    parser.add_argument("--no-folds", dest="folds", action="store_false", help="train on no folds")
    parser.add_argument("--workers", type=int, default=2, help="trainings side by side (default %(default)s)")
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

    tasks = trainings(options)
    with processes(options.workers) as pool:
        finish(pool, tasks, options.workers, time.time() + 60 * options.minutes)
    if left := sum(not task.is_done() for task in tasks):
        console.print(f"{left} trainings are left: run the same command again")
    result = {"machine": machine(), "size": options.size, "sets": summarise(options, tasks)}
    print_tables(result, console)
    if options.out:
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
