"""What the paper on the Variance of Gradients claims (arXiv 2008.11600), checked on real images.

    python benchmarks/studies/vog_claims.py DEST TRUTH.npz --work WORK --out benchmarks/results/vog-claims.json

DEST is CIFAR-10 as image folders, DEST/train and DEST/test; the files in train are named by their position in the
original training set. TRUTH.npz holds, in the original order, `human_label_first`, the label that the first person gave
(CIFAR-10N; 17 % are wrong). Checkpoints and scores are kept in WORK, and the same command continues from there;
--minutes M starts nothing new after M minutes. Given --show RESULTS.json alone, it prints the tables of committed
results. Everything runs in one process.

The small CNN of `study` trains on some of the images, twice with each seed: with the published labels and with those
that people gave. Three checkpoints each of the early, middle and late training (ends of epochs; the early ones are the
first three) are shown images without augmentation by `dp.score_checkpoint`. "all" is the nine of them. The targets are
the logit (`vog`, the paper's), the probability (`vog_probability`) and the loss (`vog_loss`).

1. High VoG is hard: the error of the trained model on test images, by tenths of VoG.
2. Low VoG is safe: its accuracy on the test images with the lowest VoG. max-softmax and entropy are its peers.
3. High VoG holds wrong labels: their share among the training images with the highest VoG, trained on people's labels.
4. VoG tells foreign images: CIFAR-10 test images against scikit-learn's handwritten digits (8 x 8, resized, grey) and
   against textures (crops of 32 x 32 of scikit-learn's two photographs, china.jpg and flower.jpg, that do not overlap).

Of test images the gradient is that of the true class, as in the paper, or of the class that each checkpoint predicts,
which needs no label; of foreign images only the latter exists. "within class" are z-scores within that class, as the
paper ranks; foreign images are compared with test images of the class that is predicted for them. Intervals are
Student's t over the seeds: they are about another training with the same images, not about other images. Each holds for
itself; they are not corrected for their number.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from every_score import train
from images import original_positions
from machine import machine
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import roc_curve
from sklearn.model_selection import train_test_split
from torch import Tensor

import difficulty_prune as dp
from difficulty_prune.comparison.verdict import paired
from difficulty_prune.study.models import build_model
from difficulty_prune.study.progress import report_on
from difficulty_prune.study.study_data import Images, StudyData, load_data
from difficulty_prune.study.train import predict, prepare
from difficulty_prune.support.files import write_atomically

Array = np.ndarray[Any, np.dtype[Any]]

VOG = dp.score_names("input gradients")
PEERS = ("max_confidence", "entropy")  # of the same checkpoints
STAGES = ("early", "middle", "late")
WITHIN: Final = ", within class"  # z-scores within the class whose gradient is taken, as the paper ranks
LABELS: Final = ("published", "human")
SAFE = (0.1, 0.25, 0.5)
HIGHEST = (0.05, 0.1, 0.2)
FOREIGN = ("digits", "textures")
SIDE = 32


@dataclass(frozen=True)
class Settings:
    """What a result depends on."""

    size: int
    test: int
    suspects: int
    epochs: int


@dataclass(frozen=True)
class Training:
    """One training and the scores of its checkpoints."""

    images: Path
    truth: Path
    settings: Settings
    labels: str  # of LABELS
    seed: int
    work: Path

    @property
    def folder(self) -> Path:
        return self.work / f"{self.labels}-{self.seed}"

    def checkpoint(self, epoch: int) -> Path:
        """Where the model at the end of an epoch is kept."""
        return self.folder / f"epoch-{epoch}.safetensors"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.npz"

    def pieces(self) -> dict[str, Callable[[], None]]:
        """What is left to do, in order."""
        what = f"{self.labels} labels, seed {self.seed}"
        left = {f"training, {what}": self.train, f"scores, {what}": self.score}
        done = [self.checkpoint(self.settings.epochs - 1).exists(), self.scores.exists()]
        return {name: piece for (name, piece), is_done in zip(left.items(), done, strict=True) if not is_done}

    def train(self) -> None:
        data, _ = load(self.images, self.truth, self.settings, self.labels)
        wanted = {epoch for stage in stages(self.settings.epochs).values() for epoch in stage}
        nothing = dp.DifficultyTracker(len(data.train), ("loss",))
        examples = torch.arange(len(data.train))
        for epoch, model in train(data, self.settings.epochs, self.seed, examples, nothing, lambda steps: None):
            if epoch in wanted:
                tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
                write_atomically(self.checkpoint(epoch), save(tensors))

    def score(self) -> None:
        """Keeps a score [N] of every set, label, stage and name, and what the trained model predicts of the test."""
        data, wrong = load(self.images, self.truth, self.settings, self.labels)
        model = build_model("cnn", data.shape, data.num_classes).to(memory_format=torch.channels_last)
        kept: dict[str, Array] = {}
        for name, (images, label) in self.sets(data, wrong).items():
            scores = VOG + (("el2n", "loss") if name == "suspects" else PEERS)
            trackers = {stage: dp.DifficultyTracker(len(images), scores) for stage in STAGES}
            for stage, epochs in stages(self.settings.epochs).items():
                for epoch in epochs:
                    model.load_state_dict(load_file(self.checkpoint(epoch)))
                    dp.score_checkpoint(model, batches(images, data), trackers[stage], label=label)
            computed = {stage: tracker.compute() for stage, tracker in trackers.items()}
            whole = trackers["early"]
            for stage in ("middle", "late"):
                whole.merge(trackers[stage])
            for stage, values in {**computed, "all": whole.compute()}.items():
                kept |= {f"{name}/{stage}/{score}": values[score].numpy() for score in scores}
            if label == "predicted":  # by the trained model
                kept[f"{name}/probabilities"] = predict(model, data, images).numpy()
        content = io.BytesIO()
        np.savez(content, **kept)
        write_atomically(self.scores, content.getvalue())

    def sets(self, data: StudyData, wrong: Array) -> dict[str, tuple[Images, str]]:
        """The images to score by name, each with the label to score them by."""
        if self.labels == "human":
            return {"suspects": (data.train.select(suspects(self.settings)), "true")}
        foreign = {name: (make(), "predicted") for name, make in (("digits", digits), ("textures", textures))}
        return {"test": (data.test, "true"), "unlabelled test": (data.test, "predicted"), **foreign}


def stages(epochs: int) -> dict[str, range]:
    """The epochs, counted from 0, at whose ends a model is kept.

    >>> [list(stage) for stage in stages(15).values()]
    [[0, 1, 2], [6, 7, 8], [12, 13, 14]]
    """
    middle = (epochs - 3) // 2
    return {"early": range(3), "middle": range(middle, middle + 3), "late": range(epochs - 3, epochs)}


def batches(images: Images, data: StudyData) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches (images, labels, index), scaled as those of the training."""
    for index in torch.arange(len(images)).split(250):
        yield prepare(images.images[index], data, torch.device("cpu")), images.labels[index], index


