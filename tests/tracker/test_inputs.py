"""Gradients by one extra backward pass to the inputs, and which of them are recorded."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from gradient_problem import (
    N,
    close,
    feed,
    new_data,
    one_by_one,
    recorded,
    seeded,
    training,
)

import difficulty_prune as dp

pytestmark = pytest.mark.usefixtures("one_thread")


# By one extra backward pass


@pytest.mark.parametrize("scores", [("vog",), ("vog_probability",), ("vog_probability", "vog", "el2n")])
def test_update_with_inputs_equals_the_loop_over_a_training_run(scores: tuple[str, ...]) -> None:
    x, y = new_data()
    tracker = dp.DifficultyTracker(N, scores)
    gradients: dict[str, list[tuple[int, np.ndarray]]] = {name: [] for name in scores if name.startswith("vog")}
    for model, index, _, optimizer in training():
        for score, seen in gradients.items():
            loop = one_by_one(model, score, x[index], y[index])
            seen += zip(index.tolist(), [g.numpy() for g in loop], strict=True)
        batch = x[index].requires_grad_()
        logits = model(batch)
        tracker.update(index, logits.float(), y[index], inputs=batch)
        assert batch.grad is None
        F.cross_entropy(logits, y[index]).backward()
        optimizer.step()
    for score, seen in gradients.items():
        expected = torch.from_numpy(oracle.vog_scores(N, seen))
        got = tracker.compute()[score]
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-8, equal_nan=True)
        assert (got[:-1] > 0).all()


def test_update_without_inputs_says_which_scores_need_them() -> None:
    tracker = dp.DifficultyTracker(2, ("vog", "el2n"))
    with pytest.raises(ValueError, match="vog"):
        tracker.update(torch.arange(2), torch.zeros(2, 3), torch.zeros(2).long())


def test_inputs_that_the_logits_do_not_depend_on_are_refused() -> None:
    tracker, index, y = dp.DifficultyTracker(2, ("vog",)), torch.arange(2), torch.zeros(2).long()
    x, weight = torch.zeros(2, 3), torch.zeros(3, 4, requires_grad=True)
    with pytest.raises(ValueError, match="depend"):
        tracker.update(index, x @ weight, y, inputs=x)
    with pytest.raises(ValueError, match="depend"):
        tracker.update(index, x @ weight, y, inputs=torch.zeros(2, 3, requires_grad=True))


def test_a_gradient_score_that_never_got_a_gradient_says_so() -> None:
    tracker = dp.DifficultyTracker(2, ("el2n", "vog_loss"))
    tracker.update(torch.arange(2), torch.zeros(2, 3), torch.zeros(2).long())
    with pytest.raises(RuntimeError, match=r"vog_loss: no gradient arrived; call x = tracker\.watch"):
        tracker.compute()


# Options


def test_every_second_step_is_recorded_from_the_first_on() -> None:
    tracker = dp.DifficultyTracker(2, ("vog_loss", "vog"), gradient=dp.GradientOptions(every=2))
    index, y = torch.arange(2), torch.tensor([0, 1])
    gradients = torch.randn(5, 2, 3, 4, generator=seeded(0))
    for step in range(5):
        x = tracker.watch(torch.zeros(2, 3, 4).requires_grad_(), index, reduction="sum")
        logits = (x * gradients[step]).sum((1, 2))[:, None] * torch.tensor([1.0, -2.0])
        tracker.update(index, logits, y, inputs=x)
        (logits.sum(1) * -1).sum().backward()
    signal = gradients[::2].double().mean(2)
    for score, factor in (("vog_loss", torch.ones(2)), ("vog", torch.tensor([1.0, 2.0]))):
        assert recorded(tracker, score)["count"].tolist() == [3, 3]
        torch.testing.assert_close(
            tracker.compute()[score].double(), signal.std(0, correction=0).mean(1) * factor, rtol=1e-5, atol=0
        )


@pytest.mark.parametrize(
    ("channel_dim", "shape", "channels_at", "pixels"),
    [(1, (3, 4, 5), 0, 20), (None, (3, 4, 5), None, 60), (3, (4, 5, 3), 2, 20), (2, (7, 3), 1, 7), (1, (6,), None, 6)],
)
def test_where_channels_are(channel_dim, shape: tuple[int, ...], channels_at: int | None, pixels: int) -> None:
    """[B, C, ...], no channels, channels last, tokens x features, and plain vectors, which have no channels."""
    gradients = torch.randn(4, 5, *shape, generator=seeded(0))
    tracker = dp.DifficultyTracker(5, ("vog_loss",), gradient=dp.GradientOptions(channel_dim=channel_dim))
    for step in gradients:
        feed(tracker, torch.arange(5), step)
    assert recorded(tracker)["mean"].shape == (5, pixels)
    signal = gradients.double() if channels_at is None else gradients.double().mean(channels_at + 2)
    close(tracker.compute()["vog_loss"], signal.std(0, correction=0).flatten(1).mean(1))


def test_a_channel_dimension_that_the_input_lacks_is_refused() -> None:
    tracker = dp.DifficultyTracker(2, ("vog_loss",), gradient=dp.GradientOptions(channel_dim=3))
    with pytest.raises(ValueError, match=r"channel_dim: got 3.*\(2, 3, 4\)"):
        tracker.watch(torch.zeros(2, 3, 4), torch.arange(2))


def test_update_with_inputs_after_the_backward_pass_says_when_to_call_it():
    tracker = dp.DifficultyTracker(2, scores=("vog",))
    x = torch.randn(2, 1, 2, 2, requires_grad=True)
    logits = (x * x).flatten(1)
    logits.sum().backward()
    with pytest.raises(RuntimeError, match=r"before loss\.backward"):
        tracker.update(torch.arange(2), logits, torch.tensor([0, 1]), inputs=x)
