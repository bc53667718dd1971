"""Random arguments of the operators, and the moments that they change."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from difficulty_prune import ops

kernels = torch.ops.difficulty_prune

LOGIT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GRADIENT_DTYPES = (*LOGIT_DTYPES, torch.float64)
M2_DTYPES = (torch.float32, torch.bfloat16)

close = partial(torch.testing.assert_close, rtol=1e-5, atol=2e-6, equal_nan=True)
identical = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)


def random_logits(rows: int, classes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=generator)
    logits[::3] = logits[::3].round()  # ties
    return logits.to(dtype)


def random_labels(rows: int, classes: int, seed: int = 1) -> Tensor:
    labels = torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))
    labels[: min(rows, 2)] = torch.tensor([0, classes - 1])[: min(rows, 2)]  # both ends of the row
    return labels


def labels_of(index: Tensor, classes: int) -> Tensor:
    """Labels [B] that are the same wherever an example occurs."""
    return (7 * index + 3).remainder(classes)


def random_gradients(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


class Moments:
    """State of `record_gradients_` for `examples` examples of `pixels` pixels."""

    def __init__(self, examples: int, pixels: int, m2_dtype: torch.dtype = torch.float32) -> None:
        self.count = torch.zeros(examples, dtype=torch.int32)
        self.mean = torch.zeros(examples, pixels)
        self.m2 = torch.zeros(examples, pixels, dtype=m2_dtype)
        self.skipped = ops.new_skipped()

    def add(
        self,
        operator: Callable[..., None],
        index: Tensor,
        gradients: Tensor,
        scale: Tensor | None = None,
        pixels: Tensor | None = None,
    ):
        operator(self.count, self.mean, self.m2, index, gradients, scale, pixels, self.skipped)
        return self

    @property
    def tensors(self) -> list[Tensor]:
        return [self.count, self.mean, self.m2, self.skipped]


def assert_equal_moments(got: Moments, expected: Moments, compare=close) -> None:
    for a, b in zip(got.tensors, expected.tensors, strict=True):
        compare(a, b)
