"""An epoch that is saved by some processes and resumed by others is visited exactly, and `consumed` says how far."""

from __future__ import annotations

import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, get_worker_info

import difficulty_prune as dp

POLICIES = {"hardest": dp.policies.Hardest(0.75), "soft": dp.policies.SoftPrune(0.75)}


def samplers(policy: str, size: int, world: int, shuffle: bool) -> list[dp.PruneSampler]:
    difficulty = np.linspace(0, 1, size)
    return [
        dp.PruneSampler(POLICIES[policy], difficulty, seed=3, shuffle=shuffle, rank=rank, world_size=world)
        for rank in range(world)
    ]


def train(some: list[dp.PruneSampler], counted: bool, steps: int) -> tuple[list[int], dict[str, object], list[int]]:
    """So many examples of each process, or all where there are fewer; what was visited, a state, what is left."""
    visited: list[int] = []
    states, left = [], []
    for sampler in some:
        consumed = sampler.start
        iterator = iter(sampler)
        mine = [position for _, position in zip(range(steps), iterator, strict=False)]
        visited += mine
        states.append(sampler.state_dict(consumed=consumed + len(mine)) if counted else sampler.state_dict())
        left += list(iterator)
    assert all(torch.equal(torch.tensor(s["yielded"]), torch.tensor(states[0]["yielded"])) for s in states)
    return visited, states[0], left


@given(
    size=st.integers(12, 60),
    worlds=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    steps=st.integers(0, 7),
    policy=st.sampled_from(sorted(POLICIES)),
    shuffle=st.booleans(),
    counted=st.booleans(),
)
@example(size=40, worlds=[3, 2, 2], steps=3, policy="hardest", shuffle=True, counted=True)
def test_any_change_of_the_number_of_processes_resumes_exactly(size, worlds, steps, policy, shuffle, counted) -> None:
    some = samplers(policy, size, worlds[0], shuffle)
    length = len(some[0]) * worlds[0]
    visited, state, left = train(some, counted, steps)
    for world in worlds[1:]:
        some = samplers(policy, size, world, shuffle)
        for sampler in some:
            sampler.load_state_dict(state)
        more, state, left = train(some, counted, steps)
        visited += more
        assert state["yielded"] == len(visited)
    assert len(set(visited)) == len(visited)  # nobody twice
    assert not set(visited) & set(left)
    assert length - len(visited) - len(left) < max(worlds)  # what does not go round, as in any epoch


def test_three_processes_at_nine_go_on_as_two() -> None:
    """So that two have trained on 3 examples more each, 15 are done."""
    _, state, _ = train(samplers("hardest", 40, 3, True), True, 3)
    assert state["yielded"] == 9
    two = samplers("hardest", 40, 2, True)
    for sampler in two:
        sampler.load_state_dict(state)
    assert [sampler.start for sampler in two] == [4, 4]
    _, state, _ = train(two, True, 3)
    assert state["yielded"] == 15


def test_before_the_first_example_the_state_is_the_one_that_was_loaded() -> None:
    _, state, _ = train(samplers("soft", 40, 3, True), True, 3)
    sampler = samplers("soft", 40, 2, True)[0]
    sampler.load_state_dict(state)
    assert sampler.state_dict()["yielded"] == sampler.state_dict(consumed=sampler.start)["yielded"] == 9
    iter(sampler)  # loaders make iterators that they do not use
    assert sampler.state_dict(consumed=sampler.start)["yielded"] == 9
    assert sampler.state_dict(consumed=0)["yielded"] == 0  # the epoch anew


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("epoch", -1), ("epoch", "2"), ("length", 0), ("length", None), ("yielded", -1), ("yielded", 10**6)),
        *(("yielded", "3"), ("plan", None), ("plan", {"index": 1}), ("format", 99), ("examples", 7), ("seed", 9)),
    ],
)
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_damaged_state_is_refused_and_changes_nothing(policy: str, key: str, value: object) -> None:
    sampler = samplers(policy, 20, 1, True)[0]
    sampler.set_epoch(2)
    state = sampler.state_dict()
    expected = list(sampler)
    sampler.load_state_dict(state)
    with pytest.raises(ValueError, match="load_state_dict"):
        sampler.load_state_dict({**state, key: value})
    with pytest.raises(ValueError, match="load_state_dict"):
        sampler.load_state_dict({name: of for name, of in state.items() if name != key})
    assert list(sampler) == expected


class OneSlowWorker(Dataset):
    """Worker 0 of a loader takes longer, so that the others overtake it."""

    def __len__(self):
        return 40

    def __getitem__(self, i):
        worker = get_worker_info()
        if worker is not None and worker.id == 0:
            time.sleep(0.05)
        return torch.tensor(float(i))


@pytest.mark.parametrize("in_order", [True, False])
def test_batches_that_overtake_others_are_warned_of_where_a_state_counts_examples(in_order):
    sampler = dp.PruneSampler(dp.policies.Hardest(0.5), torch.arange(40.0), seed=0)
    data = dp.IndexedDataset(OneSlowWorker())
    consumed = 0
    for _, index in DataLoader(data, batch_size=2, sampler=sampler, num_workers=2, in_order=in_order):
        sampler.weight(index)
        consumed += len(index)
        if consumed == 10:
            break
    with nullcontext() if in_order else pytest.warns(UserWarning, match="come later in the sampler's order"):
        sampler.state_dict(consumed=consumed)


def test_examples_that_were_not_counted_are_warned_of():
    sampler = dp.PruneSampler(dp.policies.Random(0.5), torch.arange(40.0), seed=0)
    sampler.weight(torch.tensor(list(sampler)[:6]))
    with pytest.warns(UserWarning, match="2 of the examples trained on in epoch 0 come later"):
        sampler.state_dict(consumed=4)
    sampler.state_dict(consumed=6)
    sampler.set_epoch(1)
    sampler.state_dict(consumed=0)
