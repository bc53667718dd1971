"""Variance of Gradients at checkpoints, and of a model that does not change."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from gradient_problem import (
    TARGETS,
    N,
    identical,
    new_data,
    new_model,
    one_by_one,
    recorded,
    seeded,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

pytestmark = pytest.mark.usefixtures("one_thread")


# A frozen model


def test_a_frozen_model_has_no_variance() -> None:
    model, (x, y) = new_model(), new_data()
    tracker = dp.DifficultyTracker(N, ("vog", "vog_probability", "vog_loss"))
    for _ in range(5):
        watched = tracker.watch(x, torch.arange(N))
        logits = model(watched)
        tracker.update(torch.arange(N), logits.float(), y, inputs=watched)
        F.cross_entropy(logits, y).backward()
    for name, score in tracker.compute().items():
        identical(score, torch.zeros(N), msg=name)


def test_a_frozen_model_has_no_variance_at_checkpoints_or_in_other_batches() -> None:
    """Other batches round differently; what is left must be nothing beside the gradient itself."""
    model, (x, y) = new_model(), new_data()
    tracker = dp.DifficultyTracker(N, ("vog", "vog_probability", "vog_loss"))
    for seed in range(4):
        batches = torch.randperm(N, generator=seeded(seed)).split(seed + 1)
        loader = [(x[batch], y[batch], batch) for batch in batches]
        dp.score_checkpoint(nn.Sequential(model, ToFloat()), loader, tracker)
    for name, score in tracker.compute().items():
        size = recorded(tracker, name)["mean"].abs().mean()
        assert float(score.max()) < 1e-6 * float(size), name


class ToFloat(nn.Module):
    """The last layer of a float64 model that gives float32 logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


# At checkpoints


class Indexed(nn.Module):
    """A model with every mode-dependent layer, whose modes are mixed as fine-tuning leaves them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.body = new_model(seed, norm=True)
        self.head = ToFloat()
        self.train()
        self.body[1].eval()  # batch norm kept frozen

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def checkpoints(count: int = 3) -> list[Indexed]:
    models = [Indexed(seed) for seed in range(count)]
    for seed, model in enumerate(models):
        model.body[1].running_mean.copy_(torch.randn(4, generator=seeded(seed)))
        model.body[1].running_var.copy_(torch.rand(4, generator=seeded(seed)) + 0.5)
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, float(number)) if number % 2 else None
    return models


def loader_of(x: Tensor, y: Tensor, seed: int, batch_size: int = 3) -> DataLoader:
    data = dp.IndexedDataset(TensorDataset(x, y))
    return DataLoader(data, batch_size=batch_size, shuffle=True, generator=seeded(seed))


def test_score_checkpoint_equals_the_oracle_over_three_checkpoints() -> None:
    x, y = new_data()
    scores = ("vog", "el2n", "vog_probability", "vog_loss", "aum")
    tracker = dp.DifficultyTracker(N, scores)
    gradients: dict[str, list[tuple[int, np.ndarray]]] = {score: [] for score in TARGETS}
    logits: list[tuple[int, np.ndarray, int]] = []
    for seed, model in enumerate(checkpoints()):
        before = [(m, m.training) for m in model.modules()]
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        dp.score_checkpoint(model, loader_of(x, y, seed), tracker)

        assert [(m, m.training) for m in model.modules()] == before
        for name, value in model.state_dict().items():
            identical(value, kept[name])
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            assert parameter.requires_grad
            assert (parameter.grad is None) == (grad is None)
            if grad is not None:
                identical(parameter.grad, grad)

        model.eval()
        for score, seen in gradients.items():
            seen += enumerate(g.numpy() for g in one_by_one(model.body, score, x, y))
        logits += zip(range(N), model(x).detach().double().numpy(), y.tolist(), strict=True)

    got = tracker.compute()
    assert tuple(got) == scores
    for score, seen in gradients.items():
        expected = torch.from_numpy(oracle.vog_scores(N, seen))
        torch.testing.assert_close(got[score].double(), expected, rtol=1e-5, atol=1e-8)
    of_logits = oracle.logit_scores(N, logits)
    for score in ("el2n", "aum"):
        torch.testing.assert_close(got[score].double(), torch.from_numpy(of_logits[score]), rtol=1e-5, atol=1e-6)


def test_score_checkpoint_works_without_gradients_around_it_and_with_frozen_parameters() -> None:
    x, y = new_data()
    plain, unusual = dp.DifficultyTracker(N, ("vog",)), dp.DifficultyTracker(N, ("vog",))
    for model in checkpoints():
        dp.score_checkpoint(model, loader_of(x, y, 0), plain)
        model.requires_grad_(False)
        with torch.no_grad():
            dp.score_checkpoint(model, loader_of(x, y, 0), unusual)
            assert not torch.is_grad_enabled()
    identical(unusual.compute()["vog"], plain.compute()["vog"])
    assert (plain.compute()["vog"] > 0).all()


def test_score_checkpoint_takes_mappings_and_leaves_the_batch_alone() -> None:
    x, y = new_data()
    (model,) = checkpoints(1)
    batch = {"input": x, "label": y, "index": torch.arange(N)}
    of_mappings, of_tuples = dp.DifficultyTracker(N, ("el2n", "vog")), dp.DifficultyTracker(N, ("el2n", "vog"))
    dp.score_checkpoint(model, [batch], of_mappings)
    dp.score_checkpoint(model, [(x, y, torch.arange(N))], of_tuples)
    assert not x.requires_grad
    assert x.grad is None
    identical(of_mappings.compute()["el2n"], of_tuples.compute()["el2n"])
    identical(recorded(of_mappings, "vog")["mean"], recorded(of_tuples, "vog")["mean"])


def test_score_checkpoint_restores_the_modes_after_a_failure() -> None:
    x, y = new_data()
    (model,) = checkpoints(1)
    before = [m.training for m in model.modules()]
    with pytest.raises(ValueError, match="IndexedDataset"):
        dp.score_checkpoint(model, [(x, y, torch.arange(N)), (x, y)], dp.DifficultyTracker(N, ("vog",)))
    assert [m.training for m in model.modules()] == before
