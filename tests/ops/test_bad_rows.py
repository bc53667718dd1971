"""Rows that cannot be recorded are left out, counted, and harm nothing."""

from __future__ import annotations

import pytest
import torch
from operator_inputs import (
    LOGIT_DTYPES,
    Moments,
    close,
    kernels,
    labels_of,
    random_gradients,
    random_labels,
    random_logits,
)

from difficulty_prune import ops
from difficulty_prune.ops import reference

WILD_INDICES = [-1, 5, -(2**63), 2**63 - 1, 2**31, -5]


@pytest.mark.parametrize("operator", [kernels.record_stats_, reference.record_stats_])
def test_bad_rows_of_logits_are_left_out_counted_and_harm_nothing(operator) -> None:
    surroundings = torch.full((9, 16), 7.0)  # the table lies in the middle: a row too far would show
    table = surroundings[2:7]
    table.zero_()
    skipped = torch.tensor([100, 200, 300, 400])

    bad = len(WILD_INDICES)
    index = torch.tensor([0, *WILD_INDICES, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, -1])
    rows = len(index)
    logits, labels = random_logits(rows, 3), labels_of(index, 3)
    labels[bad + 1 : bad + 5] = torch.tensor([-1, 3, 2**62, -(2**62)])
    logits[bad + 5, 0], logits[bad + 6, 2] = torch.nan, torch.inf
    logits[bad + 7, labels[bad + 7]], logits[bad + 8] = -torch.inf, -torch.inf
    labels[-3] = (labels[-3] + 1) % 3
    logits[-2], labels[-2] = torch.nan, labels[-3]
    labels[-1] = -1  # a bad index and a bad label: one reason is enough
    operator(table, index, logits, labels, skipped)

    assert skipped.tolist() == [100 + bad + 1, 200 + 4, 300 + 5, 400 + 1]
    expected = ops.new_table(5)
    good = torch.tensor([0, rows - 4])
    reference.record_stats_(expected, index[good], logits[good], labels[good], ops.new_skipped())
    close(table, expected)
    assert (surroundings[:2] == 7).all()
    assert (surroundings[7:] == 7).all()


@pytest.mark.parametrize("operator", [kernels.record_gradients_, reference.record_gradients_])
def test_bad_rows_of_gradients_are_left_out_counted_and_harm_nothing(operator) -> None:
    around_count = torch.full((9,), 7, dtype=torch.int32)
    around_mean, around_m2 = torch.full((9, 4), 7.0), torch.full((9, 4), 7.0)
    state = [around_count[2:7], around_mean[2:7], around_m2[2:7]]
    for tensor in state:
        tensor.zero_()
    skipped = torch.tensor([100, 200, 300, 400])

    index = torch.tensor([0, *WILD_INDICES, 1, 1, 2, 2, 3])
    gradients = random_gradients(len(index), 2, 4)
    gradients[[-2, -3, -4, -5], [0, 1, 0, 1], [0, 3, 2, 1]] = torch.tensor(
        [torch.nan, torch.inf, -torch.inf, torch.nan]
    )
    operator(*state, index, gradients, None, None, skipped)

    assert skipped.tolist() == [100 + len(WILD_INDICES), 200, 300 + 4, 400]
    assert state[0].tolist() == [1, 0, 0, 1, 0]
    close(state[1][[0, 3]], gradients[[0, -1]].mean(1))
    assert not state[1][[1, 2, 4]].any()
    assert not state[2].any()
    for surroundings in (around_count, around_mean, around_m2):
        assert (surroundings[[0, 1, 7, 8]] == 7).all()


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("function", [kernels.softmax_stats, reference.softmax_stats])
@pytest.mark.parametrize("classes", [3, 50])
def test_statistics_of_bad_rows_are_nan_and_others_are_not(dtype, function, classes: int) -> None:
    logits, labels = random_logits(9, classes, dtype), random_labels(9, classes)
    for row, (column, value) in enumerate([(0, torch.nan), (-1, torch.inf), (labels[2], -torch.inf), (2, torch.nan)]):
        logits[row, column] = value
    labels[4:7] = torch.tensor([-1, classes, 2**62])
    stats = function(logits, labels)
    assert stats[:7].isnan().all()
    assert stats[7:].isfinite().all()


@pytest.mark.parametrize("function", [kernels.softmax_stats, reference.softmax_stats])
@pytest.mark.parametrize("position", range(34))
def test_a_value_that_is_not_finite_is_noticed_at_every_position(function, position: int) -> None:
    for bad, label in ((torch.nan, 17), (torch.inf, 17), (torch.nan, position), (torch.inf, position)):
        logits = torch.zeros(1, 34)
        logits[0, position] = bad
        assert function(logits, torch.tensor([label])).isnan().all()


@pytest.mark.parametrize("position", range(34))
def test_a_gradient_that_is_not_finite_is_noticed_at_every_position(position: int) -> None:
    for bad in (torch.nan, torch.inf, -torch.inf):
        gradients = torch.zeros(1, 2, 34)
        gradients[0, 1, position] = bad
        m = Moments(1, 34).add(kernels.record_gradients_, torch.tensor([0]), gradients)
        assert m.skipped.tolist() == [0, 0, 1, 0]
        assert not m.count.any()


@pytest.mark.parametrize("operator", [kernels.record_gradients_, reference.record_gradients_])
def test_rows_of_scale_zero_are_passed_over_and_others_are_scaled(operator) -> None:
    gradients = random_gradients(5, 2, 4)
    gradients[1] = torch.nan  # nothing arrived for it: not even worth counting
    scale = torch.tensor([2.0, 0.0, -0.5, 0.0, 64.0])
    m = Moments(4, 4).add(operator, torch.tensor([0, 0, 1, 2, 3]), gradients, scale)
    assert m.count.tolist() == [1, 1, 0, 1]
    assert not m.skipped.any()
    close(m.mean[[0, 1, 3]], (gradients * scale[:, None, None]).mean(1)[[0, 2, 4]])


def test_a_scale_that_is_not_finite_is_counted() -> None:
    scale = torch.tensor([torch.nan, torch.inf, 1.0])
    m = Moments(3, 4).add(kernels.record_gradients_, torch.arange(3), random_gradients(3, 2, 4), scale)
    assert m.count.tolist() == [0, 0, 1]
    assert m.skipped.tolist() == [0, 0, 2, 0]
