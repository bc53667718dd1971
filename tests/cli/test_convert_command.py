"""The command `convert`: every format that there is, or why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_runs import NAMES, make_photos, make_runs

import difficulty_prune as dp
from difficulty_prune.cli.convert import NOT_FILES, SOURCES, TARGETS
from difficulty_prune.cli.main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photographs, three runs of them and a plan."""
    monkeypatch.chdir(tmp_path)
    make_runs(tmp_path / "runs", make_photos(tmp_path / "photos"))
    plan = dp.policies.Hardest(keep=0.5)(dp.RunSet.load("runs").difficulty("el2n"))
    plan.with_ids(NAMES).save("plan.safetensors")
    return tmp_path


def convert(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["convert", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_format_of_the_package_is_there_or_has_a_reason() -> None:
    written = {name.removeprefix("to_").replace("_", "-") for name in dp.convert.__all__ if name.startswith("to_")}
    read = {name.removeprefix("from_").replace("_", "-") for name in dp.convert.__all__ if name.startswith("from_")}
    assert written - {"pandas"} <= {*TARGETS, *NOT_FILES}  # pandas reads .csv and .parquet
    assert read <= set(SOURCES)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_tables_go_out_and_come_back(folder: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    assert main(["convert", "runs", "-o", f"scores.{suffix}"]) == 0
    assert capsys.readouterr().out == f"scores.{suffix} holds el2n and aum of 3 runs of 20 examples: 3 mlp.\n"
    found = convert(capsys, f"scores.{suffix}", "-o", "mean.safetensors", "--architecture", "mean", "--seed", "7")
    assert found == {
        "written": "mean.safetensors", "from": suffix, "to": "run", "examples": 20, "holds": ["el2n", "aum"]
    }  # fmt: skip
    run, runs = dp.Run.load("mean.safetensors"), dp.RunSet.load("runs")
    assert (run.architecture, run.seed, run.ids.tolist()) == ("mean", 7, NAMES)
    np.testing.assert_array_equal(run.scores["el2n"], runs.mean("el2n"))
    assert convert(capsys, f"scores.{suffix}", "-o", "again.csv")["examples"] == 20
    assert "el2n_standard_error" in dp.convert.from_csv("again.csv")


def test_aum_and_cartography(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(capsys, "runs", "--to", "aum", "-o", "aum_values.csv")
    assert Path("aum_values.csv").read_text().startswith("sample_id,aum\n")
    convert(capsys, "aum_values.csv", "--from", "aum", "-o", "aum.safetensors")
    assert dp.Run.load("aum.safetensors").architecture == "aum"
    convert(capsys, "scores.csv", "--to", "aum", "-o", "b.csv") if convert(capsys, "runs", "-o", "scores.csv") else None
    assert Path("b.csv").read_text() == Path("aum_values.csv").read_text()
    logits = np.random.default_rng(0).normal(size=(2, 4, 3))
    dp.convert.to_cartography(logits, [0, 1, 2, 0], "dynamics")
    found = convert(capsys, "dynamics", "--from", "cartography", "-o", "c.safetensors")
    assert found["examples"] == 4
    assert "variability" in found["holds"]
    convert(capsys, "dynamics", "--from", "cartography", "-o", "c.csv")
    assert "variability_percentile" in dp.convert.from_csv("c.csv")


def test_what_people_look_at(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(capsys, "runs", "--to", "label-studio", "--root", "https://example.org/p/", "-o", "tasks.json")
    tasks = json.loads(Path("tasks.json").read_text())
    hardest = NAMES[int(dp.RunSet.load("runs").difficulty("el2n").argmax())]
    assert tasks[0]["data"]["image"] == f"https://example.org/p/{hardest}"
    convert(capsys, "runs", "--to", "label-studio", "--score", "aum", "-o", "tasks.json")
    assert json.loads(Path("tasks.json").read_text())[0]["data"]["id"] in NAMES
    for name in ("labels.json", "labels.csv"):
        convert(capsys, "runs", "--to", "fiftyone", "--root", "/data", "-o", name)
        assert "/data/cat/0.png" in Path(name).read_text()
    found = convert(capsys, "runs", "--to", "cleanlab", "-o", "cleanlab.npz")
    assert found["holds"] == ["labels", "pred_probs"]
    with np.load("cleanlab.npz") as arrays:
        assert arrays["pred_probs"].shape == (20, 2)
        assert arrays["labels"].tolist() == [0] * 10 + [1] * 10


def test_what_people_decided(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("export.csv").write_text('filepath,tags\n/data/cat/1.png,"mislabeled,night"\n/data/cat/2.png,\n')
    arguments = ["export.csv", "--from", "fiftyone", "--root", "/data", "--tags", "mislabeled=wrong", "bad=drop"]
    assert main(["convert", *arguments, "-o", "decisions.csv"]) == 0
    assert capsys.readouterr().out == "decisions.csv holds 1 decision: 1 wrong (0 with the right label).\n"
    assert [(e.id, e.decision) for e in dp.Decisions.load("decisions.csv")] == [("cat/1.png", "wrong")]
    region = {"from_name": "choice", "type": "choices", "value": {"choices": ["dog"]}}
    task = {"data": {"id": "cat/1.png", "label": "cat"}, "annotations": [{"result": [region]}]}
    Path("export.json").write_text(json.dumps([task]))
    found = convert(capsys, "export.json", "--from", "label-studio", "-o", "decisions.json")
    assert (found["decisions"], found["wrong"], found["to"]) == (1, 1, "decisions")
    assert dp.Decisions.load("decisions.json").corrections(NAMES, ["cat", "dog"]) == {1: 1}
    assert main(["convert", "export.json", "--from", "label-studio", "--choices", "x", "-o", "d.csv"]) == 2
    assert "has the choices []" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_issues_of_cleanlab_from_a_file(
    folder: Path, suffix: str, order: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    pandas = pytest.importorskip("pandas")
    issues = pandas.DataFrame(
        {"is_label_issue": [False, True, False], "label_score": [0.9, 0.1, 0.8], "predicted_label": [0, 1, 0]}
    ).iloc[order]
    if suffix == "csv":
        issues.to_csv("issues.csv")
    else:
        pytest.importorskip("pyarrow")
        issues.to_parquet("issues.parquet")
    make_photos(folder / "three", NAMES[:3])
    convert(capsys, f"issues.{suffix}", "--from", "cleanlab", "-o", "by-index.csv")
    assert [(e.index, e.decision, e.note) for e in dp.Decisions.load("by-index.csv")] == [
        (1, "wrong", "cleanlab: label quality 0.1")
    ]
    arguments = ["--from", "cleanlab", "--relabel", "--data", "imagefolder:three", "-o", "by-id.csv"]
    convert(capsys, f"issues.{suffix}", *arguments)
    assert dp.Decisions.load("by-id.csv").corrections(NAMES[:3], ["cat", "dog"]) == {1: 1}


@pytest.mark.parametrize("text", ["id,el2n\n", "id;el2n\na;1\n"])
def test_a_table_without_scores_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text(text)
    assert main(["convert", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.npz")]) == 2
    assert "none of which is a score" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


def test_plans_for_other_trainers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = dp.Plan.load("plan.safetensors").index.tolist()
    convert(capsys, "plan.safetensors", "--to", "weights", "-o", "weights.csv")
    lines = Path("weights.csv").read_text().splitlines()[1:]
    assert [i for i, line in enumerate(lines) if line.endswith(",1.0")] == kept
    assert main(["convert", "plan.safetensors", "--data", "imagefolder:photos", "-o", "train.txt"]) == 0
    assert capsys.readouterr().out == "train.txt lists the 10 files that plan.safetensors keeps.\n"
    assert Path("train.txt").read_text().splitlines() == [f"photos/{NAMES[i]}" for i in kept]
    convert(capsys, "plan.safetensors", "--data", "imagefolder:photos", "--root", "/data", "-o", "train.txt")
    assert Path("train.txt").read_text().splitlines() == [f"/data/{NAMES[i]}" for i in kept]
    (folder / "photos/cat/0.png").rename(folder / "photos/cat/00.png")
    assert main(["convert", "plan.safetensors", "--data", "imagefolder:photos", "-o", "train.txt"]) == 2
    assert "it is of other data" in capsys.readouterr().err
