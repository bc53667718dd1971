"""Dynamic pruning on real images: how many steps to a stated accuracy? Does it beat chance, or simply fewer steps?

    python benchmarks/studies/dynamic_pruning.py DEST --work WORK --also EasyToHard Review --minutes 110 \
        --out benchmarks/results/dynamic.json
    python benchmarks/studies/dynamic_pruning.py --show benchmarks/results/dynamic.json

DEST is CIFAR-10 as image folders, `train` and `test`. The small CNN of `study` is trained on 10,000 of the images for
30 epochs. All trainings use the same seeds, which fix initialisation and augmentation, and one learning-rate cycle over
all their steps:

- full: every example in every epoch.
- soft: `SoftPrune(keep, anneal)` by the loss of the training step itself, with a new plan in every epoch. The first
  epoch is full because nothing is known yet; the last ones are full because of `anneal`.
- random: in each epoch as many as soft has, but a new random part, each with weight 1.
- fewer steps: as many steps as soft, equally many in each epoch, on examples drawn uniformly.
- `--also` names further policies of `dp.policies`, which are planned anew in each epoch, such as Importance or Hardest.

After each epoch 2,000 test images say how far the training is; all of them test it at the end. `--minutes` stops at the
end of a training, and the same command continues: trainings are kept in WORK. Seeds are finished one after the other,
and only finished ones are in the results. The whole takes about 40 minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine
from pieces import finish, in_words, processes
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import train_test_split
from torch import nn

import difficulty_prune as dp
from difficulty_prune.comparison.arms import SameSize
from difficulty_prune.policies import Random, SoftPrune
from difficulty_prune.policies.base import Policy
from difficulty_prune.study.models import build_model
from difficulty_prune.study.study_data import Images, StudyData, load_data
from difficulty_prune.study.train import (
    Batches,
    Recipe,
    augment,
    mixed_precision,
    number_of_batches,
    predict,
    prepare,
    training_device,
)
from difficulty_prune.support.files import write_atomically

ARMS: Final = ("full", "soft", "random", "fewer steps")
AGAINST: Final = ("full", "random", "fewer steps")


@dataclass(frozen=True)
class Setting:
    """What all trainings have in common."""

    images: Path
    work: Path
    size: int
    model: str
    epochs: int
    keep: float
    anneal: float
    curve: int

    @property
    def folder(self) -> Path:
        names = ("size", "model", "epochs", "keep", "anneal", "curve")
        return self.work / "-".join(f"{name}={str(getattr(self, name)).replace(':', '.')}" for name in names)

    @property
    def soft(self) -> SoftPrune:
        return SoftPrune(self.keep, self.anneal, self.epochs)

    @property
    def visited(self) -> list[int]:
        """Number of examples that soft visits in each epoch; in the first nothing has been seen."""
        later = [round(self.soft.at(epoch).keep * self.size) for epoch in range(1, self.epochs)]
        return [self.size, *later]


@dataclass(frozen=True)
class Training:
    """One training; its outcome is written as JSON."""

    setting: Setting
    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}, seed {self.seed}"

    @property
    def path(self) -> Path:
        return self.setting.folder / f"{self.arm.replace(' ', '-')}-{self.seed}.json"

    def is_done(self) -> bool:
        return self.path.exists()

    def run(self) -> str:
        setting, data = self.setting, some_of(self.setting)
        tracker = dp.DifficultyTracker(setting.size, ("loss",), device=training_device())
        sampler = make_sampler(setting, self.arm, tracker, self.seed)
        start = time.perf_counter()
        facts = {**train(data, setting, sampler, tracker, self.seed), "presentations": tracker.presentations}
        write_atomically(self.path, json.dumps(facts))
        return f"{facts['accuracy']:.4f} in {time.perf_counter() - start:.0f} s"


def make_sampler(setting: Setting, arm: str, tracker: dp.DifficultyTracker, seed: int) -> dp.PruneSampler:
    """What an arm draws from."""
    if arm in ("full", "fewer steps"):
        length = setting.size if arm == "full" else sum(setting.visited) // setting.epochs
        return dp.PruneSampler(Random(1.0), np.zeros(setting.size), seed=seed, fixed_length=length)
    known: dict[str, Policy] = {"soft": setting.soft, "random": SameSize(setting.soft)}
    policy: Policy = known[arm] if arm in known else named_policy(arm, setting)
    return dp.PruneSampler(policy, tracker.source("loss"), seed=seed)


def named_policy(name: str, setting: Setting) -> Policy:
    """A policy of `dp.policies`, with what it takes of share, epochs and annealing; unseen examples are kept."""
    make = getattr(dp.policies, name, None)
    if make is None or not inspect.isclass(make):
        raise ValueError(f"--also: got {name!r}, expected a policy of dp.policies, such as Importance")
    options = {"keep": setting.keep, "anneal": setting.anneal, "epochs": setting.epochs, "unseen": "keep"}
    taken = inspect.signature(make).parameters
    made: Any = make(**{option: value for option, value in options.items() if option in taken})
    policy: Policy = made
    return policy


def train(
    data: StudyData, setting: Setting, sampler: dp.PruneSampler, tracker: dp.DifficultyTracker, seed: int
) -> dict[str, Any]:
    """Trains as `study` does, and tests after each epoch."""
    device, recipe = training_device(), Recipe(setting.epochs)
    lengths = [len(sampler) if sampler.fixed_length else visited for visited in setting.visited]
    total = sum(number_of_batches(visited, recipe.batch_size) for visited in lengths)
    probe = Images(data.test.images[: setting.curve], data.test.labels[: setting.curve])
    torch.manual_seed(seed)
    model = build_model(setting.model, data.shape, data.num_classes).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=total, pct_start=0.25)
    steps, curve = 0, []
    for epoch in range(setting.epochs):
        sampler.set_epoch(epoch)
        usual = sampler.plan.weight.mean().to(device)  # weights above 1 would be a higher learning rate
        model.train()
        for batch in Batches(sampler, recipe.batch_size):
            index = torch.tensor(batch)
            x = augment(prepare(data.train.images[index], data, device))
            y = data.train.labels[index].to(device)
            with mixed_precision(device):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), y, reduction="none")
            tracker.update(index, logits, y)
            optimizer.zero_grad()
            (loss * sampler.weight(index, device=device) / usual).mean().backward()
            optimizer.step()
            if steps + 1 < total:  # a policy that keeps more than soft goes on at the last rate
                schedule.step()
            steps += 1
        curve.append([steps, accuracy(model, data, probe)])
    return {"accuracy": accuracy(model, data, data.test), "steps": steps, "curve": curve}


def accuracy(model: nn.Module, data: StudyData, images: Images) -> float:
    return float((predict(model, data, images).argmax(1) == images.labels).float().mean())


@functools.cache
def some_of(setting: Setting) -> StudyData:
    """The training images, the same fraction of each class, and all test images in random order."""
    data = load_data(f"imagefolder:{setting.images / 'train'}", f"imagefolder:{setting.images / 'test'}")
    chosen = np.arange(len(data.train))
    if setting.size < len(chosen):
        chosen, _ = train_test_split(chosen, train_size=setting.size, stratify=data.train.labels, random_state=0)
    order = np.random.default_rng(0).permutation(len(data.test))
    return StudyData(data.train.select(np.sort(chosen)), data.test.select(order), data.num_classes)


# Results


def summed_up(trainings: dict[str, list[dict[str, Any]]], goals: Sequence[float]) -> dict[str, dict[str, Any]]:
    """For each way of training its cost, the accuracy of each seed, the steps to each goal, and verdicts.

    Those of all ways but full answer the same questions, and hold together.
    """
    cells, rows = len(trainings) - 1, {}
    for arm, results in trainings.items():
        reached = [result["accuracy"] for result in results]
        rows[arm] = {
            "presentations": results[0]["presentations"],
            "steps": results[0]["steps"],
            "accuracy": [round(value, 4) for value in reached],
            "steps to": {str(goal): [steps_to(result["curve"], goal) for result in results] for goal in goals},
            "against": {
                other: say(dp.verdict(reached, [result["accuracy"] for result in trainings[other]], cells=cells))
                for other in AGAINST
                if other != arm and arm != "full"
            },
            "steps of full": {
                str(goal): fraction_of_steps(results, trainings["full"], goal, cells) for goal in goals if arm != "full"
            },
        }
    return rows


def steps_to(curve: Sequence[Sequence[float]], goal: float) -> int | None:
    """The steps after which the probe first said so; None if never."""
    return next((int(steps) for steps, reached in curve if reached >= goal), None)


def fraction_of_steps(
    results: list[dict[str, Any]], full: list[dict[str, Any]], goal: float, cells: int
) -> dict[str, Any] | None:
    """Steps to the goal as a fraction of those of full training, geometric mean and interval over seeds.

    None unless every training got there.
    """
    curves = zip((result["curve"] for result in results), (result["curve"] for result in full), strict=True)
    pairs = [(steps_to(own, goal), steps_to(other, goal)) for own, other in curves]
    logs = [np.log([ours, theirs]) for ours, theirs in pairs if ours is not None and theirs is not None]
    if len(logs) < len(pairs):
        return None
    ours, theirs = np.array(logs).T
    found = dp.verdict(ours, theirs, cells=cells, lower_is_better=True, points=False)
    low, high = found.interval or (None, None)
    turned = {"fraction": -found.difference, "low": high and -high, "high": low and -low}
    numbers = {name: None if value is None else round(float(np.exp(value)), 3) for name, value in turned.items()}
    return {"word": found.word, **numbers}


def say(found: dp.Verdict) -> dict[str, Any]:
    """A verdict in points."""
    low, high = found.interval or (None, None)
    numbers = {"points": found.difference, "low": low, "high": high, "would_see": found.smallest_visible}
    rounded = {name: None if value is None else round(100 * value, 2) for name, value in numbers.items()}
    return {"word": found.word, **rounded}


def print_tables(result: dict[str, Any], console: Console) -> None:
    console.print(
        f"{result['size']:,} images, {result['model']}, {result['epochs']} epochs, keep {result['keep']:g}, "
        f"{len(result['seeds'])} seeds"
    )
    grid = Table("trained on", "presentations", "steps", "accuracy", *(f"against {name}" for name in AGAINST), box=None)
    for arm, row in result["rows"].items():
        counts = f"{row['presentations']:,}", f"{row['steps']:,}"
        said = [in_words(row["against"].get(name)) for name in AGAINST]
        grid.add_row(arm, *counts, f"{np.mean(row['accuracy']):.4f}", *said)
    console.print(grid)
    goals = result["goals"]
    grid = Table("steps to an accuracy of", *(f"{goal:g}" for goal in goals), box=None)
    for arm, row in result["rows"].items():
        grid.add_row(arm, *(steps_in_words(row, str(goal)) for goal in goals))
    console.print(grid)
    console.print("mean over seeds, and the fraction of the steps of full training; '-': not every seed got there")


def steps_in_words(row: dict[str, Any], goal: str) -> str:
    steps, fraction = row["steps to"][goal], row["steps of full"].get(goal)
    if None in steps:
        return f"- ({sum(each is not None for each in steps)} of {len(steps)} seeds)"
    if fraction is None:
        return f"{np.mean(steps):,.0f}"
    interval = "" if fraction["low"] is None else f", {fraction['low']:.2f} to {fraction['high']:.2f}"
    return f"{np.mean(steps):,.0f} ({fraction['fraction']:.2f}{interval})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, help="where trainings are kept")
    parser.add_argument("--size", type=int, default=10_000, help="images to train on (default %(default)s)")
    parser.add_argument("--model", default="cnn", help="as for `difficulty-prune study` (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="(default %(default)s)")
    parser.add_argument("--keep", type=float, default=0.7, help="(default %(default)s)")
    parser.add_argument("--anneal", type=float, default=0.125, help="(default %(default)s)")
    parser.add_argument("--curve", type=int, default=2000, help="test images after each epoch (default %(default)s)")
    parser.add_argument("--goals", type=float, nargs="+", default=[0.6, 0.65, 0.7], help="accuracies to reach")
    parser.add_argument("--also", nargs="+", default=[], metavar="POLICY", help="further policies of dp.policies")
    parser.add_argument("--seeds", type=int, default=5, help="(default %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="trainings side by side (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training later than that")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="print committed results and train nothing")
    options = parser.parse_args()
    console = Console(width=150)
    if options.show:
        print_tables(json.loads(options.show.read_text()), console)
        return
    if options.images is None or options.work is None:
        parser.error("the images and --work are needed, or --show")
    names = ("size", "model", "epochs", "keep", "anneal", "curve")
    settings = {name: getattr(options, name) for name in names}
    setting = Setting(options.images, options.work, **settings)
    for name in options.also:
        named_policy(name, setting)
    setting.folder.mkdir(parents=True, exist_ok=True)
    arms = [*ARMS, *options.also]
    of_seeds = [[Training(setting, arm, seed) for arm in arms] for seed in range(options.seeds)]
    with processes(options.workers) as pool:
        everything = [training for of_seed in of_seeds for training in of_seed]
        finish(pool, everything, options.workers, time.time() + 60 * options.minutes)

    done = [of_seed for of_seed in of_seeds if all(training.is_done() for training in of_seed)]
    if not done:
        console.print("no seed is finished")
        return
    found = {arm: [json.loads(of_seed[i].path.read_text()) for of_seed in done] for i, arm in enumerate(arms)}
    result = {
        "machine": machine(),
        **settings,
        "recipe": asdict(Recipe(options.epochs)),
        "goals": options.goals,
        "seeds": [of_seed[0].seed for of_seed in done],
        "rows": summed_up(found, options.goals),
    }
    print_tables(result, console)
    if options.out:
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