@cache
def load(images: Path, truth: Path, settings: Settings, labels: str) -> tuple[StudyData, Array]:
    """Some training images with the labels asked for, some test images, and which training labels are wrong [size]."""
    everything = load_data(f"imagefolder:{images / 'train'}", f"imagefolder:{images / 'test'}")
    chosen, tested = (
        np.sort(train_test_split(np.arange(len(part)), train_size=size, stratify=part.labels, random_state=0)[0])
        for part, size in ((everything.train, settings.size), (everything.test, settings.test))
    )
    train_images = everything.train.select(chosen)
    with np.load(truth) as file:
        human = file["human_label_first"][original_positions(images / "train")[chosen]].astype(np.int64)
    wrong = human != train_images.labels.numpy()
    if labels == "human":
        train_images = Images(train_images.images, torch.from_numpy(human))
    return StudyData(train_images, everything.test.select(tested), everything.num_classes), wrong


def suspects(settings: Settings) -> Array:
    """Positions of the training images whose labels are judged: some of them, to save time."""
    return np.sort(np.random.default_rng(0).permutation(settings.size)[: settings.suspects])


def digits() -> Images:
    """scikit-learn's handwritten digits as photographs: every third one, resized to 32 x 32, grey, white on black."""
    small = torch.from_numpy(load_digits().images[::3]).float()[:, None] * (255 / 16)
    large = F.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return unlabelled(large.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous())


def textures() -> Images:
    """Crops of 32 x 32 of scikit-learn's sample photographs, which do not overlap: roofs, walls, leaves and petals."""
    crops = []
    for photograph in load_sample_images().images:
        pixels = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)
        cut = pixels.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE)
        crops.append(cut.permute(1, 2, 0, 3, 4).reshape(-1, 3, SIDE, SIDE))
    return unlabelled(torch.cat(crops).contiguous())


def unlabelled(images: Tensor) -> Images:
    return Images(images, torch.zeros(len(images), dtype=torch.int64))


# Measures of one training, a number or a list of numbers each


