"""Wrong labels that people gave: which are found without a reviewer, and how well a reviewer knows how many are left.

    python benchmarks/studies/wrong_labels.py DEST/train TRUTH.npz --work WORK \
        --out benchmarks/results/wrong-labels.json

DEST/train is CIFAR-10 as an image folder whose files are named by their position in the original training set.
TRUTH.npz holds, in the original order, `human_label_first` and `human_label_aggregate`: labels that people gave
(CIFAR-10N). Trainings are kept in WORK, and the same command continues from there. Without cleanlab the other half is
printed. Given --show RESULTS.json alone, it prints the tables of committed results.

Four sets of 10,000 images: with the first person's label (18 % are wrong), with the majority's of three (9 %), with the
clean label, and with the first person's where images with a wrong one were chosen more often (41 %). The small CNN of
`study` trains on each.

- `dp.audit.label_issues` reads one training of all images, scored while it trains.
- cleanlab's `find_label_issues` reads the probabilities of five folds, each predicted by a training on the others. It
  takes four times as many presentations. Not with clean labels.

The rule of `label_issues` was chosen while looking at trainings with 18 % and 41 % wrong labels and with clean ones;
the set of 9 % was not looked at before.

Reviews: of each set of people's labels 8,000 images are drawn again and again. So many decisions are made, some of them
of images picked at random, the others of those that are hardest by el2n; then `dp.audit.remaining` says how many wrong
labels are left. The same with difficulties drawn from two normal distributions, one for wrong labels and one for right.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from images import original_positions
from machine import machine
from rich.console import Console
from rich.table import Table

import difficulty_prune as dp
from difficulty_prune.study.executor import run_tasks
from difficulty_prune.study.models import build_model
from difficulty_prune.study.study_data import Images, StudyData, load_data, split_positions
from difficulty_prune.study.train import augment, mixed_precision, predict, prepare
from difficulty_prune.support.files import write_atomically
from difficulty_prune.support.randomness import generator_from

Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 128
FOLDS = 5
FOLDED: Final = ("first", "more", "majority")  # sets on which cleanlab is compared
SETS: Final = ("first", "more", "majority", "clean")
NAMES: Final = {
    "first": "the first person's label",
    "more": "the first person's, more wrong ones",
    "majority": "the majority of three people",
    "clean": "the clean label",
}
SHARE_WRONG = 0.41  # in "more"
SCORES = ("el2n", "margin", "aum", "accuracy")
REVIEWED = 8000
DECISIONS = (100, 300, 1000)
PICKED = (0.0, 0.1, 0.3, 1.0)
SIMULATED = ((0.03, 0.9), (0.1, 0.95), (0.2, 0.8), (0.4, 0.9), (0.05, 0.99), (0.1, 0.5))


@dataclass(frozen=True)
class Training:
    """One training: of all images with the labels of a set (fold -1), or of all but a fold of them."""

    images: Path
    truth: Path
    size: int
    epochs: int
    labels: str
    fold: int
    seed: int
    work: Path

    def describe(self) -> str:
        return f"wrong labels, {self.labels}, " + ("all" if self.fold < 0 else f"fold {self.fold}") + f", {self.seed}"

    @property
    def path(self) -> Path:
        kind = "run" if self.fold < 0 else f"fold{self.fold}"
        return self.work / f"{self.labels}-{kind}-{self.seed}.safetensors"

    def steps(self, train_size: int) -> int:
        return self.epochs * (train_size // BATCH)

    def is_done(self) -> bool:
        return self.path.exists()

    def run(self, report: Callable[[int], None]) -> None:
        """Keeps a run file; of a fold, with the probabilities of the images left out, and with 0.1 for the others."""
        torch.set_num_threads(1)
        data, _ = load(self.images, self.truth, self.size, self.labels)
        left_out = folds(data.train.labels.numpy(), self.seed) == self.fold
        part = torch.from_numpy(np.flatnonzero(~left_out))
        tracker = dp.DifficultyTracker(self.size, SCORES, mean_probabilities=True)
        start = time.process_time()
        model = train(data, part, self.epochs, self.seed, tracker if self.fold < 0 else None, report)
        seconds = time.process_time() - start
        facts = {"seconds": seconds, "presentations": self.epochs * (len(part) // BATCH) * BATCH}
        if self.fold < 0:
            labels = data.train.labels
            run = tracker.finish(architecture="cnn", seed=self.seed, labels=labels, outcome=facts)
        else:
            probabilities = np.full((self.size, data.num_classes), 1 / data.num_classes, np.float32)
            held = torch.from_numpy(np.flatnonzero(left_out))
            probabilities[left_out] = predict(model, data, Images(data.train.images[held], data.train.labels[held]))
            nothing = {"el2n": np.full(self.size, np.nan)}
            run = dp.Run(
                nothing, architecture="cnn", seed=self.seed, seen=~left_out, probabilities=probabilities, outcome=facts
            )
        run.save(self.path)


class Updated(Protocol):
    """What sees each step: a tracker, or several as one."""

    def update(self, index: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, /) -> object: ...


def train(
    data: StudyData,
    part: torch.Tensor,
    epochs: int,
    seed: int,
    tracker: Updated | None,
    report: Callable[[int], None],
    architecture: str = "cnn",
) -> torch.nn.Module:
    """Trains a model, the small CNN unless told, on part of the images as `study` does, in whole batches."""
    torch.manual_seed(seed)
    model = build_model(architecture, data.shape, data.num_classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(part) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=epochs * steps, pct_start=0.25)
    device = torch.device("cpu")
    for epoch in range(epochs):
        order = part[torch.randperm(len(part), generator=generator_from(seed, epoch))]
        model.train()
        for index in order[: steps * BATCH].split(BATCH):
            x, y = augment(prepare(data.train.images[index], data, device)), data.train.labels[index]
            with mixed_precision(device):
                logits = model(x)
            logits = logits.float()
            if tracker is not None:
                tracker.update(index, logits, y)
            optimizer.zero_grad()
            F.cross_entropy(logits, y).backward()
            optimizer.step()
            schedule.step()
        report(steps)
    return model


def folds(labels: Array, seed: int, number: int = FOLDS) -> Array:
    """The fold of each example, counted from 0, [N]; each has the same fraction of each label."""
    from sklearn.model_selection import StratifiedKFold

    fold = np.zeros(len(labels), np.int64)
    split = StratifiedKFold(number, shuffle=True, random_state=seed).split(labels, labels)
    for number, (_, left_out) in enumerate(split):
        fold[left_out] = number
    return fold


@cache
def load(images: Path, truth: Path, size: int, labels: str) -> tuple[StudyData, Array]:
    """Images with the labels of a set, and their clean labels [size]."""
    data = load_data(f"imagefolder:{images}")
    sizes = [len(list(path.iterdir())) for path in sorted(images.iterdir()) if path.is_dir()]
    in_folder, _ = split_positions(np.repeat(np.arange(len(sizes)), sizes))
    clean = data.train.labels.numpy()
    column = {"first": "human_label_first", "more": "human_label_first", "majority": "human_label_aggregate"}
    given = clean
    if labels in column:
        with np.load(truth) as file:
            given = file[column[labels]][original_positions(images)[in_folder]].astype(np.int64)
    rng, wrong = np.random.default_rng(0), given != clean
    chosen = rng.permutation(len(clean))[:size]
    if labels == "more":
        number = round(SHARE_WRONG * size)
        parts = [(np.flatnonzero(wrong), number), (np.flatnonzero(~wrong), size - number)]
        chosen = np.concatenate([rng.permutation(part)[:n] for part, n in parts])
    chosen = np.sort(chosen)
    train_images = Images(data.train.images[chosen], torch.from_numpy(given[chosen]))
    return replace(data, train=train_images), clean[chosen]


# Without a reviewer


def measure_issues(found: Array, wrong: Array, trainings: list[dp.Run]) -> dict[str, Any]:
    """Precision and recall of the examples found, and what the trainings cost."""
    hits = int(wrong[found].sum())
    outcomes = [run.metadata["outcome"] for run in trainings]
    return {
        "found": len(found),
        "precision": round(hits / len(found), 4) if len(found) else None,
        "recall": round(hits / int(wrong.sum()), 4) if wrong.any() else None,
        "presentations": sum(outcome["presentations"] for outcome in outcomes),
        "cpu_seconds": round(sum(outcome["seconds"] for outcome in outcomes), 1),
    }


def cleanlab_issues(labels: Array, trainings: list[dp.Run]) -> dict[str, Array]:
    """What cleanlab finds from the probabilities of the folds: with its default, and with two other filters."""
    try:
        from cleanlab.filter import find_label_issues
    except ModuleNotFoundError as error:
        if error.name != "cleanlab":
            raise
        return {}
    probabilities = np.zeros_like(trainings[0].probabilities)
    for run in trainings:
        probabilities[~run.seen] = run.probabilities[~run.seen]
    filters = ("prune_by_noise_rate", "both", "low_self_confidence")
    return {
        name: np.flatnonzero(find_label_issues(labels, probabilities, filter_by=name, n_jobs=1)) for name in filters
    }


# With a reviewer


def reviews(difficulty: Array, wrong: Array, decisions: int, picked: float, rng: np.random.Generator) -> Array:
    """One review: true number left, estimate, ends of the interval, true and estimated number among the next 50."""
    at_random = rng.permutation(len(wrong))[: round(picked * decisions)]
    order = np.argsort(-difficulty, kind="stable")
    hardest = order[~np.isin(order, at_random)][: decisions - len(at_random)]
    index = np.concatenate([hardest, at_random])
    left = dp.audit.remaining(difficulty, index, wrong[index], sampled=np.arange(decisions) >= len(hardest))
    rest = order[~np.isin(order, index)]
    return np.array([wrong[rest].sum(), left.value, *left.interval, wrong[rest[:50]].sum(), left.next(50)])


def coverage(name: str, difficulty: Array, wrong: Array, decisions: int, picked: float, repeat: int) -> dict[str, Any]:
    """What so many reviews of a set say; with a name "rate-auroc", of difficulties that are drawn afresh."""
    from scipy.stats import norm

    rng, found = np.random.default_rng(decisions), []
    for _ in range(repeat):
        if len(wrong):
            part = rng.permutation(len(wrong))[:REVIEWED]
            found.append(reviews(difficulty[part], wrong[part], decisions, picked, rng))
        else:
            rate, auroc = map(float, name.split("-"))
            drawn = rng.random(REVIEWED) < rate
            hard = rng.normal(size=REVIEWED) + drawn * norm.ppf(auroc) * np.sqrt(2)
            found.append(reviews(hard, drawn, decisions, picked, rng))
    true, value, low, high, true_next, value_next = np.array(found).T
    return {
        "set": name,
        "decisions": decisions,
        "picked_at_random": picked,
        "left": round(float(true.mean()), 1),
        "estimate": round(float(value.mean()), 1),
        "typical_error": round(float(np.median(np.abs(value - true))), 1),
        "low": round(float(low.mean()), 1),
        "high": round(float(high.mean()), 1),
        "coverage": round(float(((low <= true) & (true <= high)).mean()), 4),
        "next_50": round(float(true_next.mean()), 1),
        "estimate_next_50": round(float(value_next.mean()), 1),
    }


def all_reviews(known: dict[str, tuple[Array, Array]], repeat: int, workers: int) -> Iterator[dict[str, Any]]:
    nothing = np.zeros(0)
    sets = {**known, **{f"{rate}-{auroc}": (nothing, nothing) for rate, auroc in SIMULATED}}
    with ProcessPoolExecutor(workers) as pool:
        jobs = [
            pool.submit(coverage, name, *values, decisions, picked, repeat)
            for name, values in sets.items()
            for decisions in DECISIONS
            for picked in PICKED
        ]
        for job in jobs:
            yield job.result()


def kept_reviews(known: dict[str, tuple[Array, Array]], repeat: int, workers: int, work: Path) -> list[dict[str, Any]]:
    """All reviews, which take minutes: from WORK if they were made there before by the same code."""
    code = hashlib.sha256(Path(sys.modules[dp.audit.remaining.__module__].__file__ or "").read_bytes()).hexdigest()
    path = work / f"reviews-{'-'.join(known)}-{repeat}-{code[:16]}.json"
    if not path.exists():
        write_atomically(path, json.dumps(list(all_reviews(known, repeat, workers))))
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


# Tables


def name_of_reviews(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    rate, auroc = name.split("-")
    return f"simulated, {float(rate):.0%} wrong, AUROC {auroc}"


def print_tables(result: dict[str, Any], console: Console) -> None:
    grid = Table("labels", "wrong", "found by", "number", "precision", "recall", "presentations", box=None)
    for name, row in result["sets"].items():
        for way, cells in row["found"].items():
            numbers = [f"{cells[key]:.3f}" if cells[key] is not None else "-" for key in ("precision", "recall")]
            grid.add_row(
                NAMES[name], f"{row['wrong']:,}", way, f"{cells['found']:,}", *numbers, f"{cells['presentations']:,}"
            )
    console.print(grid)
    if not any("cleanlab" in way for row in result["sets"].values() for way in row["found"]):
        console.print("cleanlab not installed")
    grid = Table("reviews of", "decisions", "at random", "left", "estimate", "95 %", "covered", "next 50", box=None)
    for row in result["reviews"]:
        grid.add_row(
            name_of_reviews(row["set"]),
            f"{row['decisions']:,}",
            f"{row['picked_at_random']:.0%}",
            f"{row['left']:,.0f}",
            f"{row['estimate']:,.0f} ± {row['typical_error']:,.0f}",
            f"{row['low']:,.0f} to {row['high']:,.0f}",
            f"{row['coverage']:.1%}",
            f"{row['next_50']:.0f}, {row['estimate_next_50']:.0f}",
        )
    console.print(grid)
    console.print(f"{result['repeat']} reviews each; means over them, and the median error of the estimate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("truth", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, help="where trainings are kept")
    parser.add_argument("--size", type=int, default=10_000, help="images to train on (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="(default %(default)s)")
    parser.add_argument("--repeat", type=int, default=400, help="reviews of each kind (default %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="trainings side by side (default %(default)s)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--test-data", type=Path, help="where to keep difficulties and wrong labels for the tests")
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="print committed results and train nothing")
    options = parser.parse_args()
    console = Console(width=120)
    if options.show:
        print_tables(json.loads(options.show.read_text()), console)
        return
    if options.images is None or options.truth is None or options.work is None:
        parser.error("the images, the truth and --work are needed, or --show")

    settings: dict[str, Any] = {name: getattr(options, name) for name in ("size", "epochs")}
    work = options.work / f"{options.size}-images-{options.epochs}-epochs"
    tasks = {
        (name, fold): Training(options.images, options.truth, **settings, labels=name, fold=fold, seed=0, work=work)
        for fold in range(-1, FOLDS)
        for name in options.sets
        if fold < 0 or name in FOLDED
    }
    pending: list[Any] = [task for task in tasks.values() if not task.is_done()]
    run_tasks(pending, options.workers, options.size, Console(stderr=True), "wrong labels")

    sets: dict[str, Any] = {}
    known: dict[str, tuple[Array, Array]] = {}
    for name in options.sets:
        data, clean = load(options.images, options.truth, options.size, name)
        labels = data.train.labels.numpy()
        wrong, run = labels != clean, dp.Run.load(tasks[name, -1].path)
        issues = dp.audit.label_issues(dp.RunSet([run]))
        found = {"dp.audit.label_issues": measure_issues(issues.index, wrong, [run])}
        suggested = issues.suggested[wrong[issues.index]] == clean[issues.index][wrong[issues.index]]
        found["dp.audit.label_issues"]["suggested_right"] = (
            round(float(suggested.mean()), 4) if len(suggested) else None
        )
        trainings = [dp.Run.load(tasks[name, fold].path) for fold in range(FOLDS) if (name, fold) in tasks]
        for way, listed in (cleanlab_issues(labels, trainings) if trainings else {}).items():
            found[f"cleanlab, {way}"] = measure_issues(listed, wrong, trainings)
        sets[name] = {"wrong": int(wrong.sum()), "found": found}
        if wrong.any():
            known[name] = (dp.RunSet([run]).difficulty("el2n"), wrong)
    rows = kept_reviews(known, options.repeat, options.workers, work)
    result = {"machine": machine(), **settings, "repeat": options.repeat, "sets": sets, "reviews": rows}
    print_tables(result, console)
    if options.out:
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")
    if options.test_data:
        options.test_data.parent.mkdir(parents=True, exist_ok=True)
        arrays = {}
        for name, (difficulty, wrong) in known.items():
            harder_first = np.argsort(-difficulty, kind="stable")
            arrays[name] = np.packbits(wrong[harder_first])
        np.savez(options.test_data, **arrays)


if __name__ == "__main__":
    main()
