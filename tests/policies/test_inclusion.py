"""Inclusion probabilities: exact sums, and how often plans have an example, with many ties."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from drawn import INF, NAN, check_counts, float64, fractions, number_kept, seeded
from hypothesis import example, given, settings
from hypothesis import strategies as st

from difficulty_prune.policies.compose import PerClass, within
from difficulty_prune.policies.plan import Plan
from difficulty_prune.policies.stratified import Stratified
from difficulty_prune.policies.uniform import Easiest, Hardest, Random, Window
from difficulty_prune.policies.weighted import Importance, SoftPrune

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:difficulty. all .* have the same value"),
]

TIED = float64([0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 5.0])
LABELS = torch.tensor([0, 1] * 5 + [0, 0])
few = st.lists(st.integers(-2, 3).map(float), min_size=1, max_size=24)


def policies(keep):
    left_out = min(0.25, 1 - keep)
    return [
        *(Hardest(keep), Easiest(keep), Random(keep), Window(left_out, keep), Importance(0.7, keep)),
        *(SoftPrune(keep), SoftPrune(keep, easy_keep=keep / 4)),
        *(Stratified(keep, strata=3), Stratified(keep, left_out, strata=4)),
    ]


@settings(max_examples=25)
@given(difficulty=few, keep=fractions)
@example(difficulty=[0.0] * 7, keep=0.5)
@example(difficulty=[0.0], keep=1 / 64)
def test_they_lie_in_0_to_1_and_add_up_to_the_number_kept(difficulty, keep):
    kept, labels = number_kept(keep, len(difficulty)), torch.arange(len(difficulty)) % 2
    for policy in policies(keep):
        found = policy.inclusion(difficulty)
        assert found.dtype == torch.float64
        assert found.shape == (len(difficulty),)
        assert 0 <= float(found.min()) <= float(found.max()) <= 1 + 1e-12
        assert float(found.sum()) == pytest.approx(kept, abs=1e-9), policy
        for quota in ("proportional", "equal"):
            each = PerClass(policy, quota).inclusion(difficulty, labels)
            plan = PerClass(policy, quota)(difficulty, labels)
            assert float(each.sum()) == pytest.approx(len(plan), abs=1e-9), (policy, quota)


@settings(max_examples=15)
@given(difficulty=few, keep=fractions)
def test_what_a_plan_has_or_lacks_is_possible_and_ties_have_the_same(difficulty, keep):
    for policy in policies(keep):
        found, plan = policy.inclusion(difficulty), policy(difficulty, generator=seeded(1))
        assert bool((found[plan.index] > 0).all())
        lacking = torch.ones(len(difficulty), dtype=torch.bool)
        lacking[plan.index] = False
        assert bool((found[lacking] < 1).all())
        for value in set(difficulty):
            of_ties = found[float64(difficulty) == value]
            torch.testing.assert_close(of_ties, of_ties[:1].expand_as(of_ties), rtol=0, atol=1e-12)


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.8])
def test_plans_have_an_example_as_often_as_they_say(keep):
    composed = [PerClass(policy, quota) for policy in policies(keep)[::2] for quota in ("proportional", "equal")]
    for policy in [*policies(keep), *composed]:
        generator, counts = seeded(3), torch.zeros(len(TIED), dtype=torch.int64)
        for _ in range(150):
            counts[policy(TIED, LABELS if policy in composed else None, generator).index] += 1
        check_counts(counts, 150, policy.inclusion(TIED, LABELS if policy in composed else None))


def test_ties_at_the_border_of_what_stratified_drops_come_early_in_their_stratum():
    """Of 4,000 orders; the plain product of both chances would be off by more than 8 standard errors."""
    policy, difficulty = Stratified(0.3, drop_hardest=0.3, strata=2), float64([0, 0, 0, 2, 3, 4, 4, 4, 4, 4])
    generator, counts, trials = seeded(0), torch.zeros(10), 4_000
    for _ in range(trials):
        counts[policy.choose(difficulty, 3, generator)[0]] += 1
    found = policy.inclusion(difficulty)
    spread = (found * (1 - found) / trials).sqrt()
    assert bool(((counts / trials - found).abs() <= 4.5 * spread).all())
    assert float(found[3:].sum()) == pytest.approx(2)  # of the harder stratum: 2, 3, and two of the five ties
    assert abs(float(found[-1]) - 2 / 5 * 2 / 4) > 8 * float(spread[-1])


@pytest.mark.parametrize("policy", policies(0.5), ids=repr)
def test_weights_of_plans_are_one_over_them_where_difficulty_has_no_ties(policy):
    difficulty = torch.arange(20.0).sqrt()
    plan, found = policy(difficulty), policy.inclusion(difficulty)
    if isinstance(policy, SoftPrune | Importance):
        np.testing.assert_allclose(plan.weight, 1 / found[plan.index], rtol=1e-6)
    elif not isinstance(policy, Random | Stratified):
        assert found.tolist() == [float(i in set(plan.index.tolist())) for i in range(20)]


def test_unseen_examples_obey_the_option():
    difficulty = [NAN, 1.0, 2.0, NAN, 3.0, 4.0]
    with pytest.raises(ValueError, match="2 of 6 examples are NaN"):
        Hardest(0.5).inclusion(difficulty)
    assert Hardest(0.5, unseen="keep").inclusion(difficulty).tolist() == [1, 0, 0, 1, 1, 1]
    assert SoftPrune(0.75).inclusion([NAN, NAN]).tolist() == [1, 1]
    per_class = PerClass(Hardest(0.5, unseen="keep")).inclusion(difficulty, [0, 0, 0, 1, 1, 1])
    assert per_class.tolist() == [1, 0, 1, 1, 0, 1]


def test_a_class_that_no_plan_has_is_refused_as_in_a_plan():
    with pytest.raises(ValueError, match=r"would drop class 1 entirely \(1 examples\)"):
        Hardest(0.5).inclusion([3.0, 2.0, 1.0, 0.0], [0, 0, 0, 1])
    assert Hardest(0.75).inclusion([3.0, 2.0, 1.0, 1.0], [0, 0, 0, 1]).tolist() == [1, 1, 0.5, 0.5]
    with pytest.raises(ValueError, match="PerClass: got no labels"):
        PerClass(Hardest(0.5)).inclusion([1.0, 2.0])


def test_infinite_difficulty_is_ranked_but_has_no_differences():
    assert Window(0.25, 0.5).inclusion([-INF, 1.0, INF, INF]).tolist() == [0, 1, 0.5, 0.5]
    with pytest.raises(ValueError, match="infinite"):
        Importance(keep=0.5).inclusion([0.0, INF])


def test_difficulty_that_ranks_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="ranks nothing"):
            Hardest(0.5).inclusion([1.0, 1.0])
        assert Random(0.5).inclusion([1.0, 1.0]).tolist() == [0.5, 0.5]


def test_of_a_plan_and_of_a_plan_within_another():
    plan = Plan(torch.tensor([1, 3]), torch.tensor([2.0, 1.0]))
    assert plan.inclusion([0.0] * 5).tolist() == [0, 1, 0, 1, 0]
    with pytest.raises(ValueError, match=r"plan: got position 3, expected 0\.\.2"):
        plan.inclusion([0.0] * 3)
    inner = within(plan, Hardest(0.5), torch.arange(5.0))
    assert inner.inclusion(torch.arange(5.0)).tolist() == [0, 0, 0, 1, 0]


def test_soft_prune_of_an_epoch_that_sees_all():
    policy = SoftPrune(0.5, anneal=0.2, epochs=10)
    assert policy.full_from == 8
    assert policy.at(7).inclusion([1.0, 2.0, 3.0, 4.0]).min() < 1
    assert policy.at(8).inclusion([1.0, 2.0, 3.0, 4.0]).tolist() == [1] * 4
    assert SoftPrune(0.5).full_from is None
