"""The layout of the arguments in memory does not matter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from operator_inputs import (
    GRADIENT_DTYPES,
    LOGIT_DTYPES,
    Moments,
    assert_equal_moments,
    identical,
    kernels,
    labels_of,
    random_gradients,
    random_labels,
    random_logits,
)
from torch import Tensor

from difficulty_prune import ops
from difficulty_prune.ops import reference
from difficulty_prune.ops.layout import FIELD, STATS

LOGIT_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "row-strided": lambda z: torch.cat([z, torch.full_like(z, torch.nan)], 1)[:, : z.shape[1]],
    "every second row": lambda z: torch.stack([z, torch.full_like(z, torch.nan)], 1)[:, 0],
    "transposed": lambda z: z.t().contiguous().t(),
    "every second column": lambda z: torch.stack([z, torch.full_like(z, torch.nan)], 2)[:, :, 0],
    "offset": lambda z: torch.cat([torch.full_like(z[:, :1], torch.nan), z], 1)[:, 1:],
    "negated lazily": lambda z: torch._neg_view(-z),
}


@pytest.mark.parametrize("layout", LOGIT_LAYOUTS)
@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("classes", [1, 5, 40])
def test_the_layout_of_logits_does_not_matter(layout: str, dtype, classes: int) -> None:
    logits, labels = random_logits(12, classes, dtype), random_labels(12, classes)
    laid_out = LOGIT_LAYOUTS[layout](logits)
    identical(laid_out, logits)
    got, expected = kernels.softmax_stats(laid_out, labels), kernels.softmax_stats(logits, labels)
    if laid_out.stride(1) == 1:
        identical(got, expected)
    else:  # other rows are summed in another order
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)

    index = torch.arange(12).remainder(7)
    tables = [ops.new_table(7), ops.new_table(7)]
    for table, z in zip(tables, (laid_out, logits), strict=True):
        ops.record_stats_(table, index, z, labels_of(index, classes))
    identical(*tables)
    assert tables[0][:, FIELD["count"]].sum() == 12


def test_expanded_logits_and_strided_integers() -> None:
    row, index = random_logits(1, 5), torch.arange(16).remainder(6)
    labels = labels_of(index, 5)
    expected = kernels.softmax_stats(row.repeat(8, 1), labels[::2].contiguous())
    identical(kernels.softmax_stats(row.expand(8, 5), labels[::2]), expected)
    tables = [ops.new_table(6), ops.new_table(6)]
    ops.record_stats_(tables[0], index[::2], row.expand(8, 5), labels[::2])
    ops.record_stats_(tables[1], index[::2].contiguous(), row.repeat(8, 1), labels[::2].contiguous())
    identical(*tables)


def test_strided_statistics() -> None:
    index = torch.arange(16).remainder(6)
    labels = labels_of(index, 5)
    wide = torch.full((17, 9), torch.nan)
    wide[1:, 1:] = kernels.softmax_stats(random_logits(16, 5), labels)
    tables = [ops.new_table(6), ops.new_table(6)]
    ops.record_given_stats_(tables[0], index[::2], wide[1::2, 1:], labels[::2], 5)
    ops.record_given_stats_(tables[1], index[::2].clone(), wide[1::2, 1:].clone(), labels[::2].clone(), 5)
    identical(*tables)
    assert tables[0][:, FIELD["count"]].sum() == 8


def gradient_layouts(dtype: torch.dtype) -> dict[str, Tensor]:
    """Gradients [6, 3, 4, 5] in memory orders that autograd and users produce."""
    g = random_gradients(6, 3, 4, 5, dtype=dtype)
    wide = random_gradients(12, 5, 9, 11, dtype=dtype)
    return {
        "contiguous": g,
        "channels last": g.contiguous(memory_format=torch.channels_last),
        "pixels transposed": g.transpose(2, 3).contiguous().transpose(2, 3),
        "batch last": g.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        "sliced everywhere": wide[::2, 1:4, 2:6, 3:8],
        "every second pixel": wide[:6, :3, 1:9:2, ::2][..., :5],
        "sliced channels": wide.narrow(0, 0, 6)[:, ::2, :4, :5],
        "expanded to pixels": g[:, :, :1, :1].expand(6, 3, 4, 5),
        "expanded to rows of pixels": g[:, :, :1].expand(6, 3, 4, 5),
        "expanded to columns of pixels": g[..., :1].expand(6, 3, 4, 5),
        "expanded to channels": g[:, :1].expand(6, 3, 4, 5),
        "expanded to the batch": g[:1].expand(6, 3, 4, 5),
        "one number": g[0, 0, 0, 0].expand(6, 3, 4, 5),
    }


@pytest.mark.parametrize("layout", gradient_layouts(torch.float32))
@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
def test_the_layout_of_gradients_does_not_matter(layout: str, dtype) -> None:
    gradients = gradient_layouts(dtype)[layout]
    assert gradients.shape == (6, 3, 4, 5)
    index = torch.tensor([3, 1, 3, 0, 2, 3])
    got = Moments(5, 20).add(kernels.record_gradients_, index, gradients)
    expected = Moments(5, 20).add(reference.record_gradients_, index, gradients.contiguous())
    assert_equal_moments(got, expected)

    checkpoints = gradients.unflatten(0, (3, 2))
    for statistic in ("std", "variance"):
        torch.testing.assert_close(
            kernels.gradient_variance(checkpoints, statistic),
            reference.gradient_variance(checkpoints.contiguous(), statistic),
            rtol=1e-6,
            atol=1e-12,
        )


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
def test_permuted_checkpoints_give_the_same_variance(dtype) -> None:
    gradients = random_gradients(4, 6, 3, 5, 7, dtype=dtype)
    expected = kernels.gradient_variance(gradients)
    for order in [(1, 0, 2, 3, 4), (4, 3, 2, 1, 0), (0, 1, 3, 4, 2), (2, 0, 1, 4, 3)]:
        inverse = [order.index(d) for d in range(5)]
        laid_out = gradients.permute(order).contiguous().permute(inverse)
        torch.testing.assert_close(kernels.gradient_variance(laid_out), expected, rtol=1e-6, atol=0)


def test_an_empty_batch_changes_nothing() -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    assert ops.softmax_stats(torch.empty(0, 4), nothing).shape == (0, len(STATS))
    table, skipped = ops.new_table(3), ops.new_skipped()
    ops.record_stats_(table, nothing, torch.empty(0, 4), nothing, skipped)
    ops.record_given_stats_(table, nothing, torch.empty(0, len(STATS)), nothing, 4, skipped)
    m = Moments(3, 6).add(ops.record_gradients_, nothing, torch.empty(0, 2, 6))
    assert ops.gradient_variance(torch.empty(2, 0, 3, 4)).shape == (0,)
    for untouched in (table, skipped, *m.tensors):
        assert not untouched.any()
