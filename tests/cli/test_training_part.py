"""Runs of a study that split its data itself: `--data` is then its training part, and no test example is new."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_runs import NAMES, make_photos
from PIL import Image

import difficulty_prune as dp
from difficulty_prune.cli.main import main
from difficulty_prune.data import dataset_fingerprint
from difficulty_prune.study.study_data import load_data

SPECS = ("sklearn:wine", "table:wine.csv#kind", "table:named.csv#kind", "regression:named.csv#ash", "sklearn:diabetes")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the wines of scikit-learn as tables, one of which names its rows."""
    from sklearn.datasets import load_wine

    monkeypatch.chdir(tmp_path)
    load_data.cache_clear()
    wines = load_wine()
    cells = [[*row, wines.target_names[kind]] for row, kind in zip(wines.data.tolist(), wines.target, strict=True)]
    header = [*wines.feature_names, "kind"]
    write("wine.csv", header, cells)
    write("named.csv", [*header, "id"], [[*row, f"w{place}"] for place, row in enumerate(cells)])
    return tmp_path


def write(path: str, header: list[Any], rows: list[list[Any]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def read(path: str) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def scored(spec: str, test: str | None = None, **changes: Any) -> dp.Run:
    """The file of a run of a study in `res/runs`, without its training; `changes` of None leave out."""
    data = load_data(spec, test)
    facts: dict[str, Any] = {
        "labels": data.classes,
        "ids": data.train.ids,
        "class_names": data.names_of_classes,
        "dataset_fingerprint": dataset_fingerprint(data.train),
        "data": spec,
        "set_aside": data.set_aside,
        "test_digest": "t",
        **changes,
    }
    facts = {name: value for name, value in facts.items() if value is not None}
    run = dp.Run({"loss": np.random.default_rng(0).random(len(data.train))}, architecture="mlp", seed=0, **facts)
    Path("res/runs").mkdir(parents=True, exist_ok=True)
    run.save("res/runs/mlp-0.safetensors")
    return run


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What a command says in JSON; nothing on stderr but the bar."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert "warning" not in said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("earlier", [False, True])  # a version whose runs do not say what was set aside
def test_every_command_takes_the_training_part(
    spec: str, earlier: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = scored(spec, **({"set_aside": None} if earlier else {}))
    size, aside = len(run), len(load_data(spec).test)
    found = told(capsys, "plan", "res", "--keep", "0.5", "--data", spec, "-o", "with.safetensors")
    assert found["data"] == {"matched": size, "vanished": 0, "new": 0, "moved_class": 0, "set_aside": aside}
    assert found["examples"] == size
    assert set(found["without_score"].values()) == {0}
    told(capsys, "plan", "res", "--keep", "0.5", "-o", "without.safetensors")
    plans = [dp.Plan.load(f"{name}.safetensors") for name in ("with", "without")]
    assert plans[0].digest == plans[1].digest
    page = told(capsys, "audit", "res", "--data", spec, "--plan", "without.safetensors", "-o", "audit.html")
    assert (page["shown"], page["set_aside"]) == (size, aside)
    table = told(capsys, "export", "res", "--data", spec, "--plan", "with.safetensors", "-o", "table.csv")
    assert table["rows"] == size
    if run.ids is not None:
        weights = told(capsys, "convert", "with.safetensors", "--data", spec, "--to", "weights", "-o", "weights.csv")
        assert weights["examples"] == size


def test_the_sentence_says_what_was_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored("sklearn:wine")
    assert main(["plan", "res", "--keep", "0.5", "--data", "sklearn:wine", "-o", "plan.csv"]) == 0
    assert capsys.readouterr().out == (
        "plan.csv keeps 71 of 142 examples (50.0%): hardest by loss, one run; 142 of 142 examples match the runs, left "
        "out are 36 more, which the study set aside for testing.\n"
    )


def test_test_data_of_its_own_leaves_nothing_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = scored("table:named.csv#kind", "table:wine.csv#kind")
    assert (len(run), run.metadata["set_aside"]) == (178, 0)
    found = told(capsys, "plan", "res", "--keep", "0.5", "--data", "table:named.csv#kind", "-o", "plan.csv")
    assert found["data"] == {"matched": 178, "vanished": 0, "new": 0, "moved_class": 0}
    rows = read("named.csv")
    write("more.csv", rows[0], [*rows[1:], *([*row[:-1], f"n{place}"] for place, row in enumerate(rows[1:46]))])
    found = told_with_warning(capsys, "plan", "res", "--keep", "0.5", "--data", "table:more.csv#kind", "-o", "plan.csv")
    assert found["data"] == {"matched": 178, "vanished": 0, "new": 45, "moved_class": 0}, "as many as a fifth of all"


def told_with_warning(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    said = capsys.readouterr()
    assert "the data changed since the runs" in said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_test_examples_stay_out_where_the_data_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_photos(folder / "photos")
    run = scored("imagefolder:photos")
    assert run.ids is not None
    aside = run.metadata["set_aside"]
    assert sorted([*aside, *run.ids]) == sorted(NAMES)
    (folder / "photos" / run.ids[0]).unlink()
    (folder / "photos" / aside[0]).unlink()
    Image.new("RGB", (2, 2)).save(folder / "photos/dog/new.png")
    arguments = ("plan", "res", "--keep", "1", "--data", "imagefolder:photos", "-o", "plan.csv")
    found = told_with_warning(capsys, *arguments)
    assert found["data"] == {"matched": 15, "vanished": 1, "new": 1, "moved_class": 0, "set_aside": 3}
    kept = {row[0] for row in read("plan.csv")[1:]}
    assert kept == {*run.ids[1:], "dog/new.png"}
    rows = read("named.csv")
    scored("table:named.csv#kind")
    load_data.cache_clear()
    names = [row for row in rows[1:] if row[-1] in load_data("table:named.csv#kind").set_aside]
    write("test.csv", rows[0], names)
    assert main(["plan", "res", "--keep", "1", "--data", "table:test.csv#kind", "-o", "plan.csv"]) == 2
    assert "all of table:test.csv#kind was set aside for testing" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("plan", "--keep", "0.5", "-o", "p.csv"), ("audit",), ("export", "-o", "t.csv")])
def test_other_data_of_numbered_rows_is_refused(
    command: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored("sklearn:wine")
    assert main([*command, "res", "--data", "sklearn:iris"]) == 2
    assert "numbers of rows, which match whatever the data is: it is another dataset" in capsys.readouterr().err
    scored("sklearn:diabetes")  # numbers to predict, and no classes to compare
    assert main([*command, "res", "--data", "sklearn:digits"]) == 2
    assert "the runs say that they are of sklearn:diabetes" in capsys.readouterr().err
    assert not list(folder.glob("*.html"))


def test_rows_of_which_no_classes_are_known_are_warned_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = dp.Run({"loss": np.linspace(0, 1, 442)}, architecture="mlp", seed=0, ids=np.arange(442))
    Path("runs").mkdir()
    run.save("runs/mlp-0.safetensors")
    assert main(["plan", "runs", "--keep", "0.5", "--data", "sklearn:diabetes", "-o", "plan.csv"]) == 0
    assert "warning: the ids of the runs are numbers of rows" in capsys.readouterr().err


def test_a_changed_table_without_ids_is_refused_by_audit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored("table:wine.csv#kind")
    rows = read("wine.csv")
    rows[5][0] = "99.0"
    write("wine.csv", rows[0], rows[1:])
    assert main(["audit", "res", "--data", "table:wine.csv#kind"]) == 2
    assert "the rows of wine.csv are others than those that the study trained on" in capsys.readouterr().err
    write("wine.csv", rows[0], rows[1:-1])
    assert main(["plan", "res", "--keep", "0.5", "--data", "table:wine.csv#kind", "-o", "plan.csv"]) == 2
    assert "has 177 examples, but the runs are of 142 and have no ids" in capsys.readouterr().err
