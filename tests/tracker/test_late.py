"""The score of the second half of a training against a loop over every margin that was shown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import difficulty_prune as dp

N, C = 6, 4
Steps = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def presented(seed: int, steps: int, size: int = 5) -> Steps:
    """Index, which may repeat, logits and labels that stay."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, C, (N,), generator=draw)
    drawn = [torch.randint(0, N, (size,), generator=draw) for _ in range(steps)]
    return [(index, 3 * torch.randn(size, C, generator=draw), labels[index]) for index in drawn]


def trained(before: Steps, after: Steps, scores: Any = ("aum",), through_a_file: bool = False) -> Any:
    """The tracker of a whole training, and its snapshot of the middle."""
    tracker = dp.DifficultyTracker(N, scores=scores)
    for step in before:
        tracker.update(*step)
    early = tracker.snapshot()
    if through_a_file:
        file = io.BytesIO()
        torch.save({"tracker": tracker.state_dict(), "early": early}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        tracker, early = dp.DifficultyTracker(N, scores=scores), saved["early"]
        tracker.load_state_dict(saved["tracker"])
    for step in after:
        tracker.update(*step)
    return tracker, early


def finished(tracker: dp.DifficultyTracker, seed: int = 0, **how: Any) -> dp.Run:
    return tracker.finish(architecture="mlp", seed=seed, dataset_fingerprint="f00d", **how)


def mean_margin(steps: Steps) -> list[float]:
    """Of each example over all its presentations; NaN without any."""
    margins: list[list[float]] = [[] for _ in range(N)]
    for index, logits, labels in steps:
        for position, row, label in zip(index.tolist(), logits.double().tolist(), labels.tolist(), strict=True):
            margins[position].append(row[label] - max(row[:label] + row[label + 1 :]))
    return [sum(own) / len(own) if own else float("nan") for own in margins]


@given(st.integers(0, 2**31), st.integers(0, 10), st.integers(0, 10), st.booleans())
def test_it_is_the_mean_margin_of_the_second_half(seed: int, before: int, after: int, through_a_file: bool) -> None:
    steps = presented(seed, before + after + 1)
    first, second = steps[: before + 1], steps[before + 1 :]
    tracker, early = trained(first, second, ("el2n", "aum", "forgetting"), through_a_file)
    run, usual = finished(tracker, late=early), finished(tracker)
    assert tuple(run.scores) == ("el2n", "aum", "late_aum", "forgetting")
    np.testing.assert_allclose(run.scores["late_aum"], mean_margin(second), atol=1e-4)
    for name in usual.scores:
        np.testing.assert_array_equal(run.scores[name], usual.scores[name])
    assert run.metadata["presentations"] == usual.metadata["presentations"]


def test_an_example_that_the_second_half_did_not_show_has_none_and_the_others_do_not_change() -> None:
    logits, labels = torch.tensor([[3.0, 1.0, 0.0, 0.0]]).repeat(N, 1), torch.zeros(N, dtype=torch.int64)
    rest = torch.arange(1, N)
    tracker, early = trained([(torch.arange(N), logits, labels)], [(rest, 2 * logits[rest], labels[rest])])
    run = finished(tracker, late=early)
    assert run.scores["aum"].tolist() == [2, 3, 3, 3, 3, 3]
    np.testing.assert_array_equal(run.scores["late_aum"], [np.nan, 4, 4, 4, 4, 4])


def test_a_run_keeps_it_and_mixes_with_those_of_the_same_half(tmp_path: Path) -> None:
    every = torch.arange(N)
    draw = torch.Generator().manual_seed(0)
    steps = [(every, torch.randn(N, C, generator=draw), every % C) for _ in range(8)]
    runs = []
    for seed, half in enumerate((4, 4, 2)):
        tracker, early = trained(steps[seed : seed + half], steps[seed + half :])
        finished(tracker, seed, late=early).save(tmp_path / f"mlp-{seed}.safetensors")
        runs.append(dp.Run.load(tmp_path / f"mlp-{seed}.safetensors"))
    assert [run.metadata["options"]["late"] for run in runs] == [4, 4, 2]
    together = dp.RunSet(runs[:2])
    assert together.scores == ("aum", "late_aum")
    np.testing.assert_array_equal(together.difficulty("late_aum"), -together.mean("late_aum"))
    with pytest.raises(ValueError, match=r"'late_aum' with different options, options.late: 4 and 2; such runs do not"):
        dp.RunSet(runs)
    whole = dp.RunSet([*runs[:2], finished(trained(steps, [])[0], 3)])
    assert whole.scores == ("aum",), "of which the half is no matter"


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(ValueError, match=r"'late_aum' is not recorded step by step; track 'aum'.*finish\(.*late=early"):
        dp.DifficultyTracker(N, scores=("el2n", "late_aum"))
    steps = presented(0, 6)
    tracker, early = trained(steps[:3], steps[3:])
    with pytest.raises(ValueError, match=r"late: got it together with since.*since=early .*or late=early"):
        finished(tracker, late=early, since=early)
    with pytest.raises(TypeError, match=r"late: got int, expected what tracker.snapshot\(\) returned"):
        finished(tracker, late=3)
    with pytest.raises(ValueError, match=r"late: got a snapshot of 9 examples, but the tracker has 6"):
        finished(tracker, late=torch.zeros(9, 16))
    with pytest.raises(ValueError, match=r"late: .* presented more often when the snapshot was taken"):
        finished(trained(steps[:1], [])[0], late=early)
    without, early = trained(steps[:3], steps[3:], ("el2n", "margin"))
    with pytest.raises(ValueError, match=r"late: this tracker records el2n, margin, expected aum among them"):
        finished(without, late=early)
