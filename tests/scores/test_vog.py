"""Variance of Gradients: the number itself, of stacked gradients and recorded one after another."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from gradient_problem import GRADIENT_DTYPES, INPUT, PIXELS, N, close, feed, identical, observations, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import difficulty_prune as dp
from difficulty_prune import ops
from difficulty_prune.tracker.moments import GradientMoments

pytestmark = pytest.mark.usefixtures("one_thread")


@st.composite
def stacked_gradients(draw) -> Tensor:
    """[K, B, C, ...] of any dtype, order of magnitude, mean, and order in memory."""
    shape = draw(st.lists(st.integers(1, 5), min_size=3, max_size=6))
    order = draw(st.permutations(range(len(shape))))
    dtype = draw(st.sampled_from(GRADIENT_DTYPES))
    size, shift = draw(st.sampled_from((1e-3, 1.0, 30.0))), draw(st.sampled_from((0.0, 1.0, -50.0)))
    step = draw(st.sampled_from((1, 2)))
    wide = [size * step for size in shape]
    values = torch.randn([wide[d] for d in order], generator=seeded(draw(st.integers(0, 2**31))), dtype=torch.float64)
    values = (values * size + shift).to(dtype).permute([order.index(d) for d in range(len(shape))])
    return values[tuple(slice(None, None, step) for _ in shape)]


@settings(max_examples=200)
@given(stacked_gradients(), st.booleans())
def test_gradient_variance_equals_its_definition_in_float64(gradients: Tensor, contiguous: bool) -> None:
    g = gradients.double().numpy()
    expected = torch.tensor([oracle.vog(list(g[:, b])) for b in range(g.shape[1])], dtype=torch.float64)
    got = ops.gradient_variance(gradients.contiguous() if contiguous else gradients)
    # A deviation far below the values has no digits left in the float64 definition either.
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-13 * float(np.abs(g).max() + 1))


def test_the_variance_statistic_is_the_mean_of_the_squared_deviations() -> None:
    gradients = torch.randn(5, 3, 3, 4, 4, generator=seeded(0), dtype=torch.float64)
    variance = gradients.mean(2).var(0, correction=0).flatten(1).mean(1)
    close(ops.gradient_variance(gradients, "variance"), variance)


def test_the_order_of_mean_and_deviation_is_the_papers() -> None:
    """Channels are averaged with their sign, deviations have ddof 0, and the mean over pixels comes last."""
    first, second = torch.tensor([[0.0, 0.0], [2.0, 8.0]]), torch.tensor([[4.0, 0.0], [2.0, -8.0]])  # [C, P]
    # channel means: (1, 4) and (3, -4); deviations: (1, 4); mean over pixels: 2.5
    assert ops.gradient_variance(torch.stack([first, second])[:, None]).tolist() == [2.5]
    moments = GradientMoments(1, 2, torch.device("cpu"))
    moments.record(torch.tensor([0, 0]), torch.stack([first, second]))
    assert moments.vog().tolist() == [2.5]


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("seed", range(3))
def test_recording_gradients_in_any_order_and_batches_equals_the_oracle(dtype, seed: int) -> None:
    index, gradients = observations(dtype, seed)
    expected = torch.from_numpy(oracle.vog_scores(N, zip(index.tolist(), gradients.double().numpy(), strict=True)))
    order = torch.randperm(60, generator=seeded(seed + 2))
    for batches in [order[None], order.split(1), order.split(7), torch.arange(60).split(16)]:
        moments = GradientMoments(N, PIXELS, torch.device("cpu"))
        tracker = dp.DifficultyTracker(N, ("vog_loss",))
        for batch in batches:
            moments.record(index[batch], gradients[batch])
            feed(tracker, index[batch], gradients[batch])
        close(moments.vog(), expected)
        close(tracker.compute()["vog_loss"], expected)
        assert tracker.presentations == 60


@pytest.mark.parametrize("seed", range(3))
def test_recording_equals_gradient_variance_of_the_same_gradients(seed: int) -> None:
    gradients = torch.randn(6, N, *INPUT, generator=seeded(seed))
    moments = GradientMoments(N, PIXELS, torch.device("cpu"))
    for checkpoint in gradients:
        order = torch.randperm(N, generator=seeded(seed))
        moments.record(order, checkpoint[order])
    close(moments.vog(), ops.gradient_variance(gradients))


def test_one_observation_has_no_variance_and_none_is_nan() -> None:
    moments = GradientMoments(3, 4, torch.device("cpu"))
    moments.record(torch.tensor([0]), 1e6 * torch.randn(1, 3, 4, generator=seeded(0)))
    identical(moments.vog(), torch.tensor([0.0, torch.nan, torch.nan]))
