"""Answers about the examples of all processes are those of a slow reference, however the examples are shared out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes_in_threads import run

from difficulty_prune.policies import everyone
from difficulty_prune.policies.base import Keeping
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.everyone import Everyone
from difficulty_prune.policies.stratified import Stratified
from difficulty_prune.policies.uniform import Easiest, Hardest, Random, Window
from difficulty_prune.policies.weighted import Importance, SoftPrune
from difficulty_prune.policies.without_wrong import WithoutWrong

pytestmark = pytest.mark.usefixtures("one_thread")

POLICIES = (
    Hardest(0.3),
    Easiest(0.5),
    Window(0.1, 0.4),
    Random(0.3),
    Stratified(0.4, drop_hardest=0.2, strata=7),
    SoftPrune(0.6),
    Importance(1.5, keep=0.3),
    PerClass(Window(0.2, 0.5)),
    PerClass(Stratified(0.5, strata=3)),
    PerClass(SoftPrune(0.5)),
    PerClass(Importance(1.0, keep=0.5), "equal"),
    WithoutWrong(Random(0.5), wrong=0.2),
    WithoutWrong(PerClass(Hardest(0.4)), wrong=0.2),
)
numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 0.1, math.inf, -math.inf, 5e-324, -5e-324, 1.7e308]),
    st.floats(allow_nan=False),
)


def unsigned(words: torch.Tensor) -> list[int]:
    return [word % 2**64 for word in words.tolist()]


@settings(max_examples=60)
@given(data=st.data(), size=st.integers(1, 30), groups=st.integers(1, 6), world=st.integers(1, 3))
def test_the_lowest_of_each_group_are_those_of_a_sort(data, size, groups, world):
    values = torch.tensor(data.draw(st.lists(numbers, min_size=size, max_size=size)), dtype=torch.float64)
    group = torch.tensor(data.draw(st.lists(st.integers(0, groups - 1), min_size=size, max_size=size)))
    owner = torch.tensor(data.draw(st.lists(st.integers(0, world - 1), min_size=size, max_size=size)))
    sizes = group.bincount(minlength=groups).tolist()
    counts = [data.draw(st.integers(0, number)) for number in sizes]
    alone = Everyone.alone(values, seed=(3, 1)).grouped(group, groups)
    ties = unsigned(alone.random(0)(torch.arange(size)))
    expected = torch.zeros(size, dtype=torch.bool)
    for g, count in enumerate(counts):
        order = sorted((float(values[i]), ties[i], i) for i in range(size) if group[i] == g)
        expected[[i for *_, i in order[:count]]] = True
    assert torch.equal(alone.lowest(values, counts), expected)

    def of(rank, sums, largest):
        own = (owner == rank).nonzero()[:, 0]
        together = Everyone.of(values[own], own, (3, 1), sums, largest, None).grouped(group[own], groups)
        assert together.sizes == sizes
        return own[together.lowest(values[own], counts)]

    assert torch.cat(run(world, of)).sort().values.tolist() == expected.nonzero()[:, 0].tolist()


@settings(max_examples=30)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=20), world=st.integers(1, 3))
def test_means_are_exact_and_the_same_in_every_share(values, world):
    given_values = torch.tensor(values, dtype=torch.float64)

    def of(rank, sums, largest):
        own = torch.arange(len(values))[rank::world]
        together = Everyone.of(given_values[own], own, (0,), sums, largest, None)
        return float(together.mean(lambda places: given_values[own][places]))

    means = run(world, of)
    assert len(set(means)) == 1
    assert means[0] == pytest.approx(math.fsum(values) / len(values), rel=1e-15, abs=2.0**-59)


def shared(policy, difficulty, labels, owner, world):
    """What the processes choose, put together: positions in ascending order, and weights."""

    def of(rank, sums, largest):
        own = (owner == rank).nonzero()[:, 0]
        index, weight = policy.together(Everyone.of(difficulty[own], own, (5,), sums, largest, labels[own]))
        return own[index], weight

    index, weight = (torch.cat(parts) for parts in zip(*run(world, of), strict=True))
    order = index.argsort()
    return index[order], weight[order]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("digits", [1, 9])
def test_processes_choose_what_one_chooses_bit_for_bit(policy, digits, monkeypatch):
    monkeypatch.setattr(everyone, "_BLOCK", 200)  # examples that are looked at at once
    generator = torch.Generator().manual_seed(digits)
    difficulty = torch.randn(1500, generator=generator, dtype=torch.float64).round(decimals=digits)
    labels = torch.randint(12, (1500,), generator=generator) * 3  # classes that nobody has
    for world in (2, 4):
        owner = torch.randint(world, (1500,), generator=generator)
        owner[:] = torch.where(owner == 1, 0, owner) if world == 4 else owner  # a process that has none
        index, weight = shared(policy, difficulty, labels, owner, world)
        alone, alone_weight = policy.together(Everyone.alone(difficulty, (5,), labels))
        assert torch.equal(index, alone)
        assert weight.numpy().tobytes() == alone_weight.numpy().tobytes()
        assert len(index) == len(policy(difficulty, labels))


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_without_ties_and_draws_they_choose_what_the_policy_does(policy):
    difficulty = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(400) % 4
    index, weight = policy.together(Everyone.alone(difficulty, (0,), labels))
    plan = policy(difficulty, labels)
    assert len(index) == len(plan)
    if "Importance" in repr(policy):  # whose probabilities differ a little, see below
        return
    inclusion = policy.inclusion(difficulty, labels)
    assert torch.isin((inclusion == 1).nonzero()[:, 0], index).all()
    assert not torch.isin((inclusion == 0).nonzero()[:, 0], index).any()
    assert weight.sort().values.float().tolist() == pytest.approx(plan.weight.sort().values.tolist())


DRAWS, SIZE = 4000, 20
TIED = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 2.5, 3.0, 3.0, 3.0, 4.0] * 2, dtype=torch.float64)


def many_draws(policy: Keeping) -> tuple[torch.Tensor, torch.Tensor]:
    """Of many groups of the same examples: whether each was chosen, and its weight, both [draws, examples]."""
    if isinstance(policy, Stratified):  # whose strata are numbered alike in all groups
        alone = (Everyone.alone(TIED, (seed,)) for seed in range(800))
        return torch.stack([torch.zeros(SIZE).index_fill_(0, policy.together(each)[0], 1) for each in alone]), TIED
    together = Everyone.alone(TIED.repeat(DRAWS), (11,))
    together = together.grouped(torch.arange(DRAWS).repeat_interleave(SIZE), DRAWS)
    index, weight = policy.together(together)
    chosen, weights = torch.zeros(DRAWS * SIZE), torch.zeros(DRAWS * SIZE, dtype=torch.float64)
    chosen[index], weights[index] = 1, weight
    return chosen.view(DRAWS, SIZE), weights.view(DRAWS, SIZE)


@pytest.mark.parametrize("policy", POLICIES[:6], ids=repr)
def test_how_often_an_example_is_chosen_is_its_inclusion(policy):
    chosen, _ = many_draws(policy)
    p = policy.inclusion(TIED)
    assert bool((chosen.sum(1) == len(policy(TIED))).all())
    error = (p * (1 - p) / len(chosen)).sqrt()
    assert ((chosen.mean(0) - p).abs() <= 4.5 * error + 1e-9).all()


@pytest.mark.parametrize("policy", [SoftPrune(0.6), Importance(1.0, keep=0.4), Importance(0.3, keep=0.5)], ids=repr)
def test_weights_are_unbiased(policy):
    chosen, weights = many_draws(policy)
    error = weights.std(0) / DRAWS**0.5
    assert ((weights.mean(0) - 1).abs() <= 4.5 * error + 1e-9).all()
    assert bool((chosen.sum(1) == len(policy(TIED))).all())
    if isinstance(policy, Importance):  # nearly the probabilities of the policy itself
        assert (chosen.mean(0) - policy.inclusion(TIED)).abs().max() < 0.06


def test_two_examples_of_one_id_are_refused_where_they_tie():
    together = Everyone.of(torch.zeros(2).double(), torch.tensor([7, 7]), (0,), torch.clone, torch.clone, None)
    with pytest.raises(ValueError, match="2 examples have the same id"):
        together.hardest([1])
    assert together.hardest([2]).all()


@dataclass(frozen=True)
class First(Keeping):
    keep: float
    unseen: str = "refuse"

    def choose(self, difficulty, kept, generator):
        return torch.arange(kept), torch.ones(kept)

    def chances(self, difficulty, kept):
        return (torch.arange(len(difficulty)) < kept).double()


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (First(0.5), TypeError, r"First\(keep=0.5.* does not say how; take another"),
        (WithoutWrong(Random(0.5), wrong=[1]), TypeError, "give the fraction that is wrong"),
        (PerClass(Random(0.5)), ValueError, "PerClass: got no labels"),
        (Importance(1e-3, keep=0.5), ValueError, "temperature: got 0.001, at which"),
        (Stratified(0.5), ValueError, "some are infinite, but Stratified"),
    ],
)
def test_what_cannot_be_planned_together_is_refused(policy, error, message):
    difficulty = torch.linspace(0, 1, 20).double()
    if isinstance(policy, Stratified):
        difficulty[3] = torch.inf
    with pytest.raises(error, match=message):
        policy.together(Everyone.alone(difficulty, (0,)))
