"""Stepping reliability up to more runs, and back to the runs that a target takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.consistency.spearman_brown import step_up


@given(value=st.floats(0.01, 0.999), factor=st.floats(0.05, 50), further=st.floats(0.05, 50))
def test_stepping_up_twice_is_stepping_up_by_the_product(value, factor, further):
    assert step_up(step_up(value, factor), further) == pytest.approx(step_up(value, factor * further), abs=1e-9)


@given(value=st.floats(0.01, 0.995), runs=st.integers(2, 60), target=st.floats(0.02, 0.99))
def test_the_runs_needed_reach_the_target_and_one_fewer_do_not(value, runs, target):
    found = dp.consistency.Reliability(value, (value, value), 0.95, value, np.ones(runs), "el2n", runs, ("mlp",))
    assert found.runs_needed(value) == runs
    assert found.at(runs) == pytest.approx(value, abs=1e-9)
    needed = found.runs_needed(target)
    assert found.at(needed) >= target - 1e-6
    assert needed == 1 or found.at(needed - 1) < target + 1e-6
