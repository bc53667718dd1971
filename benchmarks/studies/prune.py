"""Does pruning pay on real images? A table of verdicts: policies against chance, all data, and all data in fewer steps.

    python benchmarks/studies/prune.py DEST TRUTH.npz --work WORK --minutes 110 --out benchmarks/results/prune.json
    python benchmarks/studies/prune.py --show benchmarks/results/prune.json

DEST is CIFAR-10 as image folders, `train` and `test`, whose training files are named by their position in the original
training set. TRUTH.npz holds, in the original order, `human_label_first` and `human_label_aggregate`: labels that
people gave (CIFAR-10N). 10,000 of the images are trained on, and all test images, with their clean labels, test.

Images are ranked by the mean el2n of two scoring runs, whose seeds are not those of the trainings. The small CNN is
then trained with five seeds on what each policy keeps, on a random part of the same size, on all data, and on all data
in as few steps. All that with labels of three kinds: clean ones, those of the first person who was asked (17 % are
wrong) and those of the majority of three (9 %); and in two ways:

- equal epochs: who keeps half takes half the steps.
- equal steps: who keeps half trains for twice as many epochs.

With clean labels a half is also kept by the scores of 1, 4 and 8 runs. `BetaSampling` and the hardest by `dual`, of the
first five epochs of two scoring runs, have the same to beat.

Every training is a file in WORK. `--minutes` stops at the end of a training, and the same command continues; the blocks
of the table are finished one after the other, the most informative first, each with all its seeds. What is not finished
is not in the results. The whole takes about 3.5 hours on two idle cores. With a GPU, for example:

    ... --size 50000 --model resnet18 --epochs 30 --workers 1
"""

from __future__ import annotations

import argparse
import functools
import json
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from images import original_positions
from machine import machine
from pieces import finish, in_words, processes
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import train_test_split

import difficulty_prune as dp
from difficulty_prune.audit.label_issues import label_issues
from difficulty_prune.comparison.arms import Arm
from difficulty_prune.comparison.comparison import Row, judge
from difficulty_prune.comparison.counting_sampler import CountingSampler
from difficulty_prune.comparison.design import Design
from difficulty_prune.comparison.trained import Trained, read_trained, write_trained
from difficulty_prune.policies import BetaSampling, Easiest, Hardest, Random, SoftPrune, Stratified, WithoutWrong
from difficulty_prune.policies.base import Policy
from difficulty_prune.study.study_data import Images, StudyData, load_data
from difficulty_prune.study.train import Recipe, number_of_batches, train
from difficulty_prune.support.files import write_atomically

KEEP = (0.1, 0.3, 0.5, 0.7, 0.9)
SCORE = "el2n"
SCORING_SEED = 1000  # of the first scoring run; those of trainings count from 0
LABELS: Final = {
    "first": "the first person's labels",
    "majority": "the labels of the majority of three people",
    "clean": "clean labels",
}
DUAL: Final = (("clean", 0.5), ("clean", 0.3), ("clean", 0.1), ("clean", 0.7), ("clean", 0.9), ("first", 0.5))
EARLY: Final = 5  # epochs
COLUMNS: Final = {"first": "human_label_first", "majority": "human_label_aggregate"}
AGAINST: Final = {"chance": "chance", "all": "all data", "few": "all data, as few steps"}


@dataclass(frozen=True)
class Setting:
    """What all trainings have in common."""

    images: Path
    truth: Path
    work: Path
    size: int
    model: str
    epochs: int

    @property
    def folder(self) -> Path:
        return self.work / f"{self.size}-images-{self.model.replace(':', '-')}-{self.epochs}-epochs"


@dataclass(frozen=True)
class Block:
    """Some rows of the tables: one kind of labels, one share to keep, one ranking, all policies.

    Attributes:
        labels: "clean", "first" or "majority".
        keep: the share to keep.
        equal: "epochs" or "steps".
        runs: how many scoring runs make the ranking.
        score: "el2n" of whole trainings, or "dual" of their first epochs.
    """

    labels: str
    keep: float
    equal: str = "epochs"
    runs: int = 2
    score: str = SCORE


