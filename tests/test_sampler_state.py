"""A sampler goes on exactly where another was cut off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_difficulty import (
    ALL,
    FIRST,
    LABELS,
    SECOND,
    SIZE,
    Live,
    hardest,
    in_turns,
    make,
    some,
    through_a_file,
    visits,
)
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.uniform import Easiest, Hardest, Random
from difficulty_prune.policies.weighted import Importance, SoftPrune

pytestmark = pytest.mark.usefixtures("one_thread")


policies = st.sampled_from(
    [
        (Hardest, False),
        (lambda keep: Importance(1.0, keep), False),
        (Hardest, True),
        (lambda keep: SoftPrune(keep), True),
        (lambda keep: PerClass(Random(keep)), True),
    ]
)


@st.composite
def cases(draw):
    """How a sampler is made, and where it is cut off."""
    policy, live = draw(policies)
    options = {"shuffle": draw(st.booleans()), "seed": draw(st.integers(0, 9)), "labels": LABELS, "outside": "zero"}
    world_size = draw(st.integers(1, 4))
    options["fixed_length"] = draw(st.none() | st.integers(8, 2 * SIZE))
    keep = draw(st.integers(8, SIZE)) / SIZE

    def build(rank=0, world_size=world_size, values=FIRST):
        return dp.PruneSampler(
            policy(keep), Live(values) if live else values, rank=rank, world_size=world_size, **options
        )

    length = len(build())
    return build, live, world_size, draw(st.integers(0, 2)), draw(st.integers(0, length))


@settings(max_examples=80)
@given(case=cases(), how=st.sampled_from(["sampler", "consumed", "iterator"]), data=st.data())
def test_a_sampler_goes_on_exactly_where_another_was_cut_off(case, how, data):
    """On every rank, from a state that went through a file, while its own scores have become others."""
    build, live, world_size, epoch, position = case
    rank = data.draw(st.integers(0, world_size - 1))
    whole = build(rank)
    whole.set_epoch(epoch)
    order, weight = visits(whole)

    first = build(rank)
    first.set_epoch(epoch)
    iterator = iter(first)
    fetched = position if how != "consumed" else data.draw(st.integers(position, len(first)))
    some(iterator, fetched)
    state = {
        "sampler": lambda: first.state_dict(),
        "consumed": lambda: first.state_dict(consumed=position),
        "iterator": lambda: iterator.state_dict(),
    }[how]()

    second = build(rank, values=SECOND if live else FIRST)
    if how == "iterator":
        resumed = iter(second)
        some(resumed, data.draw(st.integers(0, len(second))))
        resumed.load_state_dict(through_a_file(state))
    else:
        second.load_state_dict(through_a_file(state))
        second.set_epoch(epoch)  # as the loop over the epochs does
        resumed = iter(second)
    assert second.epoch == epoch
    assert len(second) == len(whole)
    assert second.plan.digest == whole.plan.digest

    more = data.draw(st.integers(0, len(order) - position))
    assert some(resumed, more) == order[position : position + more]
    again = build(rank, values=SECOND if live else FIRST)
    again.load_state_dict(second.state_dict())  # cut off once more
    assert visits(again) == (order[position + more :], weight[position + more :])

    if not live:
        for sampler in (whole, again):
            sampler.set_epoch(epoch + 1)
        assert visits(again) == visits(whole)


@settings(max_examples=60)
@given(case=cases(), processes=st.integers(1, 5), from_iterator=st.booleans())
def test_other_processes_share_exactly_the_rest(case, processes, from_iterator):
    """Cut off on some processes, resumed on more or fewer: each position once, but for a remainder."""
    build, live, world_size, epoch, position = case
    whole, states = [build(rank) for rank in range(world_size)], []
    for rank in range(world_size):
        cut = build(rank)
        for sampler in (whole[rank], cut):
            sampler.set_epoch(epoch)
        iterator = iter(cut)
        some(iterator, position)
        states.append((iterator if from_iterator else cut).state_dict())
    rest = in_turns([list(sampler) for sampler in whole])[position * world_size :]

    shares = []
    for rank in range(processes):
        sampler = build(rank, processes, values=SECOND if live else FIRST)
        sampler.load_state_dict(through_a_file(states[rank % world_size]))
        assert torch.equal(sampler.weight(ALL), whole[0].weight(ALL))
        shares.append(list(sampler))
    assert in_turns(shares) == rest[: len(rest) // processes * processes]


def test_an_epoch_that_was_finished_has_nothing_left_and_the_next_is_whole():
    first = make(epoch=2)
    order = list(first)
    second = make()
    second.load_state_dict(through_a_file(first.state_dict()))
    assert list(second) == []
    second.set_epoch(3)
    assert second.plan.index.tolist() == sorted(order)
    assert sorted(second) == sorted(order)


def test_a_state_before_the_first_step_is_the_whole_epoch():
    second = make(difficulty=Live(SECOND))
    second.load_state_dict(through_a_file(make(epoch=2).state_dict()))
    assert visits(second) == visits(make(epoch=2))


def test_after_the_rest_the_next_epoch_is_planned_with_the_scores_of_then():
    first = make(epoch=1)
    some(iter(first), 7)
    live = Live(SECOND)
    second = make(difficulty=live)
    second.load_state_dict(first.state_dict())
    assert len(list(second)) == 13
    assert set(second.plan.index.tolist()) == set(hardest(FIRST))
    second.set_epoch(2)
    assert sorted(second) == hardest(SECOND)


def test_the_epoch_is_whole_again_after_its_rest_was_visited():
    first = make()
    some(iter(first), 7)
    second = make()
    second.load_state_dict(first.state_dict())
    list(second)
    with pytest.warns(UserWarning, match="visited once more"):
        assert len(list(second)) == 20


def test_a_state_holds_no_scores_and_is_small():
    static = through_a_file(make(difficulty=FIRST).state_dict())
    assert not any(isinstance(value, torch.Tensor) for value in static.values())
    live = make(SoftPrune(keep=0.25)).state_dict()
    assert {len(value) for value in live["plan"].values() if isinstance(value, torch.Tensor)} == {10}


def test_a_state_taken_is_not_changed_by_what_comes_later():
    sampler = make(SoftPrune(0.5))
    iterator = iter(sampler)
    some(iterator, 6)
    state = sampler.state_dict()
    rest = list(iterator)
    sampler.set_epoch(1)
    list(sampler)
    again = make(SoftPrune(0.5), Live(SECOND))
    again.load_state_dict(state)
    assert list(again) == rest


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: make(seed=1), "seed 0, this sampler 1"),
        (lambda: make(shuffle=False), "shuffle True, this sampler False"),
        (lambda: make(fixed_length=10), "fixed_length None, this sampler 10"),
        (lambda: make(difficulty=Live(FIRST[:30])), "examples 40, this sampler 30"),
        (lambda: make(difficulty=FIRST), "replans True, this sampler False"),
    ],
)
@pytest.mark.parametrize("from_iterator", [False, True])
def test_the_state_of_another_sampler_is_refused_and_nothing_changes(other, message, from_iterator):
    state = make(epoch=3).state_dict()
    sampler, expected = other(), list(other())
    target = iter(sampler) if from_iterator else sampler
    with pytest.raises(ValueError, match=message):
        target.load_state_dict(state)
    assert sampler.epoch == 0
    assert list(target) == expected


@pytest.mark.parametrize(
    "other",
    [
        lambda: make(Hardest(keep=0.5), SECOND),
        lambda: make(Hardest(keep=0.525), FIRST),
        lambda: make(Easiest(keep=0.5), FIRST),
        lambda: make(PerClass(Hardest(keep=0.5)), FIRST, labels=LABELS),
    ],
)
def test_another_fixed_plan_is_refused(other):
    with pytest.raises(ValueError, match="the state is of another plan; give the sampler the same policy"):
        other().load_state_dict(make(difficulty=FIRST).state_dict())


@pytest.mark.parametrize("state", [{}, {"format": 2}, {"epoch": 1, "yielded": 3}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ValueError, match=r"load_state_dict: (the state has format|got .*, expected what)"):
        make().load_state_dict(state)


def test_a_loader_that_fetches_ahead_goes_on_at_what_was_trained_on():
    def loader(sampler):
        return DataLoader(dp.IndexedDataset(TensorDataset(ALL)), batch_size=6, sampler=sampler)

    whole, first, second = make(epoch=1), make(epoch=1), make()
    order = [batch[-1].tolist() for batch in loader(whole)]
    batches = iter(loader(first))
    some(batches, 3)  # the third one was fetched, but not trained on
    second.load_state_dict(through_a_file(first.state_dict(consumed=2 * 6)))
    assert [batch[-1].tolist() for batch in loader(second)] == order[2:]


@pytest.mark.parametrize(
    "options",
    [
        {"seed": np.int64(3)},
        {"fixed_length": np.int64(30)},
        {"shuffle": np.True_},
        {"rank": np.int64(0), "world_size": np.int64(2)},
    ],
    ids=str,
)
def test_numpy_options_survive_a_checkpoint(options):
    sampler = make(**options)
    some(iter(sampler), 3)
    assert through_a_file(sampler.state_dict()) is not None


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # machines with one core
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # Python 3.12 and later
def test_a_loader_with_workers_and_without_batches_goes_on_too():
    """A resumed position must hold until something was yielded, not until the first `iter`."""
    first, second = make(), make()
    iterator = iter(first)
    some(iterator, 15)
    second.load_state_dict(first.state_dict())
    loader = DataLoader(TensorDataset(ALL), batch_size=None, sampler=second, num_workers=1)
    assert [int(x) for (x,) in loader] == list(iterator)


def test_consumed_counts_right_after_the_number_of_processes_changed():
    """8 by two processes of 4 each; then 2 more by each of four: 16 of 20 are done."""
    two = make(rank=0, world_size=2)
    some(iter(two), 4)
    four = make(rank=0, world_size=4)
    four.load_state_dict(two.state_dict())
    some(iter(four), 2)
    assert four.state_dict()["yielded"] == 16
    assert four.state_dict(consumed=8 // 4 + 2)["yielded"] == 16


@pytest.mark.parametrize("consumed", [-1, 21, 100])
def test_an_impossible_number_consumed_is_refused(consumed):
    with pytest.raises(ValueError, match=f"consumed: got {consumed}"):
        make().state_dict(consumed=consumed)


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
