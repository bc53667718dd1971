"""What is timed: an operator, the sampler or a training step, and what it is compared with."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import RandomSampler

from ..ops import operators
from ..policies.base import Policy
from ..policies.uniform import Hardest, Random
from ..sampler import PruneSampler
from ..study.models import cnn
from ..tracker.tracker import DifficultyTracker
from . import eager
from .turns import Function


@dataclass(frozen=True)
class Sizes:
    """How large the work is. The defaults are far larger than caches, and need 1 GB of memory in all.

    Attributes:
        examples: of the data, whose records and moments are kept.
        batches: size and number of classes of each batch of logits.
        images: how many, of how many pixels a side, a batch of gradients has.
        moments: of how many examples moments of gradients are kept.
        epoch: examples of the sampler's data.
        copy: bytes of each array of the copy.
        ring: bytes of gradients that are used in turn.
    """

    examples: int = 50_000
    batches: tuple[tuple[int, int], ...] = ((256, 10), (256, 1000), (1024, 100))
    images: tuple[int, int] = (256, 32)
    moments: int = 25_000
    epoch: int = 1_280_000
    copy: int = 128 << 20
    ring: int = 128 << 20


@dataclass(frozen=True)
class Workload:
    """Two functions that are timed in turns.

    Attributes:
        moved: bytes that one call of ours must move, where memory is the limit.
    """

    work: str
    against: str
    ours: Function
    theirs: Function
    moved: int | None = None


@dataclass(frozen=True)
class Job:
    """A workload that is made when its turn comes, so that few are in memory at a time."""

    name: str
    device: str
    make: Callable[[], Workload]

    def __str__(self) -> str:
        return f"{self.name} on {self.device}"


def jobs(sizes: Sizes, device: str) -> list[Job]:
    """All that is timed on a device."""
    place = torch.device(device)
    made: dict[str, Callable[[], Workload]] = {}
    for size, classes in sizes.batches:
        made[f"scores of {size} x {classes} logits"] = partial(records, sizes, size, classes, place, tuned=False)
        made[f"the same of {size} x {classes}, tuned"] = partial(records, sizes, size, classes, place, tuned=True)
    made["a softmax"] = partial(softmax, sizes, place)
    made["moments of gradients"] = partial(moments, sizes, place)
    made["variance of gradients"] = partial(variance, sizes, place)
    made["a training step"] = partial(training_step, sizes, place)
    if place.type == "cpu":  # where samplers work
        made |= {"a plan": partial(plan, sizes), "an epoch": partial(epoch, sizes)}
    return [Job(name, device, make) for name, make in made.items()]


Batch = tuple[Tensor, Tensor, Tensor]


def logit_batches(sizes: Sizes, size: int, classes: int, device: torch.device) -> Iterator[Batch]:
    """An endless stream of index [B] without duplicates, logits [B, C] and labels [B]."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randperm(sizes.examples, generator=generator).split(size)
    labels = torch.randint(classes, (sizes.examples,), generator=generator)
    logits = [(3 * torch.randn(size, classes, generator=generator)).to(device) for _ in range(4)]
    whole = [each for each in index if len(each) == size]
    return zip(
        itertools.cycle([each.to(device) for each in whole]),
        itertools.cycle(logits),
        itertools.cycle([labels[each].to(device) for each in whole]),
    )


def records(sizes: Sizes, size: int, classes: int, device: torch.device, *, tuned: bool) -> Workload:
    """All scores of the logits into the records, against the same in eager PyTorch."""
    table, skipped = operators.new_table(sizes.examples, device), operators.new_skipped(device)
    theirs, stats_of = operators.new_table(sizes.examples, device), eager.tuned_softmax_stats
    batches = logit_batches(sizes, size, classes, device)
    return Workload(
        f"record_stats_, B {size}, C {classes}",
        "eager PyTorch, tuned by hand" if tuned else "eager PyTorch",
        lambda: operators.record_stats_(table, *next(batches), skipped),
        lambda: eager.record_stats_(theirs, *next(batches), stats_of if tuned else eager.softmax_stats),
    )


