"""FiftyOne's files, as its importers and exporters read and write them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import difficulty_prune as dp

IDS = ["cat/1.png", "cat/2, a.png", "dog/1.png"]


def run(**facts) -> dp.Run:
    more = {"labels": [0, 0, 1], "ids": IDS, "class_names": ["cat", "dog"]} | facts
    suggested = {"suggested": [0, 1, -1], "suggested_probability": [0.5, 0.75, float("nan")]}
    return dp.Run({"el2n": [0.25, 1.0, float("nan")]}, architecture="a", seed=0, **suggested, **more)


def test_a_csv_by_file_path(tmp_path: Path) -> None:
    dp.convert.to_fiftyone(run(), tmp_path / "labels.csv", root="/data")
    with open(tmp_path / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["filepath"] for row in rows] == [f"/data/{name}" for name in IDS]
    assert [(r["label"], r["suggested"], r["el2n"]) for r in rows] == [
        ("cat", "cat", "0.25"),
        ("cat", "dog", "1.0"),
        ("dog", "", ""),
    ]
    assert "id" not in rows[0]


def test_labels_json(tmp_path: Path) -> None:
    dp.convert.to_fiftyone(run(), tmp_path / "labels.json", scores=["el2n"])
    found = json.loads((tmp_path / "labels.json").read_text())
    assert found["classes"] == ["cat", "dog"]
    assert list(found["labels"]) == IDS
    second = found["labels"][IDS[1]]
    assert second["label"] == "cat"
    assert second["attributes"]["suggested"] == "dog"
    assert second["attributes"]["el2n"] == 1.0
    assert "el2n" not in found["labels"][IDS[2]]["attributes"]


def test_paths_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="paths: got none, and no ids that could be paths"):
        dp.convert.to_fiftyone(run(ids=[1, 2, 3]), tmp_path / "labels.csv")
    with pytest.raises(ValueError, match=r"no run knows the labels.*write \.csv"):
        dp.convert.to_fiftyone(run(labels=None), tmp_path / "labels.json")
    dp.convert.to_fiftyone(run(ids=None), tmp_path / "labels.csv", paths=["x", "y", "z"])
    assert (tmp_path / "labels.csv").read_text().splitlines()[1].startswith("x,0,")


EXPECTED = [("cat/1.png", "wrong", "dog"), ("dog/1.png", "drop", None)]


def decided(decisions: dp.Decisions) -> list:
    return [(e.id, e.decision, e.label) for e in decisions]


def test_tags_of_an_exported_csv(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('filepath,tags,fixed\n/d/cat/1.png,"night,wrong",dog\n/d/cat/3.png,night,\n/d/dog/1.png,drop,\n')
    assert decided(dp.convert.from_fiftyone(path, root="/d", label_field="fixed")) == EXPECTED


def test_tags_of_samples_json_and_of_samples(tmp_path: Path) -> None:
    samples = [
        {"filepath": "/d/cat/1.png", "tags": ["wrong"], "fixed": {"_cls": "Classification", "label": "dog"}},
        {"filepath": "/d/cat/3.png", "tags": []},
        {"filepath": "/d/dog/1.png", "tags": ["drop"]},
    ]
    (tmp_path / "samples.json").write_text(json.dumps({"samples": samples}))
    for given in (tmp_path / "samples.json", samples, [Sample(**s) for s in samples]):
        assert decided(dp.convert.from_fiftyone(given, root="/d", label_field="fixed")) == EXPECTED


class Sample(SimpleNamespace):
    """With fields by attribute and by item, as FiftyOne's."""

    def __getitem__(self, name: str):
        return getattr(self, name)


def test_tags_of_your_own() -> None:
    samples = [{"filepath": "a", "tags": ["mislabeled"]}, {"filepath": "b", "tags": ["wrong"]}]
    assert decided(dp.convert.from_fiftyone(samples, tags={"mislabeled": "wrong"})) == [("a", "wrong", None)]
    with pytest.raises(ValueError, match="tags: got the decision 'bad', expected one of keep"):
        dp.convert.from_fiftyone(samples, tags={"mislabeled": "bad"})


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"filepath": "/d/a", "tags": ["drop", "keep"]}, "sample 1: '/d/a' has tags of several decisions: drop, keep"),
        ({"filepath": "/e/a", "tags": ["drop"]}, "sample 1: '/e/a' is not below the root '/d'"),
        ({"tags": ["drop"]}, "sample 1: got filepath None"),
        ({"filepath": "/d/a", "tags": 3}, "sample 1: got filepath '/d/a' and tags 3"),
    ],
)
def test_malformed_samples_are_refused_by_number(sample, message) -> None:
    with pytest.raises(ValueError, match=message):
        dp.convert.from_fiftyone([sample], root="/d")


def test_a_label_field_that_is_not_there_is_named() -> None:
    sample = {"filepath": "a", "tags": ["wrong"]}
    for given in (sample, Sample(**sample)):
        with pytest.raises(ValueError, match="samples: sample 1: it has no field 'fixed'"):
            dp.convert.from_fiftyone([given], label_field="fixed")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "samples.json").write_text('{"groups": []}')
    with pytest.raises(ValueError, match=r"not the samples\.json of a FiftyOneDataset"):
        dp.convert.from_fiftyone(tmp_path / "samples.json")
    with pytest.raises(FileNotFoundError, match="no such file"):
        dp.convert.from_fiftyone(tmp_path / "none.json")
