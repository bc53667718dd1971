"""A visit outside the plan does not train with weight 0 in silence; what a schedule needs is known beforehand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset, TensorDataset

import difficulty_prune as dp
from difficulty_prune.policies import Hardest, Importance, PerClass, Random, SoftPrune, Window

SIZE = 100
ALL = torch.arange(SIZE)
DATA = TensorDataset(torch.arange(float(SIZE)), ALL % 4)


def test_a_sampler_of_the_whole_over_a_part_is_refused() -> None:
    part = torch.randperm(SIZE, generator=torch.Generator().manual_seed(0))[:60].sort().values.tolist()
    sampler = dp.PruneSampler(Hardest(keep=0.3), -ALL.double(), seed=0)
    loader = DataLoader(Subset(dp.IndexedDataset(DATA), part), batch_size=10, sampler=sampler)
    with pytest.raises(ValueError, match=r"not in the plan of epoch 0.*IndexedDataset\(Subset\(data, part\)\)"):
        [sampler.weight(index) for _, _, index in loader]


def test_the_documented_way_to_prune_within_a_part() -> None:
    part = list(range(0, SIZE, 2))
    train = dp.IndexedDataset(Subset(DATA, part))
    sampler = dp.PruneSampler(Hardest(keep=0.5), torch.arange(50.0), seed=0)
    weights = torch.cat([sampler.weight(index) for _, _, index in DataLoader(train, batch_size=10, sampler=sampler)])
    assert weights.tolist() == [1.0] * 25


class Recycling:
    """A loader that keeps its workers, and so fetches the next epoch before its number is set."""

    def __init__(self, sampler: dp.PruneSampler) -> None:
        self.sampler = sampler
        self.ready = [next(iter(sampler)) for _ in range(1)]
        self.iterator = iter(sampler)

    def __iter__(self):
        ready, self.iterator = self.iterator, iter(self.sampler)
        first = next(self.iterator)  # of what follows, with the plan of now
        yield from ready
        self.iterator = iter([first, *self.iterator])


def test_a_loader_that_recycles_its_workers_is_found_out() -> None:
    sampler = dp.PruneSampler(SoftPrune(keep=0.5), ALL.double(), seed=0)
    loader = Recycling(sampler)

    def train(epoch: int) -> None:
        sampler.set_epoch(epoch)
        for batch in torch.tensor(list(loader)).split(10):
            sampler.weight(batch)

    train(0)
    with pytest.raises(ValueError, match="loaders that recycle their workers"):
        train(1)


def test_a_look_at_the_plan_before_anything_is_drawn_is_no_visit() -> None:
    sampler = dp.PruneSampler(Hardest(keep=0.25), ALL.double())
    assert sampler.weight(ALL).sum() == 25
    next(iter(sampler))
    assert sampler.weight(sampler.plan.index).tolist() == [1.0] * 25
    with pytest.raises(ValueError, match="75 of 100 examples, the first of them 0,"):
        sampler.weight(ALL)


def test_who_means_it_may_have_zeros() -> None:
    sampler = dp.PruneSampler(Hardest(keep=0.25), ALL.double(), outside="zero")
    next(iter(sampler))
    assert sampler.weight(ALL).tolist() == [0.0] * 75 + [1.0] * 25
    with pytest.raises(ValueError, match="outside: got 'ignore', expected 'raise' or 'zero'"):
        dp.PruneSampler(Hardest(keep=0.25), ALL.double(), outside="ignore")


def test_an_iterator_from_before_a_state_was_loaded_says_so() -> None:
    sampler = dp.PruneSampler(Random(0.5), ALL.double(), seed=0)
    state = sampler.state_dict(consumed=20)
    old = iter(sampler)
    next(old)
    sampler.load_state_dict(state)
    with pytest.warns(UserWarning, match="load the state first, then make the iterator"):
        next(old)
    assert len(list(sampler)) == 30
    assert len(list(old)) == 48


POLICIES = {
    "hardest": lambda epochs: Hardest(0.6),
    "soft": lambda epochs: SoftPrune(0.6, anneal=0.25, epochs=epochs),
    "importance": lambda epochs: Importance(keep=0.35),
    "window": lambda epochs: Window(0.1, 0.5),
    "per class": lambda epochs: PerClass(SoftPrune(0.5, anneal=0.5, epochs=epochs)),
}


@given(
    name=st.sampled_from(sorted(POLICIES)),
    batch=st.integers(1, 40),
    epochs=st.integers(1, 9),
    drop_last=st.booleans(),
    world=st.integers(1, 3),
    live=st.booleans(),
    fixed=st.none() | st.integers(10, 150),
)
def test_total_steps_are_those_that_a_training_takes(name, batch, epochs, drop_last, world, live, fixed) -> None:
    policy = POLICIES[name](epochs)
    if live and getattr(policy, "unseen", "keep") == "refuse":
        return
    tracker = dp.DifficultyTracker(SIZE, ("loss",))
    sampler = dp.PruneSampler(
        policy,
        tracker.source("loss") if live else ALL.double(),
        labels=ALL % 4,
        rank=0,
        world_size=world,
        fixed_length=fixed,
    )
    foreseen = sampler.total_steps(batch, epochs, drop_last=drop_last)
    data = dp.IndexedDataset(DATA)
    steps = 0
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        loader = DataLoader(data, batch_size=batch, sampler=sampler, drop_last=drop_last)
        steps += sum(1 for _ in loader)
        if live:
            tracker.update(ALL, loss=torch.rand(SIZE))
    assert foreseen == steps


@pytest.mark.parametrize(("batch", "epochs"), [(0, 1), (1, 0), ("8", 1), (2.5, 1), (8, -1)])
def test_total_steps_take_whole_numbers(batch: object, epochs: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"batch_size|epochs"):
        dp.PruneSampler(Random(0.5), ALL.double()).total_steps(batch, epochs)
