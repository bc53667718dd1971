"""A presentation with another label than the example's earlier ones is left out and counted: against a Python loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import LOGIT_DTYPES, identical, kernels, random_logits
from torch import Tensor

from difficulty_prune import ops
from difficulty_prune.ops import reference
from difficulty_prune.ops.layout import FIELD

NAMESPACES = [kernels, reference]
EXAMPLES, CLASSES = 5, 3


@dataclass
class Loop:
    """What the rule makes of presentations, one after the other."""

    label: dict[int, int] = field(default_factory=dict)
    count: list[int] = field(default_factory=lambda: [0] * EXAMPLES)
    skipped: list[int] = field(default_factory=lambda: [0] * len(ops.SKIPPED))
    kept: list[int] = field(default_factory=list)

    def present(self, row: int, index: int, label: int, is_finite: bool) -> None:
        """Without a label where it is -1: a loss alone."""
        if not 0 <= index < EXAMPLES:
            self.skipped[0] += 1
        elif not is_finite:
            self.skipped[2] += 1
        elif label >= 0 and self.label.get(index, label) != label:
            self.skipped[3] += 1
        else:
            self.count[index] += 1
            self.kept.append(row)
            if label >= 0:
                self.label[index] = label


@st.composite
def batches(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Batches of rows in which labels change now and then; a few rows cannot be recorded for another reason."""
    row = st.tuples(
        st.integers(-1, EXAMPLES), st.integers(0, CLASSES - 1) | st.none(), st.sampled_from((True, True, True, False))
    )
    found = []
    for rows in draw(st.lists(st.lists(row, min_size=1, max_size=40), min_size=1, max_size=3)):
        labels = [index % CLASSES if label is None else label for index, label, _ in rows]
        found.append(
            {
                "index": torch.tensor([index for index, _, _ in rows]),
                "labels": torch.tensor(labels),
                "finite": [good for _, _, good in rows],
                "losses": draw(st.integers(0, 4)) == 0,  # of a batch without logits
            }
        )
    return found


def logits_of(batch: dict[str, Any], classes: int, dtype: torch.dtype, seed: int) -> Tensor:
    logits = random_logits(len(batch["index"]), classes, dtype, seed=seed)
    logits[~torch.tensor(batch["finite"]), 0] = torch.nan
    return logits


@pytest.mark.parametrize("namespace", NAMESPACES)
@settings(max_examples=100)
@given(batches(), st.sampled_from(LOGIT_DTYPES), st.sampled_from((CLASSES, 40)))
def test_records_keep_the_first_label(namespace, batches: list[dict[str, Any]], dtype, classes: int) -> None:
    """The records are those of the presentations that are kept, bit for bit, and so are those of statistics."""
    table, given, expected = (ops.new_table(EXAMPLES) for _ in range(3))
    skipped, skipped_given = ops.new_skipped(), ops.new_skipped()
    loop = Loop()
    for seed, batch in enumerate(batches):
        index, labels = batch["index"], batch["labels"]
        loop.kept.clear()
        for row, (i, label, good) in enumerate(zip(index.tolist(), labels.tolist(), batch["finite"], strict=True)):
            loop.present(row, i, -1 if batch["losses"] else label, good)
        kept = torch.tensor(loop.kept, dtype=torch.int64)
        if batch["losses"]:
            loss = torch.where(torch.tensor(batch["finite"]), torch.rand(len(index)), torch.nan)
            inside = index.clamp(-1, EXAMPLES - 1).where(index < EXAMPLES, -1)
            for recorded, counters in ((table, skipped), (given, skipped_given)):
                ops.record_losses_(recorded, inside, loss, counters, padding=True)
                counters[0] += (inside < 0).sum()
            ops.record_losses_(expected, index[kept], loss[kept])
            continue
        logits = logits_of(batch, classes, dtype, seed)
        namespace.record_stats_(table, index, logits, labels, skipped)
        index_given = index.where(index >= 0, EXAMPLES)  # -1 is padding here
        stats = namespace.softmax_stats(logits, labels)
        namespace.record_given_stats_(given, index_given, stats, labels, classes, skipped_given)
        namespace.record_stats_(expected, index[kept], logits[kept], labels[kept], ops.new_skipped())
    assert skipped.tolist() == skipped_given.tolist() == loop.skipped
    assert table[:, FIELD["count"]].tolist() == loop.count
    for example, label in loop.label.items():
        assert table[example, FIELD["label"]].item() == label
    identical(table, expected)
    identical(given, expected)


