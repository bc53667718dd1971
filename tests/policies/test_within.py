"""One policy within the plan of another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_difficulty import ALL, FIRST, LABELS, NAN, SIZE

from difficulty_prune.policies.compose import PerClass, within
from difficulty_prune.policies.uniform import Easiest, Hardest, Random, Window
from difficulty_prune.policies.weighted import Importance, SoftPrune
from difficulty_prune.policies.without_wrong import WithoutWrong

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_positions_that_are_wrong_stay_those_of_the_whole_data():
    """Within a part, an example is not taken for the one at the same place of the part."""
    difficulty = torch.arange(20.0)
    plan = Easiest(0.5)(difficulty)
    for wrong in ([0, 3, 12, 19], torch.isin(torch.arange(20), torch.tensor([0, 3, 12, 19]))):
        found = within(plan, WithoutWrong(Hardest(0.5), wrong), difficulty)
        assert found.index.tolist() == [5, 6, 7, 8, 9]
        assert within(plan, WithoutWrong(Easiest(0.5), wrong), difficulty).index.tolist() == [1, 2, 4, 5, 6]
    with pytest.raises(ValueError, match=r"wrong: got position 20, expected 0\.\.19"):
        within(plan, WithoutWrong(Hardest(0.5), [20]), difficulty)
