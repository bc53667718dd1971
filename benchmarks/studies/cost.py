"""What scoring costs a whole training, in time and memory, beside other packages that do a similar job.

    python benchmarks/studies/cost.py --work WORK --minutes 30 --out benchmarks/results/cost.json
    python benchmarks/studies/cost.py --show benchmarks/results/cost.json

Short trainings on random images of CIFAR-10's shape, each in a process of its own: the small CNN of `study` (237 steps)
and ResNet-18 (20 steps).

- nothing: the training alone.
- logit scores: a tracker with every score that needs logits alone.
- vog_loss: by `watch`.
- mean probabilities: those of every image, for suggested labels and for cleanlab.
- a second pass: after each epoch all images once more in evaluation mode, which is how el2n is often computed.
- aum: the package's `AUMCalculator`.
- datacull: the package's `DCLogger`, which writes the logits of every step to files.
- cleanlab: five trainings on four fifths each, predictions for the fifth that was left out, `find_label_issues`.

All take turns, round after round, and a ratio is that of two neighbours in a round; the table has the median over
rounds and the quartiles. Memory is the largest resident memory of the process, on a GPU the largest allocated. Nothing
else may run on the cores that it uses: `--threads 1` under `taskset -c 0` leaves the others to you. About 45 minutes;
finished rounds are files in WORK, --minutes stops after a round, and the same command goes on. A package that is not
installed is printed as missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import difficulty_prune as dp
from difficulty_prune.study.models import build_model
from difficulty_prune.study.tasks import peak_memory
from difficulty_prune.study.train import mixed_precision, training_device
from difficulty_prune.support.files import write_atomically

CLASSES, FOLDS = 10, 5
LOGIT_SCORES: Final = tuple(name for name in dp.score_names() if dp.SCORES[name].needs == "logits")


@dataclass(frozen=True)
class Job:
    """How much is trained."""

    model: str
    images: int
    epochs: int
    batch: int


JOBS: Final = {"cnn": Job("cnn", 10_000, 3, 128), "resnet18": Job("resnet18", 640, 2, 64)}
TINY: Final = {"mlp": Job("mlp", 256, 1, 64)}

Observe = Callable[[int, Tensor, Tensor, Tensor], None]
"""Called in every step with epoch, index, logits and labels."""


class Training:
    """A plain training loop, to which each way of scoring adds something."""

    def __init__(self, job: Job) -> None:
        draw = torch.Generator().manual_seed(0)
        self.job = job
        self.device = training_device()
        self.images = torch.randint(256, (job.images, 3, 32, 32), dtype=torch.uint8, generator=draw)
        self.labels = torch.randint(CLASSES, (job.images,), generator=draw)
        self.labels[:CLASSES] = torch.arange(CLASSES)

    def batch(self, index: Tensor) -> Tensor:
        x = self.images[index].to(self.device, torch.float32, non_blocking=True) / 64 - 2
        return x.contiguous(memory_format=torch.channels_last)

    def logits(self, model: nn.Module, x: Tensor) -> Tensor:
        with mixed_precision(self.device):
            logits: Tensor = model(x)
        return logits.float()

    def run(
        self,
        observe: Observe | None = None,
        *,
        watch: Callable[[Tensor, Tensor], Tensor] | None = None,
        after_epoch: Callable[[nn.Module], None] | None = None,
        part: Tensor | None = None,
    ) -> nn.Module:
        torch.manual_seed(0)
        model = build_model(self.job.model, (3, 32, 32), CLASSES)
        model = model.to(self.device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=5e-4, nesterov=True)
        positions = torch.arange(self.job.images) if part is None else part
        for epoch in range(self.job.epochs):
            model.train()
            for index in positions[torch.randperm(len(positions))].split(self.job.batch):
                x, y = self.batch(index), self.labels[index].to(self.device, non_blocking=True)
                if watch is not None:
                    x = watch(x, index)
                logits = self.logits(model, x)
                if observe is not None:
                    observe(epoch, index, logits.detach(), y)
                optimizer.zero_grad()
                F.cross_entropy(logits, y).backward()
                optimizer.step()
            if after_epoch is not None:
                after_epoch(model)
        return model

    @torch.no_grad()
    def predict(self, model: nn.Module, index: Tensor) -> Tensor:
        model.eval()
        parts = [self.logits(model, self.batch(part)).softmax(1).cpu() for part in index.split(500)]
        return torch.cat(parts)


# The ways to score


class MissingError(Exception):
    """Another package is not there, or lacks one itself."""


def peer(name: str) -> Any:
    """Another package."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(str(error)) from error


