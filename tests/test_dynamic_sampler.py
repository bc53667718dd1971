"""A sampler whose plan changes from epoch to epoch."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from live_difficulty import (
    ALL,
    FIRST,
    LABELS,
    NAN,
    SECOND,
    SIZE,
    Live,
    above_a_half,
    hardest,
    in_turns,
    make,
    present,
    some,
    tracked,
    visits,
)

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.uniform import Hardest, Random
from difficulty_prune.policies.weighted import Importance, SoftPrune

pytestmark = pytest.mark.usefixtures("one_thread")


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
    scores = Live(FIRST)
    ranks = [make(policy, scores, labels=LABELS, seed=9, rank=rank, world_size=3) for rank in range(3)]
    alone = make(policy, scores, labels=LABELS, seed=9)
    for epoch in range(5):
        scores.values = FIRST * (epoch + 1) % 1
        for sampler in [*ranks, alone]:
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_difficulty_that_is_changed_in_place_later_changes_nothing(dtype):
    """Whoever wants live scores gives a function."""
    difficulty = FIRST.to(dtype, copy=True)
    sampler, untouched = make(SoftPrune(0.5), difficulty), make(SoftPrune(0.5), difficulty.clone())
    difficulty.copy_(SECOND)
    for one in (sampler, untouched):
        one.set_epoch(1)
    assert visits(sampler) == visits(untouched)


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


# Copies


@pytest.mark.parametrize("duplicate", [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy], ids=["pickle", "copy"])  # noqa: S301
def test_a_copy_of_a_sampler_of_live_scores_has_the_scores_of_that_moment(duplicate):
    """It has a tracker of its own, which nobody updates, and says so when that shows."""
    tracker = tracked()
    sampler = make(difficulty=tracker.source("loss"), epoch=1)
    twin = duplicate(sampler)
    assert visits(twin) == visits(sampler)
    for _ in range(3):
        present(tracker, SIZE - ALL)
    sampler.set_epoch(2)
    twin.set_epoch(2)
    assert sorted(sampler) == [*range(20)]
    assert sorted(twin) == [*range(20, 40)]
    gone = weakref.ref(tracker)
    del tracker, sampler
    gc.collect()
    assert gone() is None  # although the copy is still there
    with pytest.warns(UserWarning, match="has recorded nothing since it was last asked"):
        twin.set_epoch(3)
    assert sorted(twin) == [*range(20, 40)]


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
