"""Scores of the second half of a training: in a study, after a training was killed, and where there are no halves."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import difficulty_prune as dp
from difficulty_prune.study import checkpoint, halfway, tasks
from difficulty_prune.study.settings import Settings
from difficulty_prune.study.study import run_study, scoring_tasks
from difficulty_prune.study.tasks import DataSource, ScoringTask, unfinished_runs
from difficulty_prune.study.train import Recipe


def scoring(folder: Path, epochs: int, **changes: Any) -> ScoringTask:
    recipe, path = Recipe(epochs=epochs, batch_size=256), str(folder / "mlp-3.safetensors")
    task = ScoringTask(DataSource.of("digits"), "mlp", 3, recipe, ("late_aum", "el2n"), path, first_seed=3)
    return replace(task, **changes)


def ignore(steps: int) -> None:
    """Nobody is told."""


@pytest.mark.parametrize("epochs", [2, 5])
@pytest.mark.parametrize("hold_out", [0.0, 0.3])
def test_it_is_the_aum_of_the_epochs_after_the_first_half(
    epochs: int, hold_out: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    so_far: list[torch.Tensor] = []

    class Watched(halfway.Halfway):
        def __init__(self, tracker: dp.DifficultyTracker, epochs: int) -> None:
            super().__init__(tracker, epochs)
            self.compute = tracker.compute

        def finished(self, epochs: int) -> None:
            super().finished(epochs)
            so_far.append(self.compute()["aum"].double())

    monkeypatch.setattr(tasks, "Halfway", Watched)
    task, half = scoring(tmp_path, epochs, hold_out=hold_out), epochs // 2
    task.run(ignore)
    run = dp.Run.load(task.path)
    assert tuple(run.scores) == ("el2n", "aum", "late_aum")
    expected = (epochs * so_far[-1] - half * so_far[half - 1]) / (epochs - half)
    np.testing.assert_allclose(run.scores["late_aum"], expected, atol=1e-4)
    np.testing.assert_array_equal(np.isnan(run.scores["late_aum"]), ~task.seen(1437))
    assert run.metadata["options"]["late"] == half
    assert np.nanmax(np.abs(run.scores["late_aum"] - run.scores["aum"])) > 0.1, "the halves differ"
    assert task.is_done()


@pytest.mark.parametrize("finished", [2, 3, 4])
def test_a_run_that_was_killed_before_or_after_the_middle_ends_as_if_it_had_not_been(
    finished: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.Checkpoint.__init__, "__defaults__", (0.0,))  # after every epoch
    whole, cut = scoring(tmp_path / "a", 4), scoring(tmp_path / "b", 4)
    whole.run(ignore)
    reported: list[int] = []

    def kill(steps: int) -> None:
        reported.append(steps)
        if len(reported) == 6 * finished:  # 6 steps an epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut.run(kill)
    kept = cut.checkpoint().read()
    assert kept is not None
    assert (kept["epoch"], kept["halfway"]["snapshot"] is None) == (finished - 1, finished - 1 < 2)
    cut.run(ignore)
    first, second = dp.Run.load(whole.path), dp.Run.load(cut.path)
    for name in ("el2n", "aum", "late_aum"):
        np.testing.assert_array_equal(first.scores[name], second.scores[name])
    assert first.metadata["options"] == second.metadata["options"]


def test_a_study_prunes_by_it_and_reuses_its_runs(tmp_path: Path) -> None:
    settings = Settings(
        models=("mlp",), runs=2, epochs=3, batch_size=256, scores=("late_aum",), keep=(0.7,), policies=("hardest",),
        seeds=2, out=tmp_path,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as here:
        summary = run_study(settings, Console(file=io.StringIO()), executor=here)
    assert summary["difficulty"] == "late_aum"
    assert summary["score_correlation"]["scores"] == ["aum", "late_aum"]
    assert set(summary["reliability"]["mlp"]) == {"aum", "late_aum"}
    assert "by late_aum" in summary["verdicts"]["mlp"]["first_line"]
    assert not np.isnan(dp.RunSet.load(tmp_path / "runs").difficulty("late_aum")).any()
    more = replace(settings, scores=("late_aum", "aum"))
    assert unfinished_runs(scoring_tasks(more, DataSource.of("digits"))) == []


def test_a_run_that_lacks_it_is_refused_as_for_any_score(tmp_path: Path) -> None:
    task = scoring(tmp_path, 2, scores=("aum", "el2n"))
    task.run(ignore)
    assert tuple(dp.Run.load(task.path).scores) == ("el2n", "aum")
    assert unfinished_runs([task]) == []
    with pytest.raises(ValueError, match=r"scores is \['el2n', 'aum'\] there and \['late_aum', 'el2n'\] now"):
        unfinished_runs([replace(task, scores=("late_aum", "el2n"))])


def test_where_there_are_no_halves_it_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epochs: got 1, expected at least 2: late_aum is of the second half of them"):
        Settings(scores=("el2n", "late_aum"), epochs=1)
    with pytest.raises(ValueError, match="epochs: got 1, expected at least 2"):
        scoring(tmp_path, 1).run(ignore)
    with pytest.raises(ValueError, match="scores: got 'late_aum', expected loss or recent_loss or vog_loss"):
        Settings(data="sklearn:diabetes", scores=("loss", "late_aum"))
    assert Settings(scores=("el2n", "late_aum"), epochs=2).policy_names[0] == "without-wrong", "by the aum of the runs"


def test_it_tells_what_is_likely_mislabelled_as_aum_does() -> None:
    assert Settings(scores=("late_aum",)).tells_wrong
    assert not Settings(scores=("el2n",)).tells_wrong
