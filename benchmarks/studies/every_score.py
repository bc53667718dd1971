"""Every score of the catalogue on real images: does it agree with the published score? Does it find wrong labels?

    python benchmarks/studies/every_score.py DEST/train TRUTH.npz --work WORK --out benchmarks/results/every-score.json

DEST/train is CIFAR-10 as an image folder whose files are named by their position in the original training set.
TRUTH.npz holds, in the original order, `c_score` (high = easy) and `human_label_first` (the label that the first person
gave; 17 % are wrong). Runs are kept in WORK, and the same command continues from there.

The small CNN of `study` trains on some of the images:

- Scoring runs train on all of them. They give the scores of the training step, VoG of the frozen model at the end of
  every epoch (over the whole training and by thirds), GraNd early and at the end, and features of the trained model.
- Hold-out runs leave out 30 % each. They give the scores of several runs.

Everything runs twice: with the published labels, for the Spearman correlation with 1 - c_score, and with the labels
that people gave, to detect the wrong ones (AUROC: the chance that a wrong label scores harder than a right one).
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
from torch import Tensor, nn

import difficulty_prune as dp
from difficulty_prune.study.executor import run_tasks
from difficulty_prune.study.hold_out import held_out
from difficulty_prune.study.models import build_model
from difficulty_prune.study.study_data import Images, StudyData
from difficulty_prune.study.train import augment, in_order, prepare
from difficulty_prune.support.files import write_atomically
from difficulty_prune.support.randomness import generator_from

Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 128
HOLD_OUT = 0.3
STAGES = ("early", "middle", "late")
VOG = dp.score_names("input gradients")
IN_THE_STEP = (*dp.score_names("loss", "logits"), *VOG)
OF_RUNS = dp.score_names("runs")


@dataclass(frozen=True)
class Training:
    """One training run; its scores are written to a folder as run files."""

    images: Path
    truth: Path
    size: int
    epochs: int
    labels: str  # "published" or "human"
    seed: int
    holds_out: bool
    work: Path

    def describe(self) -> str:
        return f"{self.labels} labels, {'hold-out' if self.holds_out else 'scoring'} run {self.seed}"

    @property
    def folder(self) -> Path:
        return self.work / f"{self.labels}-{'hold-out' if self.holds_out else 'scoring'}"

    @property
    def path(self) -> Path:
        """The file that is written last."""
        return self.folder / f"run-{self.seed}.safetensors"

    def steps(self, train_size: int) -> int:
        return self.epochs * (round(train_size * (1 - HOLD_OUT * self.holds_out)) // BATCH)

    def is_done(self) -> bool:
        return self.path.exists()

    def run(self, report: Callable[[int], None]) -> None:
        data, _ = load(self.images, self.truth, self.size, self.labels)
        if self.holds_out:
            self._hold_out_run(data, report)
        else:
            self._scoring_run(data, report)

    def _hold_out_run(self, data: StudyData, report: Callable[[int], None]) -> None:
        labels = data.train.labels
        seen = ~torch.from_numpy(held_out(self.seed, len(labels), HOLD_OUT))
        tracker = dp.DifficultyTracker(len(labels), ("el2n",))
        *_, (_, model) = train(data, self.epochs, 100 + self.seed, seen.nonzero()[:, 0], tracker, report)
        features = dp.score_features(model, everything(data), layers=())
        tracker.finish(
            architecture="cnn", seed=self.seed, labels=labels, seen=seen, probabilities=features.probabilities
        ).save(self.path)

    def _scoring_run(self, data: StudyData, report: Callable[[int], None]) -> None:
        size = len(data.train)
        tracker = dp.DifficultyTracker(size, IN_THE_STEP, temporal=dp.TemporalOptions(window=5))
        stages = {stage: dp.DifficultyTracker(size, VOG) for stage in STAGES}
        grand = {stage: dp.DifficultyTracker(size, ("grand",)) for stage in ("early", "late")}
        for epoch, model in train(data, self.epochs, self.seed, torch.arange(size), tracker, report):
            dp.score_checkpoint(model, everything(data), stages[STAGES[epoch * 3 // self.epochs]])
            for stage, at in (("early", self.epochs // 5), ("late", self.epochs - 1)):
                if epoch == at:
                    dp.score_checkpoint(model, everything(data), grand[stage])
        whole = copy.deepcopy(stages["early"])
        whole.merge(stages["middle"])
        whole.merge(stages["late"])

        facts = {"architecture": "cnn", "seed": self.seed, "labels": data.train.labels}
        for name, part in (("checkpoints", whole), *stages.items()):
            part.finish(**facts).save(self.folder / f"{name}-{self.seed}.safetensors")
        grand["early"].finish(**facts).save(self.folder / f"grand-early-{self.seed}.safetensors")
        features = dp.score_features(model, everything(data)).scores(dp.score_names("features"))
        run = tracker.finish(**facts)
        run.with_scores({**features, **grand["late"].compute()}).save(self.path)


def train(
    data: StudyData,
    epochs: int,
    seed: int,
    examples: Tensor,
    tracker: dp.DifficultyTracker,
    report: Callable[[int], None],
) -> Iterator[tuple[int, nn.Module]]:
    """Trains the small CNN as `study` does, with the tracker in the step; yields epoch and model after each epoch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    model = build_model("cnn", data.shape, data.num_classes).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(examples) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=epochs * steps + 1, pct_start=0.25)
    with_gradients = "vog" in tracker.scores
    for epoch in range(epochs):
        order = examples[torch.randperm(len(examples), generator=generator_from(seed, epoch))]
        model.train()
        for index in order.split(BATCH)[: steps + 1]:
            if len(index) == 1:
                continue
            x, y = augment(prepare(data.train.images[index], data, device)), data.train.labels[index].to(device)
            if with_gradients:
                x = tracker.watch(x.requires_grad_(), index)
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            tracker.update(index, logits, y, inputs=x if with_gradients else None)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule.last_epoch < epochs * steps:
                schedule.step()
        report(steps)
        yield epoch, model


