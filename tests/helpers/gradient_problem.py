"""A small model and data whose input gradients an oracle takes one example at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

import difficulty_prune as dp

GRADIENT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


# Models here compute in float64; what remains is the rounding of the recorded state, which is float32.
close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-9, check_dtype=False, equal_nan=True)
identical = partial(torch.testing.assert_close, rtol=0, atol=0, check_dtype=False, equal_nan=True)

N, CLASSES = 8, 4
INPUT = (3, 5, 6)
PIXELS = 5 * 6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def new_model(seed: int = 0, norm: bool = False) -> nn.Sequential:
    """A small network [B, 3, 5, 6] -> [B, 4] in float64; smooth, and with large enough gradients."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * PIXELS, CLASSES)]
        if norm:
            layers[1:1] = [nn.BatchNorm2d(4), nn.Dropout(0.5)]
        return nn.Sequential(*layers).double()


def new_data(seed: int = 1) -> tuple[Tensor, Tensor]:
    x = torch.randn(N, *INPUT, generator=seeded(seed), dtype=torch.float64)
    return x, torch.randint(CLASSES, (N,), generator=seeded(seed + 1))


def label_logit(z: Tensor, label: int) -> Tensor:
    return z[label]


def label_probability(z: Tensor, label: int) -> Tensor:
    return z.exp()[label] / z.exp().sum()


def own_loss(z: Tensor, label: int) -> Tensor:
    return z.exp().sum().log() - z[label]


TARGETS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "vog": label_logit,
    "vog_probability": label_probability,
    "vog_loss": own_loss,
}


def one_by_one(model: Callable[[Tensor], Tensor], score: str, x: Tensor, y: Tensor) -> list[Tensor]:
    """The gradient [...] of each example's own target to its input, one example at a time."""
    gradients = []
    for example, label in zip(x.detach(), y.tolist(), strict=True):
        alone = example.clone()[None].requires_grad_()
        gradients += torch.autograd.grad(TARGETS[score](model(alone)[0], label), alone)[0]
    return gradients


def as_signal(gradients: list[Tensor]) -> Tensor:
    """What the tracker keeps of gradients [C, H, W]: the channel means, [B, H * W]."""
    return torch.stack(gradients).mean(1).flatten(1)


def recorded(tracker: dp.DifficultyTracker, score: str = "vog_loss") -> dict[str, Tensor]:
    return tracker.state_dict()["moments"][score]


def feed(tracker: dp.DifficultyTracker, index: Tensor, gradients: Tensor) -> None:
    """Makes exactly these gradients arrive at a watched input."""
    x = tracker.watch(torch.zeros_like(gradients), index, reduction="sum")
    if x.requires_grad:  # not in a step that is passed over
        (x * gradients).sum().backward()


def observations(dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    """Gradients [60, 3, 5, 6] of examples 0..6, an unequal number each; example 7 has none."""
    index = torch.randint(N - 1, (60,), generator=seeded(seed))
    return index, torch.randn(60, *INPUT, generator=seeded(seed + 1)).to(dtype)


def training(steps: int = 12) -> Iterator[tuple[nn.Module, Tensor, Tensor, torch.optim.Optimizer]]:
    """A model in training with the examples of each step: batch sizes change, examples repeat over steps."""
    model = new_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(steps):
        index = torch.randperm(N - 1, generator=seeded(step))[: 1 + step % 5]  # example 7 is never drawn
        optimizer.zero_grad()
        yield model, index, torch.rand(len(index), generator=seeded(100 + step)) + 0.2, optimizer
