"""PruneSampler with costs: shares of processes that cost about the same, and resume as ever."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import difficulty_prune as dp

SIZE = 101
COST = np.random.default_rng(0).lognormal(0, 1, SIZE)
DIFFICULTY = torch.arange(SIZE, dtype=torch.float64)
policies = st.sampled_from([dp.policies.Hardest(0.8), dp.policies.SoftPrune(0.6), dp.policies.Random(1.0)])


def shares(policy, world_size, epoch=0, cost=COST, **options):
    samplers = [
        dp.PruneSampler(policy, DIFFICULTY, seed=3, rank=rank, world_size=world_size, cost=cost, **options)
        for rank in range(world_size)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


@settings(max_examples=30, deadline=None)
@given(policy=policies, world_size=st.integers(1, 5), epoch=st.integers(0, 3), fixed=st.sampled_from([None, 37, 150]))
def test_shares_are_as_long_and_have_together_what_they_had_without_costs(policy, world_size, epoch, fixed):
    found = shares(policy, world_size, epoch, fixed_length=fixed)
    plain = shares(policy, world_size, epoch, cost=None, fixed_length=fixed)
    assert [len(share) for share in found] == [len(share) for share in plain]
    for mine, theirs in zip(zip(*found, strict=True), zip(*plain, strict=True), strict=True):
        assert sorted(mine) == sorted(theirs)  # what the processes have at the same time
    so_far = np.array([np.cumsum(COST[share]) for share in found])
    assert np.ptp(so_far, 0).max() <= np.ptp(COST) + 1e-9
    if world_size == 1:
        assert found == plain


def test_batches_cost_more_alike():
    """Of 4 processes with batches of 8, the most expensive beside the mean: what a step waits for."""
    generator = np.random.default_rng(1)
    cost, difficulty = generator.lognormal(0, 0.7, 6400), torch.zeros(6400)
    waits = []
    for given_cost in (None, cost):
        each = [
            dp.PruneSampler(dp.policies.Random(1.0), difficulty, seed=0, rank=rank, world_size=4, cost=given_cost)
            for rank in range(4)
        ]
        of_batches = np.array([cost[list(sampler)].reshape(-1, 8).sum(1) for sampler in each])
        waits.append(float((of_batches.max(0) / of_batches.mean(0)).mean()) - 1)
    assert waits[1] < 0.6 * waits[0], waits


@settings(max_examples=20, deadline=None)
@given(policy=policies, done=st.integers(0, 18), before=st.integers(1, 4), after=st.integers(1, 4))
def test_what_is_left_after_a_resume_is_what_nobody_had(policy, done, before, after):
    whole = shares(policy, before)
    done = min(done, len(whole[0]))
    first = dp.PruneSampler(policy, DIFFICULTY, seed=3, rank=0, world_size=before, cost=COST)
    state = first.state_dict(consumed=done)
    rest = []
    for rank in range(after):
        sampler = dp.PruneSampler(policy, DIFFICULTY, seed=3, rank=rank, world_size=after, cost=COST)
        sampler.load_state_dict(state)
        rest.append(list(sampler))
    if before == after:
        assert rest == [share[done:] for share in whole]
    had = {i for share in whole for i in share[:done]}
    left = {i for share in rest for i in share}
    assert not had & left
    assert len(left) == (len(whole[0]) - done) * before // after * after


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        ([1.0], ValueError, r"cost: got shape \(1,\), expected \[101\]"),
        ([-1.0] * SIZE, ValueError, r"cost: got -1\.0 at 0, expected finite numbers, 0 or more"),
        ([float("nan")] * SIZE, ValueError, "cost: got nan at 0"),
        (["a"] * SIZE, TypeError, "cost: got"),
    ],
)
def test_bad_costs_are_refused(cost, error, message):
    with pytest.raises(error, match=message):
        dp.PruneSampler(dp.policies.Random(1.0), DIFFICULTY, cost=cost)
