"""Dynamic pruning on real images: does it reach the accuracy of full training? Does it beat simply fewer steps?

    python benchmarks/studies/dynamic_pruning.py DEST/train DEST/test --work WORK \
        --out benchmarks/results/dynamic-pruning.json

DEST is CIFAR-10 as image folders. The small CNN of `study` is trained in three ways. All use the same seeds, which fix
initialisation and augmentation, and one learning-rate cycle over all their steps:

- full: every example in every epoch.
- soft: `SoftPrune(keep, anneal)` by the loss of the training step itself, with a new plan in every epoch. The first
  epoch is full because nothing is known yet; the last ones are full because of `anneal`.
- fewer steps: as many steps as soft, on examples drawn uniformly (`Random(1.0)` with `fixed_length`).

Results are kept in WORK, and the same command continues from there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import train_test_split

import difficulty_prune as dp
from difficulty_prune.policies.uniform import Random
from difficulty_prune.policies.weighted import SoftPrune
from difficulty_prune.study.executor import run_tasks
from difficulty_prune.study.study_data import Images, StudyData, load_data
from difficulty_prune.study.train import Recipe, number_of_batches, train
from difficulty_prune.support.files import write_atomically

ARMS = ("full", "soft", "fewer steps")


@dataclass(frozen=True)
class Training:
    """One training; its outcome is written as JSON."""

    images: Path
    test: Path
    size: int
    epochs: int
    keep: float
    anneal: float
    arm: str
    seed: int
    work: Path

    @property
    def label(self) -> str:
        return f"{self.arm}, seed {self.seed}"

    @property
    def path(self) -> Path:
        return self.work / f"{self.arm.replace(' ', '-')}-{self.seed}.json"

    def is_done(self) -> bool:
        return self.path.exists()

    @property
    def policy(self) -> SoftPrune:
        return SoftPrune(self.keep, self.anneal, self.epochs)

    def presentations(self, arm: str) -> list[int]:
        """Number of examples visited in each epoch."""
        if arm == "full":
            return [self.size] * self.epochs
        pruned = [round(self.policy.at(epoch).keep * self.size) for epoch in range(self.epochs)]
        pruned[0] = self.size  # nothing has been seen
        return pruned if arm == "soft" else [sum(pruned) // self.epochs] * self.epochs

    def steps(self, train_size: int) -> int:
        return sum(number_of_batches(visited, Recipe.batch_size) for visited in self.presentations(self.arm))

    def run(self, report: Callable[[int], None]) -> None:
        data = some_of(load_data(f"imagefolder:{self.images}", f"imagefolder:{self.test}"), self.size)
        tracker = dp.DifficultyTracker(self.size, ("loss",))
        if self.arm == "soft":
            sampler = dp.PruneSampler(self.policy, tracker.source("loss"), seed=self.seed)
        else:
            length = self.presentations(self.arm)[0]
            sampler = dp.PruneSampler(Random(1.0), np.zeros(self.size), seed=self.seed, fixed_length=length)
        steps = self.steps(self.size)
        outcome = train(data, "cnn", sampler, Recipe(self.epochs), self.seed, tracker, report, steps)
        presented = tracker.presentations
        if presented != sum(self.presentations(self.arm)):
            raise RuntimeError(f"{self.label}: {presented} presentations, expected {self.presentations(self.arm)}")
        write_atomically(self.path, json.dumps({**outcome.facts(), "presentations": presented}))


def some_of(data: StudyData, size: int) -> StudyData:
    """`size` of the training images, the same fraction of each class, and all test images."""
    labels = data.train.labels
    if size == len(labels):
        return data
    chosen, _ = train_test_split(np.arange(len(labels)), train_size=size, stratify=labels, random_state=0)
    chosen = np.sort(chosen)
    return StudyData(Images(data.train.images[chosen], labels[chosen]), data.test, data.num_classes)


def summed_up(tasks: list[Training]) -> dict[str, dict[str, Any]]:
    """For each way of training: its cost, and the mean and standard deviation of its test accuracy over seeds."""
    rows: dict[str, dict[str, Any]] = {}
    for arm in ARMS:
        results = [json.loads(task.path.read_text()) for task in tasks if task.arm == arm]
        accuracy = [result["test_accuracy"] for result in results]
        rows[arm] = {
            "presentations": results[0]["presentations"],
            "steps": results[0]["steps"],
            "accuracy": accuracy,
            "mean": float(np.mean(accuracy)),
            "deviation": float(np.std(accuracy, ddof=1)) if len(accuracy) > 1 else None,
            "seconds": [round(result["seconds"], 1) for result in results],
        }
    for arm in ARMS:  # seed by seed, because initialisation and augmentation are shared
        gaps = np.subtract(rows[arm]["accuracy"], rows["full"]["accuracy"])
        rows[arm]["gap to full"] = {"mean": float(gaps.mean()), "each": [round(float(gap), 4) for gap in gaps]}
    return rows


def table(rows: dict[str, dict[str, Any]]) -> Table:
    result = Table("trained on", "presentations", "steps", "test accuracy", "each seed", "less than full")
    for arm, row in rows.items():
        spread = "" if row["deviation"] is None else f" ± {row['deviation']:.4f}"
        each = " ".join(f"{accuracy:.4f}" for accuracy in row["accuracy"])
        counts = f"{row['presentations']:,}", f"{row['steps']:,}"
        result.add_row(arm, *counts, f"{row['mean']:.4f}{spread}", each, f"{row['gap to full']['mean']:+.4f}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", type=int, default=20_000, help="images to train on (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="(default %(default)s)")
    parser.add_argument("--keep", type=float, default=0.7, help="(default %(default)s)")
    parser.add_argument("--anneal", type=float, default=0.125, help="(default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="trainings side by side (default %(default)s)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    settings = {name: getattr(options, name) for name in ("size", "epochs", "keep", "anneal")}
    work = options.work / "-".join(f"{name}={value}" for name, value in settings.items())
    work.mkdir(parents=True, exist_ok=True)
    tasks = [
        Training(options.images, options.test, **settings, arm=arm, seed=seed, work=work)
        for seed in range(options.seeds)
        for arm in ARMS
    ]
    pending = [task for task in tasks if not task.is_done()]
    run_tasks(pending, options.workers, options.size, Console(stderr=True), "dynamic pruning")

    rows = summed_up(tasks)
    Console(width=120).print(table(rows))
    if options.out:
        result = {"machine": machine(), **settings, "recipe": asdict(Recipe(options.epochs)), "rows": rows}
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
