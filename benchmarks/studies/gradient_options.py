"""How smaller states of input gradients change speed and ranking, on real images.

    python benchmarks/studies/gradient_options.py DEST/train --out benchmarks/results/gradient-options.json

DEST/train is an image folder such as CIFAR-10's. A small CNN is trained on some of its images, and every option of
`GradientOptions` sees the same gradients of the same steps. Each resulting `vog_loss` is compared with the exact one by
Spearman correlation. The time of an update is that of `tracker.watch` and its share of the backward pass. The options
take turns, each with a state of 50,000 examples, which no cache holds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from images import some_images
from machine import machine
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import spearmanr
from torch import Tensor

import difficulty_prune as dp
from difficulty_prune.study.study_data import StudyData
from difficulty_prune.study.train import Recipe, train
from difficulty_prune.support.files import write_atomically

EXACT = "exact"


def options_by_name(folder: str) -> dict[str, dp.GradientOptions]:
    """The options to compare, the exact one first."""
    return {
        EXACT: dp.GradientOptions(),
        "exact, memory-mapped": dp.GradientOptions(mmap=folder),
        "M2 in bfloat16": dp.GradientOptions(m2_dtype="bfloat16"),
        "512 pixels": dp.GradientOptions(pixels=512),
        "256 pixels": dp.GradientOptions(pixels=256),
        "256 pixels, M2 in bfloat16": dp.GradientOptions(pixels=256, m2_dtype="bfloat16"),
        "64 pixels": dp.GradientOptions(pixels=64),
        "64 pixels, M2 in bfloat16": dp.GradientOptions(pixels=64, m2_dtype="bfloat16"),
    }


class Together:
    """Stands in for the one tracker that the study's training expects; all its trackers watch the same gradients."""

    scores = ("vog_loss",)

    def __init__(self, trackers: list[dp.DifficultyTracker]) -> None:
        self.trackers = trackers

    def watch(self, inputs: Tensor, index: Tensor, **arguments: Any) -> Tensor:
        for tracker in self.trackers:
            inputs = tracker.watch(inputs, index, **arguments)
        return inputs

    def update(self, *arguments: Any, **named: Any) -> None:
        """Does nothing: `vog_loss` needs only `watch`."""


def trained_scores(
    data: StudyData, options: dict[str, dp.GradientOptions], recipe: Recipe
) -> tuple[dict[str, np.ndarray[Any, Any]], float]:
    """`vog_loss` [N] by option, all from one training, and the test accuracy of that training."""
    trackers = [dp.DifficultyTracker(len(data.train), ("vog_loss",), gradient=each) for each in options.values()]
    everything = dp.PruneSampler(dp.policies.Random(keep=1.0), np.zeros(len(data.train)), seed=0)
    with Progress(transient=True) as progress:
        task = progress.add_task("training", total=recipe.epochs * -(-len(data.train) // recipe.batch_size))
        outcome = train(
            data, "cnn", everything, recipe, 0, Together(trackers), lambda steps: progress.advance(task, steps)
        )
    scores = [tracker.compute()["vog_loss"].numpy() for tracker in trackers]
    return dict(zip(options, scores, strict=True)), outcome.test_accuracy


def update_seconds(
    options: dict[str, dp.GradientOptions],
    shape: tuple[int, ...],
    batch: int = 256,
    examples: int = 50_000,
    rounds: int = 12,
) -> dict[str, float]:
    """Median seconds of one update of `batch` examples; the options take turns, and the first round does not count."""
    trackers = {name: dp.DifficultyTracker(examples, ("vog_loss",), gradient=each) for name, each in options.items()}
    batches = list(torch.randperm(examples).split(batch)[:16])
    inputs, gradients = torch.randn(batch, *shape), torch.randn(len(batches), batch, *shape)
    times: dict[str, list[float]] = {name: [] for name in options}
    for _ in range(1 + rounds):
        for name, tracker in trackers.items():
            start = time.perf_counter()
            for index, gradient in zip(batches, gradients, strict=True):
                tracker.watch(inputs, index).backward(gradient)
            times[name].append((time.perf_counter() - start) / len(batches))
    return {name: float(np.median(taken[1:])) for name, taken in times.items()}


def show(rows: list[dict[str, Any]]) -> None:
    grid = Table(box=None)
    grid.add_column("state", no_wrap=True)
    for name in ("bytes/example", "of exact", "ms/update", "Spearman with exact"):
        grid.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(
            row["state"],
            f"{row['bytes_per_example']:,}",
            f"{row['bytes_per_example'] / rows[0]['bytes_per_example']:.1%}",
            f"{1e3 * row['seconds_per_update']:.3f}",
            f"{row['spearman_with_exact']:.4f}",
        )
    Console(width=100).print(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--size", type=int, default=6000, help="images to train on (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="(default %(default)s)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    data, _ = some_images(arguments.images, arguments.size)
    with tempfile.TemporaryDirectory() as folder:
        options = options_by_name(folder)
        scores, accuracy = trained_scores(data, options, Recipe(arguments.epochs))
        seconds = update_seconds(options, data.shape)
    pixels = data.shape[1] * data.shape[2]
    rows = [
        {
            "state": name,
            "bytes_per_example": each.bytes_per_example(pixels),
            "seconds_per_update": float(f"{seconds[name]:.4g}"),
            "spearman_with_exact": round(float(spearmanr(scores[name], scores[EXACT]).statistic), 4),
        }
        for name, each in options.items()
    ]
    show(rows)
    print(f"{arguments.size} images, {arguments.epochs} epochs, test accuracy {accuracy:.3f}")
    if arguments.out:
        facts = {"images": arguments.size, "epochs": arguments.epochs, "test_accuracy": accuracy, "update_batch": 256}
        result = {"machine": machine() | {"threads": torch.get_num_threads()}, **facts, "rows": rows}
        write_atomically(arguments.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
