"""Scores of a part of training against those of a second tracker that saw that part alone."""

from __future__ import annotations

import io
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.tracker.since import OF_A_PART

N, C = 6, 4


def batches(seed: int, steps: int, size: int = 5) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Index, which may repeat, logits and labels that stay."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, C, (N,), generator=draw)
    found = []
    for _ in range(steps):
        index = torch.randint(0, N, (size,), generator=draw)
        found.append((index, 3 * torch.randn(size, C, generator=draw), labels[index]))
    return found


def fed(tracker: dp.DifficultyTracker, steps: list[tuple[torch.Tensor, ...]]) -> dp.DifficultyTracker:
    for step in steps:
        tracker.update(*step)
    return tracker


@given(st.integers(0, 2**31), st.integers(0, 12), st.integers(0, 12))
def test_what_came_after_a_snapshot_is_what_a_second_tracker_saw(seed: int, before: int, after: int) -> None:
    steps = batches(seed, before + after)
    tracker = fed(dp.DifficultyTracker(N, scores=OF_A_PART), steps[:before])
    snapshot = tracker.snapshot()
    fed(tracker, steps[before:])
    second = fed(dp.DifficultyTracker(N, scores=OF_A_PART), steps[before:])
    found, expected = tracker.compute(since=snapshot), second.compute()
    assert tuple(found) == OF_A_PART
    for name in OF_A_PART:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=2e-3, equal_nan=True, msg=name)
        assert found[name].isnan().equal(expected[name].isnan())


@given(st.integers(0, 2**31))
def test_counts_are_exact_and_nothing_changes_in_the_tracker(seed: int) -> None:
    steps = batches(seed, 10)
    tracker = fed(dp.DifficultyTracker(N, scores=OF_A_PART), steps[:4])
    snapshot = tracker.snapshot()
    whole = fed(tracker, steps[4:]).compute()
    second = fed(dp.DifficultyTracker(N, scores=OF_A_PART), steps[4:]).compute()
    part = tracker.compute(since=snapshot, scores=("accuracy", "consistently_learned"))
    for name in part:
        assert part[name].nan_to_num(-1).equal(second[name].nan_to_num(-1)), name
    assert all(tracker.compute()[name].nan_to_num(-1).equal(whole[name].nan_to_num(-1)) for name in whole)


