"""TDDS, dynamic uncertainty and DUAL: their options, and trajectories in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectories import ALL, CPU, assert_scores, seeded

import difficulty_prune as dp
from difficulty_prune.scores import temporal
from difficulty_prune.scores.temporal import TemporalOptions
from difficulty_prune.tracker.windows import TemporalRecords

pytestmark = pytest.mark.usefixtures("one_thread")


# Options


@pytest.mark.parametrize("window", [2, 0, -1, 10.0, "10", True, None])
def test_options_refuse_a_window(window: Any) -> None:
    with pytest.raises(ValueError, match=r"window: got .*expected a whole number of presentations, at least 3"):
        TemporalOptions(window=window)


@pytest.mark.parametrize("decay", [0, -0.1, 1.1, float("nan"), "0.9", None])
def test_options_refuse_a_decay(decay: Any) -> None:
    with pytest.raises(ValueError, match=r"decay: got .*expected the weight of the newest window, in \(0, 1\]"):
        TemporalOptions(decay=decay)


def test_the_definition_holds_what_changes_the_numbers() -> None:
    assert TemporalOptions(window=7, decay=0.5).definition == {"window": 7, "decay": 0.5}


# Trajectories in memory


@given(st.integers(1, 14), st.sampled_from((1, 3, 10)), st.integers(3, 10), st.sampled_from((0.9, 0.3, 1.0)))
@settings(max_examples=60)
def test_a_trajectory_in_memory_gives_what_the_stream_gives(
    presented: int, classes: int, window: int, decay: float
) -> None:
    logits = 5 * torch.randn(presented, 3, classes, generator=seeded(presented))
    labels = torch.randint(classes, (3,), generator=seeded(classes))
    records = TemporalRecords(3, classes, ALL, CPU, TemporalOptions(window, decay))
    for row in logits:
        records.record(torch.arange(3), row, labels)
    p_label = logits.softmax(2).gather(2, labels.expand(presented, 3)[..., None])[..., 0]
    formulas = {"tdds": temporal.tdds(logits, window, decay)}
    formulas |= {"dyn_unc": temporal.dyn_unc(p_label, window), "dual": temporal.dual(p_label, window)}
    assert all(score.dtype == torch.float32 for score in formulas.values())
    assert_scores(records.scores(), formulas)


def test_functions_take_what_the_definitions_allow_and_refuse_the_rest() -> None:
    logits, p = torch.zeros(4, 2, 3), torch.full((4, 2), 0.5)
    assert temporal.tdds(logits.bfloat16(), 3).tolist() == [0, 0]
    assert temporal.dyn_unc(p.double(), 3).dtype == torch.float32
    assert temporal.tdds(torch.zeros(4, 0, 3), 3).shape == temporal.dyn_unc(torch.zeros(4, 0), 3).shape == (0,)
    assert temporal.tdds(torch.zeros(0, 2, 3)).isnan().all()
    assert temporal.dyn_unc(torch.zeros(0, 2)).isnan().all()
    assert temporal.dual(torch.zeros(0, 2)).isnan().all()
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: temporal.tdds(logits, 2), ValueError, "window: got 2"),
        (lambda: temporal.tdds(logits, 3, 0.0), ValueError, "decay: got 0"),
        (lambda: temporal.tdds(logits[0]), ValueError, r"logits: got shape \(2, 3\), expected \[T, N, C\]"),
        (lambda: temporal.tdds(logits.long()), TypeError, "logits: got torch.int64"),
        (lambda: temporal.tdds([0.0]), TypeError, "logits: got list"),
        (lambda: temporal.tdds(logits / 0), ValueError, "logits: got 8 presentations without a softmax"),
        (lambda: temporal.tdds(logits[..., :0]), ValueError, "at least one class"),
        (lambda: temporal.dyn_unc(p, 2), ValueError, "window: got 2"),
        (lambda: temporal.dyn_unc(logits), ValueError, r"expected \[T, N\]"),
        (lambda: temporal.dyn_unc(p * 3), ValueError, "p_label: got values from 1.5 to 1.5, expected probabilities"),
        (lambda: temporal.dyn_unc(-p), ValueError, "p_label: got values from -0.5"),
        (lambda: temporal.dyn_unc(p * torch.nan), ValueError, "8 values that are not finite"),
        (lambda: temporal.dual(p, 2), ValueError, "window: got 2"),
        (lambda: temporal.dual(logits), ValueError, r"expected \[T, N\]"),
        (lambda: temporal.dual(p * 3), ValueError, "p_label: got values from 1.5 to 1.5, expected probabilities"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()


def test_dual_is_high_for_what_is_hard_and_moves_and_0_for_what_does_not_move() -> None:
    moving = torch.tensor([0.1, 0.3]).repeat(8)
    p = torch.stack([moving, 1 - moving, torch.zeros(16), torch.ones(16)], 1)
    hard, easy, never, always = temporal.dual(p).tolist()
    assert hard == pytest.approx(0.8 * temporal.dyn_unc(p)[0].item())
    assert easy == pytest.approx(0.2 * temporal.dyn_unc(p)[1].item())
    assert never == always == 0


def test_trajectories_in_memory_have_every_score_of_the_logits() -> None:
    g = seeded(2)
    logits, labels = torch.randn(12, 5, 3, generator=g), torch.randint(3, (5,), generator=g)
    names = dp.score_names("loss", "logits")
    tracker = dp.DifficultyTracker(5, names)
    for step in logits:
        tracker.update(torch.arange(5), step, labels)
    got = dp.scores.trajectory_scores(logits, labels)
    assert set(got) == set(names)
    assert_scores(got, tracker.compute())
    with pytest.raises(ValueError, match="names: 'vog' needs more than logits"):
        dp.scores.trajectory_scores(logits, labels, ("vog",))
    with pytest.raises(ValueError, match=r"got logits \(5, 3\)"):
        dp.scores.trajectory_scores(logits[0], labels)
    logits[2, 0, labels[0] - 1] = -math.inf  # a masked class
    assert all(score.isfinite().all() for score in dp.scores.trajectory_scores(logits, labels).values())
    logits[3, 2, 1] = math.nan
    with pytest.raises(ValueError, match="the losses of 1 of 60 presentations are not finite"):
        dp.scores.trajectory_scores(logits, labels)
