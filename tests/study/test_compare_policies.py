"""The comparison of a study: what is likely wrong, equal plans, seeds that are added, and its rows."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import difficulty_prune as dp
from difficulty_prune.study import compare_policies as room
from difficulty_prune.study.compare_policies import compare_policies, likely_wrong, make_policies
from difficulty_prune.study.result_file import write_result
from difficulty_prune.study.settings import Settings
from difficulty_prune.study.study_data import load_data
from difficulty_prune.study.tasks import DataSource

DIGITS = load_data("digits")
LABELS = DIGITS.train.labels.numpy()
SIZE = len(LABELS)


def make_runs(wrong: int, labels=LABELS) -> dp.RunSet:
    """Two runs in which the first examples look mislabelled."""
    rng = np.random.default_rng(0)
    lead = rng.uniform(0.3, 0.9, len(labels))
    lead[:wrong] *= -1
    return dp.RunSet(
        dp.Run(
            {"el2n": 1 - lead + 0.01 * rng.normal(size=len(labels)), "aum": lead + 0.01 * rng.normal(size=len(labels))},
            architecture="mlp", seed=seed, labels=labels,
        )
        for seed in range(2)
    )  # fmt: skip


def test_what_is_likely_wrong_is_left_out_as_far_as_there_is_room() -> None:
    index, said = likely_wrong(make_runs(200), LABELS)
    assert sorted(index) == list(range(200))
    assert said["in_words"] == "200 of 1,437 labels are likely wrong (13.9%)."
    settings = Settings(keep=(0.5, 0.9), policies=("without-wrong",))
    policies, labels = make_policies(settings, index, SIZE)
    assert list(policies) == [
        "a random 50 % without 200 likely mislabelled",
        "a random 90 % without 144 likely mislabelled",
    ]
    assert list(labels.values()) == [("without-wrong", 0.5), ("without-wrong", 0.9)]
    kept = policies["a random 90 % without 144 likely mislabelled"](np.zeros(SIZE)).index.tolist()
    assert not set(kept) & set(index[:144].tolist())


def test_an_estimate_that_says_little_leaves_nothing_out() -> None:
    index, said = likely_wrong(make_runs(1200), LABELS)
    assert (len(index), said["left_out"]) == (0, 0)
    assert "None is left out for it" in said["in_words"]
    same = dp.RunSet(dp.Run({"aum": np.ones(9)}, architecture="mlp", seed=s, labels=[0, 1, 2] * 3) for s in range(2))
    index, said = likely_wrong(same, np.array([0, 1, 2] * 3))
    assert len(index) == 0
    assert "is not known" in said["in_words"]


def test_a_class_of_suspects_only_stays() -> None:
    labels = np.array([0] * 60 + [1] * 100 + [2] * 100)
    runs = make_runs(60, labels)
    everything = dp.RunSet(dp.Run(dict(run.scores), architecture="mlp", seed=run.seed) for run in runs)
    index, said = likely_wrong(everything, labels)
    assert len(index) == 0
    assert "a whole class" in said["in_words"]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of trainings: results that follow what is visited; the files that were written."""
    written: list[str] = []

    def run_tasks(tasks, workers, size, console, title, log):
        for task in tasks:
            sampler = room.Design(torch.from_numpy(task.difficulty), DIGITS.train.labels, {"x": task.policy}, task.seed)
            visited = list(sampler.sampler(room.Arm("x", "policy", task.policy), task.seed))
            luck = np.random.default_rng([task.seed, len(task.training), visited[0]]).normal() * 0.004
            accuracy = 0.8 + 0.1 * float(np.mean(task.difficulty[visited])) + luck
            result = {
                "task": task._facts(), "examples": len(visited), "plan": task.training, "peak_memory_bytes": None,
                "test_accuracy": min(1.0, max(0.0, accuracy)), "class_accuracy": [0.5] * 9 + [None],
                "presentations": task.length or len(visited), "steps": 7, "seconds": 1.0, "alone": task.alone,
            }  # fmt: skip
            write_result(task.path, result)
            written.append(Path(task.path).name)

    monkeypatch.setattr(room, "run_tasks", run_tasks)
    return written


def compare(folder: Path, workers: int = 1, runs: dp.RunSet | None = None, **options) -> room.Compared:
    settings = Settings(models=("mlp",), out=folder, **options)
    source = DataSource.of("digits")
    return compare_policies(settings, source, DIGITS, runs or make_runs(100), workers, Console(file=io.StringIO()))