def blocks() -> list[Block]:
    """All, the most informative first."""
    epochs = [
        Block("first", 0.5),
        *(Block("clean", keep) for keep in (0.5, 0.3, 0.7, 0.1, 0.9)),
        Block("majority", 0.5),
    ]
    steps = [Block("clean", keep, "steps") for keep in (0.5, 0.3, 0.7, 0.1, 0.9)]
    rankings = [Block("clean", 0.5, runs=runs) for runs in (1, 8, 4)]
    human = [Block("first", 0.3), Block("first", 0.7), Block("first", 0.5, "steps"), Block("majority", 0.5, "steps")]
    dual = [Block(labels, keep, score="dual") for labels, keep in DUAL]
    return [*epochs, *steps, *rankings, *human, *dual]


# Data


@functools.cache
def load(setting: Setting, labels: str) -> StudyData:
    """The images with one kind of labels; a cached file of them makes the next process start at once."""
    path = setting.folder / "images.npz"
    if not path.exists():
        _write_images(setting, path)
    with np.load(path) as file:
        train_images = Images(torch.from_numpy(file["train"]), torch.from_numpy(file[labels]))
        test = Images(torch.from_numpy(file["test"]), torch.from_numpy(file["test_labels"]))
    return StudyData(train_images, test, num_classes=10)


