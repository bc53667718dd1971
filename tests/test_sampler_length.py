"""Epochs of a fixed length, and epochs longer than the chunks in which an iterator turns positions into numbers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_difficulty import ALL, FIRST, SIZE, Live, above_a_half, hardest, make
from torch.utils.data import DataLoader, TensorDataset

from difficulty_prune.policies.uniform import Easiest
from difficulty_prune.policies.weighted import SoftPrune

pytestmark = pytest.mark.usefixtures("one_thread")


# A fixed length


@given(
    number=st.integers(1, 100),
    world_size=st.integers(1, 4),
    shuffle=st.booleans(),
    keep=st.sampled_from([0.1, 0.5, 1.0]),
    epoch=st.integers(0, 3),
)
@settings(max_examples=40)
def test_a_fixed_length_is_kept_and_examples_are_visited_equally_often(number, world_size, shuffle, keep, epoch):
    number = max(number, world_size)
    options = {"fixed_length": number, "shuffle": shuffle, "world_size": world_size, "epoch": epoch}
    ranks = [make(SoftPrune(keep), rank=rank, **options) for rank in range(world_size)]
    shares = [list(sampler) for sampler in ranks]
    assert (
        [len(share) for share in shares] == [len(sampler) for sampler in ranks] == [number // world_size] * world_size
    )
    total = number // world_size * world_size
    counts = Counter(i for share in shares for i in share)
    kept = ranks[0].plan.index.tolist()
    assert set(counts) <= set(kept)
    assert {counts[i] for i in kept} <= {total // len(kept), -(-total // len(kept))}


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("number", [7, 13, 33, 47])
def test_what_is_cut_or_repeated_differs_from_epoch_to_epoch(shuffle, number):
    """Of an unshuffled epoch too, whose order stays ascending; 20 examples are kept."""
    seen = set()
    for epoch in range(20):
        order = list(make(shuffle=shuffle, fixed_length=number, epoch=epoch))
        passes = [order[start : start + 20] for start in range(0, number, 20)]
        assert all(sorted(one) == hardest(FIRST) for one in passes[:-1])
        assert shuffle or all(one == sorted(one) for one in passes)
        seen.add(frozenset(passes[-1]))
    assert len(seen) > 15


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_remainder_of_three_processes_differs_from_epoch_to_epoch(shuffle):
    left = set()
    for epoch in range(20):
        shares = [list(make(shuffle=shuffle, rank=rank, world_size=3, epoch=epoch)) for rank in range(3)]
        visited = Counter(i for share in shares for i in share)
        assert set(visited.values()) == {1}
        left.add(frozenset(hardest(FIRST)) - set(visited))
    assert {len(one) for one in left} == {2}
    assert len(left) > 10


def test_a_length_that_fits_is_the_plain_epoch():
    assert list(make(fixed_length=20, epoch=1)) == list(make(epoch=1))
    assert list(make(fixed_length=20, shuffle=False)) == hardest(FIRST)


def test_a_loader_of_fixed_length_never_changes_its_length():
    scores = Live(FIRST)
    sampler = make(above_a_half, scores, fixed_length=25)
    loader = DataLoader(TensorDataset(ALL), batch_size=4, sampler=sampler)
    for epoch, share in enumerate((0.1, 0.5, 0.9)):
        scores.values = (torch.linspace(0, 1, SIZE) < share).double()
        sampler.set_epoch(epoch + 1)
        assert len(loader) == len(list(loader)) == 7


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fixed_length": 0}, ValueError, "fixed_length: got 0"),
        ({"fixed_length": 2, "rank": 0, "world_size": 3}, ValueError, "fixed_length: got 2.*each of 3"),
        ({"fixed_length": 2.5}, TypeError, "fixed_length: got 2.5, expected a whole number"),
        ({"seed": -1}, ValueError, "seed: got -1"),
        ({"seed": 0.5}, TypeError, "seed: got 0.5"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


# Chunks: an iterator turns positions into Python numbers 65,536 at a time


CHUNK = 65_536


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 150_000])
def test_epochs_longer_than_a_chunk_are_complete(size):
    sampler = make(Easiest(keep=1.0), Live(torch.zeros(size)))
    order = list(sampler)
    assert len(order) == len(sampler) == size
    assert sorted(order) == [*range(size)]
    assert order != sorted(order)


@pytest.mark.parametrize("position", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 149_999, 150_000])
def test_an_epoch_can_be_cut_off_on_either_side_of_the_end_of_a_chunk(position):
    first = make(Easiest(keep=1.0), torch.zeros(150_000))
    iterator = iter(first)
    for _ in range(position):
        next(iterator)
    second = make(Easiest(keep=1.0), torch.zeros(150_000))
    second.load_state_dict(first.state_dict())
    assert list(second) == list(iterator)
