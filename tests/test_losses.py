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


def test_a_plan_is_a_policy_and_needs_no_summary(tmp_path):
    plan = dp.Plan(torch.tensor([3, 1]), torch.tensor([0.5, 2.0]))
    assert str(plan.summary()) == "a plan: keeps 2"
    plan.save(tmp_path / "plan.safetensors")
    sampler = dp.PruneSampler(dp.Plan.load(tmp_path / "plan.safetensors"), torch.zeros(5))
    assert sorted(sampler) == [1, 3]
    assert sampler.weight(torch.tensor([3, 1, 0])).tolist() == [0.5, 2.0, 0.0]


@pytest.mark.parametrize("world_size", [1, 2])
def test_counting_from_the_start_of_a_pass_survives_two_interruptions(world_size):
    """As the loop in docs/frameworks.md counts; the last batch is short."""

    def make():
        share = {"rank": 0, "world_size": world_size} if world_size > 1 else {}
        return dp.PruneSampler(dp.policies.Random(1.0), torch.zeros(23), **share)

    whole, visited, state = list(make()), [], None
    for batches in (2, 1, 100):
        sampler = make()
        if state is not None:
            sampler.load_state_dict(state)
        consumed = sampler.start
        for batch in list(torch.utils.data.BatchSampler(sampler, 3, drop_last=False))[:batches]:
            visited += batch
            consumed += len(batch)
        state = sampler.state_dict(consumed=consumed)
    assert visited == whole
