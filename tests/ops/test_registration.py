"""The operators are registered as PyTorch asks: fakes, autograd, inference mode."""

from __future__ import annotations

import pytest
import torch
from operator_inputs import (
    GRADIENT_DTYPES,
    LOGIT_DTYPES,
    M2_DTYPES,
    Moments,
    close,
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
from difficulty_prune.ops.layout import FIELD

# Every operator under opcheck


# opcheck reads .grad of the tensors that it derives from the arguments, and PyTorch warns of that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_softmax_stats(dtype, requires_grad: bool) -> None:
    logits = random_logits(6, 5, dtype).requires_grad_(requires_grad)
    torch.library.opcheck(kernels.softmax_stats.default, (logits, random_labels(6, 5)))


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
def test_opcheck_record_stats(dtype) -> None:
    index = torch.tensor([0, 3, 3, 1, 0, 2])
    arguments = (ops.new_table(4), index, random_logits(6, 5, dtype), labels_of(index, 5), ops.new_skipped())
    torch.library.opcheck(kernels.record_stats_.default, arguments)


def test_opcheck_record_given_stats() -> None:
    index = torch.tensor([0, 3, 3, ops.PADDING, 0, 2])
    labels = labels_of(index, 5)
    stats = ops.softmax_stats(random_logits(6, 5), labels)
    arguments = (ops.new_table(4), index, stats, labels, 5, ops.new_skipped())
    torch.library.opcheck(kernels.record_given_stats_.default, arguments)


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("classes", [None, 5])
@pytest.mark.parametrize("records", [None, ops.new_table(4)])
def test_opcheck_record_temporal(dtype, classes: int | None, records: Tensor | None) -> None:
    table, index = ops.new_temporal_table(4, 3, classes), torch.tensor([0, 3, 3, 1, 0, 3])
    arguments = (table, index, random_logits(6, 5, dtype), labels_of(index, 5), 3, 0.9, ops.new_skipped(), records)
    torch.library.opcheck(kernels.record_temporal_.default, arguments)


@pytest.mark.parametrize("records", [None, ops.new_table(4)])
def test_opcheck_record_dual(records: Tensor | None) -> None:
    sums, table, index = torch.zeros(4), ops.new_temporal_table(4, 3), torch.tensor([0, 3, 3, 1, -1, 3])
    arguments = (sums, table, index, random_logits(6, 5), labels_of(index, 5), 3, records)
    torch.library.opcheck(kernels.record_dual_.default, arguments)


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("m2_dtype", M2_DTYPES)
@pytest.mark.parametrize("scale", [None, torch.tensor([1.0, 0.0, 2.5])])
@pytest.mark.parametrize("pixels", [None, torch.tensor([3, 0, 19])])
def test_opcheck_record_gradients(dtype, m2_dtype, scale, pixels) -> None:
    m = Moments(4, 20 if pixels is None else 3, m2_dtype)
    gradients = random_gradients(3, 3, 4, 5, dtype=dtype)
    arguments = (m.count, m.mean, m.m2, torch.tensor([2, 0, 2]), gradients, scale, pixels, m.skipped)
    torch.library.opcheck(kernels.record_gradients_.default, arguments)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("m2_dtype", M2_DTYPES)
@pytest.mark.parametrize("other_dtype", M2_DTYPES)
def test_opcheck_merge_moments(m2_dtype, other_dtype) -> None:
    m, other = Moments(4, 20, m2_dtype), Moments(4, 20, other_dtype)
    for state in (m, other):
        state.add(ops.record_gradients_, torch.tensor([2, 0, 2]), random_gradients(3, 1, 20))
    arguments = (m.count, m.mean, m.m2, other.count, other.mean, other.m2)
    torch.library.opcheck(kernels.merge_moments_.default, arguments)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2, 2, 1, 1, 0])], ids=["alike", "weighted"])
def test_opcheck_reduce_probabilities(dtype, weight: Tensor | None) -> None:
    owner = torch.tensor([0, 2, ops.PADDING, 1, 9, 0])
    torch.library.opcheck(kernels.reduce_probabilities.default, (random_logits(6, 5, dtype), 3, owner, weight))


