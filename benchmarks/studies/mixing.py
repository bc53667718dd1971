"""Scores from training with mixup and CutMix: do they say what they say without mixing?

    python benchmarks/studies/mixing.py DEST/train TRUTH.npz --work WORK --out benchmarks/results/mixing.json

DEST/train is CIFAR-10 as an image folder whose files are named by their position in the original training set.
TRUTH.npz holds, in the original order, `human_label_first` (the label that the first person gave; 17 % are wrong). timm
must be installed. Runs are kept in WORK, and the same command continues from there.

The small CNN of `study` trains on some of the images with the labels that people gave: without mixing, with a random
choice of torchvision's CutMix and MixUp, and with timm's Mixup (alphas 0.8 and 1.0, all else as it is by default). Two
trackers record every step of a training with mixing:

- naive: each mixed image with its own index and label, those that it had before mixing.
- dominant: with the index and label of `dp.dominant`; rows of unknown source are left out.

A score is compared with that of trainings without mixing by Spearman correlation, single run with single run, where
their seeds differ. The ceiling is that between trainings without mixing. AUROC: the chance that a wrong label scores
harder than a right one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from images import original_positions, some_images
from machine import machine
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from torch import Tensor

import difficulty_prune as dp
from difficulty_prune.study.executor import run_tasks
from difficulty_prune.study.models import build_model
from difficulty_prune.study.study_data import Images, StudyData
from difficulty_prune.study.train import augment, mixed_precision, predict, prepare
from difficulty_prune.support.files import write_atomically
from difficulty_prune.support.randomness import generator_from

Array = np.ndarray[Any, np.dtype[Any]]
Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

BATCH = 128
SCORES = ("el2n", "loss", "aum", "forgetting")
ARMS = ("none", "torchvision", "timm")
WAYS = ("naive", "dominant")


def mixing(arm: str, classes: int) -> Mixing | None:
    """The transform of a batch, as its library makes it."""
    if arm == "torchvision":
        from torchvision.transforms import v2

        return v2.RandomChoice([v2.CutMix(num_classes=classes), v2.MixUp(num_classes=classes)])
    if arm == "timm":
        from timm.data import Mixup

        return Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=classes)
    return None


@dataclass(frozen=True)
class Training:
    """One training; its scores become run files, one per way of recording."""

    images: Path
    truth: Path
    size: int
    epochs: int
    arm: str
    seed: int
    work: Path

    def describe(self) -> str:
        return f"mixing {self.arm}, seed {self.seed}"

    def path(self, way: str) -> Path:
        return self.work / f"{self.arm}-{way}-{self.seed}.safetensors"

    @property
    def ways(self) -> tuple[str, ...]:
        return WAYS if self.arm != "none" else WAYS[:1]

    def steps(self, train_size: int) -> int:
        return self.epochs * (train_size // BATCH)

    def is_done(self) -> bool:
        return all(self.path(way).exists() for way in self.ways)

    def run(self, report: Callable[[int], None]) -> None:
        torch.set_num_threads(1)
        data, _ = load(self.images, self.truth, self.size)
        trackers = {way: dp.DifficultyTracker(self.size, SCORES) for way in self.ways}
        facts = train(data, self.epochs, self.seed, mixing(self.arm, data.num_classes), trackers, report)
        for way, tracker in trackers.items():
            run = tracker.finish(architecture="cnn", seed=self.seed, labels=data.train.labels, outcome=facts)
            run.save(self.path(way))


def train(
    data: StudyData,
    epochs: int,
    seed: int,
    mix: Mixing | None,
    trackers: dict[str, dp.DifficultyTracker],
    report: Callable[[int], None],
) -> dict[str, float]:
    """Trains the small CNN as `study` does, in whole batches; returns test accuracy and the share of rows left out."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  timm draws from it
    model = build_model("cnn", data.shape, data.num_classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(data.train) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=epochs * steps, pct_start=0.25)
    device, left_out = torch.device("cpu"), 0
    for epoch in range(epochs):
        order = torch.randperm(len(data.train), generator=generator_from(seed, epoch))
        model.train()
        for index in order[: steps * BATCH].split(BATCH):
            x, y = augment(prepare(data.train.images[index], data, device)), data.train.labels[index]
            mixed, targets = mix(x, y) if mix else (x, y)
            with mixed_precision(device):
                logits = model(mixed)
            logits = logits.float()
            trackers["naive"].update(index, logits, y)
            if mix:
                source, label = dp.dominant(index, y, targets)
                trackers["dominant"].update(source, logits, label)
                left_out += int((label == -100).sum())
            optimizer.zero_grad()
            F.cross_entropy(logits, targets).backward()
            optimizer.step()
            schedule.step()
        report(steps)
    correct = predict(model, data, data.test).argmax(1) == data.test.labels
    return {"test_accuracy": correct.double().mean().item(), "left_out": left_out / (epochs * steps * BATCH)}