def everything(data: StudyData) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches (images, labels, index) of all images, without augmentation."""
    return in_order(torch.arange(len(data.train)), data, torch.device("cpu"), size=250)


@functools.cache
def load(images: Path, truth: Path, size: int, labels: str) -> tuple[StudyData, dict[str, Array]]:
    """The images with the requested labels, "published" or "human", and the published scores and labels of each."""
    data, chosen = some_images(images, size)
    positions = original_positions(images)[chosen]
    with np.load(truth) as file:
        published = {name: file[name][positions] for name in ("c_score", "human_label_first")}
    if labels == "human":
        human = torch.from_numpy(published["human_label_first"].astype(np.int64))
        return replace(data, train=Images(data.train.images, human)), published
    return data, published


def difficulties(folder: Path) -> dict[str, list[Array]]:
    """For each row of the table, the difficulty [N] of the mean of the runs, and then of each run."""
    rows: dict[str, list[Array]] = {}

    def add(name: str, runs: dp.RunSet, score: str) -> None:
        sign = 1 if dp.SCORES[score].higher_is_harder else -1
        rows[name] = [runs.difficulty(score), *(sign * run.scores[score] for run in runs)]

    scoring = folder.with_name(f"{folder.name}-scoring")
    runs = dp.RunSet.load(scoring / "run-*.safetensors")
    for score in runs.scores:
        add(f"{score}, end of training" if score == "grand" else score, runs, score)
    add("grand, early", dp.RunSet.load(scoring / "grand-early-*.safetensors"), "grand")
    for form in VOG:
        for stage in ("checkpoints", *STAGES):
            add(f"{form}, {stage}", dp.RunSet.load(scoring / f"{stage}-*.safetensors"), form)
        for name in (form, f"{form}, checkpoints"):
            labels = torch.from_numpy(runs.labels.copy())
            rows[f"{name}, class-normalised"] = [
                dp.class_normalize(torch.from_numpy(np.array(values)), labels).numpy() for values in rows[name]
            ]
    held = dp.RunSet.load(folder.with_name(f"{folder.name}-hold-out") / "run-*.safetensors")
    for score in OF_RUNS:
        rows[f"{score} of {len(held)} runs"] = [held.difficulty(score)]
    print(f"{folder.name} labels: {held.memorization()}")
    return rows


def spearman(difficulty: Array, hardness: Array) -> float:
    known = ~np.isnan(difficulty)
    return round(float(spearmanr(difficulty[known], hardness[known]).statistic), 3)


def auroc(difficulty: Array, wrong: Array) -> float:
    known = ~np.isnan(difficulty)
    return round(dp.scores.ood(difficulty[known & ~wrong], difficulty[known & wrong]).auroc, 3)


def table(rows: dict[str, dict[str, Any]]) -> Table:
    grid = Table(box=None)
    for name in ("score", "Spearman with 1 - c_score", "single runs", "AUROC for wrong labels", "single runs"):
        grid.add_column(name, justify="left" if name == "score" else "right")
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["spearman"][0]):
        cells = [f"{row['spearman'][0]:+.3f}", " ".join(f"{v:+.3f}" for v in row["spearman"][1:])]
        cells += [f"{row['auroc'][0]:.3f}", " ".join(f"{v:.3f}" for v in row["auroc"][1:])]
        grid.add_row(name, *cells)
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--size", type=int, default=8000, help="images to train on (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="(default %(default)s)")
    parser.add_argument("--runs", type=int, default=2, help="scoring runs (default %(default)s)")
    parser.add_argument("--hold-out-runs", type=int, default=10, help="(default %(default)s)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    work = options.work / f"{options.size}-images-{options.epochs}-epochs"
    console = Console(stderr=True)
    for holds_out, runs in ((False, options.runs), (True, options.hold_out_runs)):
        for labels in ("published", "human"):
            what = [options.images, options.truth, options.size, options.epochs, labels]
            tasks = [Training(*what, seed, holds_out, work) for seed in range(runs)]
            pending = [task for task in tasks if not task.is_done()]
            run_tasks(pending, 2, options.size, console, f"{labels} labels")

    data, truth = load(options.images, options.truth, options.size, "published")
    wrong = truth["human_label_first"] != data.train.labels.numpy()
    published = difficulties(work / "published")
    human = difficulties(work / "human")
    rows = {
        name: {
            "spearman": [spearman(values, 1 - truth["c_score"]) for values in published[name]],
            "auroc": [auroc(values, wrong) for values in human[name]],
        }
        for name in published
    }
    Console(width=130).print(table(rows))
    print(f"{options.size} images, {options.epochs} epochs; {wrong.mean():.1%} of people's labels are wrong")
    if options.out:
        settings = {name: getattr(options, name) for name in ("size", "epochs", "runs", "hold_out_runs")}
        result = {"machine": machine(), **settings, "wrong_labels": float(wrong.mean()), "rows": rows}
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
