"""The operators for rows are registered as PyTorch asks, and make nothing as large as the logits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from operator_inputs import LOGIT_DTYPES, close, kernels, random_logits
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import difficulty_prune as dp
from difficulty_prune import ops

# opcheck reads .grad of the tensors that it derives from the arguments, and PyTorch warns of that.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:Warning. Profiler clears events at the end of each cycle"),  # PyTorch 2.10
]
REQUIRES_GRAD = pytest.mark.parametrize("requires_grad", [False, True])


def of_positions(dtype: torch.dtype, requires_grad: bool) -> Tensor:
    """[2, 5, 3, 4], of which the classes are not next to each other."""
    logits = random_logits(24, 5, dtype).view(2, 3, 4, 5).permute(0, 3, 1, 2)
    return logits.detach().requires_grad_(requires_grad)


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("ignored", [None, 3])
@REQUIRES_GRAD
def test_opcheck_softmax_stats(dtype, ignored, requires_grad) -> None:
    labels = torch.arange(24).view(2, 3, 4) % 5
    torch.library.opcheck(kernels.softmax_stats.default, (of_positions(dtype, requires_grad), labels, ignored))


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("counted", [False, True])
@REQUIRES_GRAD
def test_opcheck_soft_stats(dtype, counted, requires_grad) -> None:
    targets = random_logits(24, 5).softmax(1).view(2, 3, 4, 5).movedim(-1, 1)
    counter = torch.zeros(1, dtype=torch.int64) if counted else None
    torch.library.opcheck(kernels.soft_stats.default, (of_positions(dtype, requires_grad), targets, counter))


@pytest.mark.parametrize("label_dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@REQUIRES_GRAD
def test_opcheck_sigmoid_stats(label_dtype, requires_grad) -> None:
    logits = of_positions(torch.float32, requires_grad)
    labels = (torch.arange(120).view(2, 5, 3, 4) % 2).to(label_dtype)
    torch.library.opcheck(kernels.sigmoid_stats.default, (logits, labels, -100))


@pytest.mark.parametrize("owned", [False, True])
@REQUIRES_GRAD
def test_opcheck_reduce_rows(owned, requires_grad) -> None:
    stats = torch.rand(2, 3, 8).requires_grad_(requires_grad)
    row = torch.arange(6).view(2, 3)
    columns = (row % 2, row.float(), row, ops.new_skipped()) if owned else ()
    torch.library.opcheck(kernels.reduce_rows.default, (stats, 2, *columns))


def test_opcheck_records() -> None:
    index, labels = torch.tensor([0, 3, 3, ops.PADDING, 0, 2]), torch.tensor([0, 1, 1, 9, ops.NO_LABEL, 2])
    stats = ops.softmax_stats(random_logits(6, 5), labels.clamp(0, 4))
    arguments = (ops.new_table(4), index, stats, labels, 5, ops.new_skipped(), 0.5, 0.7, ops.new_steps(4))
    torch.library.opcheck(kernels.record_given_stats_.default, arguments)
    logits = random_logits(6, 5)
    index, labels = index.clamp(min=0), index.clamp(min=0)
    arguments = (ops.new_table(4), index, logits, labels, ops.new_skipped(), 3, 0.7, ops.new_steps(4))
    torch.library.opcheck(kernels.record_stats_.default, arguments)


def test_the_kernels_are_compiled_and_serve_the_cpu() -> None:
    for name in ("soft_stats", "sigmoid_stats", "reduce_rows"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"difficulty_prune::{name}", "CPU")


def test_statistics_carry_no_gradient_and_leave_the_loss_alone() -> None:
    weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    share = torch.ones(3, requires_grad=True)
    x, targets = torch.eye(4)[:3], random_logits(3, 5).softmax(1).requires_grad_()
    logits = x @ weight
    soft, binary = ops.soft_stats(logits, targets), ops.sigmoid_stats(logits, (targets > 0.2).float())
    means, _ = ops.reduce_rows(soft, 1, None, share)
    assert not any(values.requires_grad for values in (soft, binary, means))
    torch.nn.functional.cross_entropy(logits, targets).backward()
    assert weight.grad is not None
    assert share.grad is None


def test_operators_run_under_inference_mode() -> None:
    with torch.inference_mode():
        logits, counter = random_logits(6, 4), torch.zeros(1, dtype=torch.int64)
        soft = ops.soft_stats(logits, logits.softmax(1), counter)
        means, labels = ops.reduce_rows(ops.sigmoid_stats(logits, logits > 0), 6)
    close(soft[:, ops.STAT["loss"]], soft[:, ops.STAT["entropy"]])
    assert (means[:, ops.STAT["correct"]] == 1).all()
    assert (labels == ops.NO_LABEL).all()


# Memory

B, CLASSES, LENGTH = 3, 700, 400
ROWS = B * LENGTH


def peak_of(function: Callable[[], object]) -> int:
    """Bytes that were there at once, of those that the function allocated."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        function()
    now = peak = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def text() -> tuple[Tensor, Tensor]:
    """A language model's logits and labels, as the loss takes them."""
    logits = torch.zeros(B, LENGTH, CLASSES).transpose(1, 2)
    labels = torch.arange(ROWS).view(B, LENGTH) % CLASSES
    labels[:, ::7] = -100
    return logits, labels


def packed() -> tuple[Tensor, Tensor, Tensor]:
    logits, labels = text()
    return logits.transpose(1, 2).reshape(ROWS, CLASSES), labels.reshape(ROWS), torch.arange(ROWS) % B


def test_the_measurement_sees_what_is_made_and_what_is_gone() -> None:
    assert 24_000 <= peak_of(lambda: torch.zeros(3000).clone()) < 25_000
    assert 12_000 <= peak_of(lambda: [torch.zeros(3000).sum() for _ in range(5)]) < 13_000


FORMS = ("text", "text, weighted", "half precision", "packed", "probabilities", "binary", "values")


@pytest.mark.parametrize("form", FORMS)
def test_a_step_makes_at_most_64_bytes_for_each_row(form) -> None:
    scores = ("loss", "accuracy") if form == "values" else ("el2n", "forgetting", "variability")
    tracker = dp.DifficultyTracker(9, scores, target="binary" if form == "binary" else "classes")
    index = torch.arange(B)
    logits, labels = text()
    given = {
        "text": {"logits": logits, "labels": labels},
        "text, weighted": {"logits": logits, "labels": labels, "row_weight": torch.ones(B, LENGTH)},
        "half precision": {"logits": logits.bfloat16(), "labels": labels},
        "packed": dict(zip(("logits", "labels", "owner"), packed(), strict=True)),
        "probabilities": {"logits": logits, "labels": (logits.bfloat16() + 1 / CLASSES)},
        "binary": {"logits": logits[:, 0], "labels": torch.where(labels < 0, torch.nan, (labels % 2).float())},
        "values": {"loss": logits[:, 0].reshape(-1), "correct": labels.reshape(-1) > 9, "owner": packed()[2]},
    }[form]

    def step() -> None:
        tracker.update(index, **given)

    step()
    assert peak_of(step) <= 64 * ROWS + 10_000
