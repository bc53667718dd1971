"""Windows of presentations: TDDS, dynamic uncertainty and DUAL as a stream, against the float64 oracle."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectories import (
    ALL,
    CPU,
    LOGIT_DTYPES,
    Trajectory,
    assert_scores,
    close,
    identical,
    random_trajectory,
    seeded,
    trajectories,
)

import difficulty_prune as dp
from difficulty_prune.scores import temporal
from difficulty_prune.scores.temporal import TemporalOptions
from difficulty_prune.tracker.windows import TemporalRecords

pytestmark = pytest.mark.usefixtures("one_thread")


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
    records = TemporalRecords(1, 2, ALL, CPU, TemporalOptions(window=3, decay=0.9))
    scores = records.record(torch.zeros(4, dtype=torch.int64), logits, label).scores()
    assert scores["dyn_unc"].item() == pytest.approx(0.25)  # of both windows
    changes = [
        3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(2),  # log p of the classes: 1/2 to 3/4, 1/2 to 1/4
        math.log(3),  # 3/4 to 1/4, and back in the other class
        1 / 2 * math.log(2) + 1 / 2 * math.log(3 / 2),
    ]
    first, second = (abs(b - a) / math.sqrt(2) for a, b in itertools.pairwise(changes))
    assert scores["tdds"].item() == pytest.approx(0.09 * first + 0.9 * second, rel=1e-6)
    assert scores["dual"].item() == pytest.approx(0.25 * (1 - 1 / 2))


def test_the_last_presentation_counts() -> None:
    """The trap: T - window windows in place of T - window + 1."""
    index, label = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [50.0, 0.0]])
    records = TemporalRecords(1, 2, ALL, CPU, TemporalOptions(window=3))
    assert records.record(index[:2], logits[:2], label[:2]).scores()["dyn_unc"].isnan()
    scores = records.record(index[2:], logits[2:], label[2:]).scores()
    assert scores["dyn_unc"].item() == pytest.approx(np.std([0.5, 0.5, 1.0], ddof=1))
    assert scores["tdds"].item() > 0


def test_dynamic_uncertainty_alone_needs_no_room_for_changes_and_is_the_same() -> None:
    trajectory = random_trajectory()
    alone, both = trajectory.record(("dyn_unc",)), trajectory.record()
    assert alone.dual is None
    assert alone.table.shape == (12, 12)
    assert both.table.shape == (12, 32)
    assert_scores(alone.scores(), {"dyn_unc": both.scores()["dyn_unc"]}, identical)


@pytest.mark.parametrize("classes", [1, 10, 1000])
def test_bytes_per_example_are_those_of_the_table(classes: int) -> None:
    for names, window in itertools.product((("dyn_unc",), ("tdds",), ("dual",), ALL), (3, 10, 25)):
        options = TemporalOptions(window=window)
        records = TemporalRecords(7, classes, names, CPU, options)
        sums = 0 if records.dual is None else records.dual.nbytes
        assert records.table.nbytes + sums == 7 * options.bytes_per_example(names, classes)


# Laws


def test_a_frozen_model_gives_exactly_zero() -> None:
    logits = torch.randn(5, 10, generator=seeded(0)).repeat(25, 1)
    labels = torch.arange(5).repeat(25)
    records = TemporalRecords(5, 10, ALL, CPU).record(torch.arange(5).repeat(25), logits, labels)
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
    close(elsewhere.record().dual, trajectory.record().dual)


@given(trajectories(), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_permuting_the_dataset_permutes_the_scores(trajectory: Trajectory, random) -> None:
    order = torch.tensor(random.sample(range(trajectory.num_examples), trajectory.num_examples))
    permuted = replace(trajectory, index=order[trajectory.index])
    identical(permuted.record().table[order], trajectory.record().table)
    identical(permuted.record().dual[order], trajectory.record().dual)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [3, 10, 100])
def test_narrow_logits_give_the_float32_result_of_the_rounded_values(dtype: torch.dtype, classes: int) -> None:
    trajectory = random_trajectory(classes=classes, dtype=dtype)
    identical(trajectory.record().table, replace(trajectory, logits=trajectory.logits.float()).record().table)


def test_finite_logits_of_any_size_give_finite_scores() -> None:
    most = torch.finfo(torch.float32).max
    logits = torch.tensor([[most, -most], [-most, most], [0.0, 0.0], [0.0, -most], [1e9, 0.0]]).repeat(3, 1)
    index, labels = torch.zeros(15, dtype=torch.int64), torch.arange(15) % 2
    records = TemporalRecords(1, 2, ALL, CPU, TemporalOptions(window=4)).record(index, logits, labels)
    assert records.table.isfinite().all()
    close(records.scores()["tdds"], temporal.tdds(logits[:, None], window=4))


# The state


def test_a_saved_state_goes_on_as_if_it_had_never_stopped() -> None:
    t = random_trajectory(window=5, decay=0.4)
    whole, first = t.record(), t.part(slice(90)).record()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    loaded = TemporalRecords.from_state_dict(torch.load(file, weights_only=True))
    assert (loaded.options, loaded.names, loaded.classes) == (t.options, ALL, 10)
    loaded.record(t.index[90:], t.logits[90:], t.labels[90:])
    identical(loaded.table, whole.table)
    assert_scores(loaded.scores(), replace(t, cuts=[90]).record().scores(), identical)


def test_a_state_that_is_loaded_is_a_copy() -> None:
    records = random_trajectory().record()
    loaded = TemporalRecords.from_state_dict(records.state_dict(), TemporalOptions())
    loaded.table.zero_()
    loaded.dual.zero_()
    assert records.table.any()
    assert records.dual.any()


def test_a_state_of_other_options_or_another_size_is_refused() -> None:
    state = random_trajectory().record().state_dict()
    with pytest.raises(ValueError, match=r"recorded with .*window=10.* cannot go on with .*window=11"):
        TemporalRecords.from_state_dict(state, TemporalOptions(window=11))
    with pytest.raises(ValueError, match=r"table: got shape \(12, 12\).*, expected \(12, 32\)"):
        TemporalRecords.from_state_dict({**state, "table": state["table"][:, :12]})
    with pytest.raises(ValueError, match=r"dual: got shape \(3,\), torch.float32, expected \(12,\)"):
        TemporalRecords.from_state_dict({**state, "dual": state["dual"][:3]})
    del state["dual"]
    with pytest.raises(ValueError, match="dual: got NoneType"):
        TemporalRecords.from_state_dict(state)


def test_merging_takes_over_examples_that_the_other_has_seen() -> None:
    t = random_trajectory()
    is_even = t.index % 2 == 0
    even, odd = t.part(is_even).record(), t.part(~is_even).record()
    even.merge(odd)
    identical(even.table, t.record().table)
    close(even.dual, t.record().dual)


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
        TemporalRecords(13, 10, ALL, CPU),
        TemporalRecords(12, 11, ALL, CPU),
        TemporalRecords(12, 10, ("dyn_unc",), CPU),
        TemporalRecords(12, 10, ALL, CPU, TemporalOptions(window=9)),
        TemporalRecords(12, 10, ALL, CPU, TemporalOptions(decay=0.8)),
    ],
    ids=["examples", "classes", "names", "window", "decay"],
)
def test_merging_records_of_another_kind_is_refused(other: TemporalRecords) -> None:
    with pytest.raises(ValueError, match=r"merge: got temporal records of \{'examples'"):
        random_trajectory().record().merge(other)


@pytest.mark.parametrize("names", [(), ("el2n",), ("tdds", "vog")])
def test_names_of_other_scores_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"names: got .*expected some of"):
        TemporalRecords(3, 10, names, CPU)


# In the tracker, which is where they come from


def tracked(trajectory: Trajectory, scores: tuple[str, ...] = ("el2n", *ALL)) -> dp.DifficultyTracker:
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
    assert_scores({name: got[name] for name in ALL}, trajectory.expected())


@pytest.mark.parametrize("scores", [("tdds",), ("dyn_unc",), ("dyn_unc", "aum", "tdds")])
def test_a_run_holds_the_scores_and_their_options(scores: tuple[str, ...]) -> None:
    trajectory = random_trajectory(window=5)
    run = tracked(trajectory, scores).finish(architecture="mlp", seed=0)
    assert set(run.scores) == set(scores)
    assert run.metadata["options"] == {"temporal": trajectory.options.definition}
    expected = trajectory.expected()
    assert_scores({name: torch.tensor(run.scores[name]) for name in run.scores if name in ALL},
                  {name: expected[name] for name in scores if name in ALL})  # fmt: skip


def test_a_bad_row_is_counted_once_however_many_tables_leave_it_out() -> None:
    tracker = dp.DifficultyTracker(2, ("el2n", *ALL))
    tracker.update(torch.tensor([0, 1]), torch.tensor([[1.0, math.nan], [1.0, 2.0]]), torch.tensor([0, 1]))
    assert tracker.skipped == {"bad index": 0, "bad label": 0, "not finite": 1, "changed label": 0}
    assert tracker.presentations == 1


def test_a_presentation_with_another_label_is_in_no_window() -> None:
    trajectory = random_trajectory(window=3)
    mixed = replace(trajectory, labels=trajectory.labels.clone(), cuts=[])
    seen_before = torch.tensor([bool((trajectory.index[:row] == i).any()) for row, i in enumerate(trajectory.index)])
    changed = seen_before & (torch.arange(len(trajectory.index)) % 7 == 3)
    mixed.labels[changed] = (mixed.labels[changed] + 1) % 10
    tracker = tracked(mixed)
    assert tracker.skipped == {"bad index": 0, "bad label": 0, "not finite": 0, "changed label": int(changed.sum())}
    assert int(changed.sum()) > 20
    assert_scores(tracker.compute(allow_skipped=True), tracked(trajectory.part(~changed)).compute(), identical)


def test_a_tracker_that_goes_on_from_a_saved_state_is_as_if_never_stopped() -> None:
    trajectory = random_trajectory(window=5)
    half = len(trajectory.index) // 2
    file = io.BytesIO()
    torch.save(tracked(trajectory.part(slice(half))).state_dict(), file)
    file.seek(0)
    resumed = dp.DifficultyTracker(trajectory.num_examples, ("el2n", *ALL), temporal=trajectory.options)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    rest = trajectory.part(slice(half, None))
    resumed.update(rest.index, rest.logits, rest.labels)
    assert_scores(resumed.compute(), tracked(replace(trajectory, cuts=[half])).compute(), identical)


def test_trackers_of_other_options_do_not_mix() -> None:
    a, b = (dp.DifficultyTracker(2, ALL, temporal=TemporalOptions(window)) for window in (3, 4))
    with pytest.raises(ValueError, match="temporal"):
        a.merge(b)
    with pytest.raises(ValueError, match="temporal"):
        a.load_state_dict(b.state_dict())
    with pytest.raises(TypeError, match="temporal: got int"):
        dp.DifficultyTracker(2, ALL, temporal=3)


def test_a_run_in_which_no_window_was_filled_says_so() -> None:
    tracker = dp.DifficultyTracker(1, ("dyn_unc",))
    tracker.update(torch.tensor([0]), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    with pytest.warns(UserWarning, match="dyn_unc: no example was presented 10 times"):
        run = tracker.finish(architecture="mlp", seed=0)
    assert np.isnan(run.scores["dyn_unc"]).all()