def error_by_tenth(score: Array, right: Array) -> list[float]:
    """The share of wrong predictions in each tenth of the images, lowest scores first."""
    order = np.argsort(score, kind="stable")
    return [float(1 - right[part].mean()) for part in np.array_split(order, 10)]


def false_alarms(own: Array, foreign: Array, found: float = 0.95) -> float:
    """The share of own images that are taken for foreign where `found` of the foreign ones are."""
    is_foreign = np.repeat([0, 1], [len(own), len(foreign)])
    false, true, _ = roc_curve(is_foreign, np.concatenate([own, foreign]), drop_intermediate=False)
    return float(false[true >= found].min())


def detection(own: Array, foreign: Array) -> dict[str, float]:
    """How well a score tells foreign images: AUROC, AUPR with the foreign ones as positive, FPR at 95 % of them."""
    found = dp.scores.ood(own, foreign)
    return {"auroc": found.auroc, "aupr": found.aupr, "fpr95": false_alarms(own, foreign)}


def doubt(kept: dict[str, Array], name: str, score: str, stage: str) -> Array:
    """A score of a set that is high where the image is hard, foreign or not to be trusted."""
    if stage == "trained":  # the model at the end, as max-softmax and entropy are usually taken
        p = kept[f"{name}/probabilities"].astype(np.float64)
        values: Array = -p.max(1) if score == "max_confidence" else -(p * np.log(np.maximum(p, 1e-300))).sum(1)
        return values
    values = kept[f"{name}/{stage}/{score}"] * (1 if dp.SCORES[score].higher_is_harder else -1)
    return np.nan_to_num(values, nan=0.0)  # every image was shown: NaN is a gradient that was exactly 0 throughout


def measure_test(kept: dict[str, Array], labels: Array) -> dict[str, Any]:
    """Claims 1, 2 and 4 in one training with the published labels."""
    predicted = kept["unlabelled test/probabilities"].argmax(1)
    right, measured = predicted == labels, {"accuracy": float((predicted == labels).mean())}
    rows: dict[str, Any] = {}
    stages_and_whole = (*STAGES, "all")
    asked = [("test", score, stage) for score in VOG for stage in stages_and_whole]
    asked += [("unlabelled test", score, stage) for score in (*VOG, *PEERS) for stage in stages_and_whole]
    asked += [("unlabelled test", score, "trained") for score in PEERS]
    for name, score, stage in asked:
        values = doubt(kept, name, score, stage)
        kinds = {"": values}
        if score in VOG:
            classes = labels if name == "test" else predicted
            kinds[WITHIN] = np.asarray(dp.class_normalize(values, classes))
        for kind, each in kinds.items():
            tenths = error_by_tenth(each, right)
            safe = [float(value) for value in dp.scores.selective_accuracy(each, right, SAFE)]
            rows[f"{name}/{score}{kind}/{stage}"] = {
                "error_by_tenth": tenths,
                "highest_less_lowest": tenths[-1] - tenths[0],
                "accuracy_of_lowest": safe,
                "quarter_less_all": safe[1] - measured["accuracy"],
            }
    foreign: dict[str, dict[str, float]] = {}
    for where in FOREIGN:
        classes = kept[f"{where}/probabilities"].argmax(1)
        for score, stage in ((score, stage) for images, score, stage in asked if images == "unlabelled test"):
            own, other = (doubt(kept, name, score, stage) for name in ("unlabelled test", where))
            foreign[f"{where}/{score}/{stage}"] = detection(own, other)
            if score in VOG:
                scaled = (
                    within_own_class(values, c, own, predicted) for values, c in ((own, predicted), (other, classes))
                )
                foreign[f"{where}/{score}{WITHIN}/{stage}"] = detection(*scaled)
    for name, row in foreign.items():
        where, _, stage = name.split("/")
        row["less_max_softmax"] = row["auroc"] - foreign[f"{where}/max_confidence/trained"]["auroc"]
    return {**measured, "no_gradient": without_gradient(kept), "test": rows, "foreign": foreign}


def within_own_class(values: Array, classes: Array, own: Array, own_classes: Array) -> Array:
    """z-scores [N] by the own images of the same (predicted) class: of foreign images only those classes are known."""
    scaled = np.empty(len(values))
    for c in np.unique(classes):
        of_class = own[own_classes == c] if (own_classes == c).any() else own
        scaled[classes == c] = (values[classes == c] - of_class.mean()) / max(float(of_class.std()), 1e-12)
    return scaled


