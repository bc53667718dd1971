"""Gradients from the training step's own backward pass."""

from __future__ import annotations

import warnings

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from gradient_problem import (
    PIXELS,
    TARGETS,
    N,
    as_signal,
    close,
    feed,
    identical,
    new_data,
    new_model,
    one_by_one,
    recorded,
    seeded,
    training,
)

import difficulty_prune as dp

pytestmark = pytest.mark.usefixtures("one_thread")


EXAMPLES = torch.tensor([6, 2, 5, 0, 7, 1])  # the batch's examples, which are not its positions
WEIGHTS = torch.tensor([0.5, 3.0, 1.0, 0.0, 0.1, 7.0])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scaler", [None, torch.amp.GradScaler("cpu", init_scale=1024)], ids=["", "scaled"])
@pytest.mark.parametrize("batch", [1, 2, 6])
def test_watch_records_the_gradient_of_each_examples_own_loss(reduction, weighted, scaler, batch: int) -> None:
    model, (x, y), index = new_model(), new_data(), EXAMPLES[:batch]
    weight = WEIGHTS[:batch] if weighted else None
    tracker = dp.DifficultyTracker(N, ("vog_loss",))

    watched = tracker.watch(x[index], index, weight=weight, reduction=reduction, scaler=scaler)
    loss = F.cross_entropy(model(watched), y[index], reduction="none")
    loss = loss if weight is None else loss * weight
    loss = loss.mean() if reduction == "mean" else loss.sum()
    (loss if scaler is None else scaler.scale(loss)).backward()

    shown = index if weight is None else index[weight != 0]
    count = torch.zeros(N, dtype=torch.int32)
    count[shown] = 1
    identical(recorded(tracker)["count"], count)
    expected = torch.zeros(N, PIXELS)
    expected[shown] = as_signal(one_by_one(model, "vog_loss", x[shown], y[shown])).float()
    close(recorded(tracker)["mean"], expected)
    score = tracker.compute()["vog_loss"]
    identical(score, torch.where(count == 1, 0.0, torch.nan))


