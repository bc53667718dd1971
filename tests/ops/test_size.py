"""Neither the number of threads nor the size of the state changes what the operators compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from operator_inputs import (
    M2_DTYPES,
    Moments,
    close,
    identical,
    kernels,
    labels_of,
    random_gradients,
    random_labels,
    random_logits,
)
from torch import Tensor

from difficulty_prune import ops
from difficulty_prune.ops.layout import RECORD_WIDTH

# Threads


@pytest.fixture
def with_threads():
    """Runs a function with a given number of threads; the number is restored afterwards."""
    before = torch.get_num_threads()

    def run(threads: int, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        torch.set_num_threads(threads)
        return function()

    yield run
    torch.set_num_threads(before)


def test_the_number_of_threads_changes_no_bit(with_threads) -> None:
    """Duplicates of an example are far apart here, so that rows of one example fall to different threads."""
    rows, classes = 3000, 64
    logits = random_logits(rows, classes)
    logits[::97, 0], logits[::89, 1] = torch.nan, -torch.inf
    gradients = random_gradients(rows, 3, 8, 8)
    index = torch.arange(rows).remainder(700)
    labels = labels_of(index, classes)
    labels[::31] += 1
    labels %= classes
    few = torch.arange(rows).remainder(350)  # so few that windows of presentations become complete
    checkpoints = gradients.unflatten(0, (5, 600))

    def all_operators() -> list[Tensor]:
        table, skipped = ops.new_table(700), ops.new_skipped()
        ops.record_stats_(table, index, logits, labels, skipped)
        given = ops.new_table(700)
        ops.record_given_stats_(given, index - 1, ops.softmax_stats(logits, labels), labels, classes, skipped)
        windows = ops.new_temporal_table(350, 4, classes)
        ops.record_temporal_(windows, few, logits, labels, 4, 0.9, skipped)
        m = Moments(700, 64).add(ops.record_gradients_, index, gradients, torch.linspace(-1, 1, rows))
        return [
            ops.softmax_stats(logits, labels),
            table,
            given,
            windows,
            skipped,
            *m.tensors,
            ops.gradient_variance(checkpoints),
            ops.gradient_variance(checkpoints, "variance"),
        ]

    one = with_threads(1, all_operators)
    for several in (2, 3):
        for a, b in zip(with_threads(several, all_operators), one, strict=True):
            identical(a, b)


# State of more than 2^31 elements, of which only the pages in use take memory


@pytest.fixture
def sparse_zeros(tmp_path: Path) -> Callable[..., Tensor]:
    """Zeros in a file of holes: what is never written takes no room."""

    def make(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        name = tmp_path / str(len(list(tmp_path.iterdir())))
        words = np.memmap(name, np.uint8, "w+", shape=(math.prod(shape) * dtype.itemsize,))
        return torch.from_numpy(words).view(dtype).view(shape)

    return make


def test_records_beyond_2_31_elements(sparse_zeros) -> None:
    examples = 2**27 + 5
    table, small = sparse_zeros(examples, RECORD_WIDTH), ops.new_table(2)
    logits, labels = random_logits(2, 10), random_labels(2, 10)
    kernels.record_stats_(table, torch.tensor([examples - 1, 2**27]), logits, labels, ops.new_skipped())
    kernels.record_stats_(small, torch.tensor([1, 0]), logits, labels, ops.new_skipped())
    identical(table[[2**27, examples - 1]], small)
    assert table[:2].count_nonzero() == 0  # where 32-bit offsets would have wrapped to


def test_windows_of_presentations_beyond_2_31_elements(sparse_zeros) -> None:
    examples, window, classes = 2**25 + 5, 10, 44  # rows of 66
    table, small = sparse_zeros(examples, 66), ops.new_temporal_table(2, window, classes)
    logits, labels = random_logits(2, classes), random_labels(2, classes)
    kernels.record_temporal_(table, torch.tensor([examples - 1, 2**25]), logits, labels, window, 0.9, ops.new_skipped())
    kernels.record_temporal_(small, torch.tensor([1, 0]), logits, labels, window, 0.9, ops.new_skipped())
    identical(table[[2**25, examples - 1]], small)
    assert table[:2].count_nonzero() == 0


@pytest.mark.parametrize("m2_dtype", M2_DTYPES)
def test_moments_beyond_2_31_elements(sparse_zeros, m2_dtype) -> None:
    examples, pixels = 50_000, 50_176
    count = torch.zeros(examples, dtype=torch.int32)
    mean, m2 = sparse_zeros(examples, pixels), sparse_zeros(examples, pixels, dtype=m2_dtype)
    gradients = random_gradients(4, 1, pixels)
    index = torch.tensor([examples - 1, 43_000, examples - 1, 43_000])  # 43,000 x 50,176 > 2^31
    kernels.record_gradients_(count, mean, m2, index, gradients, None, None, ops.new_skipped())
    for row in (0, 1):
        expected = gradients[[row, row + 2], 0]
        close(mean[index[row]], expected.mean(0))
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if m2_dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-5}
        torch.testing.assert_close(m2[index[row]].float(), 2 * expected.var(0, correction=0), **tolerance)
    assert mean[0].count_nonzero() == mean[200].count_nonzero() == 0