@pytest.mark.parametrize("dtype", M2_DTYPES)
def test_opcheck_record_means(dtype) -> None:
    state = torch.zeros(4, dtype=torch.int32), torch.zeros(4, 5, dtype=dtype)
    index, used = torch.tensor([0, 3, 3, 9, 0, -1]), torch.tensor([True, True, False, True, True, True])
    torch.library.opcheck(kernels.record_means_.default, (*state, index, random_logits(6, 5).softmax(1), used))


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("statistic", ["std", "variance"])
def test_opcheck_gradient_variance(dtype, statistic: str) -> None:
    gradients = random_gradients(3, 2, 3, 4, 5, dtype=dtype)
    torch.library.opcheck(kernels.gradient_variance.default, (gradients, statistic))


def test_the_kernels_are_compiled_and_serve_the_cpu() -> None:
    """Without them the rest of this file would compare the reference with itself."""
    assert ops.missing_kernels() is None
    recorders = ("record_stats_", "record_given_stats_", "record_temporal_", "record_gradients_")
    for name in ("softmax_stats", *recorders, "merge_moments_", "gradient_variance"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"difficulty_prune::{name}", "CPU")


# Autograd


@pytest.mark.parametrize("namespace", [kernels, reference, ops])
def test_statistics_of_logits_in_a_graph_carry_no_gradient_and_leave_the_loss_alone(namespace) -> None:
    weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    x, labels, index = torch.eye(4), torch.tensor([2, 4, 2, 0]), torch.tensor([1, 0, 1, 2])
    table, skipped = ops.new_table(3), ops.new_skipped()

    logits = x @ weight
    stats = namespace.softmax_stats(logits, labels)
    namespace.record_stats_(table, index, logits, labels, skipped)
    assert not stats.requires_grad
    assert not table.requires_grad
    assert table[:, FIELD["count"]].tolist() == [1, 2, 1]

    torch.nn.functional.cross_entropy(logits, labels).backward()
    expected = weight.detach().clone().requires_grad_()
    torch.nn.functional.cross_entropy(x @ expected, labels).backward()
    identical(weight.grad, expected.grad)


@pytest.mark.parametrize("namespace", [kernels, reference, ops])
def test_gradients_that_are_in_a_graph_themselves_are_recorded_without_it(namespace) -> None:
    """A second-order method (create_graph=True) hands over gradients that require grad."""
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    m = Moments(2, 4).add(namespace.record_gradients_, torch.tensor([0, 1]), gradient)
    assert not m.mean.requires_grad
    assert not namespace.gradient_variance(gradient[None]).requires_grad
    close(m.mean, (3 * x**2).mean(1).detach())
    gradient.sum().backward()
    close(x.grad, 6 * x.detach())


def test_losses_in_a_graph_are_recorded_without_it() -> None:
    """Else the table would keep the graph of every training step alive."""
    table = ops.new_table(2)
    ops.record_losses_(table, torch.tensor([1]), torch.ones(1, requires_grad=True) * 2)
    assert not table.requires_grad
    assert table[1, FIELD["loss"]].item() == 2.0


def test_losses_of_padding_are_passed_over() -> None:
    table, skipped = ops.new_table(2), ops.new_skipped()
    ops.record_losses_(
        table, torch.tensor([1, ops.PADDING, 1]), torch.tensor([1.0, torch.nan, 2.0]), skipped, padding=True
    )
    assert table[:, : FIELD["loss"] + 1].tolist() == [[0, 0], [2, 3]]
    assert not skipped.any()


def test_operators_run_under_inference_mode() -> None:
    table, skipped, m = ops.new_table(3), ops.new_skipped(), Moments(3, 4)
    logits, labels, index = random_logits(4, 5), torch.tensor([0, 4, 4, 2]), torch.tensor([0, 2, 2, 1])
    gradients = random_gradients(4, 2, 4)
    with torch.inference_mode():
        stats = ops.softmax_stats(logits.clone(), labels)
        ops.record_stats_(table, index, logits.clone(), labels, skipped)
        m.add(ops.record_gradients_, index, gradients.clone())
        variance = ops.gradient_variance(gradients.clone()[None])
    close(stats, reference.softmax_stats(logits, labels))
    assert table[:, FIELD["count"]].tolist() == [1, 1, 2]
    assert m.count.tolist() == [1, 1, 2]
    identical(variance, torch.zeros(4))
