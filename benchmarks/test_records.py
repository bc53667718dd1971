"""The statistics of the logits, and the update of each example's record."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from comparison import Compare, Target
from torch import Tensor

import difficulty_prune as dp
from difficulty_prune import ops
from difficulty_prune.bench import eager
from difficulty_prune.ops import reference

EXAMPLES = 50_000
Batch = tuple[Tensor, Tensor, Tensor]


class Workload:
    """Batches of a given size and number of classes."""

    def __init__(self, size: int, classes: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self._index = torch.randperm(EXAMPLES, generator=generator).split(size)[:-1]
        self._logits = [3 * torch.randn(size, classes, generator=generator) for _ in range(4)]
        labels = torch.randint(classes, (EXAMPLES,), generator=generator)
        self._labels = [labels[index] for index in self._index]
        self._name = f"record_stats_, all logit scores, B {size}, C {classes}"

    def __str__(self) -> str:
        return self._name

    def batches(self) -> Iterator[Batch]:
        """An endless stream of index [B] without duplicates, logits [B, C] and labels [B]."""
        return zip(itertools.cycle(self._index), itertools.cycle(self._logits), itertools.cycle(self._labels))

    def ours(self) -> Callable[[], None]:
        table, skipped, batches = ops.new_table(EXAMPLES), ops.new_skipped(), self.batches()
        return lambda: ops.record_stats_(table, *next(batches), skipped)

    def theirs(self, stats_of: eager.Stats) -> Callable[[], None]:
        table, batches = ops.new_table(EXAMPLES), self.batches()
        return lambda: eager.record_stats_(table, *next(batches), stats_of)


ARITHMETIC = """
  Eager PyTorch takes about twelve times as long as its own softmax. Every kernel must compute at least one exponential
  per logit, and ours takes less time in total than logits.exp() alone: see these two rows."""


@pytest.mark.parametrize(("size", "classes", "faster"), [(256, 10, 10), (256, 1000, 60), (1024, 100, 10)])
def test_eager(compare: Compare, size: int, classes: int, faster: float) -> None:
    load = Workload(size, classes)
    assert_same_records(load, eager.softmax_stats)
    target, note = Target(faster=faster), ARITHMETIC if classes == 1000 else ""
    compare(str(load), "eager PyTorch", load.ours(), load.theirs(eager.softmax_stats), target, note=note)


@pytest.mark.parametrize(("size", "classes"), [(256, 10), (256, 1000), (1024, 100)])
def test_tuned_eager(compare: Compare, size: int, classes: int) -> None:
    load = Workload(size, classes)
    assert_same_records(load, eager.tuned_softmax_stats)
    compare(str(load), "eager PyTorch, tuned by hand", load.ours(), load.theirs(eager.tuned_softmax_stats))


@pytest.mark.parametrize(("size", "classes"), [(256, 10), (256, 1000), (1024, 100)])
def test_reference(compare: Compare, size: int, classes: int) -> None:
    load = Workload(size, classes)
    table, skipped, batches = ops.new_table(EXAMPLES), ops.new_skipped(), load.batches()
    against = "dp.reference, written to be read"
    compare(str(load), against, load.ours(), lambda: reference.record_stats_(table, *next(batches), skipped))


def assert_same_records(load: Workload, stats_of: eager.Stats) -> None:
    """Presents the same examples four times, so that every column of the record matters."""
    ours, theirs = ops.new_table(EXAMPLES), ops.new_table(EXAMPLES)
    batches = load.batches()
    index, _, labels = next(batches)
    for _, logits, _ in itertools.islice(batches, 4):
        ops.record_stats_(ours, index, logits, labels)
        eager.record_stats_(theirs, index, logits, labels, stats_of)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_softmax(compare: Compare) -> None:
    load = Workload(256, 1000)
    batches = load.batches()
    compare(str(load), "logits.softmax(1) alone", load.ours(), lambda: next(batches)[1].softmax(1), Target(slower=0.7))


def test_exponential(compare: Compare) -> None:
    """The lower bound for wide rows: one exponential per logit, and nothing else."""
    load = Workload(256, 1000)
    batches = load.batches()
    compare(str(load), "logits.exp() alone", load.ours(), lambda: next(batches)[1].exp())


def test_update(compare: Compare) -> None:
    """What a training step calls, against the operator that does the work; one thread, as in a busy training."""
    load = Workload(256, 10)
    tracker = dp.DifficultyTracker(EXAMPLES, scores=("el2n", "aum"))
    table, skipped, batches = ops.new_table(EXAMPLES), ops.new_skipped(), load.batches()
    operator = torch.ops.difficulty_prune.record_stats_
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        compare(
            "tracker.update, all logit scores, B 256, C 10, one thread",
            "its operator alone",
            lambda: tracker.update(*next(batches)),
            lambda: operator(table, *next(batches), skipped),
            Target(slower=1.3),
        )
    finally:
        torch.set_num_threads(threads)


def test_aum(compare: Compare, tmp_path: Path) -> None:
    aum = pytest.importorskip("aum", reason="aum is not installed")
    load = Workload(256, 10)
    calculator = aum.AUMCalculator(str(tmp_path))
    # It keys its sums by Python numbers; converting the index to them is not counted against it.
    batches = [(logits, labels, index.tolist()) for index, logits, labels in itertools.islice(load.batches(), 64)]
    ring = itertools.cycle(batches)
    against = "aum: AUMCalculator.update, one score"
    compare(str(load), against, load.ours(), lambda: calculator.update(*next(ring)), Target(faster=50))


def test_datacull(compare: Compare, tmp_path: Path) -> None:
    datacull = pytest.importorskip("datacull", reason="datacull is not installed")
    load = Workload(256, 10)
    logger, batches = datacull.DCLogger(trajectory_dir=f"{tmp_path}/"), load.batches()

    def log() -> None:
        index, logits, _ = next(batches)
        logger.log_metric(0, index, logits)

    compare(str(load), "datacull: DCLogger.log_metric", load.ours(), log, Target(faster=100))
