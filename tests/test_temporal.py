"""TDDS and dynamic uncertainty: against the float64 oracle, as a stream and in one piece, and the laws they obey."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import oracle
import pytest
import torch
import torch._dynamo as dynamo
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

import difficulty_prune as dp
from difficulty_prune import ops
from difficulty_prune.ops import reference
from difficulty_prune.scores import temporal
from difficulty_prune.scores.temporal import TemporalOptions, TemporalRecords

kernels = torch.ops.difficulty_prune

# Log-probabilities of up to 40 are kept in float32, so that a change is off by some 1e-6 whatever its own size.
close = partial(torch.testing.assert_close, rtol=3e-5, atol=3e-5, equal_nan=True, check_dtype=False)
identical = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)

BOTH = ("tdds", "dyn_unc")
CPU = torch.device("cpu")
LOGIT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Trajectory:
    """Presentations in the order of training, and where one batch ends and the next begins."""

    num_examples: int
    index: Tensor
    logits: Tensor
    labels: Tensor
    cuts: list[int]
    options: TemporalOptions

    def part(self, chosen: slice | Tensor) -> Trajectory:
        """Some of the presentations, in one batch."""
        return replace(self, index=self.index[chosen], logits=self.logits[chosen], labels=self.labels[chosen], cuts=[])

    def record(self, names: tuple[str, ...] = BOTH) -> TemporalRecords:
        records = TemporalRecords(self.num_examples, self.logits.shape[1], names, CPU, self.options)
        ends = [*self.cuts, len(self.index)]
        for begin, end in zip([0, *ends], ends, strict=False):
            records.record(self.index[begin:end], self.logits[begin:end], self.labels[begin:end])
        return records

    def expected(self) -> dict[str, np.ndarray]:
        presentations = zip(self.index.tolist(), self.logits.double().numpy(), self.labels.tolist(), strict=True)
        return oracle.temporal_scores(self.num_examples, presentations, self.options.window, self.options.decay)


@st.composite
def trajectories(draw) -> Trajectory:
    """Examples presented unequally often, many of them less often than a window; duplicates within batches; ties."""
    num_examples = draw(st.integers(1, 4))
    classes = draw(st.sampled_from((1, 2, 3, 8, 10, 17)))  # around the 8 lanes of the kernel
    rows = draw(st.integers(0, 40))
    index = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, num_examples - 1)))
    # hypothesis's fill value makes whole rows constant
    values = st.one_of(st.sampled_from((-1.0, 0.0, 0.5, 1.0)), st.floats(-20, 20, width=32))
    logits = draw(hnp.arrays(np.float32, (rows, classes), elements=values))
    labels = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, classes - 1)))
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=4)))
    options = TemporalOptions(draw(st.sampled_from((3, 4, 7, 10))), draw(st.sampled_from((0.9, 0.3, 1.0))))
    return Trajectory(num_examples, *map(torch.from_numpy, (index, logits, labels)), cuts, options)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_trajectory(
    rows: int = 200, classes: int = 10, dtype: torch.dtype = torch.float32, num_examples: int = 12, **options: Any
) -> Trajectory:
    """Of the last example there is nothing, of the one before it a single presentation."""
    index = torch.randint(num_examples - 2, (rows,), generator=seeded(0))
    index[rows // 2] = num_examples - 2
    logits = (4 * torch.randn(rows, classes, generator=seeded(1))).to(dtype)
    labels = torch.randint(classes, (rows,), generator=seeded(2))
    cuts = list(range(0, rows, 32))
    return Trajectory(num_examples, index, logits, labels, cuts, TemporalOptions(**options))


def assert_scores(got: dict[str, Tensor], expected: dict[str, Any], compare: Callable[..., None] = close) -> None:
    assert got.keys() == expected.keys()
    for name, score in got.items():
        compare(score, torch.as_tensor(expected[name]), msg=lambda text, name=name: f"{name}: {text}")


# The numbers


@given(trajectories())
@settings(max_examples=150)
def test_a_stream_of_presentations_gives_the_scores_of_their_definitions(trajectory: Trajectory) -> None:
    records = trajectory.record()
    counts = torch.bincount(trajectory.index, minlength=trajectory.num_examples)
    assert records.count.tolist() == counts.tolist()
    assert_scores(records.scores(), trajectory.expected())
    for score in records.scores().values():
        assert score.dtype == torch.float32
        assert score.isnan().tolist() == (counts < trajectory.options.window).tolist()


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 10, 100, 1000])
def test_the_default_options_and_wide_rows(dtype: torch.dtype, classes: int) -> None:
    trajectory = random_trajectory(160, classes, dtype)
    assert_scores(trajectory.record().scores(), trajectory.expected())


def test_scores_by_hand() -> None:
    """Two classes, p of the label 1/2, 3/4, 1/4, 1/2; windows of 3."""
    half, up, down = [0.0, 0.0], [0.0, math.log(3)], [0.0, -math.log(3)]
    logits, label = torch.tensor([half, up, down, half]), torch.ones(4, dtype=torch.int64)
    records = TemporalRecords(1, 2, BOTH, CPU, TemporalOptions(window=3, decay=0.9))
    scores = records.record(torch.zeros(4, dtype=torch.int64), logits, label).scores()
    assert scores["dyn_unc"].item() == pytest.approx(0.25)  # of both windows
    changes = [
        3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(2),  # log p of the classes: 1/2 to 3/4, 1/2 to 1/4
        math.log(3),  # 3/4 to 1/4, and back in the other class
        1 / 2 * math.log(2) + 1 / 2 * math.log(3 / 2),
    ]
    first, second = (abs(b - a) / math.sqrt(2) for a, b in itertools.pairwise(changes))
    assert scores["tdds"].item() == pytest.approx(0.09 * first + 0.9 * second, rel=1e-6)


def test_the_last_presentation_counts() -> None:
    """The trap: T - window windows in place of T - window + 1."""
    index, label = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [50.0, 0.0]])
    records = TemporalRecords(1, 2, BOTH, CPU, TemporalOptions(window=3))
    assert records.record(index[:2], logits[:2], label[:2]).scores()["dyn_unc"].isnan()
    scores = records.record(index[2:], logits[2:], label[2:]).scores()
    assert scores["dyn_unc"].item() == pytest.approx(np.std([0.5, 0.5, 1.0], ddof=1))
    assert scores["tdds"].item() > 0


def test_dynamic_uncertainty_alone_needs_no_room_for_changes_and_is_the_same() -> None:
    trajectory = random_trajectory()
    alone, both = trajectory.record(("dyn_unc",)), trajectory.record()
    assert alone.table.shape == (12, 12)
    assert both.table.shape == (12, 32)
    assert_scores(alone.scores(), {"dyn_unc": both.scores()["dyn_unc"]}, identical)


@pytest.mark.parametrize("classes", [1, 10, 1000])
def test_bytes_per_example_are_those_of_the_table(classes: int) -> None:
    for names, window in itertools.product((("dyn_unc",), ("tdds",), BOTH), (3, 10, 25)):
        options = TemporalOptions(window=window)
        table = TemporalRecords(7, classes, names, CPU, options).table
        assert table.nbytes == 7 * options.bytes_per_example(names, classes)


# Laws


def test_a_frozen_model_gives_exactly_zero() -> None:
    logits = torch.randn(5, 10, generator=seeded(0)).repeat(25, 1)
    labels = torch.arange(5).repeat(25)
    records = TemporalRecords(5, 10, BOTH, CPU).record(torch.arange(5).repeat(25), logits, labels)
    for score in records.scores().values():
        assert score.tolist() == [0.0] * 5
    trajectory = logits.view(25, 5, 10)
    assert temporal.tdds(trajectory).tolist() == [0.0] * 5
    assert temporal.dyn_unc(trajectory.softmax(2)[:, :, 0]).tolist() == [0.0] * 5


@given(trajectories(), st.lists(st.integers(0, 40), max_size=6))
@settings(max_examples=60)
def test_where_batches_end_changes_no_bit(trajectory: Trajectory, cuts: list[int]) -> None:
    elsewhere = replace(trajectory, cuts=sorted(min(cut, len(trajectory.index)) for cut in cuts))
    identical(elsewhere.record().table, trajectory.record().table)


@given(trajectories(), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_permuting_the_dataset_permutes_the_scores(trajectory: Trajectory, random) -> None:
    order = torch.tensor(random.sample(range(trajectory.num_examples), trajectory.num_examples))
    permuted = replace(trajectory, index=order[trajectory.index])
    identical(permuted.record().table[order], trajectory.record().table)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [3, 10, 100])
def test_narrow_logits_give_the_float32_result_of_the_rounded_values(dtype: torch.dtype, classes: int) -> None:
    trajectory = random_trajectory(classes=classes, dtype=dtype)
    identical(trajectory.record().table, replace(trajectory, logits=trajectory.logits.float()).record().table)


def test_finite_logits_of_any_size_give_finite_scores() -> None:
    most = torch.finfo(torch.float32).max
    logits = torch.tensor([[most, -most], [-most, most], [0.0, 0.0], [0.0, -most], [1e9, 0.0]]).repeat(3, 1)
    index, labels = torch.zeros(15, dtype=torch.int64), torch.arange(15) % 2
    records = TemporalRecords(1, 2, BOTH, CPU, TemporalOptions(window=4)).record(index, logits, labels)
    assert records.table.isfinite().all()
    close(records.scores()["tdds"], temporal.tdds(logits[:, None], window=4))


# The operator


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
    skipped = torch.tensor([100, 200, 300])
    wild = [-1, 5, -(2**63), 2**63 - 1, 2**31]
    index = torch.tensor([0, *wild, 1, 1, 1, 2, 2, 2, 2, 4])
    logits, labels = torch.randn(len(index), 3, generator=seeded(0)), torch.arange(len(index)) % 3
    labels[6:9] = torch.tensor([-1, 3, 2**62])
    logits[9, 0], logits[10, 2], logits[11, 1] = torch.nan, torch.inf, -torch.inf
    operator(table, index, logits, labels, 3, 0.9, skipped)
    assert skipped.tolist() == [105, 203, 303]
    expected = ops.new_temporal_table(5, 3, classes)
    good = torch.tensor([0, 12, 13])
    reference.record_temporal_(expected, index[good], logits[good], labels[good], 3)
    close(table, expected)
    assert table[:, 0].tolist() == [1, 0, 1, 0, 1]
    assert (surroundings[[0, 1, 7, 8]] == 7).all()


@pytest.mark.parametrize("position", range(19))
def test_a_value_that_is_not_finite_is_noticed_at_every_position(position: int) -> None:
    for bad in (torch.nan, torch.inf, -torch.inf):
        logits, skipped, table = torch.zeros(1, 19), ops.new_skipped(), ops.new_temporal_table(1, 3, 19)
        logits[0, position] = bad
        zero = torch.zeros(1, dtype=torch.int64)
        ops.record_temporal_(table, zero, logits, zero, 3, skipped=skipped)
        assert skipped.tolist() == [0, 0, 1]
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
    compiled, eager = (TemporalRecords(12, 10, BOTH, CPU, t.options) for _ in range(2))
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
    }
    if error is TypeError or "int32" in case:
        error = (TypeError, ValueError)
    with pytest.raises(error, match=message):
        ops.record_temporal_(**{**right, **change})
    assert not right["table"].any()
    ops.record_temporal_(**right)
    assert right["table"][:, 0].tolist() == [1, 0, 0, 1]


# The state


def test_a_saved_state_goes_on_as_if_it_had_never_stopped() -> None:
    t = random_trajectory(window=5, decay=0.4)
    whole, first = t.record(), t.part(slice(90)).record()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    loaded = TemporalRecords.from_state_dict(torch.load(file, weights_only=True))
    assert (loaded.options, loaded.names, loaded.classes) == (t.options, BOTH, 10)
    loaded.record(t.index[90:], t.logits[90:], t.labels[90:])
    identical(loaded.table, whole.table)
    assert_scores(loaded.scores(), whole.scores(), identical)


def test_a_state_that_is_loaded_is_a_copy() -> None:
    records = random_trajectory().record()
    loaded = TemporalRecords.from_state_dict(records.state_dict(), TemporalOptions())
    loaded.table.zero_()
    assert records.table.any()


def test_a_state_of_other_options_or_another_size_is_refused() -> None:
    state = random_trajectory().record().state_dict()
    with pytest.raises(ValueError, match=r"recorded with .*window=10.* cannot go on with .*window=11"):
        TemporalRecords.from_state_dict(state, TemporalOptions(window=11))
    with pytest.raises(ValueError, match=r"table: got shape \(12, 12\), expected \(12, 32\)"):
        TemporalRecords.from_state_dict({**state, "table": state["table"][:, :12]})


def test_merging_takes_over_examples_that_the_other_has_seen() -> None:
    t = random_trajectory()
    is_even = t.index % 2 == 0
    even, odd = t.part(is_even).record(), t.part(~is_even).record()
    even.merge(odd)
    identical(even.table, t.record().table)


def test_merging_two_histories_of_one_example_is_refused_and_changes_nothing() -> None:
    t = random_trajectory()
    records, other = t.record(), t.record()
    before = records.table.clone()
    with pytest.raises(ValueError, match=r"11 examples were presented to both, the first of them 0; windows span"):
        records.merge(other)
    identical(records.table, before)


@pytest.mark.parametrize(
    "other",
    [
        TemporalRecords(13, 10, BOTH, CPU),
        TemporalRecords(12, 11, BOTH, CPU),
        TemporalRecords(12, 10, ("dyn_unc",), CPU),
        TemporalRecords(12, 10, BOTH, CPU, TemporalOptions(window=9)),
        TemporalRecords(12, 10, BOTH, CPU, TemporalOptions(decay=0.8)),
    ],
    ids=["examples", "classes", "names", "window", "decay"],
)
def test_merging_records_of_another_kind_is_refused(other: TemporalRecords) -> None:
    with pytest.raises(ValueError, match=r"merge: got temporal records of \{'examples'"):
        random_trajectory().record().merge(other)


@pytest.mark.parametrize("names", [(), ("el2n",), ("tdds", "vog")])
def test_names_of_other_scores_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"names: got .*expected one or both of"):
        TemporalRecords(3, 10, names, CPU)


@pytest.mark.parametrize("window", [2, 0, -1, 10.0, "10", True, None])
def test_options_refuse_a_window(window: Any) -> None:
    with pytest.raises(ValueError, match=r"window: got .*expected a whole number of presentations, at least 3"):
        TemporalOptions(window=window)


@pytest.mark.parametrize("decay", [0, -0.1, 1.1, float("nan"), "0.9", None])
def test_options_refuse_a_decay(decay: Any) -> None:
    with pytest.raises(ValueError, match=r"decay: got .*expected the weight of the newest window, in \(0, 1\]"):
        TemporalOptions(decay=decay)


def test_the_definition_holds_what_changes_the_numbers() -> None:
    assert TemporalOptions(window=7, decay=0.5).definition == {"window": 7, "decay": 0.5}


# Trajectories in memory


@given(st.integers(1, 14), st.sampled_from((1, 3, 10)), st.integers(3, 10), st.sampled_from((0.9, 0.3, 1.0)))
@settings(max_examples=60)
def test_a_trajectory_in_memory_gives_what_the_stream_gives(
    presented: int, classes: int, window: int, decay: float
) -> None:
    logits = 5 * torch.randn(presented, 3, classes, generator=seeded(presented))
    labels = torch.randint(classes, (3,), generator=seeded(classes))
    records = TemporalRecords(3, classes, BOTH, CPU, TemporalOptions(window, decay))
    for row in logits:
        records.record(torch.arange(3), row, labels)
    p_label = logits.softmax(2).gather(2, labels.expand(presented, 3)[..., None])[..., 0]
    tdds, dyn_unc = temporal.tdds(logits, window, decay), temporal.dyn_unc(p_label, window)
    assert tdds.dtype == dyn_unc.dtype == torch.float32
    assert_scores(records.scores(), {"tdds": tdds, "dyn_unc": dyn_unc})


def test_functions_take_what_the_definitions_allow_and_refuse_the_rest() -> None:
    logits, p = torch.zeros(4, 2, 3), torch.full((4, 2), 0.5)
    assert temporal.tdds(logits.bfloat16(), 3).tolist() == [0, 0]
    assert temporal.dyn_unc(p.double(), 3).dtype == torch.float32
    assert temporal.tdds(torch.zeros(4, 0, 3), 3).shape == temporal.dyn_unc(torch.zeros(4, 0), 3).shape == (0,)
    assert temporal.tdds(torch.zeros(0, 2, 3)).isnan().all()
    assert temporal.dyn_unc(torch.zeros(0, 2)).isnan().all()
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: temporal.tdds(logits, 2), ValueError, "window: got 2"),
        (lambda: temporal.tdds(logits, 3, 0.0), ValueError, "decay: got 0"),
        (lambda: temporal.tdds(logits[0]), ValueError, r"logits: got shape \(2, 3\), expected \[T, N, C\]"),
        (lambda: temporal.tdds(logits.long()), TypeError, "logits: got torch.int64"),
        (lambda: temporal.tdds([0.0]), TypeError, "logits: got list"),
        (lambda: temporal.tdds(logits / 0), ValueError, "logits: got 24 values that are not finite"),
        (lambda: temporal.tdds(logits[..., :0]), ValueError, "at least one class"),
        (lambda: temporal.dyn_unc(p, 2), ValueError, "window: got 2"),
        (lambda: temporal.dyn_unc(logits), ValueError, r"expected \[T, N\]"),
        (lambda: temporal.dyn_unc(p * 3), ValueError, "p_label: got values from 1.5 to 1.5, expected probabilities"),
        (lambda: temporal.dyn_unc(-p), ValueError, "p_label: got values from -0.5"),
        (lambda: temporal.dyn_unc(p * torch.nan), ValueError, "8 values that are not finite"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()


# In the tracker, which is where they come from


def tracked(trajectory: Trajectory, scores: tuple[str, ...] = ("el2n", *BOTH)) -> dp.DifficultyTracker:
    tracker = dp.DifficultyTracker(trajectory.num_examples, scores, temporal=trajectory.options)
    ends = [*trajectory.cuts, len(trajectory.index)]
    for begin, end in zip([0, *ends], ends, strict=False):
        rows = slice(begin, end)
        tracker.update(trajectory.index[rows], trajectory.logits[rows], trajectory.labels[rows])
    return tracker


@settings(max_examples=30)
@given(trajectories())
def test_a_tracker_gives_the_scores_of_their_definitions(trajectory: Trajectory) -> None:
    if trajectory.logits.shape[1] < 2:
        return  # no tracker takes a single class
    got = tracked(trajectory).compute()
    assert_scores({name: got[name] for name in BOTH}, trajectory.expected())


@pytest.mark.parametrize("scores", [("tdds",), ("dyn_unc",), ("dyn_unc", "aum", "tdds")])
def test_a_run_holds_the_scores_and_their_options(scores: tuple[str, ...]) -> None:
    trajectory = random_trajectory(window=5)
    run = tracked(trajectory, scores).finish(architecture="mlp", seed=0)
    assert set(run.scores) == set(scores)
    assert run.metadata["options"] == {"temporal": trajectory.options.definition}
    expected = trajectory.expected()
    assert_scores({name: torch.tensor(run.scores[name]) for name in run.scores if name in BOTH},
                  {name: expected[name] for name in scores if name in BOTH})  # fmt: skip


def test_a_bad_row_is_counted_once_however_many_tables_leave_it_out() -> None:
    tracker = dp.DifficultyTracker(2, ("el2n", *BOTH))
    tracker.update(torch.tensor([0, 1]), torch.tensor([[1.0, math.nan], [1.0, 2.0]]), torch.tensor([0, 1]))
    assert tracker.skipped == {"bad index": 0, "bad label": 0, "not finite": 1}
    assert tracker.presentations == 1


def test_a_tracker_that_goes_on_from_a_saved_state_is_as_if_never_stopped() -> None:
    trajectory = random_trajectory(window=5)
    half = len(trajectory.index) // 2
    file = io.BytesIO()
    torch.save(tracked(trajectory.part(slice(half))).state_dict(), file)
    file.seek(0)
    resumed = dp.DifficultyTracker(trajectory.num_examples, ("el2n", *BOTH), temporal=trajectory.options)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    rest = trajectory.part(slice(half, None))
    resumed.update(rest.index, rest.logits, rest.labels)
    assert_scores(resumed.compute(), tracked(trajectory).compute(), identical)


def test_trackers_of_other_options_do_not_mix() -> None:
    a, b = (dp.DifficultyTracker(2, BOTH, temporal=TemporalOptions(window)) for window in (3, 4))
    with pytest.raises(ValueError, match="temporal"):
        a.merge(b)
    with pytest.raises(ValueError, match="temporal"):
        a.load_state_dict(b.state_dict())
    with pytest.raises(TypeError, match="temporal: got int"):
        dp.DifficultyTracker(2, BOTH, temporal=3)


def test_a_run_in_which_no_window_was_filled_says_so() -> None:
    tracker = dp.DifficultyTracker(1, ("dyn_unc",))
    tracker.update(torch.tensor([0]), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    with pytest.warns(UserWarning, match="dyn_unc: no example was presented 10 times"):
        run = tracker.finish(architecture="mlp", seed=0)
    assert np.isnan(run.scores["dyn_unc"]).all()


def test_trajectories_in_memory_have_every_score_of_the_logits() -> None:
    g = seeded(2)
    logits, labels = torch.randn(12, 5, 3, generator=g), torch.randint(3, (5,), generator=g)
    names = dp.score_names("loss", "logits")
    tracker = dp.DifficultyTracker(5, names)
    for step in logits:
        tracker.update(torch.arange(5), step, labels)
    got = dp.scores.trajectory_scores(logits, labels)
    assert set(got) == set(names)
    assert_scores(got, tracker.compute())
    with pytest.raises(ValueError, match="names: 'vog' needs more than logits"):
        dp.scores.trajectory_scores(logits, labels, ("vog",))
    with pytest.raises(ValueError, match=r"got logits \(5, 3\)"):
        dp.scores.trajectory_scores(logits[0], labels)
    logits[3, 2, 1] = math.nan
    with pytest.raises(ValueError, match="1 values are not finite"):
        dp.scores.trajectory_scores(logits, labels)