def _write_images(setting: Setting, path: Path) -> None:
    data = load_data(f"imagefolder:{setting.images / 'train'}", f"imagefolder:{setting.images / 'test'}")
    positions, clean = original_positions(setting.images / "train"), data.train.labels.numpy()
    chosen = np.arange(len(clean))
    if setting.size < len(clean):
        chosen, _ = train_test_split(chosen, train_size=setting.size, stratify=clean, random_state=0)
        chosen = np.sort(chosen)
    arrays = {"train": data.train.images.numpy()[chosen], "clean": clean[chosen]}
    with np.load(setting.truth) as file:
        for name, column in COLUMNS.items():
            arrays[name] = file[column][positions[chosen]].astype(np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part.npz")
    arrays.update(test=data.test.images.numpy(), test_labels=data.test.labels.numpy())
    np.savez(beside, **arrays)  # type: ignore[arg-type]
    beside.replace(path)


# What is trained


@dataclass(frozen=True)
class Scoring:
    """A scoring run of all images; of `dual` it ends after the first epochs."""

    setting: Setting
    labels: str
    number: int
    score: str

    @property
    def name(self) -> str:
        return f"{self.labels}, scoring run {self.number}{'' if self.score == SCORE else f' of {self.score}'}"

    @property
    def path(self) -> Path:
        kind = "scores" if self.score == SCORE else self.score
        return self.setting.folder / self.labels / f"{kind}-{self.number}.safetensors"

    def is_done(self) -> bool:
        return self.path.exists()

    def run(self) -> str:
        setting, data, seed = self.setting, load(self.setting, self.labels), SCORING_SEED + self.number
        early = self.score == "dual"
        if early:
            window = dp.TemporalOptions(window=3)
            tracker = dp.DifficultyTracker(setting.size, ("dual", "confidence"), num_classes=10, temporal=window)
        else:
            tracker = dp.DifficultyTracker(setting.size, (SCORE, "margin"), num_classes=10, mean_probabilities=True)
        sampler = dp.PruneSampler(Random(1.0), np.zeros(setting.size), seed=seed)
        recipe = Recipe(min(EARLY, setting.epochs) if early else setting.epochs)
        steps = setting.epochs * number_of_batches(setting.size, recipe.batch_size)  # the learning rate's
        outcome = train(data, setting.model, sampler, recipe, seed, tracker, steps=steps)
        facts = outcome.facts()
        run = tracker.finish(architecture=setting.model, seed=seed, labels=data.train.labels, outcome=facts)
        run.save(self.path)
        return f"{outcome.test_accuracy:.4f} in {outcome.seconds:.0f} s"


@dataclass(frozen=True)
class Training:
    """A training on what an arm keeps."""

    setting: Setting
    block: Block
    arm: str
    job: tuple[str, int]
    sampler: CountingSampler

    @property
    def name(self) -> str:
        block = self.block
        return f"{block.labels}, equal {block.equal}, keep {block.keep:g}, {self.arm}, seed {self.job[1]}"

    @property
    def path(self) -> Path:
        of = f"{self.block.labels}-{self.block.equal}"
        # All data take as many steps either way, and are trained once.
        if len(self.sampler) == self.setting.size:
            of = f"{self.block.labels}-all"
        return self.setting.folder / of / f"{self.job[0][:16]}-{self.job[1]}.json"

    def is_done(self) -> bool:
        return self.path.exists()

    def run(self) -> str:
        setting, seed, length = self.setting, self.job[1], len(self.sampler)
        data = load(setting, self.block.labels)
        epochs = setting.epochs if self.block.equal == "epochs" else round(setting.epochs * setting.size / length)
        outcome = train(data, setting.model, self.sampler, Recipe(epochs), seed)
        per_class = {str(number): share for number, share in enumerate(outcome.class_accuracy) if share is not None}
        reached = Trained(
            {"accuracy": outcome.test_accuracy},
            {"accuracy per class": per_class},
            self.sampler.presentations,
            outcome.seconds,
        )
        write_trained(self.path, setting.folder.name, *self.job, reached)
        return f"{outcome.test_accuracy:.4f} in {outcome.seconds:.0f} s"

    def result(self) -> Trained:
        found = read_trained(self.path, self.setting.folder.name, *self.job)
        assert found is not None
        return found


@dataclass(frozen=True)
class Work:
    """The trainings of a block, once its scoring runs are there."""

    setting: Setting
    block: Block
    design: Design
    likely_wrong: int | None

    @property
    def likely_share(self) -> float | None:
        return None if self.likely_wrong is None else self.likely_wrong / self.setting.size

    def training(self, arm: Arm, seed: int) -> Training:
        sampler = self.design.sampler(arm, seed)
        return Training(self.setting, self.block, arm.name, self.design.job(arm, seed), sampler)

    def trainings(self, seeds: Iterable[int]) -> list[Training]:
        """Seed by seed, equal plans once."""
        found: dict[Path, Training] = {}
        for seed in seeds:
            for arm in self.design.arms:
                training = self.training(arm, seed)
                found.setdefault(training.path, training)
        return list(found.values())

    def finished(self, seeds: Sequence[int]) -> list[int]:
        """The seeds of which every training is there."""
        return [seed for seed in seeds if all(training.is_done() for training in self.trainings([seed]))]


def scorings(setting: Setting, block: Block) -> list[Scoring]:
    return [Scoring(setting, block.labels, number, block.score) for number in range(block.runs)]


def prepare(setting: Setting, block: Block) -> Work:
    """Ranks the images, and says what each policy keeps."""
    runs = dp.RunSet.load([task.path for task in scorings(setting, block)])
    difficulty = torch.from_numpy(runs.difficulty(block.score))
    if block.score == "dual":
        by_dual = {
            "Beta-sampled by dual": BetaSampling(block.keep, runs.mean("confidence")),
            "hardest by dual": Hardest(block.keep),
        }
        return Work(setting, block, Design(difficulty, None, by_dual, 0), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a list that says little; its length is in the results
        issues = label_issues(runs)
    named = policies(block.keep, issues.index, setting.size)
    return Work(setting, block, Design(difficulty, None, named, 0), issues.number)


def policies(keep: float, likely_wrong: np.ndarray[Any, Any], size: int) -> dict[str, Policy]:
    """Those compared; of the likely wrong labels as many are left out as there is room for."""
    room = size - round(keep * size)
    return {
        "without wrong": WithoutWrong(Random(keep), wrong=likely_wrong[:room]),
        "stratified": Stratified(keep),
        "soft": SoftPrune(keep),
        "hardest": Hardest(keep),
        "easiest": Easiest(keep),
    }


def work_on(setting: Setting, seeds: Sequence[int], workers: int, until: float) -> None:
    """Trains block by block until all is there, or the time is up."""
    with processes(workers) as pool:
        for block in blocks():
            if not finish(pool, scorings(setting, block), workers, until):
                return
            if not finish(pool, prepare(setting, block).trainings(seeds), workers, until):
                return


# Results


def summed_up(setting: Setting, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The blocks that have two finished seeds or more.

    Verdicts of blocks with the same labels, number of runs and equality hold together.
    """
    ready = []
    for block in blocks():
        if all(task.is_done() for task in scorings(setting, block)):
            work = prepare(setting, block)
            if len(done := work.finished(seeds)) > 1:
                ready.append((work, done))
    tables = [table_of(work.block) for work, _ in ready]
    return [block_row(work, done, tables.count(table_of(work.block))) for work, done in ready]


def table_of(block: Block) -> tuple[str, str, str]:
    return block.labels, block.equal, block.score


def block_row(work: Work, seeds: Sequence[int], times: int) -> dict[str, Any]:
    arms, design = work.design.arms, work.design
    found = judge(
        arms,
        {arm.name: [work.training(arm, seed).result() for seed in seeds] for arm in arms},
        {arm.name: [(design.job(arm, seed)[0], design.size(arm, seed)) for seed in seeds] for arm in arms},
        seeds=seeds,
        examples=work.setting.size,
        times=times,
    )
    data, clean = load(work.setting, work.block.labels), load(work.setting, "clean")
    wrong = float((data.train.labels != clean.train.labels).float().mean())
    facts = {"wrong": round(wrong, 4), "likely_wrong": work.likely_share, "seeds": list(seeds)}
    return {**asdict(work.block), **facts, "rows": [row_facts(row) for row in found.rows]}


def row_facts(row: Row) -> dict[str, Any]:
    return {
        "names": list(row.names),
        "kind": row.kind,
        "examples": row.examples,
        "presentations": round(row.presentations),
        "accuracy": [round(value, 4) for value in row.results["accuracy"]],
        "against": {kind: say(found) for kind, found in row.verdicts.get("accuracy", {}).items()},
    }


def say(found: dp.Verdict) -> dict[str, Any]:
    """A verdict in points."""
    low, high = found.interval or (None, None)
    numbers = {"points": found.difference, "low": low, "high": high, "would_see": found.smallest_visible}
    rounded = {name: None if value is None else round(100 * value, 2) for name, value in numbers.items()}
    return {"word": found.word, **rounded, "cells": found.cells}


def print_tables(result: dict[str, Any], console: Console) -> None:
    """One table for each kind of labels and equality."""
    print_heading(result, console)
    names = "labels", "equal", "score"
    keys = dict.fromkeys(tuple(row[name] for name in names) for row in result["blocks"])
    for labels, equal, score in keys:
        rows = [row for row in result["blocks"] if tuple(row[name] for name in names) == (labels, equal, score)]
        title = f"{LABELS[labels]} ({rows[0]['wrong']:.1%} wrong), equal {equal}, by {score}"
        grid = Table("keep", "runs", "seeds", "policy", "accuracy", *AGAINST.values(), title=title, box=None)
        for block in sorted(rows, key=lambda row: (row["keep"], row["runs"])):
            for row in sorted(block["rows"], key=lambda row: -np.mean(row["accuracy"])):
                said = [in_words(row["against"].get(kind)) for kind in AGAINST]
                place = f"{block['keep']:g}", str(block["runs"]), str(len(block["seeds"]))
                grid.add_row(*place, ", ".join(row["names"]), f"{np.mean(row['accuracy']):.4f}", *said)
            grid.add_section()
        console.print(grid)
    console.print("points of accuracy, positive is better; intervals of 95 % that hold together for a whole table")


def print_heading(result: dict[str, Any], console: Console) -> None:
    console.print(
        f"{result['size']:,} images, {result['model']}, {result['epochs']} epochs; "
        f"{len(result['blocks'])} of {result['blocks_in_all']} blocks have results, "
        f"{result['blocks_complete']} of them all {result['seeds']} seeds"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("truth", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, help="where trainings are kept")
    parser.add_argument("--size", type=int, default=10_000, help="images to train on (default %(default)s)")
    parser.add_argument("--model", default="cnn", help="as for `difficulty-prune study` (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="(default %(default)s)")
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
    if options.images is None or options.truth is None or options.work is None:
        parser.error("the images, the truth and --work are needed, or --show")
    setting = Setting(options.images, options.truth, options.work, options.size, options.model, options.epochs)
    load(setting, "clean")  # writes the file that all processes read
    work_on(setting, range(options.seeds), options.workers, time.time() + 60 * options.minutes)

    rows = summed_up(setting, range(options.seeds))
    result = {
        "machine": machine(),
        "size": options.size,
        "model": options.model,
        "epochs": options.epochs,
        "recipe": asdict(Recipe(options.epochs)),
        "seeds": options.seeds,
        "blocks_in_all": len(blocks()),
        "blocks_complete": sum(len(row["seeds"]) == options.seeds for row in rows),
        "blocks": rows,
    }
    print_tables(result, console)
    if options.out:
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
