"""The statistics of rows of every loss: long rows, pixels, targets that are probabilities, several labels a row."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from comparison import Compare, Target
from torch import Tensor

from difficulty_prune import ops
from difficulty_prune.bench import eager
from difficulty_prune.bench.copy_bandwidth import Copy
from difficulty_prune.ops import STATS, reference

MEMORY = """
  The loss writes all log-probabilities, and reads the logits several times. Ours reads each logit once, and counts no
  other byte."""


def logits_of(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)


def labels_of(classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(1))


def cross_entropy(logits: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    return lambda: F.cross_entropy(logits, labels, reduction="none")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "classes"), [(512, 32_000), (128, 128_256)])
def test_long_rows(compare: Compare, copy: Copy, rows: int, classes: int, dtype: torch.dtype) -> None:
    logits, labels = logits_of(rows, classes, dtype=dtype), labels_of(classes, rows)
    work, against = f"softmax_stats, {rows} rows, C {classes}, {dtype}", "F.cross_entropy alone"
    moved = logits.numel() * logits.element_size()
    ours, theirs = (lambda: ops.softmax_stats(logits, labels)), cross_entropy(logits, labels)
    target = Target(slower=1.0, of_copy=0.6)
    compare(work, against, ours, theirs, target, rounds=20, moved=moved, copy=copy, note=MEMORY)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "classes"), [(512, 32_000), (128, 128_256)])
def test_records_of_long_rows(compare: Compare, rows: int, classes: int, dtype: torch.dtype) -> None:
    logits, labels, index = logits_of(rows, classes, dtype=dtype), labels_of(classes, rows), torch.arange(rows)
    table, skipped = ops.new_table(rows), ops.new_skipped()
    work, against = f"record_stats_, {rows} rows, C {classes}, {dtype}", "F.cross_entropy alone"
    ours = lambda: ops.record_stats_(table, index, logits, labels, skipped)  # noqa: E731
    compare(work, against, ours, cross_entropy(logits, labels), Target(slower=1.0), rounds=20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_segmentation(compare: Compare, dtype: torch.dtype) -> None:
    logits, labels = logits_of(8, 21, 256, 256, dtype=dtype), labels_of(21, 8, 256, 256)
    labels[:, :16] = -100

    def ours() -> tuple[Tensor, Tensor]:
        return ops.reduce_rows(ops.softmax_stats(logits, labels, ignore_index=-100), len(logits))

    work, against = f"softmax_stats, reduce_rows, 8 x 21 x 256 x 256, {dtype}", "F.cross_entropy alone"
    compare(work, against, ours, cross_entropy(logits, labels), Target(slower=1.0), rounds=20)


def eager_soft_stats(logits: Tensor, targets: Tensor) -> Tensor:
    """The eight statistics of rows whose targets are probabilities, as one would write them."""
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    label = targets.argmax(1, keepdim=True)
    top, classes = p.topk(2, 1)
    correct = classes[:, :1] == label
    rival = torch.where(correct, classes[:, 1:], classes[:, :1])
    own, own_p = logits.gather(1, label), p.gather(1, label)
    columns = [
        -(targets * log_p).sum(1),
        (p - targets).norm(dim=1),
        -(p * log_p).sum(1),
        (targets * p).sum(1),
        top[:, 0],
        (own - logits.gather(1, rival))[:, 0],
        (own_p - p.gather(1, rival))[:, 0],
        correct[:, 0].float(),
    ]
    return torch.stack(columns, 1)


def test_soft_targets(compare: Compare) -> None:
    logits, targets = logits_of(256, 1000), logits_of(256, 1000).flip(0).softmax(1)
    torch.testing.assert_close(ops.soft_stats(logits, targets), eager_soft_stats(logits, targets), rtol=1e-4, atol=1e-5)
    ours, theirs = (lambda: ops.soft_stats(logits, targets)), (lambda: eager_soft_stats(logits, targets))
    compare("soft_stats, B 256, C 1000", "eager PyTorch", ours, theirs, Target(faster=5))


def eager_sigmoid_stats(logits: Tensor, labels: Tensor) -> Tensor:
    """The eight statistics of rows of two classes, as one would write them."""
    p = logits.sigmoid()
    label = labels.float()
    p_label = torch.where(labels == 1, p, 1 - p)
    margin = torch.where(labels == 1, logits, -logits)
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    columns = [
        F.binary_cross_entropy_with_logits(logits, label, reduction="none"),
        (p - label).abs() * 2**0.5,
        -(p * log_p + (1 - p) * log_q),
        p_label,
        torch.maximum(p, 1 - p),
        margin,
        2 * p_label - 1,
        torch.where(labels == 1, logits > 0, logits <= 0).float(),  # the lower class wins a tie
    ]
    return torch.stack(columns, -1)


@pytest.mark.parametrize("recorded", [True, False])
def test_multilabel(compare: Compare, recorded: bool) -> None:
    """Of labels that are all known, and of which an example is right where all are."""
    examples, batch, classes = 50_000, 256, 80
    logits, labels = logits_of(batch, classes), labels_of(2, batch, classes)
    batches = itertools.cycle(torch.randperm(examples, generator=torch.Generator().manual_seed(2)).split(batch)[:-1])
    table, theirs_table, skipped = ops.new_table(examples), ops.new_table(examples), ops.new_skipped()
    none = torch.zeros(batch, dtype=torch.int64)
    torch.testing.assert_close(ops.sigmoid_stats(logits, labels), eager_sigmoid_stats(logits, labels))

    def reduced() -> tuple[Tensor, Tensor]:
        return ops.reduce_rows(ops.sigmoid_stats(logits, labels), batch)

    def ours() -> None:
        stats, label = reduced()
        ops.record_given_stats_(table, next(batches), stats, label, 2, skipped)

    def eager_means(logits: Tensor, _: Tensor) -> dict[str, Tensor]:
        means = dict(zip(STATS, eager_sigmoid_stats(logits, labels).mean(1).unbind(1), strict=True))
        return means | {"correct": (means["correct"] == 1).float()}

    if not recorded:
        means = lambda: eager_sigmoid_stats(logits, labels).mean(1)  # noqa: E731
        compare("sigmoid_stats, reduce_rows, 256 x 80", "eager PyTorch", reduced, means)
        return
    work = "sigmoid_stats, reduce_rows, record_given_stats_, 256 x 80"
    theirs = lambda: eager.record_stats_(theirs_table, next(batches), logits, none, eager_means)  # noqa: E731
    compare(work, "eager PyTorch", ours, theirs, Target(faster=5))


def test_softmax_stats(compare: Compare) -> None:
    logits, labels = logits_of(256, 1000), labels_of(1000, 256)
    ours, theirs = (lambda: ops.softmax_stats(logits, labels)), (lambda: reference.softmax_stats(logits, labels))
    compare("softmax_stats, B 256, C 1000", "dp.reference, written to be read", ours, theirs)
