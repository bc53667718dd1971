"""Moments of gradients: of some pixels, with a narrow second moment, merged."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from operator_inputs import (
    GRADIENT_DTYPES,
    M2_DTYPES,
    Moments,
    assert_equal_moments,
    close,
    identical,
    kernels,
    random_gradients,
)

from difficulty_prune import ops
from difficulty_prune.ops import reference


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 40), (4, 33)])
def test_only_the_named_pixels_are_read(dtype, shape: tuple[int, ...]) -> None:
    gradients = random_gradients(6, *shape, dtype=dtype)
    size = gradients[0, 0].numel()
    pixels = torch.randperm(size, generator=torch.Generator().manual_seed(0))[: size // 2]
    unread = torch.ones(size, dtype=torch.bool)
    unread[pixels] = False
    gradients.flatten(2)[:, :, unread] = torch.nan  # a pixel that was read would spoil its row
    index = torch.tensor([4, 0, 4, 1, 4, 1])
    got, expected = Moments(5, len(pixels)), Moments(5, len(pixels))
    got.add(kernels.record_gradients_, index, gradients, None, pixels)
    expected.add(reference.record_gradients_, index, gradients.flatten(2)[:, :, pixels])
    assert_equal_moments(got, expected)
    by_reference = Moments(5, len(pixels)).add(reference.record_gradients_, index, gradients, None, pixels)
    assert_equal_moments(by_reference, expected)


@pytest.mark.parametrize("operator", [kernels.record_gradients_, reference.record_gradients_])
@pytest.mark.parametrize("outside", [-1, 12, 2**40])
def test_a_pixel_that_does_not_exist_leaves_the_row_out(operator, outside: int) -> None:
    pixels = torch.tensor([0, outside])
    m = Moments(3, 2).add(operator, torch.tensor([1]), random_gradients(1, 2, 12), None, pixels)
    assert m.count.tolist() == [0, 0, 0]
    assert m.skipped.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1), (1, 4000)])
def test_narrow_m2_is_rounded_as_the_reference_rounds(dtype, shape: tuple[int, ...]) -> None:
    size = math.prod(shape[1:])
    got, expected = (Moments(5, size, torch.bfloat16) for _ in range(2))
    for step in range(4):
        gradients = random_gradients(6, *shape, dtype=dtype, seed=step)
        index = torch.tensor([4, 0, 4, 1, 4, 1])
        got.add(kernels.record_gradients_, index, gradients)
        expected.add(reference.record_gradients_, index, gradients)
        # The sums before rounding may differ in the last bit, which now and then tips the rounding over.
        same = got.m2 == expected.m2
        assert same.float().mean() > 0.995
        torch.testing.assert_close(got.m2, expected.m2, rtol=2**-7, atol=0)
        got.m2.copy_(expected.m2)
    close(got.mean, expected.mean)
    assert got.count.tolist() == expected.count.tolist()


def test_stochastic_rounding_is_unbiased_where_rounding_to_nearest_stands_still() -> None:
    """A small increment on a large sum: half an ulp of 256 in bfloat16 is 1."""
    pixels, steps = 4096, 200
    m = Moments(1, pixels, torch.bfloat16)
    exact = Moments(1, pixels)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        spread = 30.0 if step < 20 else 1.0
        gradients = spread * torch.randn(1, 1, pixels, generator=generator)
        for state in (m, exact):
            state.add(kernels.record_gradients_, torch.tensor([0]), gradients)
    assert (m.m2.float() / exact.m2).mean().item() == pytest.approx(1, abs=2e-3)
    assert torch.equal(m.mean, exact.mean)


def test_the_random_bits_of_rounding_do_not_depend_on_the_order_of_work() -> None:
    gradients, index = random_gradients(40, 1, 64), torch.arange(40)
    forward = Moments(40, 64, torch.bfloat16).add(kernels.record_gradients_, index, gradients)
    backward = Moments(40, 64, torch.bfloat16).add(kernels.record_gradients_, index.flip(0), gradients.flip(0))
    torch.manual_seed(123)  # no generator takes part
    for _ in range(2):
        gradients = random_gradients(40, 1, 64, seed=9)
        forward.add(kernels.record_gradients_, index, gradients)
        for row in range(39, -1, -1):
            backward.add(kernels.record_gradients_, index[row, None], gradients[row, None])
    assert_equal_moments(forward, backward, compare=identical)


@pytest.mark.parametrize("m2_dtype", M2_DTYPES)
@pytest.mark.parametrize("other_dtype", M2_DTYPES)
@pytest.mark.parametrize("pixels", [1, 7, 64, 1000])
def test_merge_moments_equals_the_reference(m2_dtype, other_dtype, pixels: int) -> None:
    states = []
    for merge in (kernels.merge_moments_, reference.merge_moments_):
        m, other = Moments(6, pixels, m2_dtype), Moments(6, pixels, other_dtype)
        m.add(ops.record_gradients_, torch.tensor([0, 1, 1, 2, 1]), random_gradients(5, 1, pixels))
        other.add(ops.record_gradients_, torch.tensor([1, 3, 1, 2, 2]), 1 + random_gradients(5, 1, pixels, seed=5))
        merge(m.count, m.mean, m.m2, other.count, other.mean, other.m2)
        states.append(m)
    got, expected = states
    assert got.count.tolist() == expected.count.tolist() == [1, 5, 3, 1, 0, 0]
    close(got.mean, expected.mean)
    if m2_dtype == torch.bfloat16:
        torch.testing.assert_close(got.m2, expected.m2, rtol=2**-7, atol=1e-6)
        assert (got.m2 == expected.m2).float().mean() > 0.99
    else:
        torch.testing.assert_close(got.m2, expected.m2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("split", [0, 1, 20, 39, 40])
def test_merging_moments_equals_one_pass(split: int) -> None:
    gradients = 5 + random_gradients(40, 2, 6)
    index = torch.randint(5, (40,), generator=torch.Generator().manual_seed(3))
    index[:20] = index[:20].clamp(max=3)  # example 4 is seen only in the second half, example 5 never
    index[20:] = index[20:].clamp(min=1)
    whole = Moments(6, 6).add(ops.record_gradients_, index, gradients)
    first = Moments(6, 6).add(ops.record_gradients_, index[:split], gradients[:split])
    second = Moments(6, 6).add(ops.record_gradients_, index[split:], gradients[split:])
    ops.merge_moments_(first.count, first.mean, first.m2, second.count, second.mean, second.m2)
    assert first.count.dtype == torch.int32
    assert_equal_moments(first, whole, partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5))
