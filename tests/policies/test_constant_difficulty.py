"""Difficulty that is the same for all examples ranks nothing: policies say so; those that draw, if it is fixed."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import difficulty_prune as dp

P = dp.policies
RANKING = [
    P.Hardest(0.5),
    P.Easiest(0.5),
    P.Window(start=0.25, keep=0.5),
    P.Stratified(0.5),
    P.PerClass(P.Hardest(0.5)),
    P.PerClass(P.Easiest(0.5), quota="equal"),
]
DRAWING = [P.SoftPrune(0.5), P.Importance(keep=0.5), P.PerClass(P.SoftPrune(0.5))]
SAYS = "difficulty: all 8 examples have the same value, .*, which ranks nothing: what .* keeps is random"


@pytest.mark.parametrize("policy", RANKING, ids=repr)
@given(value=st.floats(-1e30, 1e30))
def test_a_policy_that_ranks_says_that_there_is_nothing_to_rank(policy, value):
    with pytest.warns(UserWarning, match=SAYS):
        plan = policy(torch.full((8,), value), labels=[0, 1] * 4)
    assert len(plan) == 4


@given(policy=st.sampled_from(RANKING), place=st.integers(0, 7), by=st.sampled_from([1e-12, 1.0, float("inf")]))
def test_one_example_that_differs_is_a_ranking(policy, place, by):
    difficulty = torch.ones(8, dtype=torch.float64)
    difficulty[place] += by
    if by == float("inf") and isinstance(policy, P.Stratified):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy(difficulty, labels=[0, 1] * 4)


@pytest.mark.parametrize("policy", DRAWING, ids=repr)
def test_a_policy_that_draws_is_warned_of_by_its_sampler_where_the_difficulty_is_fixed(policy):
    with pytest.warns(UserWarning, match=SAYS):
        dp.PruneSampler(policy, torch.zeros(8), labels=[0, 1] * 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dp.PruneSampler(policy, lambda: torch.zeros(8), labels=[0, 1] * 4).set_epoch(1)
        dp.PruneSampler(policy, torch.arange(8.0), labels=[0, 1] * 4).set_epoch(1)
        dp.PruneSampler(P.Random(0.5), torch.zeros(8))


@pytest.mark.parametrize("policy", [P.Random(0.5), P.PerClass(P.Random(0.5))], ids=repr)
def test_a_random_choice_does_not_care(policy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy(torch.zeros(8), labels=[0, 1] * 4)


def test_nothing_is_said_where_nothing_is_left_out_or_one_example_is_all_there_is():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        P.Hardest(1.0)(torch.zeros(8))
        P.Hardest(0.5)(torch.zeros(1))


def test_examples_that_nobody_has_seen_do_not_make_a_ranking():
    difficulty = torch.tensor([float("nan")] * 2 + [3.0] * 8)
    with pytest.warns(UserWarning, match=SAYS):
        P.Hardest(0.5, unseen="keep")(difficulty)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        P.Hardest(0.5, unseen="keep")(difficulty[:2])


def test_vog_loss_of_one_presentation_is_such_a_score():
    tracker = dp.DifficultyTracker(8, scores=("vog_loss",))
    model = torch.nn.Linear(3, 2)
    inputs = tracker.watch(torch.rand(8, 3), torch.arange(8))
    torch.nn.functional.cross_entropy(model(inputs), torch.zeros(8, dtype=torch.int64)).backward()
    difficulty = tracker.compute()["vog_loss"]
    with pytest.warns(UserWarning, match="ranks nothing"):
        dp.PruneSampler(P.Hardest(0.5), difficulty)
