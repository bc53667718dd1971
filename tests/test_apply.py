"""A corrected list of an image folder's files; the files stay as they are."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import difficulty_prune as dp


@pytest.fixture
def folder(tmp_path: Path) -> SimpleNamespace:
    files = [("cat/1.png", 0), ("cat/2.png", 0), ("dog/1.png", 1), ("dog/2.png", 1)]
    for name, _ in files:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"an image")
    root = tmp_path / "photos"
    return Folder(root=str(root), samples=[(str(root / n), i) for n, i in files], classes=["cat", "dog"])


class Folder(SimpleNamespace):
    """As much of torchvision's ImageFolder as is looked at."""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int):
        return self.samples[i]


ROWS = [
    {"id": "cat/2.png", "decision": "wrong", "label": "dog"},
    {"id": "dog/1.png", "decision": "drop"},
    {"id": "dog/9.png", "decision": "drop"},
]


def test_the_list_has_corrected_labels(tmp_path: Path, folder: SimpleNamespace) -> None:
    before = {p: p.read_bytes() for p in (tmp_path / "photos").rglob("*.png")}
    assert dp.apply(dp.Decisions(ROWS), folder, tmp_path / "list.csv") == 3
    with open(tmp_path / "list.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["path"].removeprefix(folder.root + "/"), r["label"], r["class_name"]) for r in rows] == [
        ("cat/1.png", "0", "cat"),
        ("cat/2.png", "1", "dog"),
        ("dog/2.png", "1", "dog"),
    ]
    assert {p: p.read_bytes() for p in (tmp_path / "photos").rglob("*.png")} == before


def test_json_lines_and_weights(tmp_path: Path, folder: SimpleNamespace) -> None:
    del folder.classes
    rows = [{"index": 0, "decision": "keep", "weight": 0.5}, {"index": 1, "decision": "wrong", "label": 1}]
    assert dp.apply(dp.Decisions(rows), folder, tmp_path / "list.jsonl") == 4
    found = [json.loads(line) for line in (tmp_path / "list.jsonl").read_text().splitlines()]
    assert [(r["label"], r["weight"]) for r in found] == [(0, 0.5), (1, 1), (1, 1), (1, 1)]
    assert "class_name" not in found[0]


def test_a_dataset_without_files_and_another_suffix_are_refused(tmp_path: Path, folder: SimpleNamespace) -> None:
    with pytest.raises(TypeError, match=r"dataset: got list, expected one that knows its files"):
        dp.apply(dp.Decisions(ROWS), [1, 2], tmp_path / "list.csv")
    with pytest.raises(TypeError, match=r"decisions: got 'd.csv', expected dp.Decisions"):
        dp.apply("d.csv", folder, tmp_path / "list.csv")
    with pytest.raises(TypeError, match=r"decisions: got 'd.csv', expected dp.Decisions"):
        dp.RunSet.load(tmp_path, decisions="d.csv")
    with pytest.raises(ValueError, match=r"got a file of kind '\.txt', expected one of \.csv, \.json, \.jsonl"):
        dp.apply(dp.Decisions(ROWS), folder, tmp_path / "list.txt")
    with pytest.raises(ValueError, match="the only decision is of an id that the data lacks"):
        dp.apply(dp.Decisions(ROWS[2:]), folder, tmp_path / "list.csv")
    assert not list(tmp_path.glob("list*"))
