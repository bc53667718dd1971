"""Budget: what plans cost, by a slow search and in exact expectation; weights; how it goes with other policies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from drawn import NAN, check_counts, distinct, float64, fractions, seeded, seeds
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.policies.budget import Budget, most_within

P = dp.policies
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:difficulty. all .* have the same value"),
]
shares = st.integers(8, 64).map(lambda k: k / 64)
rows = st.lists(st.tuples(st.floats(-9, 9), st.integers(1, 40)), min_size=4, max_size=30, unique_by=lambda row: row[0])


def every_policy(keep, size):
    labels = torch.arange(size) % 2
    plain = [P.Hardest(keep), P.Easiest(keep), P.Random(keep), P.Stratified(keep, strata=3), P.Window(0.0, keep)]
    plain += [P.SoftPrune(keep), P.SoftPrune(keep, easy_keep=keep / 8), P.Importance(1.0, keep)]
    plain += [P.EasyToHard(keep).at(2), P.Review(keep, gap=9).at(3), P.BetaSampling(keep, torch.linspace(0, 1, size))]
    made = [P.PerClass(P.Hardest(keep)), P.PerClass(P.SoftPrune(keep)), P.WithoutWrong(P.Random(keep), [0])]
    return plain + made, labels


def budget_of(policy, difficulty, cost, labels):
    """The policy with its budget, or None where the budget is too small or too large for it, which it says."""
    made, says = Budget(policy, cost), ""
    try:
        made.inclusion(difficulty, labels)
    except ValueError as error:
        says = str(error)
    if says:
        assert "the budget is" in says
    return None if says else made


@settings(max_examples=30)
@given(rows=rows, keep=shares)
def test_what_is_kept_costs_at_most_the_budget_or_exactly_that_where_weights_are(rows, keep):
    difficulty, cost = (list(column) for column in zip(*rows, strict=True))
    difficulty = [value + 9 for value in difficulty]  # BetaSampling takes nothing below 0
    policies, classes = every_policy(keep, len(rows))
    for policy in policies:
        labels = classes if isinstance(policy, P.PerClass) else None
        made = budget_of(policy, difficulty, cost, labels)
        if made is None:
            continue
        found = made.inclusion(difficulty, labels)
        assert 0 <= float(found.min()) <= float(found.max()) <= 1 + 1e-9
        expected = float((found * float64(cost)).sum())
        budget = keep * sum(cost)
        assert expected <= budget * (1 + 1e-9), policy
        if policy.unbiased:
            assert expected == pytest.approx(budget), policy


@settings(max_examples=60)
@given(rows=rows, keep=shares, make=st.sampled_from([P.Hardest, P.Easiest]))
def test_of_the_ends_it_is_as_many_as_fit_and_not_one_more(rows, keep, make):
    difficulty, cost = (list(column) for column in zip(*rows, strict=True))
    order = sorted(range(len(rows)), key=difficulty.__getitem__, reverse=make is P.Hardest)
    budget, left, expected = keep * sum(cost), keep * sum(cost), []
    for i in order:  # one after the other, until one does not fit
        if cost[i] > left:
            break
        expected.append(i)
        left -= cost[i]
    if not expected:
        with pytest.raises(ValueError, match=r"the budget is .*, but the fewest examples that may be kept, 1 of"):
            Budget(make(keep), cost)(difficulty)
        return
    plan = Budget(make(keep), cost)(difficulty)
    assert plan.index.tolist() == sorted(expected)
    assert plan.summary()["cost"] == sum(cost)
    assert plan.summary()["kept_cost"] == sum(cost[i] for i in expected) <= budget


@settings(max_examples=40)
@given(difficulty=distinct, keep=fractions)
def test_where_all_cost_the_same_it_is_the_number_of_examples(difficulty, keep):
    assume(keep * len(difficulty) >= 1)
    rounded_down = math.floor(keep * len(difficulty) + 1e-9) / len(difficulty)
    for make in (P.Hardest, P.Random):
        plan = Budget(make(keep), [3] * len(difficulty))(difficulty, generator=seeded(1))
        assert plan.index.tolist() == make(rounded_down)(difficulty, generator=seeded(1)).index.tolist()


@settings(max_examples=25)
@given(rows=rows, keep=shares, seed=seeds, data=st.data())
def test_draws_are_repeatable_and_chances_follow_the_order_of_the_data(rows, keep, seed, data):
    difficulty, cost = (list(column) for column in zip(*rows, strict=True))
    order = data.draw(st.permutations(range(len(rows))))
    for policy in (P.Hardest(keep), P.SoftPrune(keep), P.Importance(1.0, keep)):
        made = budget_of(policy, difficulty, cost, None)
        if made is None:
            continue
        one, two = (made(difficulty, generator=seeded(seed)) for _ in range(2))
        assert one.digest == two.digest
        moved = Budget(policy, [cost[i] for i in order]).inclusion([difficulty[i] for i in order])
        torch.testing.assert_close(moved, made.inclusion(difficulty)[list(order)], rtol=1e-9, atol=1e-9)


COST = torch.tensor([1.0, 9, 2, 2, 30, 1, 4, 8, 1, 1, 20, 3])


@pytest.mark.parametrize("policy", [P.SoftPrune(0.6, easy_keep=0.3), P.Importance(1.0, 0.5), P.Random(0.5)], ids=repr)
def test_plans_have_an_example_and_cost_as_they_say(policy):
    difficulty, generator = torch.arange(12.0), seeded(0)
    made, counts, weights, costs = Budget(policy, COST), torch.zeros(12, dtype=torch.int64), torch.zeros(12), []
    for _ in range(600):
        plan = made(difficulty, generator=generator)
        counts[plan.index] += 1
        weights[plan.index] += plan.weight
        costs.append(plan.summary()["kept_cost"])
    found = made.inclusion(difficulty)
    check_counts(counts, 600, found)
    spread = np.std(costs, ddof=1) / math.sqrt(600)
    assert abs(np.mean(costs) - float((found * COST).sum())) < 5 * spread + 1e-9
    if policy.unbiased:  # each example counts once on average: the weighted sum of anything is that of all
        error = (1 / found - 1).clamp(min=1e-4) / 600
        assert bool(((weights / 600 - 1).abs() < 6 * error.sqrt()).all())


@pytest.mark.parametrize("policy", [P.SoftPrune(0.6), P.Importance(1.0, 0.5)], ids=repr)
def test_weights_are_one_over_the_chance_of_the_number_that_was_drawn(policy):
    """So the weighted sum is unbiased whichever of both numbers it is, and not only on average over them."""
    difficulty, made = torch.arange(12.0).sqrt(), Budget(policy, COST)
    solved = made._solve(difficulty.double(), None)
    assert 0 < solved.chance < 1
    chances = [each.odds(difficulty.double()) for each in (solved.fewer, solved.more)]
    assert round(float(chances[1].sum() - chances[0].sum())) == 1
    seen = set()
    for seed in range(40):
        plan = made(difficulty, generator=seeded(seed))
        which = len(plan) - round(float(chances[0].sum()))
        seen.add(which)
        np.testing.assert_allclose(plan.weight, 1 / chances[which][plan.index], rtol=1e-6)
    assert seen == {0, 1}


def test_of_unseen_examples_all_are_kept_and_cost_nothing_of_the_budget():
    policy = Budget(P.Hardest(0.5, unseen="keep"), [100, 1, 2, 3])
    assert policy([NAN, 3.0, 2.0, 1.0]).index.tolist() == [0, 1, 2]
    assert policy.inclusion([NAN, 3.0, 2.0, 1.0]).tolist() == [1, 1, 1, 0]
    assert Budget(P.SoftPrune(0.5), [1, 2])([NAN, NAN]).index.tolist() == [0, 1]


def test_within_classes_and_without_wrong_the_whole_costs_the_budget():
    difficulty, labels = torch.rand(200, generator=seeded(0)), torch.arange(200) % 4
    cost = 1 + 9 * torch.rand(200, generator=seeded(1))
    for policy in (P.PerClass(P.Hardest(0.4)), P.PerClass(P.Random(0.4), "equal"), P.WithoutWrong(P.Hardest(0.4), 0.2)):
        plan = Budget(policy, cost)(difficulty, labels)
        assert plan.summary()["kept_cost"] == pytest.approx(0.4 * float(cost.sum()), rel=0.05)
        assert min(c["kept"] for c in plan.summary()["classes"].values()) > 5
    left = Budget(P.WithoutWrong(P.Hardest(0.4), [3, 7]), cost)(difficulty)
    assert not {3, 7} & set(left.index.tolist())


def test_within_a_plan_each_example_has_its_own_cost():
    difficulty, cost = torch.arange(8.0), torch.tensor([1.0, 1, 1, 1, 100, 100, 100, 100])
    plan = P.within(P.Easiest(0.5)(difficulty), Budget(P.Hardest(0.5), cost), difficulty)
    assert plan.index.tolist() == [2, 3]
    decisions = dp.Decisions([{"index": i, "decision": "drop"} for i in (4, 5, 6, 7)])
    sampler = dp.PruneSampler(Budget(P.Hardest(0.5), cost), difficulty, decisions=decisions)
    assert sorted(sampler) == [2, 3]


def test_epochs_of_a_sampler():
    difficulty, cost = torch.arange(40.0), torch.arange(40.0) + 1
    policy = Budget(P.SoftPrune(0.5, anneal=0.25, epochs=8), cost)
    sampler = dp.PruneSampler(policy, difficulty, seed=0)
    lengths, costs = [], []
    for epoch in range(8):
        sampler.set_epoch(epoch)
        lengths.append(len(sampler))
        costs.append(sampler.plan.summary()["kept_cost"])
    assert len(set(lengths[:6])) <= 2
    assert costs[6:] == [820.0, 820.0]
    steps = sum(-(-length // 4) for length in lengths)
    assert dp.PruneSampler(policy, difficulty, seed=0).total_steps(batch_size=4, epochs=8) == steps
    live = dp.PruneSampler(policy, lambda: difficulty, seed=0)
    with pytest.raises(ValueError, match=r"depends on difficulty that is yet to be measured.*fixed_length"):
        live.total_steps(batch_size=4, epochs=8)
    assert dp.PruneSampler(policy, lambda: difficulty, fixed_length=20).total_steps(batch_size=4, epochs=2) == 10
    static = dp.PruneSampler(Budget(P.Hardest(0.5), cost), difficulty)
    assert static.total_steps(batch_size=1, epochs=3) == 3 * len(static)


@settings(max_examples=40)
@given(cost=st.lists(st.integers(0, 40), min_size=8, max_size=30), keep=st.sampled_from([0.25, 0.4, 0.6]))
@example(cost=[0] * 11 + [1, 1], keep=0.6)  # an epoch in which one more is kept than is due
def test_reviews_that_cost_too_much_are_told_before_the_first_epoch_and_not_in_a_later_one(cost, keep):
    assume(any(cost))
    policy, difficulty = Budget(P.Review(keep, gap=4), cost), torch.arange(float(len(cost)))
    turns = P.Review(keep, gap=4)._turns(len(cost)).tolist()
    fewest, dear = math.ceil(len(cost) / 4), sorted(cost, reverse=True)
    least = []
    for turn in range(4):
        due = [c for c, own in zip(cost, turns, strict=True) if own == turn]
        least.append(sum(due) + sum(dear[: fewest - len(due)]))  # with the hardest, which may be the dearest
    if max(least) > keep * sum(cost) + 1e-9:
        for epoch in range(4):
            with pytest.raises(ValueError, match=r"what is due in one of the epochs may cost .* a longer gap"):
                policy.at(epoch)(difficulty)
        return
    for epoch in range(4):
        assert policy.at(epoch)(difficulty).summary()["kept_cost"] <= keep * sum(cost) + 1e-9


@settings(max_examples=60)
@given(
    cost=st.lists(st.integers(0, 40), min_size=8, max_size=30),
    keep=st.sampled_from([0.25, 0.4, 0.6]),
    wrong=st.sets(st.integers(0, 7), max_size=6),
)
def test_reviews_without_wrong_examples_are_refused_in_every_epoch_or_in_none(cost, keep, wrong):
    assume(any(cost))
    policy = Budget(P.WithoutWrong(P.Review(keep, gap=4), sorted(wrong)), cost)
    refused, difficulty = [], torch.arange(float(len(cost)))
    for epoch in range(4):
        try:
            assert policy.at(epoch)(difficulty).summary()["kept_cost"] <= keep * sum(cost) + 1e-9
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) in (0, 4), refused


def test_a_policy_is_what_it_was_made_of():
    policy = Budget(P.Hardest(0.5), [1, 2])
    assert policy == Budget(P.Hardest(0.5), torch.tensor([1.0, 2.0]))
    assert policy != Budget(P.Hardest(0.5), [1, 3])
    assert repr(policy) == "Budget(policy=Hardest(keep=0.5), cost=<2 numbers>)"
    assert policy.keep == 0.5
    assert policy.at(3) is policy
    assert Budget(P.SoftPrune(0.5), [1, 2]).unbiased
    assert Budget(P.SoftPrune(0.5), [1, 2]).redrawn


@given(st.lists(st.integers(0, 9), min_size=2, max_size=30).map(sorted), st.integers(0, 9))
def test_the_largest_number_within_a_budget_is_found_by_halving(costs, budget):
    assume(costs[0] <= budget)
    assert most_within(costs.__getitem__, 0, len(costs) - 1, budget) == max(
        k for k, cost in enumerate(costs) if cost <= budget
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Budget(0.5, [1]), TypeError, r"policy: got 0.5, expected one of dp.policies with a keep"),
        (lambda: Budget(Budget(P.Hardest(0.5), [1]), [1]), TypeError, "policy: got Budget"),
        (lambda: Budget(P.Hardest(0.5), [1.0, -1.0]), ValueError, r"cost: got -1\.0 at 1, expected what each example"),
        (lambda: Budget(P.Hardest(0.5), [NAN]), ValueError, "cost: got nan at 0"),
        (lambda: Budget(P.Hardest(0.5), [1e308, 1e308]), ValueError, "cost: got the sum inf, expected .* finite sum"),
        (lambda: Budget(P.Hardest(0.5), [0, 0]), ValueError, "cost: got the sum 0"),
        (lambda: Budget(P.Hardest(0.5), "tokens"), TypeError, "cost: got str"),
        (lambda: Budget(P.Hardest(0.5), [1, 2])([1.0]), ValueError, "cost: got 2 numbers for 1 examples"),
        (
            lambda: Budget(P.Hardest(0.5), [1, 9])([1.0, 2.0]),
            ValueError,
            "the budget is 5, but the fewest examples that may be kept, 1 of 2, cost 9; choose a larger keep",
        ),
        (
            lambda: Budget(P.Window(0.5, 0.5), [1, 1, 5, 5])([1.0, 2.0, 3.0, 4.0]),
            ValueError,
            r"the budget is 6, but the most examples that may be kept, 2 of 4, cost only 2; .* at most 0\.1667",
        ),
        (lambda: Budget(P.PerClass(P.Hardest(0.5)), [1, 1])([1.0, 2.0]), ValueError, "PerClass: got no labels"),
        (
            lambda: Budget(P.Hardest(0.5), [1] * 4)([4.0, 3.0, 2.0, 1.0], [0, 0, 1, 1]),
            ValueError,
            "would drop class 1 entirely",
        ),
    ],
)
def test_bad_input_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
