"""Quotas within classes: exact totals, fair shares."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from kept import expected_number, fast, fractions, seeded, seeds

from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.uniform import Easiest, Hardest, Random, Window


def sizes_to_labels(sizes):
    """Class c occurs sizes[c] times, spread over the dataset."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=seeded(0))]


def kept_per_class(plan, labels, classes):
    return torch.bincount(labels[plan.index], minlength=classes).tolist()


class_sizes = st.lists(st.integers(1, 25), min_size=1, max_size=6)


@pytest.mark.parametrize("inner", [Hardest, Easiest, Random, lambda keep: Window(0.25, keep)])
def test_shares_of_a_lopsided_set(inner):
    labels = sizes_to_labels([900, 100])
    difficulty = labels * 10.0 + torch.rand(1000, generator=seeded(1))  # the small class is the hard one
    proportional = PerClass(inner(keep=0.5))(difficulty, labels)
    assert kept_per_class(proportional, labels, 2) == [450, 50]
    equal = PerClass(inner(keep=0.5), quota="equal")(difficulty, labels)
    assert kept_per_class(equal, labels, 2) == [400, 100]
    smaller = PerClass(inner(keep=0.1), quota="equal")(difficulty, labels)
    assert kept_per_class(smaller, labels, 2) == [50, 50]


@fast
@given(sizes=class_sizes, keep=fractions, seed=seeds)
def test_proportional_quota_keeps_the_share_of_every_class_and_the_total_is_right(sizes, keep, seed):
    labels = sizes_to_labels(sizes)
    difficulty = torch.rand(len(labels), generator=seeded(seed))
    for policy in (Hardest(keep), Random(keep)):
        plan = PerClass(policy)(difficulty, labels, seeded(seed))
        got = kept_per_class(plan, labels, len(sizes))
        assert all(number == 1 or abs(number - keep * size) < 1 for number, size in zip(got, sizes, strict=True))
        without_minimum = expected_number(keep, len(labels))
        assert without_minimum <= sum(got) <= without_minimum + sum(keep * size < 1 for size in sizes)


@fast
@given(sizes=class_sizes, keep=fractions, seed=seeds)
@example(sizes=[1, 1, 25], keep=0.5, seed=0)
@example(sizes=[10, 10, 10], keep=1 / 64, seed=0)
def test_equal_quota_is_as_equal_as_can_be_and_the_total_is_right(sizes, keep, seed):
    labels = sizes_to_labels(sizes)
    difficulty = torch.rand(len(labels), generator=seeded(seed))
    for policy in (Easiest(keep), Window(1 - keep, keep)):
        got = kept_per_class(PerClass(policy, "equal")(difficulty, labels, seeded(seed)), labels, len(sizes))
        assert sum(got) == max(len(sizes), expected_number(keep, sum(sizes)))  # no class is dropped
        assert all(1 <= number <= size for number, size in zip(got, sizes, strict=True))
        unlimited = [number for number, size in zip(got, sizes, strict=True) if number < size]
        assert all(number >= max(got) - 1 for number in unlimited)


@fast
@given(sizes=class_sizes, keep=fractions, seed=seeds, quota=st.sampled_from(["proportional", "equal"]))
def test_within_a_class_the_policy_holds(sizes, keep, seed, quota):
    labels = sizes_to_labels(sizes)
    difficulty = torch.rand(len(labels), generator=seeded(seed), dtype=torch.float64)
    hardest = PerClass(Hardest(keep), quota)(difficulty, labels, seeded(seed))
    easiest = PerClass(Easiest(keep), quota)(difficulty, labels, seeded(seed))
    for c in range(len(sizes)):
        ranked = difficulty[labels == c].sort(descending=True).values.tolist()
        for plan, order in ((hardest, ranked), (easiest, ranked[::-1])):
            mine = plan.index[labels[plan.index] == c]
            assert sorted(difficulty[mine].tolist()) == sorted(order[: len(mine)])


def test_classes_may_have_any_numbers():
    labels = torch.tensor([7, 2, 7, 2, 100, 100])
    plan = PerClass(Hardest(0.5))(torch.tensor([1.0, 2.0, 3.0, 4.0, 6.0, 5.0]), labels)
    assert plan.index.tolist() == [2, 3, 4]
    assert list(plan.summary()["classes"]) == ["2", "7", "100"]
