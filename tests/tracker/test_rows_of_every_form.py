"""Rows of every form that a loss takes give the scores of a float64 loop over examples and rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from row_batches import DTYPES, FORMS, LAYOUTS, Batch, N, as_numbers, make_batch, scores_of, target_of
from row_oracle import Oracle

import difficulty_prune as dp

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # A target rounded to bfloat16, or expanded, need not add up to 1.
    pytest.mark.filterwarnings("ignore:labels. the targets of:UserWarning"),
]
SCALE = 2e-5  # of rounding in float32, which the logits of all dtypes are read as


def follow(form: str, batches: list[Batch], right_from: float = 1.0, half_life: float = 2.0):
    """A tracker and the loop, both of which have seen the batches."""
    tracker = dp.DifficultyTracker(
        N, scores_of(form), target=target_of(form), right_from=right_from, half_life=half_life
    )
    oracle = Oracle(N, right_from, half_life)
    for batch in batches:
        batch.update(tracker)
        batch.record(oracle)
    return tracker, oracle


def assert_same(tracker: dp.DifficultyTracker, oracle: Oracle) -> None:
    got = as_numbers(tracker.compute(allow_skipped=True))
    expected = oracle.scores() or {name: np.full(N, np.nan) for name in got}
    assert tracker.skipped == oracle.skipped
    for name, score in got.items():
        np.testing.assert_allclose(score, expected[name], rtol=SCALE, atol=SCALE, err_msg=name)
    np.testing.assert_array_equal(tracker.age().numpy(), oracle.age())
    assert tracker.presentations == sum(len(example.history) for example in oracle.examples)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    weighted=st.booleans(),
    odd=st.booleans(),
    right_from=st.sampled_from([1.0, 0.5, 2 / 3, 0.3]),
    half_life=st.sampled_from([2.0, 0.7]),
)
def test_scores_are_those_of_a_loop(form, seed, sizes, dtype, layout, weighted, odd, right_from, half_life):
    batches = [
        make_batch(form, 100 * seed + step, size, dtype=dtype, layout=layout, weighted=weighted, odd=odd)
        for step, size in enumerate(sizes)
    ]
    assert_same(*follow(form, batches, right_from, half_life))