def test_a_disabled_scaler_scales_nothing() -> None:
    tracker = dp.DifficultyTracker(1, ("vog_loss",))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    x = tracker.watch(torch.zeros(1, 1, 3), torch.tensor([0]), scaler=scaler)
    scaler.scale((2 * x).sum()).backward()
    identical(recorded(tracker)["mean"], torch.full((1, 3), 2.0))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_vog_loss_of_a_training_run_equals_the_oracle(reduction: str) -> None:
    """Neither batch size, nor weights, nor a loss scale that grows on the way may change the score."""
    x, y = new_data()
    tracker = dp.DifficultyTracker(N, ("vog_loss",))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024, growth_interval=2)
    gradients: list[tuple[int, np.ndarray]] = []
    for model, index, weight, optimizer in training():
        gradients += zip(
            index.tolist(), [g.numpy() for g in one_by_one(model, "vog_loss", x[index], y[index])], strict=True
        )
        watched = tracker.watch(x[index], index, weight=weight, reduction=reduction, scaler=scaler)
        loss = F.cross_entropy(model(watched), y[index], reduction="none") * weight
        scaler.scale(loss.mean() if reduction == "mean" else loss.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() > 1024
    score = tracker.compute()["vog_loss"]
    torch.testing.assert_close(
        score.double(), torch.from_numpy(oracle.vog_scores(N, gradients)), rtol=3e-6, atol=1e-8, equal_nan=True
    )
    assert (score[:-1] > 0).all()


def test_watch_leaves_no_gradient_behind_and_training_alone() -> None:
    model, (x, y) = new_model(), new_data()
    tracker = dp.DifficultyTracker(N, ("vog_loss",))
    watched = tracker.watch(x, torch.arange(N))
    identical(watched, x)
    F.cross_entropy(model(watched), y).backward()
    assert x.grad is None
    assert not x.requires_grad
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns whoever asks for .grad of a tensor that is not a leaf
        assert watched.grad is None
    for node, _ in watched.grad_fn.next_functions:  # nor does a hidden leaf hold memory of the size of the batch
        assert node is None or node.variable.grad is None

    plain = new_model()
    F.cross_entropy(plain(x), y).backward()
    for got, expected in zip(model.parameters(), plain.parameters(), strict=True):
        identical(got.grad, expected.grad)


def test_gradients_still_flow_to_inputs_that_require_them() -> None:
    model, (x, y) = new_model(), new_data()
    tracker = dp.DifficultyTracker(N, ("vog_loss",))
    leaf, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    F.cross_entropy(model(tracker.watch(leaf, torch.arange(N))), y).backward()
    F.cross_entropy(model(plain), y).backward()
    identical(leaf.grad, plain.grad)
    close(recorded(tracker)["mean"], as_signal(one_by_one(model, "vog_loss", x, y)))


def test_gradients_still_flow_to_what_the_inputs_were_computed_from() -> None:
    """Embeddings are watched where the inputs are integers; their table must go on learning."""
    tokens, table = torch.tensor([[1, 0, 2], [2, 2, 1]]), torch.randn(3, 4, generator=seeded(0)).requires_grad_()
    g = torch.randn(2, 3, 4, generator=seeded(1))
    tracker = dp.DifficultyTracker(2, ("vog_loss",))
    embedded = tracker.watch(F.embedding(tokens, table), torch.arange(2), reduction="sum")
    (embedded * g).sum().backward()
    close(table.grad, torch.zeros(3, 4).index_add_(0, tokens.flatten(), g.flatten(0, 1)))
    close(recorded(tracker)["mean"], g.mean(1))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_watch_without_gradients_returns_the_inputs(mode) -> None:
    """An evaluation pass in between is no step, also where only every second step is recorded."""
    tracker = dp.DifficultyTracker(2, ("vog_loss",), gradient=dp.GradientOptions(every=2))
    x, index = torch.randn(2, 3, 4, generator=seeded(0)), torch.arange(2)
    with mode():
        assert tracker.watch(x, index) is x
    assert tracker.state_dict()["moments"] == {}
    feed(tracker, index, torch.ones(2, 3, 4))
    assert recorded(tracker)["count"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("requires_grad", "given_to_update"), [(False, "watched"), (True, "watched"), (True, "original")]
)
def test_watch_and_update_do_not_disturb_each_other(requires_grad: bool, given_to_update: str) -> None:
    """The extra backward passes of `update` must not be taken for the training step's own."""
    model, (x, y), index = new_model(), new_data(), torch.arange(N)
    tracker = dp.DifficultyTracker(N, ("vog", "vog_probability", "vog_loss", "el2n"))
    inputs = x.clone().requires_grad_(requires_grad)
    watched = tracker.watch(inputs, index)
    logits = model(watched)
    # float64 is what the models of this file compute in, and more than logit scores take.
    tracker.update(index, logits.float(), y, inputs=watched if given_to_update == "watched" else inputs)
    F.cross_entropy(logits, y).backward()

    for score in TARGETS:
        assert recorded(tracker, score)["count"].tolist() == [1] * N, score
        expected = as_signal(one_by_one(model, score, x, y))
        torch.testing.assert_close(recorded(tracker, score)["mean"].double(), expected, rtol=1e-5, atol=1e-7)
    plain = new_model()
    F.cross_entropy(plain(x), y).backward()
    for got, wanted in zip(model.parameters(), plain.parameters(), strict=True):
        identical(got.grad, wanted.grad)


def test_watch_needs_the_score_that_it_serves() -> None:
    with pytest.raises(ValueError, match="vog_loss"):
        dp.DifficultyTracker(2, ("vog",)).watch(torch.zeros(2, 3), torch.arange(2))


def test_gradients_that_are_not_finite_are_left_out_counted_and_reported() -> None:
    tracker = dp.DifficultyTracker(3, ("vog_loss",))
    gradients = torch.randn(3, 2, 4, generator=seeded(0))
    feed(tracker, torch.arange(3), gradients)
    overflowed = gradients.clone()
    overflowed[1, 0, 2] = torch.inf
    feed(tracker, torch.arange(3), overflowed + 1)
    with pytest.raises(ValueError, match="1 x not finite"):
        tracker.compute()
    close(tracker.compute(allow_skipped=True)["vog_loss"], torch.tensor([0.5, 0.0, 0.5]), atol=1e-6)


def test_a_step_that_overflows_under_a_scaler_is_left_out_and_no_fault():
    """The scaler provokes such steps and leaves them out of the training; without a scaler they are reported."""
    for scaler in (torch.amp.GradScaler("cpu", init_scale=3e38), None):
        tracker = dp.DifficultyTracker(1, scores=("vog_loss",))
        for factor in (1.0, 100.0):
            x = tracker.watch(torch.ones(1, 1, 2, 2), torch.tensor([0]), scaler=scaler, reduction="sum")
            loss = x.sum() * factor
            (scaler.scale(loss) if scaler else loss * torch.inf).backward()
        if scaler:
            assert tracker.compute()["vog_loss"].tolist() == [0.0]
        else:
            with pytest.raises(ValueError, match="2 x not finite"):
                tracker.compute()


def test_watched_inputs_that_the_model_never_got_are_reported():
    tracker = dp.DifficultyTracker(2, scores=("el2n", "vog_loss"))
    x = torch.randn(2, 1, 2, 2)
    tracker.watch(x, torch.arange(2))
    tracker.update(torch.arange(2), x.flatten(1), torch.tensor([0, 1]))
    with pytest.raises(RuntimeError, match=r"no gradient arrived.*give that x to the model"):
        tracker.compute()
