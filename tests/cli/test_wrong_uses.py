"""Wrong uses of `plan`, `export` and `convert`: one clear line, exit status 2, and nothing is written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from photo_runs import NAMES, make_photos, make_runs

import difficulty_prune as dp
from difficulty_prune.cli.main import main

PLAN, EXPORT, CONVERT = ("plan runs --keep 0.5 -o p.csv", "export runs -o t.csv", "convert runs -o t.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, runs of them, and files that are wrong in one way each."""
    root = tmp_path_factory.mktemp("wrong")
    make_runs(root / "runs", make_photos(root / "photos"))
    make_runs(root / "others", make_photos(root / "other-photos", [f"x{name}" for name in NAMES]))
    dp.Run({"el2n": np.arange(20.0)}, architecture="x", seed=0, ids=range(20)).save(root / "numbered/x.safetensors")
    make_runs(root / "bare", root / "photos", with_ids=False, labels=None, class_names=None)
    dp.policies.Hardest(0.5)(np.arange(30.0)).save(root / "plan30.safetensors")
    tables = {
        "of-others.csv": "id,decision\nzebra/1.png,drop\nzebra/2.png,keep\n",
        "contradict.csv": "id,decision\ncat/1.png,drop\ncat/2.png,drop\ncat/1.png,keep\n",
        "no-class.csv": "id,decision,label\ncat/1.png,wrong,zebra\n",
        "all.csv": "id,decision\n" + "".join(f"{name},drop\n" for name in NAMES),
        "by-index.csv": "index,decision\n3,drop\n",
        "bad-word.csv": "id,decision\ncat/1.png,maybe\n",
        "tags.csv": "filepath,tags\na.png,night\n",
        "malformed.csv": "sample_id,aum\na,1\nb,x\n",
        "issues.csv": "is_label_issue\nperhaps\n",
        "notes.txt": "x",
    }
    for name, text in tables.items():
        (root / name).write_text(text)
    (root / "shrunk").mkdir()
    make_photos(root / "shrunk", NAMES[1:])
    (root / "empty").mkdir()
    return root


