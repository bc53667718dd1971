"""Importance: its definition, its temperature, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from drawn import INF, NAN, difficulties, float64, fractions, number_kept, oracle_proportional, seeded
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from difficulty_prune.policies.uniform import Hardest
from difficulty_prune.policies.weighted import Importance

pytestmark = pytest.mark.usefixtures("one_thread")


def oracle_importance(difficulty, temperature, kept):
    """Straight from the definition, with the iterative capping above."""
    mean = sum(difficulty) / len(difficulty)
    spread = math.sqrt(sum((d - mean) ** 2 for d in difficulty) / len(difficulty))
    return oracle_proportional([math.exp((d - mean) / spread / temperature) for d in difficulty], kept)


@settings(max_examples=40)
@given(difficulty=difficulties, temperature=st.floats(0.2, 100), data=st.data())
def test_importance_follows_its_definition(difficulty, temperature, data):
    assume(len(set(difficulty)) > 1)
    kept = data.draw(st.integers(1, len(difficulty)))
    got = Importance(temperature).probability(float64(difficulty), kept, seeded(0))
    np.testing.assert_allclose(got, oracle_importance(difficulty, temperature, kept), rtol=1e-9)


@settings(max_examples=40)
@given(difficulty=difficulties, temperature=st.floats(0.2, 100), keep=fractions)
def test_scale_and_offset_of_the_difficulty_do_not_matter(difficulty, temperature, keep):
    kept = number_kept(keep, len(difficulty))
    plain, changed = (
        Importance(temperature, keep).probability(d, kept, seeded(0))
        for d in (float64(difficulty), float64(difficulty) * 1e-3 - 7)
    )
    np.testing.assert_allclose(changed, plain, rtol=1e-7)


def test_probability_rises_with_difficulty_and_the_weight_falls():
    plan = Importance(1.0, keep=0.5)(torch.arange(40.0))
    assert plan.weight.tolist() == sorted(plan.weight.tolist(), reverse=True)
    assert plan.weight[0] > plan.weight[-1]
    cooler, warmer = (Importance(t).probability(torch.arange(9.0).double(), 3, seeded(0)) for t in (0.5, 2.0))
    assert cooler[-1] > warmer[-1]
    assert cooler[0] < warmer[0]


@pytest.mark.parametrize("temperature", [INF, 1e300, 1e12])
def test_at_a_high_temperature_all_are_alike(temperature):
    plan = Importance(temperature, keep=0.25)(torch.arange(40.0) ** 3)
    np.testing.assert_allclose(plan.weight, 4, rtol=1e-6)


def test_at_a_low_temperature_the_hardest_are_kept():
    difficulty = torch.arange(40.0)
    for seed in range(20):
        plan = Importance(0.05, keep=0.25)(difficulty, generator=seeded(seed))
        assert len(set(plan.index.tolist()) & set(Hardest(0.25)(difficulty).index.tolist())) >= 8


def test_too_low_a_temperature_is_refused_and_not_turned_into_infinite_weights():
    for temperature in (1e-3, 1e-300):
        with pytest.raises(ValueError, match=r"temperature: got .*choose a higher one"):
            Importance(temperature)(torch.arange(40.0))
    assert Importance(1e-300, keep=1.0)(torch.arange(40.0)).weight.tolist() == [1.0] * 40


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9, 1e-300, 1 / 3])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_constant_difficulty_is_drawn_evenly(value, size):
    plan = Importance(0.01, keep=0.5)([value] * size)
    np.testing.assert_allclose(plan.weight, size / len(plan), rtol=1e-6)


@pytest.mark.parametrize("bad", [INF, -INF])
def test_infinite_difficulty_is_refused(bad):
    with pytest.raises(ValueError, match=r"1 of 3 examples are infinite, but Importance .*clamp"):
        Importance()([0.0, bad, 1.0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 0.0}, ValueError, "temperature: got 0.0"),
        ({"temperature": -1}, ValueError, "temperature: got -1"),
        ({"temperature": NAN}, ValueError, "temperature: got nan"),
        ({"temperature": True}, TypeError, "temperature: got True"),
        ({"temperature": "1"}, TypeError, "temperature: got '1'"),
        ({"temperature": None}, TypeError, "temperature: got None"),
        ({"keep": 1.5}, ValueError, "keep: got 1.5"),
    ],
)
def test_importance_refuses_at_once(options, error, message):
    with pytest.raises(error, match=message):
        Importance(**options)


def test_the_summary_tells_the_largest_weight_and_a_class_may_be_left_out_for_an_epoch():
    difficulty, labels = torch.arange(100.0), torch.tensor([0] + [1] * 99)
    summaries = [Importance(0.5, keep=0.1)(difficulty, labels, seeded(seed)).summary() for seed in range(20)]
    assert any(summary["classes"]["0"]["kept"] == 0 for summary in summaries)
    assert all(summary["largest_weight"] > 1 for summary in summaries)
    assert "with weights up to " in str(summaries[0])


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_very_large_and_very_small_difficulty_is_not_taken_for_constant(scale):
    difficulty = float64([0.0, 1.0, 2.0, 5.0])
    plain, scaled = (Importance().probability(d, 2, seeded(0)) for d in (difficulty, difficulty * scale))
    np.testing.assert_allclose(scaled, plain, rtol=1e-9)