@pytest.mark.parametrize("namespace", NAMESPACES)
@settings(max_examples=100)
@given(batches(), st.sampled_from(LOGIT_DTYPES), st.sampled_from((None, CLASSES)))
def test_windows_beside_records_hold_the_same_presentations(
    namespace, batches: list[dict[str, Any]], dtype, changes: int | None
) -> None:
    records = ops.new_table(EXAMPLES)
    windows, expected = (ops.new_temporal_table(EXAMPLES, 3, changes) for _ in range(2))
    skipped, loop = ops.new_skipped(), Loop()
    for seed, batch in enumerate(batches):
        index, labels, logits = batch["index"], batch["labels"], logits_of(batch, CLASSES, dtype, seed)
        loop.kept.clear()
        for row, (i, label, good) in enumerate(zip(index.tolist(), labels.tolist(), batch["finite"], strict=True)):
            loop.present(row, i, label, good)
        kept = torch.tensor(loop.kept, dtype=torch.int64)
        namespace.record_stats_(records, index, logits, labels, ops.new_skipped())
        before = records.clone()
        namespace.record_temporal_(windows, index, logits, labels, 3, 0.9, skipped, records)
        identical(records, before)
        namespace.record_temporal_(expected, index[kept], logits[kept], labels[kept], 3, 0.9, ops.new_skipped())
    assert skipped.tolist() == loop.skipped
    assert windows[:, 0].tolist() == loop.count
    identical(windows, expected)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_negative_label_stays_and_is_not_compared(namespace) -> None:
    table, windows, skipped = ops.new_table(3), ops.new_temporal_table(3, 3), ops.new_skipped()
    table[:2, FIELD["label"]] = -1
    index, labels = torch.tensor([0, 0, 1, 0, 1, 2, 2]), torch.tensor([0, 1, 2, 2, 0, 1, 0])
    for _ in range(2):
        logits = random_logits(7, 3)
        namespace.record_stats_(table, index, logits, labels, skipped)
        namespace.record_temporal_(windows, index, logits, labels, 3, 0.9, skipped, table)
    assert table[:, FIELD["count"]].tolist() == windows[:, 0].tolist() == [6, 4, 2]
    assert table[:, FIELD["label"]].tolist() == [-1, -1, 1]
    assert skipped.tolist() == [0, 0, 0, 4]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_loss_alone_neither_has_a_label_nor_changes_one(namespace) -> None:
    table, skipped = ops.new_table(2), ops.new_skipped()
    index, label = torch.tensor([0]), torch.tensor([2])
    ops.record_losses_(table, torch.tensor([0, 1]), torch.tensor([0.5, 0.5]), skipped)
    namespace.record_stats_(table, index, torch.zeros(1, 3), label, skipped)
    ops.record_losses_(table, torch.tensor([0, 1]), torch.tensor([0.5, 0.5]), skipped)
    namespace.record_stats_(table, index, torch.zeros(1, 3), label, skipped)
    assert table[:, FIELD["count"]].tolist() == [4, 2]
    assert table[:, FIELD["label"]].tolist() == [2, 0]
    assert not skipped.any()
    namespace.record_stats_(table, index, torch.zeros(1, 3), label - 1, skipped)
    assert skipped.tolist() == [0, 0, 0, 1]


def test_a_row_that_is_not_finite_gives_an_example_no_label() -> None:
    table, skipped = ops.new_table(1), ops.new_skipped()
    logits = torch.tensor([[torch.nan, 0.0], [0.0, 0.0], [0.0, 0.0]])
    ops.record_stats_(table, torch.zeros(3).long(), logits, torch.tensor([0, 1, 0]), skipped)
    assert skipped.tolist() == [0, 0, 1, 1]
    assert table[0, FIELD["label"]].item() == 1
