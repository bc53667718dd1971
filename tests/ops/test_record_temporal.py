"""The operator that records windows of presentations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch._dynamo as dynamo
from hypothesis import given, settings
from torch import Tensor
from trajectories import ALL, CPU, LOGIT_DTYPES, Trajectory, close, identical, random_trajectory, seeded, trajectories

from difficulty_prune import ops
from difficulty_prune.ops import reference
from difficulty_prune.tracker.windows import TemporalRecords

pytestmark = pytest.mark.usefixtures("one_thread")


kernels = torch.ops.difficulty_prune


@given(trajectories())
@settings(max_examples=60)
def test_the_kernel_equals_the_reference(trajectory: Trajectory) -> None:
    t, options = trajectory, trajectory.options
    got, expected = (ops.new_temporal_table(t.num_examples, options.window, t.logits.shape[1]) for _ in range(2))
    arguments = (t.index, t.logits, t.labels, options.window, options.decay)
    kernels.record_temporal_(got, *arguments, ops.new_skipped())
    reference.record_temporal_(expected, *arguments)
    close(got, expected)


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("classes", [3, 17])
def test_the_layout_of_the_arguments_does_not_matter(dtype: torch.dtype, classes: int) -> None:
    t = random_trajectory(40, classes, dtype)
    expected = ops.new_temporal_table(12, 3, classes)
    ops.record_temporal_(expected, t.index, t.logits, t.labels, 3)
    gap = torch.full_like(t.logits, torch.nan)
    layouts = [
        torch.cat([t.logits, gap], 1)[:, :classes],
        torch.stack([t.logits, gap], 1)[:, 0],
        torch.stack([t.logits, gap], 2)[:, :, 0],
        t.logits.t().contiguous().t(),
        torch.cat([gap[:, :1], t.logits], 1)[:, 1:],
    ]
    for logits in layouts:
        table = ops.new_temporal_table(12, 3, classes)
        index, labels = (torch.stack([v, v - 1], 1)[:, 0] for v in (t.index, t.labels))
        ops.record_temporal_(table, index, logits, labels, 3)
        identical(table, expected)


@pytest.mark.parametrize("operator", [kernels.record_temporal_, reference.record_temporal_])
@pytest.mark.parametrize("classes", [None, 3])
def test_bad_rows_are_left_out_counted_and_harm_nothing(operator, classes: int | None) -> None:
    width = ops.temporal_width(3, classes)
    surroundings = torch.full((9, width), 7.0)  # the table lies in the middle: a row too far would show
    table = surroundings[2:7]
    table.zero_()
    skipped = torch.tensor([100, 200, 300, 400])
    wild = [-1, 5, -(2**63), 2**63 - 1, 2**31]
    index = torch.tensor([0, *wild, 1, 1, 1, 2, 2, 2, 2, 2, 2, 4])
    logits, labels = torch.randn(len(index), 3, generator=seeded(0)), torch.arange(len(index)) % 3
    labels[6:9] = torch.tensor([-1, 3, 2**62])
    logits[9, 0], logits[10, 2], logits[11, labels[11]], logits[12] = torch.nan, torch.inf, -torch.inf, -torch.inf
    logits[13, labels[13]], logits[13, labels[13] - 1] = -3e38, 3e38  # the loss is beyond float32
    operator(table, index, logits, labels, 3, 0.9, skipped)
    assert skipped.tolist() == [105, 203, 305, 400]
    expected = ops.new_temporal_table(5, 3, classes)
    good = torch.tensor([0, 14, 15])
    reference.record_temporal_(expected, index[good], logits[good], labels[good], 3)
    close(table, expected)
    assert table[:, 0].tolist() == [1, 0, 1, 0, 1]
    assert (surroundings[[0, 1, 7, 8]] == 7).all()


@pytest.mark.parametrize("position", range(19))
def test_a_value_that_is_not_finite_is_noticed_at_every_position(position: int) -> None:
    for bad, label in ((torch.nan, 0), (torch.inf, 0), (torch.nan, position), (-torch.inf, position)):
        logits, skipped, table = torch.zeros(1, 19), ops.new_skipped(), ops.new_temporal_table(1, 3, 19)
        logits[0, position] = bad
        ops.record_temporal_(table, torch.zeros(1).long(), logits, torch.tensor([label]), 3, skipped=skipped)
        assert skipped.tolist() == [0, 0, 1, 0]
        assert not table.any()


def test_logits_in_a_graph_and_in_inference_mode_are_recorded_without_it() -> None:
    t = random_trajectory(60)
    expected = t.record()
    in_graph = replace(t, logits=t.logits.clone().requires_grad_()).record()
    assert not in_graph.table.requires_grad
    with torch.inference_mode():
        inference = t.record()
    for records in (in_graph, inference):
        identical(records.table, expected.table)


@pytest.mark.filterwarnings(r"ignore::DeprecationWarning:torch\..*")
def test_recording_compiles_into_one_graph() -> None:
    t = random_trajectory(96)
    compiled, eager = (TemporalRecords(12, 10, ALL, CPU, t.options) for _ in range(2))
    skipped = ops.new_skipped()
    dynamo.reset()

    def step(index: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        compiled.record(index, logits * 2, labels, skipped)
        return logits.sum()

    run = torch.compile(step, fullgraph=True, backend="aot_eager")
    for begin in range(0, 96, 32):
        batch = [x[begin : begin + 32] for x in (t.index, t.logits, t.labels)]
        run(*batch)
        eager.record(batch[0], batch[1] * 2, batch[2])
    dynamo.reset()
    identical(compiled.table, eager.table)


WRONG = {  # argument: a wrong value, the error, and what it says
    "table of another window": ({"table": ops.new_temporal_table(4, 4)}, ValueError, r"\[N, 5\], or \[N, 13\]"),
    "table of other classes": ({"table": ops.new_temporal_table(4, 3, 6)}, ValueError, "windows of 3 and 5 classes"),
    "table of float64": ({"table": torch.zeros(4, 13).double()}, ValueError, "table: got torch.float64"),
    "table of one dimension": ({"table": torch.zeros(13)}, ValueError, r"table: got torch.float32 \(13,\)"),
    "no table": ({"table": None}, TypeError, "table: got NoneType"),
    "index too high": ({"index": torch.tensor([0, 4])}, IndexError, "index: got 4, expected 0..3"),
    "index of int32": ({"index": torch.tensor([0, 1]).int()}, ValueError, "expected int64"),
    "label too high": ({"labels": torch.tensor([0, 5])}, ValueError, "labels: got 5, expected 0..4"),
    "too few labels": ({"labels": torch.tensor([0])}, ValueError, "labels: got shape"),
    "logits of float64": ({"logits": torch.zeros(2, 5).double()}, TypeError, "logits: got torch.float64"),
    "window of 2": ({"window": 2}, ValueError, "window: got 2, expected .* at least 3"),
    "window of 3.0": ({"window": 3.0}, ValueError, "window: got 3.0"),
    "decay of 0": ({"decay": 0}, ValueError, "decay: got 0, expected .* in"),
    "decay of NaN": ({"decay": float("nan")}, ValueError, "decay: got nan"),
    "decay in words": ({"decay": "0.9"}, ValueError, "decay: got '0.9'"),
    "skipped of int32": ({"skipped": torch.zeros(3).int()}, ValueError, "skipped: got torch.int32"),
    "another device": ({"table": torch.zeros(4, 13, device="meta")}, ValueError, "expected one device"),
    "records of others": (
        {"records": ops.new_table(5)},
        ValueError,
        r"records: got .*\(5, 16\), expected .* \[4, 16\]",
    ),
    "records elsewhere": ({"records": torch.zeros(4, 16, device="meta")}, ValueError, "records on meta"),
    "records that are no tensor": ({"records": 0}, TypeError, "records: got int"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused_before_any_work(case: str) -> None:
    change, error, message = WRONG[case]
    right = {
        "table": ops.new_temporal_table(4, 3, 5),
        "index": torch.tensor([3, 0]),
        "logits": torch.zeros(2, 5),
        "labels": torch.tensor([4, 0]),
        "window": 3,
        "decay": 0.9,
        "skipped": ops.new_skipped(),
        "records": ops.new_table(4),
    }
    if error is TypeError or "int32" in case:
        error = (TypeError, ValueError)
    with pytest.raises(error, match=message):
        ops.record_temporal_(**{**right, **change})
    assert not right["table"].any()
    ops.record_temporal_(**right)
    assert right["table"][:, 0].tolist() == [1, 0, 0, 1]