def test_a_snapshot_can_be_saved_and_the_tracker_too() -> None:
    steps = batches(3, 8)
    tracker = fed(dp.DifficultyTracker(N, scores=("el2n",)), steps[:4])
    file = io.BytesIO()
    torch.save({"snapshot": tracker.snapshot(), "tracker": tracker.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = dp.DifficultyTracker(N, scores=("el2n",))
    resumed.load_state_dict(saved["tracker"])
    fed(tracker, steps[4:])
    fed(resumed, steps[4:])
    expected = tracker.compute(since=saved["snapshot"])["el2n"]
    assert resumed.compute(since=saved["snapshot"])["el2n"].equal(expected)


def test_of_a_tracker_that_has_seen_nothing_a_snapshot_is_the_beginning() -> None:
    tracker = dp.DifficultyTracker(N, scores=("el2n", "forgetting"))
    beginning = tracker.snapshot()
    assert tracker.compute(since=beginning)["el2n"].isnan().all()
    fed(tracker, batches(0, 5))
    torch.testing.assert_close(tracker.compute(since=beginning)["el2n"], tracker.compute()["el2n"], equal_nan=True)


def test_rows_and_weights_count_as_in_the_whole() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(3, C, 7, generator=draw), torch.randint(0, C, (3, 7), generator=draw)
    index = torch.arange(3)
    tracker = dp.DifficultyTracker(3, scores=("loss", "accuracy"), right_from=0.5)
    tracker.update(index, logits, labels)
    snapshot = tracker.snapshot()
    tracker.update(index, logits * 2, labels)
    second = dp.DifficultyTracker(3, scores=("loss", "accuracy"), right_from=0.5)
    second.update(index, logits * 2, labels)
    for name, score in tracker.compute(since=snapshot).items():
        torch.testing.assert_close(score, second.compute()[name])


def test_a_run_holds_the_part_and_does_not_mix_with_runs_of_the_whole() -> None:
    steps = batches(1, 12, size=N)
    steps = [(torch.arange(N), logits, steps[0][2][0].new_tensor([0, 1, 2, 3, 0, 1])) for _, logits, _ in steps]
    tracker = fed(dp.DifficultyTracker(N, scores=("el2n", "forgetting")), steps[:5])
    snapshot = tracker.snapshot()
    fed(tracker, steps[5:])
    run = tracker.finish(architecture="mlp", seed=0, since=snapshot)
    assert tuple(run.scores) == ("el2n",)
    assert (run.metadata["presentations"], run.metadata["options"]["since"]) == (7 * N, 5)
    assert run.labels.tolist() == [0, 1, 2, 3, 0, 1]
    whole = tracker.finish(architecture="mlp", seed=1)
    with pytest.raises(ValueError, match=r"options.since: 5 and None; such runs do not mix"):
        dp.RunSet([run, whole])
    again = tracker.finish(architecture="mlp", seed=2, since=snapshot)
    assert len(dp.RunSet([run, again])) == 2


def test_what_was_trained_on_before_the_part_was_seen() -> None:
    """Or it would count as held out, where runs tell memorization."""
    tracker = dp.DifficultyTracker(N, scores=("el2n",))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    tracker.update(torch.arange(5), torch.randn(5, C), labels[:5])
    snapshot = tracker.snapshot()
    with pytest.raises(ValueError, match="since: nothing was presented after the snapshot"):
        tracker.finish(architecture="mlp", seed=0, since=snapshot)
    tracker.update(torch.arange(2), torch.randn(2, C), labels[:2])
    run = tracker.finish(architecture="mlp", seed=0, since=snapshot, labels=labels)
    assert run.seen.tolist() == [True] * 5 + [False]
    assert [math.isnan(value) for value in run.scores["el2n"]] == [False] * 2 + [True] * 4
    said = torch.tensor([True] * 4 + [False] * 2)
    assert tracker.finish(architecture="mlp", seed=0, since=snapshot, seen=said).seen.tolist() == said.tolist()
    tracker.update(torch.tensor([5]), torch.randn(1, C), labels[5:])
    assert tracker.finish(architecture="mlp", seed=0, since=snapshot).labels.tolist() == labels.tolist()
    with pytest.raises(ValueError, match="labels: 1 of 6 examples were shown with other labels"):
        tracker.finish(architecture="mlp", seed=0, since=snapshot, labels=[0, 1, 2, 0, 0, 1])


def test_a_tracker_that_grows_has_new_examples_in_the_part_alone() -> None:
    tracker = dp.DifficultyTracker(None, scores=("accuracy",))
    tracker.update(torch.tensor([0]), torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    snapshot = tracker.snapshot()
    tracker.update(torch.tensor([0, 4]), torch.tensor([[0.0, 1.0]]).repeat(2, 1), torch.tensor([1, 1]))
    found = tracker.compute(since=snapshot)["accuracy"]
    assert found[[0, 4]].tolist() == [1, 1]
    assert found[1:4].isnan().all()


@given(st.integers(0, 2**31), st.sampled_from([3.0, 1e3, 1e6, 1e9, 1e30]))
def test_what_large_values_hide_is_not_told(seed: int, scale: float) -> None:
    """What is told of a part is right, however large the logits were before it; else it is NaN, with a warning."""
    steps = batches(seed, 8)
    steps[0] = (steps[0][0], steps[0][1] / 3 * scale, steps[0][2])
    tracker = fed(dp.DifficultyTracker(N, scores=OF_A_PART), steps[:4])
    snapshot = tracker.snapshot()
    fed(tracker, steps[4:])
    expected = fed(dp.DifficultyTracker(N, scores=OF_A_PART), steps[4:]).compute()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = tracker.compute(since=snapshot)
    for name in ("loss", "aum"):
        hidden = found[name].isnan() & ~expected[name].isnan()
        torch.testing.assert_close(found[name][~hidden], expected[name][~hidden], rtol=0.02, atol=0.02, equal_nan=True)
        words = [str(each.message) for each in said if str(each.message).startswith(f"{name}: ")]
        assert [int(text.split()[1]) for text in words] == ([int(hidden.sum())] if hidden.any() else [])
        assert scale > 1e3 or not hidden.any()
    torch.testing.assert_close(found["el2n"], expected["el2n"], rtol=1e-4, atol=2e-3, equal_nan=True)


def test_bad_input_is_told() -> None:
    tracker = fed(dp.DifficultyTracker(N, scores=("el2n", "forgetting", "vog_loss")), batches(0, 3))
    snapshot = tracker.snapshot()
    with pytest.raises(ValueError, match=r"since: 'forgetting' is not known of a part of training, expected one of"):
        tracker.compute(since=snapshot, scores=("el2n", "forgetting"))
    with pytest.raises(TypeError, match=r"since: got int, expected what tracker.snapshot\(\) returned"):
        tracker.compute(since=5)
    with pytest.raises(ValueError, match=r"since: got torch.float32 of shape \[6, 3\]"):
        tracker.compute(since=torch.zeros(N, 3))
    with pytest.raises(ValueError, match=r"since: got a snapshot of 9 examples, but the tracker has 6"):
        tracker.compute(since=torch.zeros(9, 16))
    tracker.reset()
    fed(tracker, batches(0, 1))
    with pytest.raises(ValueError, match=r"another tracker, or of this one before a reset"):
        tracker.compute(since=snapshot)
    with pytest.raises(ValueError, match=r"since: 'vog_loss' is not known of a part of training"):
        dp.DifficultyTracker(N, scores=("vog_loss",)).snapshot()


def test_finish_with_a_gradient_score_does_not_ask_for_it() -> None:
    tracker = fed(dp.DifficultyTracker(N, scores=("el2n", "vog_loss")), batches(0, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = tracker.finish(architecture="mlp", seed=0, since=tracker.snapshot() * 0)
    assert tuple(run.scores) == ("el2n",)