@cache
def load(images: Path, truth: Path, size: int) -> tuple[StudyData, Array]:
    """The images with the labels that people gave, and which of these are wrong [size]; published labels to test on."""
    data, chosen = some_images(images, size)
    with np.load(truth) as file:
        human = torch.from_numpy(file["human_label_first"][original_positions(images)[chosen]].astype(np.int64))
    return replace(data, train=Images(data.train.images, human)), (human != data.train.labels).numpy()


def row_of(runs: list[dp.Run], unmixed: list[dp.Run], wrong: Array) -> dict[str, Any]:
    """Spearman of pairs of runs with different seeds, and AUROC of each run, by score; runs and seeds in order."""
    row: dict[str, Any] = {"outcomes": [run.metadata["outcome"] for run in runs], "spearman": {}, "auroc": {}}
    for score in SCORES:
        sign = 1 if dp.SCORES[score].higher_is_harder else -1
        pairs = combinations(unmixed, 2) if runs is unmixed else product(runs, unmixed)
        apart = [(a, b) for a, b in pairs if a.metadata["seed"] != b.metadata["seed"]]
        row["spearman"][score] = [correlation(a.scores[score], b.scores[score]) for a, b in apart]
        difficulties = [sign * run.scores[score] for run in runs]
        row["auroc"][score] = [round(dp.scores.ood(d[~wrong], d[wrong]).auroc, 4) for d in map(known, difficulties)]
    return row


def known(values: Array) -> Array:
    if np.isnan(values).any():
        raise RuntimeError(f"{np.isnan(values).sum()} examples were never recorded; train for more epochs")
    return values


def correlation(a: Array, b: Array) -> float:
    return round(float(spearmanr(known(a), known(b)).statistic), 4)


def table(rows: dict[str, dict[str, Any]], kind: str, title: str) -> Table:
    grid = Table(box=None, title=title)
    grid.add_column("mixing, recorded")
    for score in SCORES:
        grid.add_column(score, justify="right")
    for name, row in rows.items():
        cells = [f"{np.mean(row[kind][score]):.3f} ± {np.std(row[kind][score], ddof=1):.3f}" for score in SCORES]
        grid.add_row(name, *cells)
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--size", type=int, default=6000, help="images to train on (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="(default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="trainings side by side (default %(default)s)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    settings = {name: getattr(options, name) for name in ("size", "epochs")}
    work = options.work / f"{options.size}-images-{options.epochs}-epochs"
    tasks = [
        Training(options.images, options.truth, **settings, arm=arm, seed=seed, work=work)
        for seed in range(options.seeds)
        for arm in ARMS
    ]
    pending: list[Any] = [task for task in tasks if not task.is_done()]
    run_tasks(pending, options.workers, options.size, Console(stderr=True), "mixing")

    _, wrong = load(options.images, options.truth, options.size)
    found = {
        (arm, way): [dp.Run.load(task.path(way)) for task in tasks if task.arm == arm]
        for arm in ARMS
        for way in (WAYS if arm != "none" else WAYS[:1])
    }
    unmixed = found["none", "naive"]
    rows = {
        "none" if arm == "none" else f"{arm}, {way}": row_of(runs, unmixed, wrong) for (arm, way), runs in found.items()
    }
    console = Console(width=120)
    console.print(table(rows, "spearman", "Spearman with trainings without mixing, of other seeds"))
    console.print(table(rows, "auroc", "AUROC for wrong labels"))
    for name, row in rows.items():
        accuracy, left_out = (np.mean([o[key] for o in row["outcomes"]]) for key in ("test_accuracy", "left_out"))
        console.print(f"{name}: test accuracy {accuracy:.3f}, {left_out:.2%} of the rows of unknown source")
    console.print(f"{options.size} images, {options.epochs} epochs; {wrong.mean():.1%} of people's labels are wrong")
    if options.out:
        result = {"machine": machine(), **settings, "seeds": options.seeds, "wrong_labels": float(wrong.mean())}
        write_atomically(options.out, json.dumps({**result, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
