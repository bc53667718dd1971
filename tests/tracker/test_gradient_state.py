"""Trackers of gradients are merged, saved and resumed."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from gradient_problem import (
    INPUT,
    N,
    close,
    feed,
    identical,
    new_data,
    new_model,
    observations,
    seeded,
)
from torch import Tensor, nn

import difficulty_prune as dp
from difficulty_prune import ops

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_trackers_of_two_processes_merge_to_that_of_one() -> None:
    """Each process sees its half of every batch, as under distributed data parallel training."""
    x, y = new_data()
    scores = ("vog_loss", "vog", "el2n")
    one, *both = (dp.DifficultyTracker(N, scores) for _ in range(3))

    def step(tracker: dp.DifficultyTracker, model: nn.Module, index: Tensor) -> None:
        watched = tracker.watch(x[index], index)
        logits = model(watched)
        tracker.update(index, logits.float(), y[index], inputs=watched)
        F.cross_entropy(logits, y[index]).backward()

    for number in range(6):
        model = new_model(number)
        index = torch.randperm(N - 1, generator=seeded(number))[:6]
        step(one, model, index)
        for rank, tracker in enumerate(both):
            step(tracker, model, index[rank::2])
    first, second = both
    first.merge(second)
    assert first.presentations == one.presentations == 36
    expected = one.compute()
    for name, score in first.compute().items():
        torch.testing.assert_close(score, expected[name], rtol=3e-6, atol=1e-8, equal_nan=True, msg=name)
        assert score[-1].isnan()


@pytest.mark.parametrize("empty", ["first", "second"])
def test_merging_with_a_tracker_that_saw_no_gradient(empty: str) -> None:
    index, gradients = observations(torch.float32, 0)
    trackers = {name: dp.DifficultyTracker(N, ("vog_loss",)) for name in ("first", "second")}
    full = trackers["second" if empty == "first" else "first"]
    feed(full, index, gradients)
    before = full.compute()["vog_loss"]
    trackers["first"].merge(trackers["second"])
    merged = trackers["first"].compute()["vog_loss"]
    identical(merged, before)
    feed(trackers["first"], index, gradients + 1)  # its own state, not the other tracker's
    if empty == "first":
        identical(full.compute()["vog_loss"], before)


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3])
def test_a_tracker_of_gradients_goes_on_from_a_saved_state(stop_after: int) -> None:
    """Also the position within `every` is part of the state."""
    options = dp.GradientOptions(every=2)
    gradients = torch.randn(6, N, *INPUT, generator=seeded(0))

    def new() -> dp.DifficultyTracker:
        return dp.DifficultyTracker(N, ("vog_loss",), gradient=options)

    never_stopped, stopped, resumed = new(), new(), new()
    for step in range(6):
        feed(never_stopped, torch.arange(N), gradients[step])
        feed(stopped if step < stop_after else resumed, torch.arange(N), gradients[step])
        if step + 1 == stop_after:
            file = io.BytesIO()
            torch.save(stopped.state_dict(), file)
            file.seek(0)
            resumed.load_state_dict(torch.load(file, weights_only=True))
    identical(resumed.compute()["vog_loss"], never_stopped.compute()["vog_loss"])
    close(resumed.compute()["vog_loss"], ops.gradient_variance(gradients[::2]))