def nothing(training: Training) -> None:
    training.run()


def tracked(training: Training, *scores: str, **options: Any) -> None:
    tracker = dp.DifficultyTracker(training.job.images, scores, device=training.device, **options)
    watches = "vog_loss" in scores
    training.run(
        lambda epoch, index, logits, y: tracker.update(index, logits, y),
        watch=(lambda x, index: tracker.watch(x, index)) if watches else None,
    )
    tracker.finish(architecture=training.job.model, seed=0)


def logit_scores(training: Training) -> None:
    tracked(training, *LOGIT_SCORES)


def vog_loss(training: Training) -> None:
    tracked(training, "vog_loss")


def mean_probabilities(training: Training) -> None:
    tracked(training, "el2n", num_classes=CLASSES, mean_probabilities=True)


def second_pass(training: Training) -> None:
    tracker = dp.DifficultyTracker(training.job.images, ("el2n",))
    everything = torch.arange(training.job.images)

    def score(model: nn.Module) -> None:
        tracker.update(everything, training.predict(model, everything).log(), training.labels)

    training.run(after_epoch=score)
    tracker.finish(architecture=training.job.model, seed=0)


def aum(training: Training) -> None:
    package = peer("aum")
    with tempfile.TemporaryDirectory() as folder:
        calculator = package.AUMCalculator(folder)
        training.run(lambda epoch, index, logits, y: calculator.update(logits, y, index.tolist()))
        calculator.finalize()


def datacull(training: Training) -> None:
    package = peer("datacull")
    with tempfile.TemporaryDirectory() as folder:
        logger = package.DCLogger(trajectory_dir=f"{folder}/")
        training.run(lambda epoch, index, logits, y: logger.log_metric(epoch, index, logits))


def cleanlab(training: Training) -> None:
    find_label_issues = peer("cleanlab.filter").find_label_issues
    fold = torch.arange(training.job.images) % FOLDS
    probabilities = torch.zeros(training.job.images, CLASSES)
    for number in range(FOLDS):
        held = (fold == number).nonzero()[:, 0]
        model = training.run(part=(fold != number).nonzero()[:, 0])
        probabilities[held] = training.predict(model, held)
    find_label_issues(training.labels.numpy(), probabilities.numpy(), n_jobs=1)


WAYS: Final[dict[str, Callable[[Training], None]]] = {
    "nothing": nothing,
    "logit scores": logit_scores,
    "vog_loss": vog_loss,
    "mean probabilities": mean_probabilities,
    "a second pass": second_pass,
    "aum": aum,
    "datacull": datacull,
    "cleanlab": cleanlab,
}


def measure(job: Job, way: str, threads: int) -> dict[str, Any]:
    """Seconds, CPU seconds and bytes of one training, after a short one that is not counted; or why there is none."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore", UserWarning)  # of scores that need more epochs
    training = Training(job)
    try:
        WAYS[way](Training(Job(job.model, 4 * job.batch, 1, job.batch)))
        start, cpu = time.perf_counter(), time.process_time()
        WAYS[way](training)
        if training.device.type == "cuda":
            torch.cuda.synchronize()
    except MissingError as error:
        return {"missing": str(error)}
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "bytes": largest_memory()}


def largest_memory() -> int | None:
    """Of this process, in bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # not the number of `getrusage`, in which a new process begins with that of its parent
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return peak_memory()


