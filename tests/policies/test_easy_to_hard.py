"""EasyToHard: where the window is, that a sweep visits all, and the epochs of a sampler."""

from __future__ import annotations

import math

import pytest
import torch
from drawn import NAN, check_counts, distinct, fractions, number_kept, seeded, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from kept import kept

import difficulty_prune as dp
from difficulty_prune.policies.easy_to_hard import EasyToHard

pytestmark = pytest.mark.usefixtures("one_thread")
groups = st.integers(1, 12)


def sweep(policy, difficulty):
    """What each epoch visits, from the first until one begins at easier examples than the epoch before."""
    plans, easiest = [], []
    while len(plans) < 70 and easiest == sorted(easiest):
        plans.append(kept(policy.at(len(plans)), difficulty))
        easiest.append(min(difficulty[i] for i in plans[-1]))
    return plans if easiest == sorted(easiest) else plans[:-1]


@settings(max_examples=60)
@given(difficulty=distinct, keep=fractions, groups=groups)
def test_a_sweep_goes_from_the_easiest_to_the_hardest_and_visits_all(difficulty, keep, groups):
    number = number_kept(keep, len(difficulty))
    ranking = sorted(range(len(difficulty)), key=difficulty.__getitem__)
    epochs = sweep(EasyToHard(keep, groups), difficulty)
    starts = []
    for epoch in epochs:
        ranks = sorted(ranking.index(i) for i in epoch)
        assert ranks == list(range(ranks[0], ranks[0] + number))  # a window of the ranking
        starts.append(ranks[0])
    assert starts == sorted(starts)
    assert starts[0] == 0
    if number < len(difficulty):
        assert starts[-1] == len(difficulty) - number
    assert set().union(*epochs) == set(range(len(difficulty)))


def test_it_moves_a_group_an_epoch():
    policy, difficulty = EasyToHard(0.3, groups=10), [float(i) for i in range(100)]
    assert [kept(policy.at(epoch), difficulty)[0] for epoch in range(9)] == [0, 10, 20, 30, 40, 50, 60, 70, 0]


@settings(max_examples=30)
@given(difficulty=distinct, keep=fractions, epoch=st.integers(0, 30), data=st.data())
def test_another_order_of_the_data_is_another_order_of_the_plan(difficulty, keep, epoch, data):
    order = data.draw(st.permutations(range(len(difficulty))))
    policy = EasyToHard(keep).at(epoch)
    there = kept(policy, [difficulty[i] for i in order])
    assert sorted(order[i] for i in there) == kept(policy, difficulty)


@given(seed=seeds, epoch=st.integers(0, 9))
def test_ties_are_broken_by_the_generator_alone(seed, epoch):
    policy, difficulty = EasyToHard(0.5).at(epoch), [0.0] * 9 + [1.0] * 9
    first, second = (policy(difficulty, generator=seeded(seed)) for _ in range(2))
    assert first.index.tolist() == second.index.tolist()
    assert len(first) == 9


@pytest.mark.parametrize("epoch", [0, 2, 5])
def test_plans_have_an_example_as_often_as_they_say(epoch):
    difficulty = torch.tensor([0.0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 5])
    policy, generator, counts = EasyToHard(0.5).at(epoch), seeded(1), torch.zeros(12, dtype=torch.int64)
    for _ in range(200):
        counts[policy(difficulty, generator=generator).index] += 1
    found = policy.inclusion(difficulty)
    check_counts(counts, 200, found)
    assert float(found.sum()) == pytest.approx(6)


def test_a_sampler_visits_what_is_easy_first_and_the_full_data_at_the_end():
    policy = EasyToHard(0.5, groups=4, anneal=0.25, epochs=8)
    sampler = dp.PruneSampler(policy, torch.arange(16.0), labels=[0] * 8 + [1] * 8, seed=0)
    epochs = []
    for epoch in range(9):
        sampler.set_epoch(epoch)
        epochs.append(sorted(sampler))
    assert epochs[0] == epochs[3] == list(range(8))  # a class is left out, and comes later
    assert epochs[2] == epochs[5] == list(range(8, 16))
    assert epochs[6] == epochs[7] == epochs[8] == list(range(16))
    assert sampler.total_steps(batch_size=4, epochs=8) == 6 * 2 + 2 * 4
    assert policy.full_from == 6
    again = dp.PruneSampler(policy, torch.arange(16.0), seed=0)
    again.load_state_dict(sampler.state_dict())
    assert again.epoch == 8


@settings(max_examples=25)
@given(difficulty=distinct, keep=fractions, epoch=st.integers(0, 12))
def test_the_processes_of_a_partition_plan_the_same_window(difficulty, keep, epoch):
    policy = EasyToHard(keep).at(epoch)
    found = dp.Partition(list(range(len(difficulty)))).plan(policy, difficulty)
    assert found.index.tolist() == kept(policy, difficulty)


def test_what_a_partition_cannot_plan_is_refused():
    partition = dp.Partition([5, 6, 7, 8])
    for policy in (dp.policies.Review(0.5), dp.policies.BetaSampling(0.5, [0.5] * 4)):
        with pytest.raises(TypeError, match="cannot be planned by the processes of a partition"):
            partition.plan(policy, [1.0, 2.0, 3.0, 4.0])
    with pytest.raises(TypeError, match="which cannot be planned by the processes of a partition"):
        partition.plan(dp.policies.Budget(dp.policies.Hardest(0.5), [1, 1, 1, 1]), [1.0, 2.0, 3.0, 4.0])


def test_of_live_difficulty_all_is_visited_before_it_is_known():
    assert kept(EasyToHard(0.5), [NAN] * 4) == [0, 1, 2, 3]
    assert kept(EasyToHard(0.5, groups=2).at(1), [NAN, 1.0, 2.0, 3.0, 4.0]) == [0, 3, 4]
    with pytest.raises(ValueError, match="are NaN"):
        EasyToHard(0.5, unseen="refuse")([NAN, 1.0])


@pytest.mark.parametrize("policy", [EasyToHard(0.5), dp.policies.Review(0.5)], ids=repr)
def test_difficulty_that_ranks_nothing_is_warned_of_where_it_is_fixed(policy):
    assert len(policy([1.0] * 20)) == 10  # as live scores may be at first
    with pytest.warns(UserWarning, match="ranks nothing") as caught:
        dp.PruneSampler(policy, [1.0] * 20)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EasyToHard(0.0), ValueError, "keep: got 0.0"),
        (lambda: EasyToHard(0.5, groups=0), ValueError, "groups: got 0, expected 1 or more"),
        (lambda: EasyToHard(0.5, groups=2.5), TypeError, "groups: got 2.5"),
        (lambda: EasyToHard(0.5, anneal=1.5), ValueError, "anneal: got 1.5"),
        (lambda: EasyToHard(0.5, anneal=math.nan), ValueError, "anneal: got nan"),
        (lambda: EasyToHard(0.5, epochs=0), ValueError, "epochs: got 0, expected at least 1"),
        (lambda: EasyToHard(0.5, epoch=-1), ValueError, "epoch: got -1"),
        (lambda: EasyToHard(0.5, anneal=0.1).at(0), ValueError, r"EasyToHard\(keep=0.5, anneal=0.1, epochs=30\)"),
    ],
)
def test_bad_input_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
