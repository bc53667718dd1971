"""The command `export`: a table that pandas opens, in the order of today's data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_runs import NAMES, make_photos, make_runs
from PIL import Image

import difficulty_prune as dp
from difficulty_prune.cli.main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photographs and three runs of them."""
    monkeypatch.chdir(tmp_path)
    make_runs(tmp_path / "runs", make_photos(tmp_path / "photos"))
    return tmp_path


def export(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["export", "runs", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


COLUMNS = ("el2n", "el2n_percentile", "el2n_standard_error", "el2n_runs")


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_the_table_has_what_the_runs_know(folder: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    assert main(["export", "runs", "-o", f"table.{suffix}"]) == 0
    assert capsys.readouterr().out == (
        f"table.{suffix} has 20 rows and 16 columns: el2n and aum of 3 runs of 20 examples: 3 mlp.\n"
    )
    found = export(capsys, "--scores", "el2n", "-o", f"table.{suffix}")
    known = ["id", "index", "label", "suggested", "suggested_probability", "label_quality", *COLUMNS]
    assert found["columns"] == [*known, "label_name", "suggested_name"]
    assert (found["rows"], found["scores"]) == (20, ["el2n"])
    read = {"csv": dp.convert.from_csv, "parquet": dp.convert.from_parquet, "npz": dp.convert.from_npz}[suffix]
    table, runs = read(f"table.{suffix}"), dp.RunSet.load("runs")
    assert table["id"].tolist() == NAMES
    assert table["label_name"].tolist() == [name[:3] for name in NAMES]
    suggested = runs.suggested()
    assert table["suggested_name"].tolist() == [("cat", "dog")[i] for i in suggested]
    np.testing.assert_array_equal(table["el2n"], runs.mean("el2n"))
    np.testing.assert_array_equal(table["el2n_standard_error"], runs.standard_error("el2n"))
    assert set(table["el2n_runs"].tolist()) == {3}


def test_pandas_opens_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    Path("decisions.csv").write_text("id,decision\ncat/3.png,drop\n")
    export(capsys, "--decisions", "decisions.csv", "-o", "table.parquet")
    frame = pandas.read_parquet("table.parquet").set_index("id")
    assert frame.loc["cat/3.png", "decision"] == "drop"
    assert frame["decision"].isna().sum() == 19
    assert frame["weight"].tolist() == [float(name != "cat/3.png") for name in NAMES]
    assert frame.loc["dog/1.png", "label_name"] == "dog"
    assert 0 < frame["el2n_percentile"].min() < frame["el2n_percentile"].max() < 100


def test_decisions_give_weights_even_where_nothing_is_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{name},drop," for name in NAMES[2:]] + ["cat/0.png,wrong,", "cat/1.png,keep,0.25"]
    Path("decisions.csv").write_text("\n".join(["id,decision,weight", *lines]) + "\n")
    found = export(capsys, "--decisions", "decisions.csv", "-o", "table.csv")
    assert found["decisions"] == {"number": 20, "left": 19, "relabelled": 0, "weighted": 1, "missing": 0}
    table = dp.convert.from_csv("table.csv")
    assert table["weight"].tolist() == ["0.0", "0.25", *["0.0"] * 18]
    assert table["decision"].tolist() == ["wrong", "keep", *["drop"] * 18]
    Path("decisions.csv").write_text("\n".join(["id,decision,weight", *lines[:-1], "cat/1.png,drop,"]) + "\n")
    assert export(capsys, "--decisions", "decisions.csv", "-o", "table.csv")["decisions"]["left"] == 20


def test_rows_are_those_of_today(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dp.convert.ScoreTable.of(dp.RunSet.load("runs"))
    (folder / "photos/cat/1.png").unlink()
    (folder / "photos/ape").mkdir()
    Image.new("RGB", (2, 2)).save(folder / "photos/ape/x.png")
    found = export(capsys, "--data", "imagefolder:photos", "-o", "table.csv")
    assert found["data"] == {"matched": 19, "vanished": 1, "new": 1, "moved_class": 0}
    table = dp.convert.from_csv("table.csv")
    assert table["id"].tolist() == ["ape/x.png", *(name for name in NAMES if name != "cat/1.png")]
    assert table["path"].tolist() == [f"photos/{name}" for name in table["id"]]
    assert table["index"].tolist() == list(range(20))
    assert set(zip(table["label"].tolist(), table["label_name"].tolist(), strict=True)) == {
        (0, "ape"),
        (1, "cat"),
        (2, "dog"),
    }
    place = {name: row for row, name in enumerate(NAMES)}
    for row, name in enumerate(table["id"]):
        if name == "ape/x.png":
            assert table["suggested"][row] == -1
            assert table["el2n_runs"][row] == 0
            assert np.isnan([table[column][row] for column in COLUMNS[:3]]).all()
            continue
        for column in ("el2n", "el2n_standard_error", "el2n_runs", "suggested_probability", "label_quality"):
            assert table[column][row] == before[column][place[name]]
        assert table["suggested"][row] == before["suggested"][place[name]] + 1  # since apes came first
    known = ~np.isnan(table["aum"])
    order = np.argsort(-table["aum"][known])  # a small margin is hard
    assert np.diff(table["aum_percentile"][known][order]).min() > 0
    assert table["aum_percentile"][known].min() == pytest.approx(100 * 0.5 / 19)


def test_a_plan_gives_the_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "runs", "--keep", "0.5", "-o", "plan.safetensors"]) == 0
    capsys.readouterr()
    export(capsys, "--plan", "plan.safetensors", "-o", "table.csv")
    table = dp.convert.from_csv("table.csv")
    assert [i for i, w in enumerate(table["weight"].tolist()) if float(w)] == dp.Plan.load(
        "plan.safetensors"
    ).index.tolist()
    assert "decision" not in table


def test_label_quality_is_not_known_of_an_example_that_moved(folder: Path) -> None:
    runs = dp.RunSet.load("runs")
    data = dp.IndexedDataset([(0, 0)] * 3, ids=["cat/1.png", "cat/2.png", "new"])
    object.__setattr__(data, "dataset", _Labelled([0, 1, 0]))
    match = runs.match(data)
    assert match.report.moved_class == 1
    table = dp.convert.todays_table.todays_table(runs, match, ids=data.ids, class_names=None, scores=["el2n"])
    assert np.isnan(table["label_quality"]).tolist() == [False, True, True]
    assert table["label"].tolist() == [0, 1, 0]


class _Labelled:
    def __init__(self, targets: list[int]) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[int, int]:
        return i, self.targets[i]