def softmax(sizes: Sizes, device: torch.device) -> Workload:
    """The same of the widest batch, against a softmax of the logits that is thrown away."""
    size, classes = max(sizes.batches, key=lambda batch: batch[1])
    table, skipped = operators.new_table(sizes.examples, device), operators.new_skipped(device)
    batches = logit_batches(sizes, size, classes, device)
    return Workload(
        f"record_stats_, B {size}, C {classes}",
        "logits.softmax(1) alone",
        lambda: operators.record_stats_(table, *next(batches), skipped),
        lambda: next(batches)[1].softmax(1),
    )


def moments(sizes: Sizes, device: torch.device) -> Workload:
    """Running moments of input gradients, which memory limits."""
    (size, side), pixels = sizes.images, sizes.images[1] ** 2
    order = torch.randperm(sizes.moments, generator=torch.Generator().manual_seed(0)).split(size)
    batches = itertools.cycle([each.to(device) for each in order if len(each) == size])
    buffers = math.ceil(sizes.ring / (size * 3 * pixels * 4))
    gradients = itertools.cycle(
        torch.randn(buffers, size, 3, side, side, generator=torch.Generator().manual_seed(1)).to(device)
    )

    def state() -> tuple[Tensor, Tensor, Tensor]:
        mean, m2 = (torch.zeros(sizes.moments, pixels, device=device).fill_(0) for _ in range(2))  # the pages exist
        return torch.zeros(sizes.moments, dtype=torch.int32, device=device), mean, m2

    ours, theirs = state(), state()
    return Workload(
        f"record_gradients_, B {size}, P 3 x {side} x {side}",
        "eager PyTorch",
        lambda: operators.record_gradients_(*ours, next(batches), next(gradients)),
        lambda: eager.record_gradients_(*theirs, next(batches), next(gradients)),
        moved=size * pixels * 4 * (3 + 2 * 2),  # a gradient of three channels is read, mean and M2 read and written
    )


def variance(sizes: Sizes, device: torch.device) -> Workload:
    """VoG of ten checkpoints."""
    size, side = sizes.images
    stacked = torch.randn(10, size, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    return Workload(
        f"gradient_variance, K 10, B {size}, P 3 x {side} x {side}",
        "eager PyTorch",
        lambda: operators.gradient_variance(stacked),
        lambda: eager.gradient_variance(stacked),
        moved=stacked.nbytes,
    )


def training_step(sizes: Sizes, device: torch.device) -> Workload:
    """What scoring costs: a step of a small network that tracks el2n, aum, forgetting and vog_loss, and one without."""
    size, side = sizes.images
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(size, 3, side, side, generator=generator), torch.randint(10, (size,))
    images, labels, index = images.to(device), labels.to(device), torch.arange(size, device=device)
    model = cnn((3, side, side), 10).to(device)
    tracker = DifficultyTracker(size, scores=("el2n", "aum", "forgetting", "vog_loss"), device=device)

    def plain() -> None:
        model.zero_grad()
        F.cross_entropy(model(images), labels).backward()

    def scored() -> None:
        model.zero_grad()
        logits = model(tracker.watch(images, index))
        tracker.update(index, logits, labels)
        F.cross_entropy(logits, labels).backward()

    return Workload(f"training step with four scores, small CNN, B {size}", "the step without", scored, plain)


def plan(sizes: Sizes) -> Workload:
    """Which examples to keep, against sorting them."""
    generator = np.random.default_rng(0)
    difficulty = torch.from_numpy(generator.random(sizes.epoch))
    labels = torch.from_numpy(generator.integers(10, size=sizes.epoch))
    policy: Policy = Hardest(0.7)
    return Workload(
        f"plan of Hardest, N {sizes.epoch:,}, with labels",
        "argsort of the difficulty",
        lambda: policy(difficulty, labels),
        lambda: difficulty.argsort(),
    )


def epoch(sizes: Sizes) -> Workload:
    """An epoch of indices, shuffled."""
    ours = PruneSampler(Random(1.0), np.zeros(sizes.epoch))
    theirs = RandomSampler(range(sizes.epoch), generator=torch.Generator().manual_seed(0))
    return Workload(
        f"epoch of PruneSampler, N {sizes.epoch:,}", "RandomSampler", lambda: walk(ours), lambda: walk(theirs)
    )


def walk(positions: Iterable[object]) -> None:
    """Takes every one."""
    collections.deque(positions, maxlen=0)
