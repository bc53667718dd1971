"""Models, data, and their gradients one example at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import difficulty_prune as dp
from difficulty_prune.scores.grand import grand as parameter_gradients

grand = dp.scores.grand
close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)  # models here compute in float64
B, CLASSES = 5, 3


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A model in float64 and evaluation mode, with biases, scales and statistics away from their initial values."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().double().eval()
    generator = seeded(seed + 1)
    with torch.no_grad():
        for p in (p for p in model.parameters() if p.dim() == 1):
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for b in model.buffers():
            if b.is_floating_point():
                b += 0.5 * torch.rand(b.shape, generator=generator, dtype=b.dtype)
    return model


def images(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def words(rows: int = B, length: int = 6, seed: int = 2) -> Tensor:
    return torch.randint(7, (rows, length), generator=seeded(seed))


def classes(rows: int = B, seed: int = 3) -> Tensor:
    return torch.randint(CLASSES, (rows,), generator=seeded(seed))


def one_by_one(model: nn.Module, x: Tensor, y: Tensor, loss: Callable[..., Tensor] = F.cross_entropy) -> Tensor:
    """The definition: a backward pass for each example, and the norm of everything it leaves in `.grad`."""
    norms = []
    for i in range(len(x)):
        model.zero_grad()
        loss(model(x[i : i + 1].clone()), y[i : i + 1]).backward()
        norms.append(math.sqrt(sum(float(p.grad.to_dense().square().sum()) for p in gradients_of(model))))
    model.zero_grad()
    return torch.tensor(norms, dtype=torch.float64)


def gradients_of(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.grad is not None]


def routes(model: nn.Module, x: Tensor, y: Tensor, loss: Any = "cross_entropy") -> dict[str, str]:
    """How each parameter's gradient is found: by which rule, or "model" where none explains it."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups, rest = parameter_gradients._Batch(model, parameters, x, y, loss).uses()
    by_rule = {name: type(uses[0]).__name__ for names, uses in groups.items() for name in names}
    return by_rule | dict.fromkeys(rest, "model")


def kinds(model: nn.Module, x: Tensor) -> set[str]:
    return set(routes(model, x, classes(len(x))).values())


def agrees(model: nn.Module, x: Tensor) -> None:
    y = classes(len(x))
    expected = one_by_one(model, x, y)
    assert (expected > 0).all()
    close(grand(model, x, y), expected)


class Of(nn.Module):
    """A model of a function of its modules and parameters."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **members: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = forward
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=seeded(9)))