def without_gradient(kept: dict[str, Array]) -> float:
    """The share of VoG scores that are of gradients that were exactly 0 at every checkpoint; they count as VoG 0."""
    scores = [values for name, values in kept.items() if name.rpartition("/")[2] in VOG]
    return float(np.isnan(np.concatenate(scores)).mean())


def measure_suspects(kept: dict[str, Array], labels: Array, wrong: Array) -> dict[str, Any]:
    """Claim 3 in one training with the labels that people gave."""
    rows = {}
    for score in (*VOG, "el2n", "loss"):
        for stage in (*STAGES, "all"):
            values = doubt(kept, "suspects", score, stage)
            for kind, each in (("", values), (WITHIN, np.asarray(dp.class_normalize(values, labels)))):
                hardest = wrong[np.argsort(-each, kind="stable")]
                shares = [float(hardest[: round(share * len(wrong))].mean()) for share in HIGHEST]
                rows[f"{score}{kind}/{stage}"] = {
                    "share_of_highest": shares,
                    "tenth_less_all": shares[1] - float(wrong.mean()),
                    "auroc": dp.scores.ood(each[~wrong], each[wrong]).auroc,
                }
    return {"wrong": float(wrong.mean()), "suspects": rows}


# Over the seeds


def over_seeds(values: list[Any]) -> Any:
    """The same structure with [mean, half of the 95 % interval] in place of each number."""
    if isinstance(values[0], dict):
        return {key: over_seeds([value[key] for value in values]) for key in values[0]}
    if isinstance(values[0], list):
        return [over_seeds(list(each)) for each in zip(*values, strict=True)]
    found = paired(np.array(values))
    return [round(float(found.mean), 4), round(float(found.half), 4)]


def verdict(difference: list[float]) -> str:
    """Whether a claim that a difference is positive held, from its mean and the half of its interval.

    >>> verdict([0.2, 0.1]), verdict([0.1, 0.2]), verdict([-0.2, 0.1])
    ('held', 'not held', 'not held: the reverse')
    """
    mean, half = difference
    if mean - half > 0:
        return "held"
    return "not held: the reverse" if mean + half < 0 else "not held"


