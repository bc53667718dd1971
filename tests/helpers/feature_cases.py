"""Small sets of features, with and without copies and equal distances."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

CLASSES = 4
NAN = float("nan")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6, equal_nan=True, check_dtype=False)


Case = tuple[list[Tensor], Tensor, Tensor, int]


@st.composite
def cases(draw: st.DrawFn, whole: bool = True) -> Case:
    """Layers, labels, predictions and k. Whole numbers on a small grid make many copies and many equal distances."""
    examples = draw(st.integers(2, 14))
    g = seeded(draw(st.integers(0, 10**6)))
    layers = []
    for _ in range(draw(st.integers(1, 4))):
        shape = (examples, draw(st.integers(1, 3)))
        grid = torch.randint(-2, 3, shape, generator=g) * 10.0 ** draw(st.integers(-3, 3))
        layers.append(grid if whole else torch.randn(shape, generator=g) + draw(st.sampled_from([0.0, 1000.0])))
    labels, predictions = torch.randint(CLASSES, (2, examples), generator=g)
    return layers, labels, predictions, draw(st.integers(1, examples - 1))


def clustered(examples: int, widths: list[int], seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    """Layers in which the classes part more and more, labels, and predictions of which a tenth is wrong."""
    g = seeded(seed)
    labels = torch.randint(CLASSES, (examples,), generator=g)
    layers = [
        position * torch.randn(CLASSES, width, generator=g)[labels] + torch.randn(examples, width, generator=g)
        for position, width in enumerate(widths)
    ]
    wrong = torch.rand(examples, generator=g) < 0.1
    return layers, labels, torch.where(wrong, (labels + 1) % CLASSES, labels)


ROWS = torch.arange(6.0).reshape(3, 2)
LABELS = torch.tensor([0, 1, 0])
