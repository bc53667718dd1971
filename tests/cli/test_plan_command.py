"""The command `plan`: over real photographs in real folders, that change, and decisions about them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photo_runs import NAMES, make_photos, make_runs
from PIL import Image

import difficulty_prune as dp
from difficulty_prune.cli.main import main
from difficulty_prune.study.tasks import DataSource, ScoringTask
from difficulty_prune.study.train import Recipe

ImageFolder = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed").ImageFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photographs and three runs of them."""
    monkeypatch.chdir(tmp_path)
    make_runs(tmp_path / "runs", make_photos(tmp_path / "photos"))
    return tmp_path


def add(path: Path, shade: int = 200) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (2, 2), (shade, 0, 0)).save(path)


def write(path: str, *lines: str) -> str:
    Path(path).write_text("\n".join(lines) + "\n")
    return path


def plan(*arguments: str) -> int:
    return main(["plan", "runs", *arguments])


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert plan(*arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def rows(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_plan_is_that_of_a_sampler_and_one_sentence_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("--keep", "0.7", "-o", "plan.safetensors") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out == "plan.safetensors keeps 14 of 20 examples (70.0%): hardest by el2n, the mean of 3 runs.\n"
    found = dp.Plan.load("plan.safetensors")
    runs = dp.RunSet.load("runs")
    sampler = dp.PruneSampler(dp.policies.Hardest(keep=0.7), runs.difficulty("el2n"), seed=0)
    assert torch.equal(found.index, sampler.plan.index)
    assert found.summary()["classes"]["0"]["examples"] == 10
    assert found.summary()["score"] == "el2n"


def test_a_plan_is_written_to_and_read_from_a_url(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--keep", "0.7", "-o", f"file://{folder}/own/plan.safetensors") == 0
    assert plan("--keep", "0.7", "-o", "memory://plans/plan.safetensors") == 0
    found = dp.Plan.load("memory://plans/plan.safetensors")
    assert torch.equal(found.index, dp.Plan.load(folder / "own/plan.safetensors").index)
    assert main(["export", "runs", "--plan", "memory://plans/plan.safetensors", "-o", "table.csv"]) == 0
    assert sum(float(row["weight"]) for row in rows("table.csv")) == 14
    assert main(["convert", "memory://plans/plan.safetensors", "--from", "plan", "--to", "weights", "-o", "w.csv"]) == 0
    assert len(rows("w.csv")) == 20
    with pytest.raises(SystemExit):
        plan("--keep", "0.7", "-o", "s3:/a/plan.safetensors")
    assert main(["convert", "memory://plans/plan.csv", "-o", "w.csv"]) == 2
    assert plan("--keep", "0.7", "-o", "memory://plans/plan.csv") == 2
    said = capsys.readouterr().err.splitlines()
    assert "expected a URL as text, s3://a/plan.safetensors" in said[0]
    assert "read from a folder of this machine alone" in said[1]
    assert "written to a folder of this machine alone" in said[2]
    assert sorted(path.name for path in folder.iterdir()) == ["own", "photos", "runs", "table.csv", "w.csv"]


@pytest.mark.parametrize("policy", ["random", "stratified", "soft", "importance"])
def test_the_seed_decides_what_chance_decides(policy: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans = []
    for seed in ("0", "0", "5"):
        assert plan("--keep", "0.5", "--policy", policy, "--seed", seed, "-o", "plan.safetensors") == 0
        plans.append(dp.Plan.load("plan.safetensors").digest)
    assert plans[0] == plans[1]
    assert plans[0] != plans[2] or policy == "stratified"
    assert ("a plan holds one draw, that of seed 5" in capsys.readouterr().err) == (policy in ("soft", "importance"))


def test_a_plan_notices_other_data(folder: Path) -> None:
    assert plan("--keep", "0.7", "-o", "plan.safetensors") == 0
    found, train = dp.Plan.load("plan.safetensors"), dp.IndexedDataset(ImageFolder("photos"))
    assert len(dp.PruneSampler(found, np.zeros(20), dataset=train)) == 14
    (folder / "photos/dog/9.png").rename(folder / "photos/dog/0a.png")  # as many, others
    renamed = dp.IndexedDataset(ImageFolder("photos"))
    with pytest.raises(ValueError, match="plan: it is of other data: its 20 ids are others, or in another order"):
        dp.PruneSampler(found, np.zeros(20), dataset=renamed)
    add(folder / "photos/dog/new.png")
    with pytest.raises(ValueError, match="plan: it is of 20 examples, but the data has 21"):
        dp.PruneSampler(found, np.zeros(21), dataset=ImageFolder("photos"))


def test_changed_folders_are_compared_by_id(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(zip(NAMES, dp.RunSet.load("runs").difficulty("el2n"), strict=True))
    (folder / "photos/cat/1.png").unlink()
    add(folder / "photos/ape/x.png")
    add(folder / "photos/dog/0a.png")
    assert plan("--keep", "0.5", "--data", "imagefolder:photos", "-o", "plan.csv") == 0
    said = capsys.readouterr()
    assert said.out == (
        "plan.csv keeps 12 of 21 examples (57.1%): hardest by el2n, the mean of 3 runs; 19 of 21 examples match the "
        "runs, 1 vanished, 2 are new; kept without a score: 2 new.\n"
    )
    assert said.err.startswith("difficulty-prune plan: warning: the data changed since the runs: 19 of 21 examples")
    for name in ("cat/1.png", "ape/x.png", "dog/0a.png"):
        assert repr(name) in said.err
    kept = rows("plan.csv")
    left = [name for name in NAMES if name != "cat/1.png"]
    hardest = sorted(left, key=before.__getitem__)[-10:]
    assert {row["id"] for row in kept} == {"ape/x.png", "dog/0a.png", *hardest}
    today = ImageFolder("photos")
    for row in kept:
        assert (row["path"], int(row["label"])) == today.samples[int(row["index"])]
        assert row["id"].startswith(row["label_name"])
        assert row["weight"] == "1.0"


def test_decisions_go_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        "decisions.csv",
        "id,decision,label,weight",
        "cat/0.png,drop,,",
        "cat/1.png,wrong,,",
        "cat/2.png,wrong,dog,",
        "dog/1.png,keep,,0.5",
        "gone.png,drop,,",
    )
    arguments = ["--keep", "0.5", "--policy", "easiest", "--exclude", "decisions.csv"]
    found = facts(capsys, *arguments, "-o", "plan.csv")
    assert found["decisions"] == {"number": 5, "left": 2, "relabelled": 1, "weighted": 1, "missing": 1}
    assert found["without_score"] == {"new": 0, "never_presented": 0, "relabelled": 1}
    kept = {row["id"]: row for row in rows("plan.csv")}
    assert len(kept) == found["kept"] == 1 + 9  # the relabelled one, and half of the other 17, rounded up
    assert not {"cat/0.png", "cat/1.png"} & set(kept)
    assert (kept["cat/2.png"]["label"], kept["cat/2.png"]["label_name"]) == ("1", "dog")
    if "dog/1.png" in kept:
        assert kept["dog/1.png"]["weight"] == "0.5"
    assert plan(*arguments, "-o", "plan.safetensors") == 0
    said = capsys.readouterr()
    assert "warning: 4 of 5 decisions are of examples of this data (20 examples); 1 is of an id" in said.err
    assert said.out.endswith(
        "; kept without a score: 1 relabelled; by the 5 decisions in decisions.csv: 2 left out, 1 relabelled, "
        "1 weighted, 1 not in the data.\n"
    )
    assert dp.Plan.load("plan.safetensors").index.tolist() == [int(row["index"]) for row in kept.values()]


def test_runs_under_the_corrected_label_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder of the runs is the right one: only what they saw under another label loses its score."""
    write("decisions.csv", "id,decision,label", "cat/2.png,wrong,cat", "cat/3.png,wrong,1")
    found = facts(capsys, "--keep", "1", "--exclude", "decisions.csv", "-o", "plan.csv")
    assert found["without_score"]["relabelled"] == 1
    assert found["classes"]["1"]["examples"] == 11


def test_classes_with_other_numbers_today_are_known_by_their_names(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(folder / "photos/ape/x.png")  # so that cats are class 1 and dogs 2
    write("decisions.csv", "id,decision,label", "cat/2.png,wrong,cat", "cat/3.png,wrong,dog", "cat/4.png,wrong,2")
    found = facts(capsys, "--keep", "1", "--exclude", "decisions.csv", "--data", "imagefolder:photos", "-o", "plan.csv")
    assert found["data"] == {"matched": 20, "vanished": 0, "new": 1, "moved_class": 0}
    assert found["without_score"] == {"new": 1, "never_presented": 0, "relabelled": 2}
    assert {name: entry["examples"] for name, entry in found["classes"].items()} == {"0": 1, "1": 8, "2": 12}


def test_examples_that_moved_class_are_counted_and_a_function_in_the_current_folder_names_the_data(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    Path("todays_photos.py").write_text(
        "import difficulty_prune as dp\n"
        "class Photos:\n"
        f"    names, targets, classes = {NAMES!r}, [1, 1] + [0] * 8 + [1] * 10, ['cat', 'dog']\n"
        "    def __len__(self): return 20\n"
        "    def __getitem__(self, i): return self.names[i], self.targets[i]\n"
        "def make(): return dp.IndexedDataset(Photos(), ids=Photos.names)\n"
    )
    found = facts(capsys, "--keep", "0.5", "--data", "todays_photos:make", "-o", "plan.csv")
    assert found["data"] == {"matched": 20, "vanished": 0, "new": 0, "moved_class": 2}
    assert found["classes"]["1"]["examples"] == 12
    assert plan("--keep", "0.5", "--data", "todays_photos:make", "-o", "plan.csv") == 0
    said = capsys.readouterr()
    assert "2 moved to another class ('cat/0.png', 'cat/1.png')" in said.err
    assert "20 of 20 examples match the runs, 2 moved to another class." in said.out
    sys.modules.pop("todays_photos")


def test_a_list_of_files_holds_what_the_dataset_opens(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--keep", "0.5", "--data", f"imagefolder:{folder / 'photos'}", "-o", "train.txt") == 0
    files = Path("train.txt").read_text().splitlines()
    assert len(files) == 10
    assert all(Path(name).is_absolute() and Path(name).is_file() for name in files)
    assert plan("--keep", "0.5", "-o", "ids.txt") == 0
    assert Path("ids.txt").read_text().splitlines() == [
        str(Path(name).relative_to(folder / "photos")) for name in files
    ]
    write("decisions.csv", "id,decision,label", "cat/2.png,wrong,dog")
    assert plan("--keep", "0.5", "-o", "ids.txt", "--exclude", "decisions.csv") == 0
    assert "relabelled examples are in it under their old ones" in capsys.readouterr().err


def test_every_class_keeps_its_share(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, "--keep", "0.3", "--per-class", "-o", "plan.csv")
    assert [entry["kept"] for entry in found["classes"].values()] == [3, 3]
    same = facts(capsys, "--keep", "0.3", "--policy", "hardest-per-class", "-o", "plan.csv")
    assert same["classes"] == found["classes"]


def test_examples_that_were_never_presented_are_kept_and_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in Path("runs").iterdir():
        run = dp.Run.load(path)
        scores = {"el2n": np.where(np.arange(20) == 7, np.nan, run.scores["el2n"])}
        facts_of = {"ids": run.ids, "labels": run.labels}
        dp.Run(scores, architecture="mlp", seed=run.seed, **facts_of).save(path)
    assert plan("--keep", "0.1", "-o", "plan.csv") == 0
    assert capsys.readouterr().out.endswith("; kept without a score: 1 never presented.\n")
    assert "cat/7.png" in {row["id"] for row in rows("plan.csv")}


def test_runs_without_ids_are_taken_in_order_where_labels_agree(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_runs(folder / "runs", folder / "photos", with_ids=False)
    assert plan("--keep", "0.5", "--data", "imagefolder:photos", "-o", "plan.csv") == 0
    assert capsys.readouterr().err == ""
    assert rows("plan.csv")[0]["id"] in NAMES
    (folder / "photos/cat/9.png").rename(folder / "photos/dog/99.png")
    assert plan("--keep", "0.5", "--data", "imagefolder:photos", "-o", "plan.csv") == 2
    assert "1 of 20 examples of imagefolder:photos have other labels than in the runs" in capsys.readouterr().err
    add(folder / "photos/cat/new.png")
    assert plan("--keep", "0.5", "--data", "imagefolder:photos", "-o", "plan.csv") == 2
    assert "imagefolder:photos has 21 examples, but the runs are of 20 and have no ids" in capsys.readouterr().err


def test_runs_over_versions_of_the_data_are_joined_when_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(folder / "photos/dog/new.png")
    make_runs(folder / "later", folder / "photos", number=1)
    arguments = ["plan", "runs", "later", "--keep", "0.5", "-o", "plan.csv", "--data", "imagefolder:photos"]
    assert main(arguments) == 2
    assert "different numbers of examples" in capsys.readouterr().err
    assert main([*arguments, "--join", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["examples"], found["kept"], found["runs"]) == (21, 11, 4)
    assert found["data"]["new"] == 0


def test_the_runs_of_a_study_have_ids_and_class_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = DataSource.of("imagefolder:photos")
    ScoringTask(source, "mlp", 0, Recipe(1), ("el2n",), "study/runs/mlp-0.safetensors").run(lambda steps: None)
    run = dp.Run.load("study/runs/mlp-0.safetensors")
    assert run.class_names == ("cat", "dog")
    assert set(run.ids) < set(NAMES)
    assert [name.startswith("dog") for name in run.ids] == run.labels.tolist()
    assert main(["plan", "study", "--keep", "0.5", "--data", "imagefolder:photos", "-o", "plan.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data"] == {"matched": 16, "vanished": 0, "new": 0, "moved_class": 0, "set_aside": 4}
    assert (found["examples"], found["kept"]) == (16, 8)
    assert sorted(run.metadata["set_aside"]) == sorted(set(NAMES) - set(run.ids))


ODD = ["a[b]/\u202egnp.1.png", "a[b]/new\nline.png", "[/red]/é 日本.png", "[/red]/:smile:.png"]


def test_odd_names_do_not_break_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = make_photos(tmp_path / "pho\ntos", ODD)
    make_runs(tmp_path / "runs", photos)
    for name in ODD[:2]:
        (photos / name).unlink()
    arguments = ["plan", "runs", "--keep", "1", "--data", "imagefolder:pho\ntos", "-o", "[red]\u202eplan\n.csv"]
    assert main(arguments) == 2  # a class has no images left
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "\u202e" not in said
    add(photos / ODD[0])
    command = [sys.executable, "-m", "difficulty_prune.cli", *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith(r"[red]\u202eplan\n.csv keeps 3 of 3 examples (100.0%)")
    assert len(done.stderr.splitlines()) == 1
    assert r"'a[b]/new\nline.png'" in done.stderr
    assert [row["id"] for row in rows("[red]\u202eplan\n.csv")] == sorted(set(ODD) - {ODD[1]})
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == arguments[-1]


SUSPECTS = ["cat/3.png", "dog/7.png", "dog/1.png"]  # the most likely first


@pytest.fixture
def suspicious(folder: Path) -> Path:
    """Runs whose margins disbelieve the labels of three photographs."""
    data = dp.IndexedDataset(ImageFolder("photos"))
    ids = list(data.ids)
    margin = np.linspace(0.5, 0.9, 20)
    margin[[ids.index(name) for name in SUSPECTS]] = -0.9, -0.8, -0.7
    other = 1 - np.asarray(data.labels)
    means = np.full((20, 2), 0.1, np.float32)
    means[np.arange(20), np.where(margin < 0, other, 1 - other)] = 0.9
    known = {"labels": data.labels, "class_names": data.class_names, "ids": data.ids, "mean_probabilities": means}
    for seed in range(2):
        scores = {"el2n": np.random.default_rng(seed).random(20), "margin": margin}
        dp.Run(scores, architecture="mlp", seed=seed, **known).save(folder / "suspicious" / f"mlp-{seed}.safetensors")
    return folder


def without_wrong(*arguments: str) -> int:
    return main(["plan", "suspicious", "--policy", "without-wrong", "-o", "plan.csv", *arguments])


@pytest.mark.parametrize(
    ("policy", "keep", "warns"), [("hardest", "0.3", True), ("hardest", "0.7", False), ("easiest", "0.7", False)]
)
def test_a_plan_warns_where_it_keeps_more_of_what_looks_wrong_than_chance_would(
    suspicious: Path, capsys: pytest.CaptureFixture[str], policy: str, keep: str, warns: bool
) -> None:
    """Three of 6 of 20 by chance: 1 in 57; three of 14 of 20: 1 in 3."""
    arguments = ["plan", "suspicious", "--score", "margin", "--policy", policy, "--keep", keep, "-o", "plan.csv"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    expected = (
        "difficulty-prune plan: warning: hardest keeps 3 of 3 that are likely wrong (100%), but 30% of all; to leave "
        "those out first, give --policy without-wrong\n"
    )
    assert said.err == (expected if warns else "")
    assert f"left out: {0 if policy == 'hardest' else 3} of 3 that are likely wrong" in said.out
    assert len(kept() & set(SUSPECTS)) == (3 if policy == "hardest" else 0)


def kept() -> set[str]:
    return {row["id"] for row in rows("plan.csv")}


@pytest.mark.parametrize("per_class", [False, True])
def test_a_plan_without_wrong_draws_from_what_does_not_look_mislabelled(
    suspicious: Path, capsys: pytest.CaptureFixture[str], per_class: bool
) -> None:
    assert without_wrong("--keep", "0.8", *["--per-class"] * per_class) == 0
    said = capsys.readouterr()
    assert said.err == ""
    words = "without-wrong per class by el2n" if per_class else "without-wrong by el2n"
    assert said.out == (
        f"plan.csv keeps 16 of 20 examples (80.0%): {words}, the mean of 2 runs; "
        "left out: 3 of 3 that are likely wrong.\n"
    )
    runs = dp.RunSet.load("suspicious")
    policy: Any = dp.policies.Random(keep=0.8)
    policy = dp.policies.WithoutWrong(dp.policies.PerClass(policy) if per_class else policy, wrong=[3, 11, 17])
    labels = runs.labels if per_class else None
    sampler = dp.PruneSampler(policy, runs.difficulty("el2n"), labels=labels, seed=0)
    assert kept() == set(np.asarray(runs.ids)[sampler.plan.index.numpy()])
    assert not kept() & set(SUSPECTS)


@pytest.mark.parametrize(("keep", "left_out"), [("1", 0), ("0.95", 1), ("0.9", 2), ("0.5", 3)])
def test_as_many_suspects_are_left_out_as_there_is_room_for(suspicious: Path, keep: str, left_out: int) -> None:
    assert without_wrong("--keep", keep) == 0
    assert len(kept()) == round(20 * float(keep))
    assert kept() & set(SUSPECTS) == set(SUSPECTS[left_out:])


def test_suspects_are_found_by_id_among_other_data_and_what_people_decided_stays(
    suspicious: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(Path("photos/cat/00.png"))
    Path("photos/cat/2.png").unlink()
    file = write("people.csv", "id,decision,label", "cat/3.png,keep,", "dog/7.png,wrong,cat")
    assert without_wrong("--keep", "0.9", "--data", "imagefolder:photos", "--exclude", file, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["likely_wrong"] == {"number": 1, "left_out": 1}
    assert {"cat/3.png", "dog/7.png", "cat/00.png"} <= kept()
    assert "dog/1.png" not in kept()


def test_runs_that_do_not_tell_what_is_wrong_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dp.Run({"el2n": np.arange(4.0)}, architecture="mlp", seed=0, labels=[0, 1, 0, 1]).save("few/mlp-0.safetensors")
    dp.Run({"margin": np.arange(4.0)}, architecture="mlp", seed=0).save("bare/mlp-0.safetensors")
    for runs, got in (("few", "these have el2n"), ("bare", "these have no labels")):
        assert main(["plan", runs, "--policy", "without-wrong", "--keep", "0.5", "-o", "plan.csv"]) == 2
        said = capsys.readouterr().err
        assert "needs runs with labels, and with margin or aum" in said
        assert got in said
        assert not Path("plan.csv").exists()


def test_a_plan_says_where_nothing_looks_wrong_enough_to_leave_it_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = dp.Run({"margin": np.ones(20)}, architecture="mlp", seed=0, labels=np.arange(20) % 2)
    run.save("same/mlp-0.safetensors")
    assert main(["plan", "same", "--policy", "without-wrong", "--keep", "0.5", "-o", "plan.csv"]) == 0
    said = capsys.readouterr()
    assert "left out: 0 of 0 that are likely wrong" in said.out
