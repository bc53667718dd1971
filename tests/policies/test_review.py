"""Review: the bounded gap, whatever happens to difficulty; how many are kept; what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import NAN, check_counts, distinct, fractions, number_kept, seeded, seeds
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kept import kept

import difficulty_prune as dp
from difficulty_prune.policies.review import Review

pytestmark = pytest.mark.usefixtures("one_thread")
gaps = st.integers(1, 8)


@settings(max_examples=60)
@given(size=st.integers(1, 30), keep=fractions, gap=gaps, first=st.integers(0, 50), seed=seeds, data=st.data())
def test_in_any_gap_epochs_in_a_row_every_example_is_visited(size, keep, gap, first, seed, data):
    """Though difficulty is another in each epoch, and some of it may not be known."""
    assume(keep >= 1 / gap)
    policy, visited = Review(keep, gap, seed=seed), set()
    for epoch in range(first, first + gap):
        difficulty = data.draw(
            st.lists(st.one_of(st.just(NAN), st.floats(-9, 9)), min_size=size, max_size=size), label=f"epoch {epoch}"
        )
        visited |= set(kept(policy.at(epoch), [*difficulty]))
    assert visited == set(range(size))


@settings(max_examples=60)
@given(difficulty=distinct, keep=fractions, gap=gaps, epoch=st.integers(0, 20))
def test_an_epoch_has_what_is_due_and_the_hardest_of_the_others(difficulty, keep, gap, epoch):
    assume(keep >= 1 / gap)
    size = len(difficulty)
    found = set(kept(Review(keep, gap).at(epoch), difficulty))
    lowest = kept(Review(1 / gap, gap).at(epoch), difficulty)  # nearly nothing but what is due
    turns = Review(1, gap)._turns(size)
    due = {i for i in range(size) if int(turns[i]) == epoch % gap}
    assert size // gap <= len(due) <= -(-size // gap)
    assert due <= found
    assert due <= set(lowest)
    assert len(found) == max(number_kept(keep, size), len(due))
    others = sorted((i for i in range(size) if i not in due), key=difficulty.__getitem__)
    assert found - due == set(others[len(others) - (len(found) - len(due)) :])


@given(seed=seeds, epoch=st.integers(0, 9))
def test_ties_are_broken_by_the_generator_and_turns_by_the_seed(seed, epoch):
    policy, difficulty = Review(0.5, 4, seed=seed).at(epoch), [0.0] * 9 + [1.0] * 9
    first, second = (policy(difficulty, generator=seeded(seed)) for _ in range(2))
    assert first.index.tolist() == second.index.tolist()
    assert len(first) == 9


def test_turns_differ_by_seed_and_take_no_order_of_the_data():
    plans = [kept(Review(0.25, 4, seed=seed), [*[0.0] * 39, 1.0]) for seed in range(4)]
    assert len({tuple(plan) for plan in plans}) > 1
    assert plans[0] != list(range(10))


def test_plans_have_an_example_as_often_as_they_say():
    difficulty = torch.tensor([0.0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 5])
    policy, generator, counts = Review(0.6, 4).at(2), seeded(1), torch.zeros(12, dtype=torch.int64)
    for _ in range(200):
        counts[policy(difficulty, generator=generator).index] += 1
    found = policy.inclusion(difficulty)
    check_counts(counts, 200, found)
    assert float(found.sum()) == pytest.approx(7)
    assert int((found == 1).sum()) >= 3


def test_an_example_keeps_its_turn_in_a_class_and_in_what_is_not_wrong():
    difficulty, labels = torch.rand(60, generator=seeded(0)), torch.arange(60) % 3
    for policy in (dp.policies.PerClass(Review(0.4, 5)), dp.policies.WithoutWrong(Review(0.4, 5), wrong=[1, 2, 3])):
        seen = [set(policy.at(epoch)(difficulty, labels).index.tolist()) for epoch in range(9)]
        for first in range(5):
            visited = set().union(*seen[first : first + 5])
            assert visited == set(range(60)) - (set() if isinstance(policy, dp.policies.PerClass) else {1, 2, 3})
        found = policy.at(3).inclusion(difficulty, labels)
        assert float(found.sum()) == pytest.approx(len(seen[3]))


def test_a_sampler_reviews_what_stays_easy():
    sampler = dp.PruneSampler(Review(0.5, 4), torch.arange(40.0), labels=[0] * 20 + [1] * 20, seed=0)
    epochs = []
    for epoch in range(8):
        sampler.set_epoch(epoch)
        epochs.append(set(sampler))
    assert all(len(epoch) == 20 for epoch in epochs)
    visits = np.array([[i in epoch for epoch in epochs] for i in range(40)])
    assert (visits[:10].sum(1) == 2).all()  # the easiest: once in four epochs
    assert visits[-4:].all()  # the hardest: always
    assert sampler.total_steps(batch_size=10, epochs=8) == 16


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Review(0.2, gap=4), ValueError, r"keep: got 0.2 with a gap of 4 epochs, expected at least 1 / 4"),
        (lambda: Review(0.5, gap=0), ValueError, "gap: got 0, expected 1 or more"),
        (lambda: Review(0.5, gap=2.5), TypeError, "gap: got 2.5"),
        (lambda: Review(0.5, seed=-1), ValueError, "seed: got -1"),
        (lambda: Review(0.5, epoch=-1), ValueError, "epoch: got -1"),
        (lambda: Review(1.5), ValueError, "keep: got 1.5"),
    ],
)
def test_bad_input_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
