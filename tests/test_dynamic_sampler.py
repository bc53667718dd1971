"""A sampler whose plan changes from epoch to epoch, and that goes on where it was cut off."""

from __future__ import annotations

import copy
import io
import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune.policies import compose as within
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.uniform import Easiest, Hardest, Random, Window
from difficulty_prune.policies.weighted import Importance, SoftPrune

pytestmark = pytest.mark.usefixtures("one_thread")

NAN = float("nan")
SIZE = 40
FIRST, SECOND = torch.rand(2, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(SIZE) % 2
ALL = torch.arange(SIZE)


class Live:
    """Scores that may change at any time; counts how often they are asked for."""

    def __init__(self, values):
        self.values = values
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.values


def make(policy=None, difficulty=None, *, epoch=0, **options):
    """A sampler of live scores, by default."""
    sampler = dp.PruneSampler(policy or Hardest(keep=0.5), Live(FIRST) if difficulty is None else difficulty, **options)
    sampler.set_epoch(epoch)
    return sampler


def hardest(difficulty, number=20):
    return sorted(difficulty.argsort(descending=True)[:number].tolist())


def above_a_half(difficulty, labels=None, generator=None):
    """A policy of which the number kept depends on the scores."""
    index = (difficulty > 0.5).nonzero()[:, 0]
    return dp.Plan(index, torch.full((len(index),), 2.0), {"policy": "above a half"})


def visits(sampler):
    """What is visited, in order, with weights."""
    order = list(sampler)
    return order, sampler.weight(torch.tensor(order, dtype=torch.int64)).tolist()


def through_a_file(state):
    """What a checkpoint makes of a state."""
    file = io.BytesIO()
    torch.save({"sampler": state}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["sampler"]


def some(iterator, number):
    return [next(iterator) for _ in range(number)]


# Planning


def test_an_epoch_is_planned_in_set_epoch_with_the_scores_of_that_moment():
    live = Live(FIRST)
    sampler = make(difficulty=live)
    assert sampler.plan.index.tolist() == hardest(FIRST)
    live.values = SECOND
    assert sampler.plan.index.tolist() == hardest(FIRST)
    assert sorted(sampler) == hardest(FIRST)
    sampler.set_epoch(1)
    live.values = FIRST
    assert sampler.plan.index.tolist() == hardest(SECOND)
    assert sorted(sampler) == hardest(SECOND)
    assert (sampler.weight(ALL) > 0).nonzero()[:, 0].tolist() == hardest(SECOND)


def test_scores_are_asked_for_once_per_epoch_and_never_in_between():
    live = Live(FIRST)
    sampler = make(SoftPrune(keep=0.5), live)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        assert live.calls == epoch + 1
        len(sampler), list(sampler), sampler.weight(ALL), sampler.plan.summary(), sampler.state_dict(), repr(sampler)
        assert live.calls == epoch + 1


def test_length_is_right_from_set_epoch_on_before_any_iterator_exists():
    live = Live(torch.linspace(0, 1, SIZE))
    sampler = make(above_a_half, live)
    for epoch, above in enumerate((20, 40, 1, 13)):
        live.values = ALL.lt(above).double()
        before = len(sampler)
        sampler.set_epoch(epoch + 1)
        assert len(sampler) == len(sampler.plan) == above
        assert before == (20, 20, 40, 1)[epoch]
        assert len(list(sampler)) == above


def test_a_running_epoch_is_not_disturbed_by_the_next_plan():
    live = Live(FIRST)
    sampler, alone = make(difficulty=live), list(make())
    running = iter(sampler)
    head = some(running, 5)
    live.values = SECOND
    sampler.set_epoch(1)
    assert head + list(running) == alone
    assert sorted(sampler) == hardest(SECOND)


def test_the_present_epoch_is_not_planned_again_even_if_scores_changed():
    live = Live(FIRST)
    sampler = make(Importance(keep=0.5), live, epoch=3)
    expected, calls = visits(sampler), live.calls
    live.values = SECOND
    sampler.set_epoch(3)
    assert live.calls == calls
    with pytest.warns(UserWarning, match="epoch 3 is visited once more"):
        assert visits(sampler) == expected
    sampler.set_epoch(4)
    sampler.set_epoch(3)  # coming back is another matter
    assert visits(sampler) != expected


def test_a_drawing_policy_draws_anew_in_every_epoch_and_others_stay():
    for policy, difficulty, plans in (
        (SoftPrune(0.5), FIRST, 10),
        (Importance(), FIRST, 10),
        (PerClass(Importance()), FIRST, 10),
        (Random(0.5), Live(FIRST), 10),
        (Random(0.5), FIRST, 1),
        (Hardest(0.5), Live(FIRST), 1),
    ):
        sampler, seen = dp.PruneSampler(policy, difficulty, labels=LABELS, seed=1), set()
        for epoch in range(10):
            sampler.set_epoch(epoch)
            seen.add(tuple(sampler.plan.index.tolist()))
        assert len(seen) == plans, policy


@pytest.mark.parametrize("policy", [SoftPrune(0.5), Importance(keep=0.5), Random(0.5), PerClass(Random(0.5))], ids=repr)
def test_all_processes_plan_alike_and_share_the_epoch(policy):
    ranks = [make(policy, labels=LABELS, seed=9, rank=rank, world_size=3) for rank in range(3)]
    alone = make(policy, labels=LABELS, seed=9)
    for epoch in range(5):
        for sampler in [*ranks, alone]:
            sampler._difficulty.values = FIRST * (epoch + 1) % 1
            sampler.set_epoch(epoch)
        assert len({sampler.plan.digest for sampler in [*ranks, alone]}) == 1
        shares = [list(sampler) for sampler in ranks]
        assert in_turns(shares) == list(alone)[: len(alone) // 3 * 3]
        assert all(torch.equal(sampler.weight(ALL), alone.weight(ALL)) for sampler in ranks)


def test_plans_depend_on_seed_and_epoch_and_not_on_how_one_got_there():
    jumped, walked = make(Importance(), seed=4, epoch=7), make(Importance(), seed=4)
    for epoch in (2, 9, 0):
        walked.set_epoch(epoch)
        list(walked)
    walked.set_epoch(7)
    assert visits(walked) == visits(jumped)
    digests = {make(Random(0.5), seed=seed, epoch=epoch).plan.digest for seed in range(5) for epoch in range(5)}
    assert len(digests) == 25


def test_epochs_may_be_numpy_numbers_but_not_fractions_or_negative():
    sampler = make()
    sampler.set_epoch(np.int64(2))
    assert sampler.epoch == 2
    assert type(sampler.epoch) is int
    with pytest.raises(TypeError):
        sampler.set_epoch(1.5)
    with pytest.raises(ValueError, match="epoch: got -1"):
        sampler.set_epoch(-1)
    assert sampler.epoch == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (FIRST[:-1], "got 39 examples, expected 40, as in the first epoch"),
        (torch.full((SIZE,), NAN), "40 of 40 examples are NaN"),
        (FIRST.view(5, 8), r"shape \(5, 8\)"),
    ],
)
def test_bad_scores_are_refused_and_the_epoch_stays_as_it_was(bad, message):
    live = Live(FIRST)
    sampler = make(difficulty=live)
    expected = visits(make())
    live.values = bad
    with pytest.raises(ValueError, match=message):
        sampler.set_epoch(1)
    assert sampler.epoch == 0
    assert visits(sampler) == expected
    live.values = SECOND
    sampler.set_epoch(1)
    assert sampler.plan.index.tolist() == hardest(SECOND)


def test_difficulty_may_come_as_a_list_or_an_array():
    for convert in (list, tuple, np.asarray, torch.Tensor.float):
        sampler = make(difficulty=Live(convert(ALL.double())), epoch=1)
        assert sampler.plan.index.tolist() == [*range(20, 40)]


# The warning about an epoch that is visited twice


def test_an_epoch_visited_twice_is_told_and_has_the_plan_that_it_has():
    sampler = make()
    expected = list(sampler)
    with pytest.warns(UserWarning, match=r"epoch 0 is visited once more.*sampler\.set_epoch") as caught:
        assert list(sampler) == expected
    assert caught[0].filename == __file__
    sampler.set_epoch(1)
    list(sampler)  # warnings are errors here


def test_nothing_is_told_where_nothing_is_wrong():
    unfinished = make()
    some(iter(unfinished), 19)  # a look at a first batch
    list(unfinished)
    static = make(difficulty=FIRST)
    assert list(static) == list(static)
    empty_handed = make()
    for _ in range(3):
        iter(empty_handed)
    list(empty_handed)


# State

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
    options = {"shuffle": draw(st.booleans()), "seed": draw(st.integers(0, 9)), "labels": LABELS}
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


def in_turns(shares):
    """The epoch of which each process visited its share."""
    return [i for turn in zip(*shares, strict=True) for i in turn]


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
    sampler = make(above_a_half, Live(FIRST), fixed_length=25)
    loader = DataLoader(TensorDataset(ALL), batch_size=4, sampler=sampler)
    for epoch, share in enumerate((0.1, 0.5, 0.9)):
        sampler._difficulty.values = (torch.linspace(0, 1, SIZE) < share).double()
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


# Copies


def tracked():
    """A tracker that has seen all examples, example i with a loss that rises with i."""
    tracker = dp.DifficultyTracker(SIZE, scores=("loss", "confidence"))
    present(tracker, ALL)
    return tracker


def present(tracker, hardness):
    logits = torch.stack([-hardness.float() / 10, torch.zeros(SIZE)], dim=1)
    tracker.update(ALL, logits, torch.zeros(SIZE, dtype=torch.int64))


@pytest.mark.parametrize("duplicate", [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy], ids=["pickle", "copy"])  # noqa: S301
def test_a_copy_of_a_sampler_of_live_scores_has_the_scores_of_that_moment(duplicate):
    """Peers' samplers hold a tracker or a lambda, and cannot be sent to another process."""
    tracker = tracked()
    sampler = make(difficulty=tracker.source("loss"), epoch=1)
    twin = duplicate(sampler)
    assert visits(twin) == visits(sampler)
    for _ in range(3):
        present(tracker, SIZE - ALL)
    for one in (sampler, twin):
        one.set_epoch(2)
    assert sorted(sampler) == [*range(20)]
    assert sorted(twin) == [*range(20, 40)]
    assert twin._difficulty.tracker is None


def test_a_copy_has_a_life_of_its_own():
    sampler = make(SoftPrune(0.5), tracked().source("loss"))
    expected = visits(sampler)
    twin = copy.deepcopy(sampler)
    twin.set_epoch(3)
    some(iter(twin), 3)
    assert sampler.epoch == 0
    assert sampler.state_dict()["yielded"] == 20
    with pytest.warns(UserWarning, match="visited once more"):
        assert visits(sampler) == expected


def test_a_source_turns_low_for_hard_into_high_for_hard():
    tracker = tracked()
    for score in ("loss", "confidence"):
        assert make(difficulty=tracker.source(score)).plan.index.tolist() == [*range(20, 40)]


def test_a_new_tracker_keeps_all_and_prunes_what_was_seen():
    tracker = dp.DifficultyTracker(SIZE, scores=("loss",))
    sampler = make(SoftPrune(keep=0.5), tracker.source("loss"))
    assert sampler.weight(ALL).tolist() == [1.0] * SIZE
    tracker.update(ALL[:30], torch.randn(30, 2), torch.zeros(30, dtype=torch.int64))
    sampler.set_epoch(1)
    assert len(sampler) == 10 + 15
    assert sampler.weight(ALL[30:]).tolist() == [1.0] * 10
    assert float(sampler.weight(ALL).sum()) == pytest.approx(SIZE)
    with pytest.raises(ValueError, match="40 of 40 examples are NaN"):
        make(Hardest(0.5), dp.DifficultyTracker(SIZE, scores=("loss",)).source("loss"))


# Policies of one's own


def test_a_plain_function_is_a_policy():
    live = Live(FIRST)
    sampler = make(above_a_half, live)
    assert sampler.plan.index.tolist() == (FIRST > 0.5).nonzero()[:, 0].tolist()
    assert set(sampler.weight(sampler.plan.index).tolist()) == {2.0}
    live.values = SECOND
    sampler.set_epoch(1)
    assert sampler.plan.index.tolist() == (SECOND > 0.5).nonzero()[:, 0].tolist()


def test_a_function_is_given_labels_and_a_generator_of_the_epoch():
    seen = []

    def policy(difficulty, labels=None, generator=None):
        seen.append((difficulty.dtype, labels, torch.rand(1, generator=generator).item()))
        return Hardest(0.5)(difficulty, labels, generator)

    for _ in range(2):
        sampler = make(policy, labels=LABELS, seed=3)
        sampler.set_epoch(1)
    assert {dtype for dtype, _, _ in seen} == {torch.float64}
    assert all(labels is LABELS for _, labels, _ in seen)
    draws = [draw for _, _, draw in seen]
    assert draws[:2] == draws[2:]
    assert draws[0] != draws[1]


def test_a_function_may_say_that_it_draws_anew():
    def policy(difficulty, labels=None, generator=None):
        return within(Hardest(0.5)(difficulty), Importance(keep=0.5), difficulty, labels, generator)

    def plans():
        sampler, digests = dp.PruneSampler(policy, FIRST), set()
        for epoch in range(5):
            sampler.set_epoch(epoch)
            digests.add(sampler.plan.digest)
        return digests

    assert len(plans()) == 1
    policy.redrawn = True
    assert len(plans()) == 5


def test_a_function_may_say_that_it_keeps_unseen_examples():
    difficulty = torch.where(ALL < 3, NAN, FIRST)

    def policy(difficulty, labels=None, generator=None):
        return Hardest(0.5, unseen="keep")(difficulty, labels, generator)

    with pytest.raises(ValueError, match="3 of 40 examples are NaN"):
        make(policy, difficulty)
    policy.unseen = "keep"
    assert make(policy, difficulty).plan.index.tolist()[:3] == [0, 1, 2]


class Growing:
    """A curriculum: one quarter of the hardest more in every epoch."""

    redrawn = True

    def __init__(self, quarters=1):
        self.quarters = quarters

    def at(self, epoch):
        return Growing(min(4, 1 + epoch))

    def __call__(self, difficulty, labels=None, generator=None):
        return Hardest(self.quarters / 4)(difficulty, labels, generator)


@pytest.mark.parametrize("difficulty", [FIRST, Live(FIRST)], ids=["fixed", "live"])
def test_a_policy_may_change_with_the_epoch(difficulty):
    sampler, lengths = make(Growing(), difficulty), []
    for epoch in (0, 1, 2, 3, 4, 1):
        sampler.set_epoch(epoch)
        lengths.append(len(sampler))
        assert sampler.plan.index.tolist() == hardest(FIRST, lengths[-1])
    assert lengths == [10, 20, 30, 40, 40, 20]


@pytest.mark.parametrize(
    "result", [None, [0, 1], torch.arange(3), ALL, (ALL, ALL)], ids=["None", "list", "t", "u", "v"]
)
def test_what_is_no_plan_is_refused(result):
    with pytest.raises(TypeError, match=rf"policy: .*returned {type(result).__name__}, expected a dp\.Plan"):
        make(lambda difficulty, labels=None, generator=None: result)


def test_a_plan_with_a_position_outside_is_refused_in_any_epoch():
    live = Live(FIRST)

    def policy(difficulty, labels=None, generator=None):
        last = SIZE - 1 if difficulty[0] == FIRST[0] else SIZE
        return dp.Plan(torch.tensor([0, last]), torch.ones(2), {})

    sampler = make(policy, live)
    live.values = SECOND
    with pytest.raises(ValueError, match=r"keeps position 40, expected 0\.\.39"):
        sampler.set_epoch(1)
    assert sorted(sampler) == [0, 39]


@pytest.mark.parametrize("policy", [Hardest, SoftPrune, Growing, 0.5, "hardest", None])
def test_a_class_or_a_number_is_no_policy(policy):
    with pytest.raises(TypeError, match=r"policy: got .*such as Hardest\(keep=0\.7\)"):
        dp.PruneSampler(policy, FIRST)


def test_runs_and_trackers_are_no_difficulty_and_the_message_says_what_is():
    run, other = (dp.Run({"loss": x.tolist()}, architecture="mlp", seed=0) for x in (FIRST, SECOND))
    for wrong in (run, dp.RunSet([run]), dp.RunSet([run, other]), run.scores, tracked(), "loss", {"loss": FIRST}):
        teaches = r"difficulty: got .*runs\.difficulty\('el2n'\), or tracker\.source\('loss'\)"
        with pytest.raises(TypeError, match=teaches):
            dp.PruneSampler(Hardest(0.5), wrong)
        with pytest.raises(TypeError, match=teaches):
            Hardest(0.5)(wrong)
    with pytest.raises(TypeError, match=teaches):
        dp.PruneSampler(Hardest(0.5), tracked().compute)


# One policy within the plan of another


@given(outer=st.integers(1, SIZE), inner=st.integers(1, 64), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_within_keeps_a_fraction_of_the_plan(outer, inner, seed):
    generator = torch.Generator().manual_seed(seed)
    plan = Random(outer / SIZE)(FIRST, generator=generator)
    got = within(plan, Hardest(inner / 64), FIRST)
    number = max(1, int(inner * outer / 64 + 0.5))
    ranked = sorted(plan.index.tolist(), key=lambda i: -float(FIRST[i]))
    assert got.index.tolist() == sorted(ranked[:number])
    assert got.summary()["kept"] == number
    assert got.summary()["examples"] == SIZE
    assert got.summary()["policy"] == f"{Hardest(inner / 64)!r} within {Random(outer / SIZE)!r}"


def test_within_multiplies_the_weights():
    outer = Importance(keep=0.5)(FIRST)
    inner = within(outer, SoftPrune(keep=0.5, easy_keep=0.25), FIRST, generator=torch.Generator().manual_seed(1))
    first = dict(zip(outer.index.tolist(), outer.weight.tolist(), strict=True))
    ratios = [w / first[i] for i, w in zip(inner.index.tolist(), inner.weight.tolist(), strict=True)]
    assert {round(ratio, 5) for ratio in ratios} == {1.0, 3.5}  # 14 easy ones, of which 4 stay


def test_within_of_two_drawing_policies_is_unbiased():
    total = torch.zeros(SIZE, dtype=torch.float64)
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        outer = SoftPrune(keep=0.8)(FIRST, generator=generator)
        plan = within(outer, SoftPrune(keep=0.8), FIRST, generator=generator)
        total[plan.index] += plan.weight.double()
    assert ((total / 300 - 1).abs() < 5 * (5.25 / 300) ** 0.5).all()  # of a weight that is 0 or 6.25 at the most


def test_within_per_class_and_with_unseen_examples():
    difficulty = torch.where(ALL < 4, NAN, FIRST)
    clean = Window(0.2, 0.8, unseen="keep")(difficulty, LABELS)
    with pytest.raises(ValueError, match="4 of 33 examples are NaN"):
        within(clean, Hardest(0.5), difficulty)
    plan = within(clean, PerClass(Hardest(0.5, unseen="keep"), "equal"), difficulty, LABELS)
    assert set(range(4)) < set(plan.index.tolist()) < set(clean.index.tolist())
    assert plan.summary()["classes"]["0"]["examples"] == 20


def test_within_may_leave_a_class_out_where_the_inner_policy_may():
    outer = Hardest(0.5)(ALL.double(), LABELS)
    with pytest.raises(ValueError, match="would drop class"):
        within(outer, Hardest(0.05), ALL.double(), LABELS)
    assert len(within(outer, SoftPrune(0.05), ALL.double(), LABELS)) == 1


def test_within_refuses_a_plan_of_another_dataset():
    with pytest.raises(ValueError, match=r"plan: got position 39, expected 0\.\.29"):
        within(Hardest(0.5)(ALL.double()), Hardest(0.5), FIRST[:30])


# Faults that were found in peers


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
    second = make(SoftPrune(keep=0.5), Live(torch.zeros(size)))
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


# What a first version got wrong


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float64,
    ],
)
def test_difficulty_that_is_changed_in_place_later_changes_nothing(dtype):
    """Whoever wants live scores gives a function."""
    difficulty = FIRST.to(dtype, copy=True)
    sampler, untouched = make(SoftPrune(0.5), difficulty), make(SoftPrune(0.5), difficulty.clone())
    difficulty.copy_(SECOND)
    for one in (sampler, untouched):
        one.set_epoch(1)
    assert visits(sampler) == visits(untouched)


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


def test_a_policy_that_changes_with_the_epoch_need_not_say_that_it_draws():
    class Steady(Growing):
        redrawn = False

        def at(self, epoch):
            return Steady(min(4, 1 + epoch))

    assert len(make(Steady(), FIRST, epoch=2)) == 30
