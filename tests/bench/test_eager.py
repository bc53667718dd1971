"""What the operators are compared with computes the same."""

from __future__ import annotations

import pytest
import torch

from difficulty_prune import ops
from difficulty_prune.bench import eager


@pytest.mark.parametrize("stats_of", [eager.softmax_stats, eager.tuned_softmax_stats])
def test_records(stats_of: eager.Stats) -> None:
    """Of the same examples four times, so that every column of the record matters."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ops.new_table(20), ops.new_table(20)
    index, labels = torch.randperm(20, generator=generator)[:16], torch.randint(5, (16,), generator=generator)
    for _ in range(4):
        logits = 3 * torch.randn(16, 5, generator=generator)
        ops.record_stats_(ours, index, logits, labels)
        eager.record_stats_(theirs, index, logits, labels, stats_of)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_moments_and_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    stacked = torch.randn(4, 6, 3, 5, 5, generator=generator)
    index = torch.randperm(9, generator=generator)[:6]
    ours, theirs = ((torch.zeros(9, dtype=torch.int32), torch.zeros(9, 25), torch.zeros(9, 25)) for _ in range(2))
    for gradients in stacked:
        ops.record_gradients_(*ours, index, gradients)
        eager.record_gradients_(*theirs, index, gradients)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)
    torch.testing.assert_close(ops.gradient_variance(stacked), eager.gradient_variance(stacked))