WRONG = [
    ("plan nothing-here --keep 0.5 -o p.csv", "nothing-here: no run files there"),
    ("plan empty --keep 0.5 -o p.csv", "empty: no run files there"),
    ("plan notes.txt --keep 0.5 -o p.csv", "notes.txt"),
    ("plan plan30.safetensors --keep 0.5 -o p.csv", "holds a plan, expected a run"),
    ("plan runs others --keep 0.5 -o p.csv", "have different ids"),
    ("plan runs numbered --keep 0.5 -o p.csv --join", "are of different kinds, text and numbers"),
    ("plan runs --keep 1.5 -o p.csv", "keep: got 1.5"),
    ("plan runs --keep 0.5", "the following arguments are required: -o/--out"),
    ("plan runs -o p.csv", "the following arguments are required: --keep"),
    (f"{PLAN} --score loss", "score: got 'loss'; all runs have el2n, aum"),
    (f"{PLAN} --policy best", "invalid choice: 'best'"),
    (f"{PLAN} --seed -1", "seed: got -1"),
    (f"{PLAN} --policy hardest-per-class --per-class", "per_class: hardest-per-class keeps the same share"),
    (
        "plan runs --keep 0.05 -o p.csv",
        "hardest with keep 0.05 would drop class 'cat' entirely (10 examples)",
    ),
    ("plan bare --keep 0.5 -o p.csv --per-class", "per_class: the labels are not known"),
    ("plan bare --keep 0.5 -o p.txt", "a list of paths needs the names of files, but there are no ids"),
    ("plan numbered --keep 0.5 -o p.txt", "ids are numbers, such as 0"),
    ("plan runs --keep 0.5 -o p.xlsx", "p.xlsx: got a file of kind '.xlsx', expected one of .safetensors, .csv, .txt"),
    ("plan runs --keep 0.5 -o photos", "got a file of kind ''"),
    ("plan runs --keep 0.5 -o notes.txt/p.csv", "is not a folder"),
    ("plan runs --keep 0.5 -o runs/mlp-0.safetensors", "it is also read, and would be overwritten"),
    ("plan runs --keep 0.5 -o runs/p.safetensors", "this folder holds the runs, and is read as such"),
    ("plan runs --keep 0.5 -o all.csv --exclude all.csv", "it is also read, and would be overwritten"),
    ("plan runs --keep 0.5 -o runs/../all.csv --exclude all.csv", "it is also read, and would be overwritten"),
    ("plan runs --keep 0.5 --policy soft -o p.txt", "which a list of paths cannot hold"),
    (f"{PLAN} --exclude none.csv", "none.csv: no such file"),
    (f"{PLAN} --exclude notes.txt", "got a file of kind '.txt'"),
    (f"{PLAN} --exclude of-others.csv", "all 2 decisions are of ids that the data lacks"),
    (f"{PLAN} --exclude contradict.csv", "line 2 and line 4 are both of id cat/1.png and contradict each other"),
    (f"{PLAN} --exclude no-class.csv", "line 2: label 'zebra' is no class: 'cat', 'dog'"),
    (f"{PLAN} --exclude bad-word.csv", "line 2: decision: got 'maybe'"),
    (f"{PLAN} --exclude all.csv", "no example of the plan is left"),
    (f"{PLAN} --exclude by-index.csv --data imagefolder:shrunk", "the data changed since the runs, and the indices"),
    ("plan bare --keep 0.5 -o p.csv --exclude all.csv", "but the data has no ids"),
    (f"{PLAN} --data imagefolder:none", "none: no such folder"),
    (f"{PLAN} --data cifar", "data: got 'cifar', expected digits"),
    (f"{PLAN} --data digits", "none of 20 ids, such as 'cat/0.png', is among the 1797 of the dataset"),
    (f"{PLAN} --data imagefolder:other-photos", "none of 20 ids, such as 'cat/0.png', is among the 20"),
    ("plan bare --keep 0.5 -o p.csv --data imagefolder:shrunk", "has 19 examples, but the runs are of 20"),
    (f"{EXPORT} --scores el3n", "no score 'el3n'"),
    (f"{EXPORT} --scores loss", "has no score 'loss'"),
    ("export runs -o t.xlsx", "t.xlsx: got a file of kind '.xlsx', expected one of .parquet, .csv, .npz"),
    (f"{EXPORT} --plan plan30.safetensors", "plan: it is of 30 examples, but the data has 20"),
    (f"{EXPORT} --plan runs/mlp-0.safetensors", "holds a run, expected a plan"),
    (f"{EXPORT} --decisions of-others.csv", "all 2 decisions are of ids that the data lacks"),
    (f"{EXPORT} --decisions no-class.csv", "label 'zebra' is no class"),
    ("convert runs -o t.xlsx", "t.xlsx: of scores, the suffix '.xlsx' does not say what to write"),
    ("convert runs -o t.safetensors", "to: the input is runs already"),
    ("convert runs --to spotlight -o t.csv", "to: spotlight is no file that can be written here: issues are objects"),
    ("convert runs --to huggingface -o t", "see dp.convert.to_huggingface"),
    ("convert runs --to cartography -o t", "the logits of each epoch, which runs do not hold"),
    ("convert runs --to pdf -o t.pdf", "invalid choice: 'pdf'"),
    ("convert runs --to weights -o t.csv", "runs"),
    ("convert runs --to paths -o t.txt", "to: paths is made of a plan, but runs is none"),
    ("convert all.csv -o t.txt", "to: paths is made of a plan, but all.csv is none"),
    ("convert tags.csv -o t.csv", "none of which is a score; if it is of another tool, say --from"),
    ("convert tasks.json -o t.csv", "from: tasks.json may be of several tools; say --from label-studio or fiftyone"),
    ("convert runs --to cleanlab -o t.csv", "t.csv: got a file of kind '.csv', expected one of .npz"),
    ("convert bare --to cleanlab -o t.npz", "no run knows the labels"),
    ("convert bare --to label-studio -o t.json", "the runs have no ids"),
    ("convert runs --to decisions -o t.csv", "to: decisions is made of decisions, but from runs come scores"),
    (
        "convert tags.csv --from fiftyone --to csv -o t.csv",
        "to: csv is made of scores, but from fiftyone come decisions",
    ),
    ("convert tags.csv --from fiftyone -o t.csv", "there are no decisions in it"),
    ("convert tags.csv --from fiftyone --tags night -o t.csv", "tags: got 'night', expected a tag and what it means"),
    ("convert tags.csv --from fiftyone --tags night=dark -o t.csv", "tags: got the decision 'dark'"),
    ("convert tags.csv all.csv -o t.npz", "got 2 inputs, expected one"),
    ("convert tags.csv -o t.safetensors", "none of which is a score"),
    ("convert malformed.csv --from aum -o t.safetensors", "line 3: aum: got 'x', expected a finite number"),
    ("convert issues.csv --from cleanlab -o t.csv", "is_label_issue: got 'perhaps', expected True or False"),
    ("convert photos --from cartography -o t.csv", "no files dynamics_epoch_0.jsonl"),
    ("convert none.csv -o t.npz", "none.csv: no such file"),
    ("convert runs -o t.csv --relabel", "--relabel: it is of no use from runs to csv, but with --from cleanlab"),
    ("convert runs -o t.csv --seed 0", "--seed: it is of no use from runs to csv, but with --to run"),
    ("convert plan30.safetensors -o t.txt", "a plan knows no names of files; give --data"),
    ("convert plan30.safetensors -o t.txt --data imagefolder:photos", "it is of 30 examples, but the data has 20"),
    ("convert all.csv --from csv -o all.csv", "it is also read, and would be overwritten"),
]


@pytest.mark.parametrize(("line", "message"), WRONG, ids=[line for line, _ in WRONG])
def test_a_wrong_use_is_one_line_and_writes_nothing(
    line: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    try:
        status = main(line.split())
    except SystemExit as stop:  # how argparse ends
        status = int(stop.code or 0)
    said = capsys.readouterr()
    assert status == 2, said.out
    assert said.out == ""
    errors = [each for each in said.err.splitlines() if ": warning: " not in each]
    assert len(errors) == 1, said.err
    assert message in errors[0]
    assert errors[0].startswith(f"difficulty-prune {line.split()[0]}: ")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("difficulty_prune.cli.plan.load_runs", lambda *_, **__: pytest.fail("work"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for anybody but root
    assert main(["plan", "runs", "--keep", "0.5", "-o", "empty/p.csv"]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_a_missing_library_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["export", "runs", "-o", "t.parquet"]) == 2
    assert "a .parquet file needs pyarrow: pip install" in capsys.readouterr().err
    assert not Path("t.parquet").exists()