def measure_all(job: Job, rounds: int, threads: int, work: Path, until: float) -> dict[str, list[dict[str, Any]]]:
    """Way -> a measurement for each round; a round is a file in `work`, and none begins later than `until`."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for turn in range(rounds):
        path = work / f"{job.model}-{job.images}-images-{threads}-threads-round-{turn}.json"
        if path.exists():
            measured = json.loads(path.read_text())
        elif time.time() > until:
            break
        else:
            measured = measure_round(job, turn, threads)
            write_atomically(path, json.dumps(measured))
        for way, one in measured.items():
            found[way].append(one)
    return found


def measure_round(job: Job, turn: int, threads: int) -> dict[str, dict[str, Any]]:
    """Way -> a measurement, one after the other; every round begins with another way."""
    found = {}
    for position in range(len(WAYS)):
        way = list(WAYS)[(turn + position) % len(WAYS)]
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found[way] = pool.submit(measure, job, way, threads).result()
        print(f"{job.model}, round {turn + 1}, {way}: {found[way]}", flush=True)
    return found


def compared(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Ratios to the training alone, quartiles over rounds."""
    rows: dict[str, dict[str, Any]] = {}
    base = found["nothing"]
    for way, measured in found.items():
        if "missing" in measured[0]:
            rows[way] = measured[0]
            continue
        row: dict[str, Any] = {"seconds": round(float(np.median([each["seconds"] for each in measured])), 2)}
        for name in ("seconds", "cpu", "bytes"):
            pairs = [(own[name], alone[name]) for own, alone in zip(measured, base, strict=True)]
            if all(None not in pair for pair in pairs):
                ratios = [own / alone for own, alone in pairs]
                row[f"{name} ratio"] = [round(float(q), 3) for q in np.quantile(ratios, (0.25, 0.5, 0.75))]
        if all(each["bytes"] is not None for each in (*measured, *base)):
            more = [own["bytes"] - alone["bytes"] for own, alone in zip(measured, base, strict=True)]
            row["more megabytes"] = round(float(np.median(more)) / 1e6, 1)
        rows[way] = row
    return rows


def print_tables(result: dict[str, Any], console: Console) -> None:
    for of_model in result["models"]:
        job = of_model["job"]
        title = f"{job['model']}, {job['images']:,} images, {job['epochs']} epochs, batches of {job['batch']}"
        grid = Table("scored by", "time", "quartiles", "CPU time", "memory", "more memory", title=title, box=None)
        for way, row in of_model["rows"].items():
            if "missing" in row:
                grid.add_row(way, f"missing: {row['missing']}")
                continue
            low, middle, high = row["seconds ratio"]
            cells = [f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{row['cpu ratio'][1]:.2f}"]
            memory = [f"{row['bytes ratio'][1]:.2f}", f"{row['more megabytes']:.0f} MB"] if "bytes ratio" in row else []
            grid.add_row(way, *cells, *memory)
        console.print(grid)
    console.print(f"medians of {result['rounds']} interleaved rounds; 1 is the training alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--rounds", type=int, default=7, help="(default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each training (default %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a few steps of an MLP, to see that all runs")
    parser.add_argument("--work", type=Path, help="where finished rounds are kept")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no round later than that")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--show", type=Path, metavar="RESULTS", help="print committed results and train nothing")
    options = parser.parse_args()
    console = Console(width=120)
    if options.show:
        print_tables(json.loads(options.show.read_text()), console)
        return
    until = time.time() + 60 * options.minutes
    jobs = TINY.values() if options.tiny else [JOBS[name] for name in options.models]
    with tempfile.TemporaryDirectory() as nowhere:
        work = Path(nowhere) if options.work is None else options.work
        measured = [(job, measure_all(job, options.rounds, options.threads, work, until)) for job in jobs]
    unfinished = [job.model for job, found in measured if len(found["nothing"]) < options.rounds]
    if unfinished:
        print(f"The time is up before all rounds of {', '.join(unfinished)}; the same command goes on")
        return
    models = [{"job": asdict(job), "rows": compared(found)} for job, found in measured]
    result = {"machine": machine(), "rounds": options.rounds, "threads": options.threads, "models": models}
    print_tables(result, console)
    if options.out:
        write_atomically(options.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