def claims(summary: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The verdict on each claim by target and stage."""
    rows: dict[str, dict[str, str]] = {}
    for score in (f"{score}{kind}" for score in VOG for kind in ("", WITHIN)):
        for stage in (*STAGES, "all"):
            found = {}
            for name, kind in (("test", "true class"), ("unlabelled test", "predicted class")):
                row = summary["test"][f"{name}/{score}/{stage}"]
                found[f"high is hard, {kind}"] = verdict(row["highest_less_lowest"])
                found[f"low is safe, {kind}"] = verdict(row["quarter_less_all"])
            found["high holds wrong labels"] = verdict(summary["suspects"][f"{score}/{stage}"]["tenth_less_all"])
            for where in FOREIGN:
                row = summary["foreign"][f"{where}/{score}/{stage}"]
                mean, half = row["auroc"]
                found[f"tells {where}"] = verdict([mean - 0.5, half])
                found[f"tells {where} better than max-softmax"] = verdict(row["less_max_softmax"])
            rows[f"{score}/{stage}"] = found
    return rows


def summarise(trainings: list[Training]) -> dict[str, Any]:
    """Means and intervals over the seeds of which both trainings are scored, the verdicts, and how many seeds."""
    measured: dict[str, list[dict[str, Any]]] = {labels: [] for labels in LABELS}
    done = {(task.labels, task.seed): task for task in trainings if task.scores.exists()}
    seeds = sorted({seed for _, seed in done if all((labels, seed) in done for labels in LABELS)})
    for seed in seeds:
        for labels in LABELS:
            task = done[labels, seed]
            data, wrong = load(task.images, task.truth, task.settings, labels)
            with np.load(task.scores) as file:
                kept = dict(file)
            if labels == "published":
                measured[labels].append(measure_test(kept, data.test.labels.numpy()))
            else:
                chosen = suspects(task.settings)
                measured[labels].append(measure_suspects(kept, data.train.labels.numpy()[chosen], wrong[chosen]))
    if not seeds:
        return {"seeds": seeds}
    summary = {key: value for labels in LABELS for key, value in over_seeds(measured[labels]).items()}
    return {"seeds": seeds, "claims": claims(summary), **summary}


# Tables


def cell(value: list[float]) -> str:
    return f"{value[0]:.3f} ± {value[1]:.3f}"


def print_tables(result: dict[str, Any], console: Console) -> None:
    settings = result["settings"]
    console.print(
        f"{len(result['seeds'])} seeds, {settings['size']:,} training images, {settings['epochs']} epochs, "
        f"{settings['test']:,} test images; accuracy {cell(result['accuracy'])}; mean ± half of the 95 % interval"
    )
    grid = Table("target", "class", "checkpoints", *map(str, range(1, 11)), "highest less lowest", box=None)
    grid.title = "\n1. test error by tenths, lowest first"
    for name, row in result["test"].items():
        images, score, stage = name.split("/")
        errors = [f"{value[0]:.2f}" for value in row["error_by_tenth"]]
        kind = "true" if images == "test" else "predicted"
        grid.add_row(score, kind, stage, *errors, cell(row["highest_less_lowest"]))
    console.print(grid)
    grid = Table("target", "class", "checkpoints", *(f"{share:.0%}" for share in SAFE), "quarter less all", box=None)
    grid.title = "\n2. accuracy on the images with the lowest scores"
    for name, row in result["test"].items():
        images, score, stage = name.split("/")
        kind = "true" if images == "test" else "predicted"
        grid.add_row(score, kind, stage, *map(cell, row["accuracy_of_lowest"]), cell(row["quarter_less_all"]))
    console.print(grid)
    grid = Table("score", "checkpoints", *(f"{share:.0%}" for share in HIGHEST), "AUROC", box=None)
    grid.title = f"\n3. share of wrong labels among the highest; {cell(result['wrong'])} of all"
    for name, row in result["suspects"].items():
        grid.add_row(*name.split("/"), *map(cell, row["share_of_highest"]), cell(row["auroc"]))
    console.print(grid)
    grid = Table("foreign", "score", "checkpoints", "AUROC", "AUPR", "FPR at 95 %", "less max-softmax", box=None)
    grid.title = "\n4. foreign images; the last column is AUROC less that of max-softmax of the trained model"
    for name, row in result["foreign"].items():
        grid.add_row(*name.split("/"), *(cell(row[key]) for key in ("auroc", "aupr", "fpr95", "less_max_softmax")))
    console.print(grid)
    kinds = list(next(iter(result["claims"].values())))
    grid = Table("claim", "target", *STAGES, "all", box=None)
    grid.title = "\nclaims"
    for kind in kinds:
        for score in (f"{score}{within}" for score in VOG for within in ("", WITHIN)):
            grid.add_row(kind, score, *(result["claims"][f"{score}/{stage}"][kind] for stage in (*STAGES, "all")))
    console.print(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("truth", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, help="where checkpoints and scores are kept")
    parser.add_argument("--size", type=int, default=10_000, help="images to train on (default %(default)s)")
    parser.add_argument("--test", type=int, default=3000, help="images to test on (default %(default)s)")
    parser.add_argument("--suspects", type=int, default=3000, help="labels judged, of --size (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="at least 9 (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="(default %(default)s)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so many")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="print committed results and train nothing")
    options = parser.parse_args()
    console = Console(width=170)
    if options.show:
        print_tables(json.loads(options.show.read_text()), console)
        return
    if options.images is None or options.truth is None or options.work is None:
        parser.error("the images, the truth and --work are needed, or --show")
    if options.epochs < 9:
        parser.error(f"--epochs: got {options.epochs}, expected at least 9: three checkpoints of each stage")
    if options.seeds < 2:
        parser.error(f"--seeds: got {options.seeds}, expected at least 2: intervals are over seeds")

    start = time.monotonic()
    torch.set_num_threads(1)
    settings = Settings(options.size, options.test, options.suspects, options.epochs)
    work = options.work / "-".join(map(str, vars(settings).values()))
    trainings = [
        Training(options.images, options.truth, settings, labels, seed, work)
        for seed in range(options.seeds)
        for labels in LABELS
    ]
    pieces = [piece for task in trainings for piece in task.pieces().items()]
    with report_on(Console(stderr=True), "VoG", len(pieces), len(pieces), "piece") as report:
        for number, (name, piece) in enumerate(pieces):
            if time.monotonic() - start > 60 * options.minutes:
                break
            report.update(number, [name])
            began = time.monotonic()
            piece()
            report.finished(name, time.monotonic() - began)
    found = summarise(trainings)
    left = sum(len(task.pieces()) for task in trainings)
    if left:
        console.print(f"{left} pieces are left: run the same command again")
    if len(found["seeds"]) < 2:
        return
    result = {"machine": machine(), "settings": vars(settings), **found}
    print_tables(result, console)
    if options.out:
        write_atomically(options.out, json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
