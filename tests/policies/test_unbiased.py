"""The weighted gradient is unbiased: a real network, in float64, and its real gradients."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from drawn import seeded
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.weighted import Importance, SoftPrune

pytestmark = pytest.mark.usefixtures("one_thread")


SIZE, KEPT = 60, 45  # odd, so that two processes leave one example out
EPOCHS = 250
LABELS = torch.repeat_interleave(torch.arange(2), torch.tensor([40, 20]))
INPUTS = torch.randn(SIZE, 4, dtype=torch.float64, generator=seeded(0)) + LABELS[:, None]
INNER = (SoftPrune(keep=0.75), Importance(1.0, keep=0.75))
POLICIES = [*INNER, *(PerClass(policy, quota) for policy in INNER for quota in ("proportional", "equal"))]
every_policy = pytest.mark.parametrize("policy", POLICIES, ids=repr)


def losses(model, index):
    return F.cross_entropy(model(INPUTS[index]), LABELS[index], reduction="none")


def gradient(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).clone()


@pytest.fixture(scope="module")
def model(one_thread):
    """A network that was trained a little, so that some examples are easy and others hard."""
    layers = [nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)]
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(1), dtype=torch.float64) / 2)
    for _ in range(30):
        model.zero_grad()
        losses(model, torch.arange(SIZE)).mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= parameter.grad / 2
    return model


@pytest.fixture(scope="module")
def gradients(model):
    """[N, P]: the gradient of each example's loss, one backward pass each."""
    rows = []
    for i in range(SIZE):
        model.zero_grad()
        losses(model, torch.tensor([i])).sum().backward()
        rows.append(gradient(model))
    return torch.stack(rows)


@pytest.fixture(scope="module")
def difficulty(model):
    return losses(model, torch.arange(SIZE)).detach()


def is_unbiased(estimates, expected):
    """Whether the mean of the estimates [R, P] can be `expected` [P].

    Each coordinate has to be within 4.5 of its standard errors, and all together as near as Hotelling's T squared
    test says, but for one case in a million.
    """
    error = estimates.mean(0) - expected
    standard_error = estimates.std(0) / len(estimates) ** 0.5
    if bool((error.abs() > 4.5 * standard_error + 1e-12).any()):
        return False
    variance, directions = torch.linalg.eigh(estimates.T.cov() / len(estimates))
    varies = variance > 1e-9 * variance[-1]
    squares = (directions.T @ error)[varies] ** 2 / variance[varies]
    count, rank = len(estimates), int(varies.sum())
    statistic = float(squares.sum()) * (count - rank) / (rank * (count - 1))
    return statistic < scipy.stats.f.ppf(1 - 1e-6, rank, count - rank)


def visit(difficulty, *, shares=1, policy, seed):
    """[R, K] of many epochs: what was visited, in order, and its weights; of several processes, one after another."""
    ranks = [
        dp.PruneSampler(policy, difficulty, labels=LABELS, seed=seed, rank=rank, world_size=shares)
        for rank in range(shares)
    ]
    orders, weights = [], []
    for epoch in range(EPOCHS):
        for sampler in ranks:
            sampler.set_epoch(epoch)
            orders.append(torch.tensor([*sampler]))
            weights.append(sampler.weight(orders[-1]).double())
    return torch.stack(orders).view(EPOCHS, -1), torch.stack(weights).view(EPOCHS, -1)


def scaled_mean(gradients, order, weight):
    """[R, P]: keep * (mean of weight * gradient over the visited), keep = K / N."""
    return KEPT / SIZE * (weight[:, :, None] * gradients[order]).mean(1)


@pytest.fixture(scope="module", params=POLICIES, ids=repr)
def visits(request, difficulty):
    return visit(difficulty, policy=request.param, seed=2)


def test_gradients_of_examples_are_those_of_the_whole(model, gradients):
    model.zero_grad()
    losses(model, torch.arange(SIZE)).mean().backward()
    torch.testing.assert_close(gradients.mean(0), gradient(model))
    assert gradients.mean(0).norm() > 1e-2


def test_the_weighted_gradient_is_unbiased(visits, gradients):
    estimates = scaled_mean(gradients, *visits)
    assert estimates.shape == (EPOCHS, gradients.shape[1])
    assert estimates.std(0).max() > 1e-4
    assert is_unbiased(estimates, gradients.mean(0))


def test_without_the_weights_it_is_not_and_the_check_notices(visits, gradients):
    order, weight = visits
    estimates = scaled_mean(gradients, order, torch.ones_like(weight))
    assert not is_unbiased(estimates, gradients.mean(0))
    assert not is_unbiased(estimates * SIZE / KEPT, gradients.mean(0))  # nor is the plain mean of the kept


def test_weights_that_are_off_by_a_fifth_are_noticed(visits, gradients):
    order, weight = visits
    assert not is_unbiased(scaled_mean(gradients, order, 1 + 1.2 * (weight - 1)), gradients.mean(0))


def test_keep_times_the_mean_loss_of_any_micro_batch_is_unbiased(visits, gradients):
    """Also of the last one, which is smaller: the order is random, so that every place holds any kept example."""
    order, weight = visits
    for batch in (slice(0, 16), slice(32, 45)):
        assert is_unbiased(scaled_mean(gradients, order[:, batch], weight[:, batch]), gradients.mean(0))


def test_a_loader_with_gradient_accumulation_gives_the_weighted_gradient_of_the_epoch(model, gradients, difficulty):
    """Micro-batches of any size: the sum of weight * loss over each, divided by the size of the dataset."""
    sampler = dp.PruneSampler(SoftPrune(keep=0.75), difficulty, seed=3)
    loader = DataLoader(dp.IndexedDataset(TensorDataset(INPUTS, LABELS)), batch_size=16, sampler=sampler)
    estimates = []
    for epoch in range(150):
        sampler.set_epoch(epoch)
        model.zero_grad()
        for x, y, index in loader:  # 16, 16 and 13
            loss = F.cross_entropy(model(x), y, reduction="none")
            (sampler.weight(index).double() * loss).sum().div(SIZE).backward()
        index, weight = sampler.plan.index, sampler.plan.weight.double()
        torch.testing.assert_close(gradient(model), weight @ gradients[index] / SIZE)
        estimates.append(gradient(model))
    assert is_unbiased(torch.stack(estimates), gradients.mean(0))


@pytest.mark.parametrize("policy", [SoftPrune(keep=0.75), PerClass(Importance(1.0, keep=0.75), "equal")], ids=repr)
def test_two_processes_together_are_unbiased_although_one_example_is_left_out(policy, difficulty, gradients):
    """keep * (mean over those visited of weight * gradient) is, on average, the mean gradient of the whole dataset.

    Here keep = K / N, of the K = 45 examples of the plan and not of the 44 visited. The example that is left out is
    any of the 45 with the same probability, so that the expected sum over the visited is 44 / 45 of the expected sum
    over the plan, which is the sum of all N gradients; the mean divides by 44, and K / N does the rest. It holds for
    the 44 together, which is also the average of the two processes' means that DistributedDataParallel takes, and for
    either process alone.
    """
    order, weight = visit(difficulty, shares=2, policy=policy, seed=5)
    assert order.shape == (EPOCHS, KEPT - 1)
    assert is_unbiased(scaled_mean(gradients, order, weight), gradients.mean(0))
    assert is_unbiased(scaled_mean(gradients, order[:, KEPT // 2 :], weight[:, KEPT // 2 :]), gradients.mean(0))
    assert not is_unbiased(scaled_mean(gradients, order, torch.ones_like(weight)), gradients.mean(0))
