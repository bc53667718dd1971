"""One training run, scored inside the training step; a loop to copy from."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data import IndexedDataset
from ..frozen.checkpoint import score_checkpoint
from ..sampler import PruneSampler
from ..tracker.tracker import DifficultyTracker
from .checkpoint import Checkpoint, Position, Resumable
from .halfway import Halfway
from .models import build_model
from .photographs import Photographs
from .study_data import Examples, StudyData


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: SGD with Nesterov momentum under a one-cycle learning rate.

    Attributes:
        augment: whether colour images are cut, shifted and flipped at random.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = True

    def facts(self) -> dict[str, Any]:
        """What the files of results say of it; what earlier versions did not have is said where it is otherwise.

        >>> Recipe(epochs=3).facts() == Recipe(epochs=3, augment=False).facts()
        False
        """
        known = asdict(self)
        return {name: value for name, value in known.items() if name not in _ADDED or value != _ADDED[name]}


_ADDED: Final = {"augment": True}
"""What was added to recipes, and what earlier versions did."""


@dataclass(frozen=True)
class Outcome:
    """The trained model, and what the training cost and reached; None for a class without test images.

    Of numbers to predict there is no accuracy but a loss: the mean squared error as a share of their variance.
    """

    model: nn.Module
    test_accuracy: float | None
    class_accuracy: list[float | None]
    steps: int
    seconds: float
    test_loss: float | None = None

    def facts(self) -> dict[str, Any]:
        """The numbers alone, for JSON."""
        return {
            "test_accuracy": self.test_accuracy,
            "class_accuracy": self.class_accuracy,
            "steps": self.steps,
            "seconds": self.seconds,
            **({} if self.test_loss is None else {"test_loss": self.test_loss}),
        }


class Batches:
    """Batches of a sampler's positions.

    If a single example would be left for the last batch, it joins the batch before: batch norm needs two.
    """

    def __init__(self, sampler: PruneSampler, size: int) -> None:
        self.sampler = sampler
        self.size = size

    @property
    def epoch(self) -> int:
        """Of the sampler."""
        return self.sampler.epoch

    def __len__(self) -> int:
        return number_of_batches(len(self.sampler), self.size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        last = (len(self) - 1) * self.size
        for start in range(0, last, self.size):
            yield order[start : start + self.size]
        yield order[last:]


def number_of_batches(examples: int, size: int) -> int:
    """The number of `Batches`.

    >>> [number_of_batches(examples, size=4) for examples in (1, 4, 5, 6, 9)]
    [1, 1, 1, 2, 2]
    """
    return len(range(0, max(1, examples - 1), size))


def train(
    data: StudyData,
    model_name: str,
    sampler: PruneSampler,
    recipe: Recipe,
    seed: int,
    tracker: DifficultyTracker | None = None,
    report: Callable[[int], None] = lambda steps: None,
    steps: int | None = None,
    checkpoint: Checkpoint | None = None,
    halfway: Halfway | None = None,
) -> Outcome:
    """Trains a new model on what the sampler yields; with a tracker, scores every example at the same time.

    Args:
        sampler: over the positions of `data.train`; its weights, over their mean, multiply the losses.
        seed: of the initialisation, the augmentation and dropout; the global generators are left as they were.
        tracker: records the scores; "grand" once, at the end of training, in evaluation mode and without augmentation,
            for what the sampler yields.
        report: called with 1 after each step.
        steps: of the whole training, for the learning rate; default: epochs times the steps of the first one.
        checkpoint: what the training goes on from, if it was killed, and what is written at the end of epochs.
        halfway: told when each epoch is over.

    Raises:
        ValueError: the training diverged, so that outputs are NaN, or the loss of numbers to predict is not finite.
    """
    device = training_device()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(model_name, data.shape, data.num_classes)
        model = model.to(device).to(memory_format=torch.channels_last)
        loader = _loader(data.train, Batches(sampler, recipe.batch_size), recipe, seed, device)
        steps = recipe.epochs * len(loader) if steps is None else steps
        optimizer = torch.optim.SGD(
            model.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
        )
        start = time.perf_counter()  # a process's first optimizer imports much, which is no cost of what it trains on
        cycle = max(steps, 8)  # PyTorch divides by zero for 4 steps; a short training stops within the cycle
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=cycle, pct_start=0.25
        )
        shifts = recipe.augment and not (isinstance(data.train, Photographs) and data.train.cut)  # by the workers
        watching = tracker is not None and "vog_loss" in tracker.scores
        needs_inputs = tracker is not None and not {"vog", "vog_probability"}.isdisjoint(tracker.scores)
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "tracker": tracker, "halfway": halfway}
        resumable = Resumable(checkpoint, sampler, **parts)
        begin = resumable.restore()
        start, done = start - begin.seconds, begin.steps

        for epoch in range(begin.epoch, recipe.epochs):
            sampler.set_epoch(epoch)
            usual = sampler.plan.weight.mean().to(device)  # weights above 1 would be a higher learning rate
            model.train()
            for images, labels, index in loader:
                x = prepare(images, data, device)
                x = augment(x) if shifts else x
                y = labels.to(device, non_blocking=True)
                weight = sampler.weight(index, device=device) / usual
                if tracker is not None and watching:
                    x = tracker.watch(x, index, weight=weight)
                elif needs_inputs:
                    x.requires_grad_()
                with mixed_precision(device):
                    logits = model(x)
                loss = loss_of(logits.float(), y)
                if tracker is not None and data.regression:
                    tracker.update(index, loss=loss)
                elif tracker is not None:
                    tracker.update(index, logits, y, inputs=x if needs_inputs else None)
                optimizer.zero_grad()
                (loss * weight).mean().backward()
                optimizer.step()
                schedule.step()
                report(1)
            done += len(loader)
            if halfway is not None:
                halfway.finished(epoch + 1)
            if epoch + 1 < recipe.epochs:
                resumable.save(Position(epoch + 1, done, time.perf_counter() - start))
        del loader  # ends its workers
        outputs = predict(model, data, data.test)
        _check_converged(bool(outputs.isfinite().all()), model_name, recipe, seed)
        if tracker is not None and "grand" in tracker.scores:
            score_checkpoint(model, in_order(sampler.plan.index, data, device), tracker, scores=("grand",))
    if data.regression:
        test_loss = float(loss_of(outputs, data.test.labels).double().mean())
        _check_converged(math.isfinite(test_loss), model_name, recipe, seed)
        return Outcome(model, None, [], steps, time.perf_counter() - start, test_loss)
    correct = outputs.argmax(1) == data.test.labels
    accuracy, of_classes = int(correct.sum()) / len(correct), class_accuracy(correct, data)
    return Outcome(model, accuracy, of_classes, steps, time.perf_counter() - start)


def _check_converged(good: bool, model_name: str, recipe: Recipe, seed: int) -> None:
    if not good:
        raise ValueError(
            f"{model_name}, seed {seed}: the training diverged, what it predicts is not finite; take a lower learning "
            f"rate than {recipe.learning_rate:g} (--lr)"
        )


def loss_of(outputs: Tensor, labels: Tensor) -> Tensor:
    """[B] cross entropies of logits [B, C], or squared errors of numbers [B, 1] where the labels are floating point."""
    if labels.is_floating_point():
        return F.mse_loss(outputs[:, 0], labels.to(outputs.dtype), reduction="none")
    return F.cross_entropy(outputs, labels, reduction="none")


def _loader(data: Examples, batches: Batches, recipe: Recipe, seed: int, device: torch.device) -> Any:
    """Batches (images, labels, index), an epoch at a time."""
    if isinstance(data, Photographs):
        return data.drawn(batches, seed, recipe.augment)
    return DataLoader(IndexedDataset(data), batch_sampler=batches, pin_memory=device.type == "cuda")


def class_accuracy(correct: Tensor, data: StudyData) -> list[float | None]:
    """The share of test images of each class that are `correct` [N] bool; None for a class without any."""
    total = data.test.labels.bincount(minlength=data.num_classes)
    right = data.test.labels[correct].bincount(minlength=data.num_classes)
    return [int(r) / int(t) if t else None for r, t in zip(right, total, strict=True)]


@torch.no_grad()
def predict(model: nn.Module, data: StudyData, images: Examples) -> Tensor:
    """Class probabilities [N, C] float32 on the CPU, in evaluation mode and without augmentation; numbers [N, 1]."""
    model.eval()
    device = next(model.parameters()).device
    found, start = torch.empty(0), 0
    for x in images.batches(1000):  # small enough for the memory of any GPU that trained on the images
        with mixed_precision(device):
            logits = model(prepare(x, data, device))
        if start == 0:  # one block: many small ones between those of the images would keep the memory of these in use
            found = torch.empty(len(images), *logits.shape[1:], device="cpu")
        found[start : start + len(x)] = logits.float() if data.regression else logits.float().softmax(1)
        start += len(x)
    return found


def in_order(
    positions: Tensor, data: StudyData, device: torch.device, size: int = 128
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches (images, labels, index) of the training data, ready for the model and not augmented."""
    start = 0
    for images in data.train.batches(size, positions):
        index = positions[start : start + len(images)]
        yield prepare(images, data, device), data.train.labels[index], index
        start += len(images)


def prepare(images: Tensor, data: StudyData, device: torch.device) -> Tensor:
    """Images [B, C, H, W] float32 on the device, scaled so that a channel has mean 0 and deviation 1 in training."""
    mean, deviation = data.statistics
    x = images.to(device, torch.float32, non_blocking=True)
    x = (x - mean.to(device)) / deviation.to(device)
    return x.contiguous(memory_format=torch.channels_last)


def augment(x: Tensor) -> Tensor:
    """Random horizontal flips and one random shift of up to 2 pixels for the batch; photographs (RGB) only."""
    if x.shape[1] != 3:
        return x
    flipped = torch.rand(len(x), device="cpu").to(x.device) < 0.5
    x = torch.where(flipped[:, None, None, None], x.flip(3), x)
    down, right = torch.randint(0, 5, (2,), device="cpu").tolist()
    height, width = x.shape[2:]
    x = F.pad(x, (2, 2, 2, 2))[:, :, down : down + height, right : right + width]
    return x.contiguous(memory_format=torch.channels_last)


def training_device() -> torch.device:
    """Where trainings run: on the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mixed_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bf16 autocast on hardware that computes in bf16; elsewhere a context that changes nothing."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.autocast("cpu", torch.bfloat16, enabled=native)