def test_equal_plans_are_one_training_and_one_row(trained: list[str], tmp_path: Path) -> None:
    found = compare(tmp_path, keep=(0.5,), policies=("hardest", "hardest-per-class", "stratified", "random"), seeds=2)
    assert len(trained) == len(set(trained)) == 2 * 6
    assert [row["policy"] for row in found.rows] == [
        "full", "random", "fewer-steps", "hardest", "hardest-per-class", "stratified",
    ]  # fmt: skip
    again = compare(tmp_path, keep=(0.5,), policies=("hardest", "window"), seeds=3)
    assert again.reused == 2 * 4
    assert json.loads(json.dumps(again.rows)) == again.rows
    whole = compare(tmp_path, keep=(1.0,), policies=("hardest", "easiest"), seeds=2)
    assert [row["policy"] for row in whole.rows] == ["full", "random", "fewer-steps", "hardest", "easiest"]
    assert whole.rows[3]["same_plan"] == ["full 1", "random 1", "fewer-steps 1", "easiest 1"]
    assert len({json.dumps(row["test_accuracies"]) for row in whole.rows}) == 1
    assert [row.names[-1] for row in whole.of_models["mlp"].rows] == ["the easiest 100 % by el2n"]


@pytest.mark.parametrize(
    ("keep", "policies", "files"),
    [((0.5,), ("hardest", "easy-to-hard", "review"), 7), ((0.005,), ("hardest-per-class", "soft"), 6)],
)
def test_trainings_of_one_name_have_files_of_their_own(
    trained: list[str], tmp_path: Path, keep: tuple[float, ...], policies: tuple[str, ...], files: int
) -> None:
    """The random part of each epoch of several policies, which draw it otherwise, or keep another number."""
    found = compare(tmp_path, keep=keep, policies=policies, seeds=2)
    assert len(trained) == len(set(trained)) == 2 * files
    again = compare(tmp_path, keep=keep, policies=policies, seeds=2)
    assert (again.reused, again.rows) == (2 * files, found.rows)


def test_a_policy_that_would_drop_a_class_is_left_out_with_a_line(trained: list[str], tmp_path: Path) -> None:
    """The higher the digit, the harder: the hardest 30 % have no zero, and the easiest no four."""
    runs = dp.RunSet(
        dp.Run({"el2n": LABELS + np.linspace(0, 0.9, SIZE), "aum": -LABELS}, architecture="mlp", seed=s, labels=LABELS)
        for s in range(2)
    )
    ends = ("hardest", "easiest")
    found = compare(tmp_path, runs=runs, keep=(0.3, 0.95), policies=(*ends, "hardest-per-class"), seeds=2)
    assert {row["policy"] for row in found.rows if row["keep"] == 0.3} >= {"random", "hardest-per-class"}
    assert not {row["policy"] for row in found.rows if row["keep"] == 0.3} & set(ends)
    assert {row["policy"] for row in found.rows if row["keep"] == 0.95} >= set(ends)
    hardest, easiest = found.left_out
    assert hardest.startswith("Not compared: the hardest 30 % by el2n, since Hardest(keep=0.3) would drop class 0 ent")
    assert easiest.startswith("Not compared: the easiest 30 % by el2n, since Easiest(keep=0.3) would drop class 4 ent")
    assert hardest.endswith("keep more, or take hardest-per-class, which keeps some of every class")
    nothing = compare(tmp_path / "nothing", runs=runs, keep=(0.3,), policies=ends, seeds=2)
    assert (nothing.rows, nothing.of_models, nothing.left_out) == ([], {}, found.left_out)


def test_shares_that_read_alike_are_two_policies() -> None:
    policies, labels = make_policies(Settings(keep=(0.1231, 0.1234), policies=("hardest",)), np.empty(0, int), SIZE)
    assert list(labels.values()) == [("hardest", 0.1231), ("hardest", 0.1234)]
    assert [policy.keep for policy in policies.values()] == [0.1231, 0.1234]


def test_seeds_are_added_until_differences_to_chance_are_known(trained: list[str], tmp_path: Path) -> None:
    first = compare(tmp_path, policies=("hardest",), seeds=3)
    width = first.of_models["mlp"].widest
    found = compare(tmp_path, policies=("hardest",), seeds=3, until=width / 2)
    assert found.of_models["mlp"].widest < width / 2
    seeds = found.of_models["mlp"].seeds
    assert seeds == tuple(range(1000, 1000 + len(seeds)))
    assert len(seeds) > 3
    assert found.rows[0]["seeds"] == len(seeds)


def test_wall_times_are_told_of_trainings_that_ran_alone(trained: list[str], tmp_path: Path) -> None:
    found = compare(tmp_path, policies=("hardest",), seeds=2)
    assert all(row["seconds"] == 1.0 for row in found.rows)
    (row,) = found.of_models["mlp"].policies
    assert set(row.classes["test accuracy per class"]) == set("012345678")  # the last has no test image
    assert found.wrong_labels is None
    beside = compare(tmp_path / "beside", workers=2, policies=("hardest",), seeds=2)
    again = compare(tmp_path / "beside", policies=("hardest",), seeds=2)  # alone, but nothing is left to train
    assert again.reused == 8
    assert [row["seconds"] for row in beside.rows] == [row["seconds"] for row in again.rows] == [None] * 4


def test_nothing_is_compared_where_nothing_is_to_be_kept(tmp_path: Path) -> None:
    found = compare(tmp_path, keep=())
    assert (found.rows, found.of_models) == ([], {})
