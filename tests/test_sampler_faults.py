"""Faults that samplers of this kind are known for, and that this one is free of."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from live_difficulty import ALL, FIRST, LABELS, SECOND, Live, above_a_half, make, some, through_a_file, visits
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, TensorDataset

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.uniform import Hardest, Random
from difficulty_prune.policies.weighted import Importance, SoftPrune

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_batch_sampler_that_calls_iter_again_and_again_gets_whole_epochs():
    """A peer keeps its position in the sampler: the second `iter` goes on, and an epoch never ends or is empty."""
    sampler = make(SoftPrune(keep=0.5))
    batches = BatchSampler(sampler, batch_size=6, drop_last=False)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        iter(sampler), iter(batches)
        assert [len(batch) for batch in batches] == [6, 6, 6, 2]
        assert len(batches) == 4


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_length_of_a_loader_is_the_number_of_batches_seen(drop_last):
    live = Live(FIRST)
    sampler = make(above_a_half, live)
    data = dp.IndexedDataset(TensorDataset(ALL * 10))
    loader = DataLoader(data, batch_size=7, sampler=sampler, drop_last=drop_last)
    for epoch, values in enumerate((FIRST, SECOND, FIRST / 1.5, (FIRST + 1) / 2)):
        live.values = values
        sampler.set_epoch(epoch + 1)
        expected, seen = len(loader), []
        for x, index in loader:
            assert torch.equal(x, index * 10)
            assert sampler.weight(index).tolist() == [2.0] * len(index)
            seen.append(index)
        assert len(seen) == expected
        assert drop_last or sorted(torch.cat(seen).tolist()) == (values > 0.5).nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    "policy", [SoftPrune(keep=0.8), Importance(keep=0.8), PerClass(Importance(keep=0.8))], ids=repr
)
def test_keep_four_fifths_does_not_keep_one_fifth(policy):
    sampler = make(policy, labels=LABELS)
    for epoch in range(5):
        sampler.set_epoch(epoch)
        assert len(sampler) == len(set(sampler)) == 32
        assert sampler.plan.summary()["dropped"] == 8


@pytest.mark.parametrize("difficulty", [FIRST, Live(FIRST)], ids=["fixed", "live"])
@pytest.mark.parametrize("policy", [SoftPrune(keep=1.0), Importance(keep=0.5), Hardest(0.5)], ids=repr)
def test_the_first_epoch_is_shuffled_too(policy, difficulty):
    order = list(dp.PruneSampler(policy, difficulty))
    assert order != sorted(order)
    assert order != sorted(order, reverse=True)
    assert order != sorted(order, key=lambda i: float(FIRST[i]))
    assert order != sorted(order, key=lambda i: -float(FIRST[i]))


def test_positions_beyond_half_precision_keep_their_weights():
    """A peer stores positions in the dtype of the scores: whole numbers above 2,048 are not exact in float16."""
    size = 5000
    difficulty = torch.arange(size).half() / 5000
    sampler = make(SoftPrune(keep=0.5), Live(difficulty), epoch=1)
    second = make(SoftPrune(keep=0.5), Live(difficulty.flip(0)))
    second.load_state_dict(through_a_file(sampler.state_dict()))
    order, weight = visits(second)
    assert len(set(order)) == 2500
    assert any(i % 2 and i > 2048 for i in order)
    expected = dict(zip(sampler.plan.index.tolist(), sampler.plan.weight.tolist(), strict=True))
    assert weight == [expected[i] for i in order]


def test_positions_beyond_single_precision_keep_their_weights():
    size, far = 2**24 + 10, [1, 2**24 - 1, *range(2**24 + 1, 2**24 + 10, 2)]
    weights = [1.0 + k for k in range(len(far))]

    def policy(difficulty, labels=None, generator=None):
        return dp.Plan(torch.tensor(far), torch.tensor(weights), {"policy": "far"})

    scores = torch.zeros(1, dtype=torch.float64).expand(size)
    sampler = make(policy, Live(scores))
    expected = dict(zip(far, weights, strict=True))
    iterator = iter(sampler)
    head = some(iterator, 3)
    sampler.load_state_dict(through_a_file(iterator.state_dict()))
    order, weight = visits(sampler)
    assert sorted(head + order) == far
    assert weight == [expected[i] for i in order]
    assert sampler.weight(torch.tensor([2**24, 2**24 + 2])).tolist() == [0.0, 0.0]


def test_no_global_generator_is_touched_by_planning_visiting_and_resuming():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)

    def state():
        legacy = np.random.get_state()  # noqa: NPY002
        return torch.get_rng_state().tolist(), legacy[1].tolist(), legacy[2:], random.getstate()

    before = state()
    for policy in (SoftPrune(0.5), Importance(), PerClass(Importance()), Random(0.5)):
        sampler = make(policy, labels=LABELS, fixed_length=30)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            some(iter(sampler), 4)
            sampler.load_state_dict(sampler.state_dict())
            sampler.weight(torch.tensor(list(sampler)))
    assert state() == before


def test_the_global_seed_does_not_change_an_epoch():
    orders = []
    for seed in range(2):
        torch.manual_seed(seed)
        orders.append(visits(make(Importance(), epoch=2)))
    assert orders[0] == orders[1]


@pytest.mark.parametrize("policy", [Hardest(0.5), SoftPrune(keep=0.5)], ids=repr)
@pytest.mark.parametrize("used", ["none", "a copy"])
def test_a_sampler_that_no_loader_draws_from_is_noticed(policy, used):
    """The loader shuffles by itself, say: two of three examples would train with weight 0."""
    sampler = make(policy)
    drawn = [int(i) for i in (ALL if used == "none" else list(copy.deepcopy(sampler)))]
    for batch in torch.tensor(drawn)[:20].split(10):
        sampler.weight(batch)
    with pytest.warns(UserWarning, match="weights were asked for in epoch 0, but no example was drawn"):
        sampler.set_epoch(1)
    list(sampler)
    sampler.weight(sampler.plan.index)
    sampler.set_epoch(2)  # no warning
    sampler.set_epoch(3)  # nor of an epoch that was passed over


def test_it_is_noticed_within_the_first_epoch_too():
    sampler = make(Hardest(0.5))
    sampler.weight(ALL), sampler.weight(ALL)
    with pytest.warns(UserWarning, match="no example was drawn from this sampler"):
        sampler.weight(ALL)
    sampler.weight(ALL)  # once is enough


class Endless(IterableDataset):
    def __iter__(self):
        yield from range(4)


class OfKnownLength(Endless):
    def __len__(self):
        return 4


@pytest.mark.parametrize(
    "stream", [Endless(), OfKnownLength(), iter(range(4))], ids=lambda stream: type(stream).__name__
)
@pytest.mark.parametrize("ids", [None, ["a", "b", "c", "d"]])
def test_a_stream_has_no_positions_to_visit(stream, ids):
    with pytest.raises(TypeError, match=rf"dataset: got {type(stream).__name__}, expected one with .*dp\.StreamPruner"):
        dp.PruneSampler(dp.policies.Hardest(0.5), [0.1, 0.9, 0.5, 0.2], dataset=stream, ids=ids)
