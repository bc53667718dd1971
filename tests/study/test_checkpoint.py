"""A training that was killed goes on in the middle, to the same result bit by bit; nothing stale is taken up."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import difficulty_prune as dp
from difficulty_prune.study import checkpoint
from difficulty_prune.study.checkpoint import Checkpoint, code_digest
from difficulty_prune.study.tasks import ComparisonTask, DataSource, ScoringTask, tell_of_checkpoints
from difficulty_prune.study.train import Recipe

RECIPE = Recipe(epochs=4, batch_size=256)
SCORES = ("el2n", "forgetting", "vog_loss")


class Killed(BaseException):
    """In place of a signal."""


@pytest.fixture(autouse=True)
def after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.Checkpoint.__init__, "__defaults__", (0.0,))


def scoring(folder: Path, **changes: Any) -> ScoringTask:
    task = ScoringTask(
        DataSource.of("digits"), "mlp", 3, RECIPE, SCORES, str(folder / "mlp-3.safetensors"), first_seed=3
    )
    return replace(task, **changes)


def comparison(folder: Path) -> ComparisonTask:
    difficulty = np.random.default_rng(0).random(1437)
    soft = dp.policies.SoftPrune(0.5)
    return ComparisonTask(
        DataSource.of("digits"), "mlp", 1000, RECIPE, "soft", 0.5, soft, difficulty, "el2n", str(folder / "soft.json")
    )


def killed(task: ScoringTask | ComparisonTask, epochs: int, steps_of_epoch: int = 6) -> None:
    """Runs the task to the last step of so many epochs; the checkpoint of the epoch before is written."""
    done = 0

    def report(steps: int) -> None:
        nonlocal done
        done += steps
        if done == epochs * steps_of_epoch:
            raise Killed

    with pytest.raises(Killed):
        task.run(report)


def test_a_scoring_run_that_was_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, cut = scoring(tmp_path / "a"), scoring(tmp_path / "b")
    whole.run(lambda steps: None)
    killed(cut, epochs=3)
    assert cut.checkpoint().epoch() == 2
    assert not cut.is_done()
    reported: list[int] = []
    assert (whole.steps(1437), cut.steps(1437)) == (24, 12)
    cut.run(reported.append)
    assert reported == [1] * 12
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mlp-3.safetensors"]
    first, second = dp.Run.load(whole.path), dp.Run.load(cut.path)
    for name in SCORES:
        np.testing.assert_array_equal(first.scores[name], second.scores[name])
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    np.testing.assert_array_equal(first.mean_probabilities, second.mean_probabilities)
    assert first.metadata["outcome"]["test_accuracy"] == second.metadata["outcome"]["test_accuracy"]
    assert first.metadata["presentations"] == second.metadata["presentations"]


def test_a_comparison_with_a_plan_for_each_epoch_goes_on_too(tmp_path: Path) -> None:
    whole, cut = comparison(tmp_path / "a"), comparison(tmp_path / "b")
    whole.run(lambda steps: None)
    killed(cut, epochs=2, steps_of_epoch=3)
    cut.run(lambda steps: None)
    first, second = ({**task.result(), "seconds": 0, "peak_memory_bytes": 0} for task in (whole, cut))
    assert first == second
    assert not cut.checkpoint().path.exists()


def test_another_training_does_not_take_up_the_checkpoint_and_that_is_said(tmp_path: Path) -> None:
    task = scoring(tmp_path)
    killed(task, epochs=2)
    others = {
        "recipe": replace(RECIPE, learning_rate=0.1),
        "seed": 4,
        "scores": ("el2n",),
        "hold_out": 0.5,
        "source": replace(task.source, train_digest="0" * 32),
        "model": "cnn",
    }
    for name, value in others.items():
        assert replace(task, **{name: value}).checkpoint().read() is None, name
    said = io.StringIO()
    tell_of_checkpoints([task, replace(task, seed=4), scoring(tmp_path / "none")], Console(file=said, width=300))
    assert said.getvalue().splitlines() == [
        "mlp, seed 3 goes on after epoch 1 of 4",
        f"{tmp_path / 'mlp-3.checkpoint'} is of other settings, data or code, or damaged: mlp, seed 4 begins anew",
    ]


def test_other_code_or_another_pytorch_does_not_take_it_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Checkpoint(tmp_path / "a", {"seed": 1})
    own.write(1, {"epoch": 1})
    assert Checkpoint(tmp_path / "a", {"seed": 1}).read() == {"epoch": 1}
    assert Checkpoint(tmp_path / "a", {"seed": 2}).read() is None
    monkeypatch.setattr(checkpoint, "code_digest", lambda: "other")
    assert Checkpoint(tmp_path / "a", {"seed": 1}).read() is None
    monkeypatch.undo()
    assert len(code_digest()) == 32
    monkeypatch.setattr(torch, "__version__", "1.0")
    assert Checkpoint(tmp_path / "a", {"seed": 1}).read() is None


Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[: content.index(b"\n") + 1],
        lambda content: content.replace(b"\n", b"", 1),
        lambda content: content[:-200] + bytes([content[-200] ^ 1]) + content[-199:],
        lambda content: b"\xff" + content,
        lambda content: b"[]\n" + content,
        lambda content: content.replace(b'"epoch": 2', b'"epoch": 3'),
    ],
)
def test_a_damaged_checkpoint_is_as_if_it_were_not_there(damage: Damage, tmp_path: Path) -> None:
    own = Checkpoint(tmp_path / "a", {})
    own.write(2, {"weights": torch.arange(300)})
    assert own.epoch() == 2
    (tmp_path / "a").write_bytes(damage((tmp_path / "a").read_bytes()))
    assert own.read() is None
    assert own.epoch() is None  # so that the study says that it begins anew


class Mine:
    """A class that only a pickle would bring back."""


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    own = Checkpoint(tmp_path / "a", {})
    own.write(1, {"mine": Mine()})
    assert own.epoch() == 1
    assert own.read() is None


def test_checkpoints_are_written_no_more_often_than_asked_for(tmp_path: Path) -> None:
    own = Checkpoint(tmp_path / "a", {}, every=3600)
    own.write(1, {})
    assert not own.path.exists()
    own.remove()
