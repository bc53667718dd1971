"""One loss per example where it has several rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import difficulty_prune as dp


@given(owners=st.lists(st.integers(0, 5), min_size=1, max_size=40), seed=st.integers(0, 1000))
def test_each_example_has_the_mean_of_its_rows(owners, seed):
    loss = torch.randn(len(owners), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    owner = torch.tensor(owners)
    reduced = dp.reduce_loss(loss, owner, 6)
    for example in range(6):
        rows = loss[owner == example]
        torch.testing.assert_close(reduced[example], rows.mean(), equal_nan=True)  # NaN of no rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("rows", [100, 512, 4000])
def test_long_examples_in_narrow_types_keep_their_mean_and_gradient(dtype, rows):
    """A sum of ones in bfloat16 ends at 256."""
    loss = torch.full((rows,), 1.125, dtype=dtype, requires_grad=True)
    reduced = dp.reduce_loss(loss, torch.zeros(rows, dtype=torch.int64), 1)
    assert reduced.dtype == dtype
    assert reduced.item() == 1.125
    reduced.sum().backward()
    torch.testing.assert_close(loss.grad.double() * rows, torch.ones(rows).double(), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("loss", "owner", "size", "error", "message"),
    [
        ([1.0], torch.tensor([0]), 1, TypeError, "loss: got list"),
        (torch.ones(1), [0], 1, TypeError, "owner: got list"),
        (torch.ones(1, dtype=torch.int64), torch.tensor([0]), 1, TypeError, "loss: got torch.int64"),
        (torch.ones(1), torch.tensor([0.0]), 1, TypeError, "owner: got torch.float32"),
        (torch.ones(2), torch.tensor([0]), 1, ValueError, r"got loss \(2,\) and owner \(1,\)"),
        (torch.ones(0), torch.zeros(0, dtype=torch.int64), None, ValueError, "batch_size: got None and no rows"),
        (torch.ones(2), torch.tensor([0, 2]), 2, IndexError, r"owner: got 2, expected 0\.\.1"),
        (torch.ones(2), torch.tensor([-1, 0]), None, IndexError, "owner: got -1"),
    ],
)
def test_bad_rows_are_refused(loss, owner, size, error, message):
    with pytest.raises(error, match=message):
        dp.reduce_loss(loss, owner, size)


def test_a_batch_without_rows_is_all_unknown():
    assert dp.reduce_loss(torch.ones(0), torch.zeros(0, dtype=torch.int64), 3).isnan().all()
