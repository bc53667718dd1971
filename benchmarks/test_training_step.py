"""How much scoring adds to a training step of the study's small CNN."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from comparison import Compare, Target
from torch import Tensor

import difficulty_prune as dp
from difficulty_prune.study.models import build_model
from difficulty_prune.study.train import mixed_precision

EXAMPLES, BATCH, CLASSES = 50_000, 256, 10
CPU: Final = torch.device("cpu")
LOGIT_SCORES: Final = tuple(name for name in dp.score_names() if dp.SCORES[name].needs == "logits")


def keep(x: Tensor, index: Tensor) -> Tensor:
    return x


def require_gradient(x: Tensor, index: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def ignore(index: Tensor, logits: Tensor, y: Tensor, x: Tensor) -> None:
    pass


def differentiate(index: Tensor, logits: Tensor, y: Tensor, x: Tensor) -> None:
    """The backward pass that `vog` needs in any case."""
    torch.autograd.grad(logits.gather(1, y[:, None]).sum(), x, retain_graph=True)


def training_step(
    prepare: Callable[[Tensor, Tensor], Tensor] = keep,
    observe: Callable[[Tensor, Tensor, Tensor, Tensor], None] = ignore,
) -> Callable[[], None]:
    """The study's training step on random images, with a model of its own; scoring adds `prepare` and `observe`."""
    torch.manual_seed(0)
    model = build_model("cnn", (3, 32, 32), CLASSES).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=5e-4, nesterov=True)
    images = [torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last) for _ in range(4)]
    index = torch.randperm(EXAMPLES).split(BATCH)[:-1]
    labels = torch.randint(CLASSES, (len(index), BATCH)).unbind()
    batches = zip(*(itertools.cycle(part) for part in (images, labels, index)), strict=True)

    def step() -> None:
        x, y, i = next(batches)
        x = prepare(x, i)
        with mixed_precision(CPU):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), y)
        observe(i, logits, y, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def work(scores: str) -> str:
    with mixed_precision(CPU):
        dtype = "bf16" if torch.is_autocast_enabled("cpu") else "float32 (no native bf16)"
    return f"training step, CNN, B {BATCH}, {dtype}: {scores}"


def test_logit_scores(compare: Compare) -> None:
    tracker = dp.DifficultyTracker(EXAMPLES, LOGIT_SCORES)
    ours = training_step(observe=lambda index, logits, y, x: tracker.update(index, logits, y))
    compare(work("all logit scores"), "off", ours, training_step(), Target(slower=1.02), rounds=60)


def test_vog_loss(compare: Compare) -> None:
    tracker = dp.DifficultyTracker(EXAMPLES, (*LOGIT_SCORES, "vog_loss"))
    ours = training_step(tracker.watch, lambda index, logits, y, x: tracker.update(index, logits, y))
    compare(work("+ vog_loss by watch"), "off", ours, training_step(), Target(slower=1.15), rounds=25)


def test_vog(compare: Compare) -> None:
    tracker = dp.DifficultyTracker(EXAMPLES, (*LOGIT_SCORES, "vog"))
    ours = training_step(require_gradient, lambda index, logits, y, x: tracker.update(index, logits, y, inputs=x))
    theirs = training_step(require_gradient, differentiate)
    compare(work("+ vog by inputs="), "off + autograd.grad", ours, theirs, Target(slower=1.08), rounds=25)
