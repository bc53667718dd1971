"""`watch` undoes how the loss was made: of a frozen model the gradient never moves, whatever the batches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import difficulty_prune as dp

N, C = 12, 3
GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(N, 1, 4, 4, generator=GENERATOR), torch.arange(N) % C
CLASS_WEIGHTS = torch.tensor([1.0, 5.0, 0.5])
IGNORED = torch.where(Y == 2, -100, Y)


def frozen_model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, C))


def mean(z: Tensor, i: Tensor) -> Tensor:
    return F.cross_entropy(z, Y[i])


def total(z: Tensor, i: Tensor) -> Tensor:
    return F.cross_entropy(z, Y[i], reduction="sum")


def class_weighted(z: Tensor, i: Tensor) -> Tensor:
    return F.cross_entropy(z, Y[i], weight=CLASS_WEIGHTS)


def ignoring(z: Tensor, i: Tensor) -> Tensor:
    return F.cross_entropy(z, IGNORED[i])


def accumulated(z: Tensor, i: Tensor) -> Tensor:
    return F.cross_entropy(z, Y[i]) / 4


WAYS = {
    "mean": (mean, lambda i: {}),
    "sum": (total, lambda i: {"reduction": "sum"}),
    "class weights": (class_weighted, lambda i: {"weight": CLASS_WEIGHTS[Y[i]], "reduction": "weighted_mean"}),
    "ignored": (ignoring, lambda i: {"weight": (IGNORED[i] >= 0).float(), "reduction": "weighted_mean"}),
    "accumulation": (accumulated, lambda i: {"accumulation_steps": 4}),
}


@pytest.mark.parametrize("way", WAYS)
@given(seed=st.integers(0, 2**16), size=st.integers(3, N))
def test_a_frozen_model_has_a_vog_of_zero_however_the_loss_is_made(way: str, seed: int, size: int) -> None:
    loss, said = WAYS[way]
    tracker, model = dp.DifficultyTracker(N, ("vog_loss",)), frozen_model()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        for i in torch.randperm(N, generator=generator).split(size):
            if way == "ignored" and bool((IGNORED[i] < 0).all()):
                continue  # the mean of nothing
            loss(model(tracker.watch(X[i], i, **said(i))), i).backward()
    vog = tracker.compute()["vog_loss"]
    without_loss = IGNORED < 0 if way == "ignored" else torch.zeros(N, dtype=torch.bool)
    assert torch.equal(vog.isnan(), without_loss)  # an example without a loss is not presented
    assert float(vog[~without_loss].max()) < 1e-6


def test_accumulation_gives_the_score_of_training_without_it() -> None:
    """Four micro-batches whose losses are divided by four, against the same gradients undivided."""
    scores = []
    for steps in (1, 4):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, C))
        tracker = dp.DifficultyTracker(N, ("vog_loss",))
        for epoch in range(3):
            for i in torch.arange(N).split(3):
                z = model(tracker.watch(X[i], i, accumulation_steps=steps))
                (F.cross_entropy(z, Y[i]) / steps).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * (epoch + 1) * steps / 4 * p.grad
                    p.grad = None
        scores.append(tracker.compute()["vog_loss"])
    torch.testing.assert_close(*scores)
    assert scores[0].min() > 0


def test_vog_beside_vog_loss_with_every_second_step() -> None:
    """On a step that is passed over, `watch` hands back the inputs as they are, which `update` must not complain of."""
    tracker = dp.DifficultyTracker(N, ("vog", "vog_loss"), gradient=dp.GradientOptions(every=2))
    model = frozen_model()
    for _ in range(4):
        x = tracker.watch(X, torch.arange(N))
        logits = model(x)
        tracker.update(torch.arange(N), logits, Y, inputs=x)
        F.cross_entropy(logits, Y).backward()
    state = tracker.state_dict()["moments"]
    assert state["vog"]["count"].tolist() == [2] * N
    assert state["vog_loss"]["count"].tolist() == [2] * N


def test_passes_that_are_not_the_steps_own_are_paused() -> None:
    tracker, model = dp.DifficultyTracker(N, ("vog_loss",)), frozen_model()
    leaf = X.clone().requires_grad_()
    logits = model(tracker.watch(leaf, torch.arange(N)))
    with tracker.paused():
        torch.autograd.grad(logits.max(1).values.sum(), leaf, retain_graph=True)
    F.cross_entropy(logits, Y).backward()
    assert tracker.presentations == N
