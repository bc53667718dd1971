"""GraNd against one backward pass per example: laws, refusals and warnings."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from grand_models import CLASSES, B, Of, classes, close, grand, images, made, one_by_one
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning"),  # untrained models
    pytest.mark.usefixtures("one_thread"),
]


# Laws


def small() -> nn.Module:
    return made(
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(True), nn.Flatten(), nn.Linear(12, 3))
    )


@settings(max_examples=20)
@given(st.permutations(range(6)), st.integers(1, 6))
def test_batches_and_order_change_nothing(order: list[int], size: int) -> None:
    model, x, y = small(), images(6, 2, 4, 4), classes(6)
    whole = grand(model, x, y)
    parts = [grand(model, x[part], y[part]) for part in torch.tensor(order).split(size)]
    close(torch.cat(parts), whole[torch.tensor(order)])


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(reduction=r) for r in ("none", "mean", "sum")])
@pytest.mark.parametrize("rows", [1, B])
def test_the_reduction_of_the_loss_does_not_matter(loss: nn.Module, rows: int) -> None:
    model, x, y = small(), images(rows, 2, 4, 4), classes(rows)
    close(grand(model, x, y, loss), grand(model, x, y))


def test_any_loss_and_any_labels() -> None:
    model, x, y = small(), images(B, 2, 4, 4), images(B, CLASSES)
    close(grand(model, x, y, F.mse_loss), one_by_one(model, x, y, F.mse_loss))


def count(module: nn.Module, args: tuple[Tensor, ...]) -> None:
    module.seen.add_(1)


def test_nothing_is_touched() -> None:
    model, x, y = small(), images(B, 2, 4, 4), classes()
    model[0].bias.requires_grad_(False)
    model[1].register_buffer("seen", torch.zeros(()))
    model[1].register_forward_pre_hook(count)
    model[4].train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = ({k: v.clone() for k, v in model.state_dict().items()}, x.clone(), torch.get_rng_state())
    flags = [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]
    with torch.no_grad():
        got = grand(model, x, y)
        assert not torch.is_grad_enabled()
    assert not got.requires_grad
    torch.testing.assert_close(({**model.state_dict()}, x, torch.get_rng_state()), before, rtol=0, atol=0)
    assert flags == ([p.requires_grad for p in model.parameters()], [m.training for m in model.modules()])
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["0.weight"]
    assert (model[0].weight.grad == 1).all()


def test_autocast_around_it_changes_nothing() -> None:
    model, x, y = small().float(), images(B, 2, 4, 4).float(), classes()
    expected = grand(model, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert grand(model, x, y).equal(expected)


def test_no_examples_have_no_norms() -> None:
    assert grand(small(), images(0, 2, 4, 4), classes(0)).shape == (0,)


# What is refused, and what is warned of


def test_batch_norm_in_training_mode_is_refused() -> None:
    model = small()
    model[1].train()
    seen = int(model[1].num_batches_tracked)
    with pytest.raises(
        ValueError, match=r"batch norm '1' is in training mode, so that the loss .* call model.eval\(\)"
    ):
        grand(model, images(B, 2, 4, 4), classes())
    assert int(model[1].num_batches_tracked) == seen
    model = made(lambda: nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)))
    with pytest.raises(ValueError, match="batch norm '0' has no running statistics"):
        grand(model, images(B, 4), classes())


def test_an_output_that_depends_on_the_others_is_refused() -> None:
    model = made(lambda: Of(lambda m, x: m.f(x - x.mean(0)), f=nn.Linear(4, 3)))
    with pytest.raises(ValueError, match="depends on the others of its batch"):
        grand(model, images(B, 4), classes())


@pytest.mark.parametrize("rows", [1, B])
def test_dropout_is_refused_and_leaves_the_random_state(rows: int) -> None:
    model = made(lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 3))).train()
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"random numbers in its forward pass .* model.eval\(\)"):
        grand(model, images(rows, 4), classes(rows))
    assert torch.get_rng_state().equal(before)
    grand(model.eval(), images(rows, 4), classes(rows))


@pytest.mark.parametrize("draw", [random.random, np.random.rand], ids=["random", "numpy"])
def test_chance_from_other_generators_is_refused(draw: Callable[[], float]) -> None:
    """Such as stochastic depth, whose model forgets to look at its mode."""
    model = made(lambda: Of(lambda m, x: m.f(x) if draw() < 2 else x, f=nn.Linear(4, 3)))
    with pytest.raises(ValueError, match="random numbers in its forward pass"):
        grand(model, images(B, 4), classes())


X4, LINEAR = images(B, 4), nn.Linear(4, 3).double()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((lambda x: x, X4, classes()), TypeError, "model: got function"),
        ((nn.DataParallel(LINEAR), X4, classes()), TypeError, "give model.module"),
        ((LINEAR, X4.numpy(), classes()), TypeError, "inputs: got ndarray"),
        ((LINEAR, X4, [0] * B), TypeError, "labels: got list"),
        ((LINEAR, X4, classes(4)), ValueError, r"5 inputs and labels \(4,\)"),
        ((LINEAR, X4, classes().double()), TypeError, "labels: got torch.float64"),
        ((LINEAR, X4, classes()[:, None]), ValueError, r"labels: got \(5, 1\)"),
        ((LINEAR, X4, torch.tensor([0, 1, 2, 3, 0])), ValueError, r"labels: got 3, expected 0\.\.2"),
        ((LINEAR, X4, torch.tensor([0, 1, 2, -1, 0])), ValueError, r"labels: got -1, expected 0\.\.2"),
        ((LINEAR, X4, classes(), "mse"), ValueError, "loss: got 'mse'"),
        ((LINEAR, X4, classes(), lambda z, y: z), ValueError, r"loss: returned \(5, 3\)"),
        ((nn.Linear(4, 3).requires_grad_(False), X4, classes()), ValueError, "no parameter requires gradients"),
        ((LINEAR, images(B, 2, 4), classes()), ValueError, r"model: returned \(5, 2, 3\)"),
        ((Of(lambda m, x: (m.f(x),), f=LINEAR), X4, classes()), ValueError, "model: returned tuple"),
        ((Of(lambda m, x: m.f(x).mean(0), f=LINEAR), X4, classes()), ValueError, r"model: returned \(3,\)"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        grand(*arguments)


def test_inference_mode_is_refused() -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"leave torch\.inference_mode"):
        grand(LINEAR, X4, classes())


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    x = X4.clone()
    x[3] = math.nan
    with pytest.raises(ValueError, match="got nan for example 3"):
        grand(LINEAR, x, classes())


@pytest.mark.filterwarnings("error")
def test_a_model_no_better_than_chance_is_warned_of_once() -> None:
    model, x = nn.Linear(4, 4).double(), images(B, 4)
    nn.init.zeros_(model.weight)
    y = torch.arange(B) % 4
    with pytest.warns(UserWarning, match="no better than chance. At initialisation") as caught:
        grand(model, x, y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.init.eye_(model.weight)
        grand(model, x, model(x).argmax(1))
