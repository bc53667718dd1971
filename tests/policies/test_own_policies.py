"""Policies of one's own: plain functions, and classes that change with the epoch."""

from __future__ import annotations

import pytest
import torch
from live_difficulty import ALL, FIRST, LABELS, NAN, SECOND, SIZE, Live, above_a_half, hardest, make, tracked

import difficulty_prune as dp
from difficulty_prune.policies.compose import within
from difficulty_prune.policies.uniform import Hardest
from difficulty_prune.policies.weighted import Importance, SoftPrune

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_policy_that_changes_with_the_epoch_need_not_say_that_it_draws():
    class Steady(Growing):
        redrawn = False

        def at(self, epoch):
            return Steady(min(4, 1 + epoch))

    assert len(make(Steady(), FIRST, epoch=2)) == 30
