"""Tasks for Label Studio, checked by its SDK where it is there, and its annotations as decisions."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

import difficulty_prune as dp

CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="choice" toName="image"><Choice value="cat"/><Choice value="dog"/><Choice value="drop"/>
</Choices></View>"""
URLS = [f"https://example.org/{i}.png" for i in range(4)]


def run() -> dp.Run:
    facts = {"labels": [0, 0, 1, 1], "ids": ["a", "b", "c", "d"], "class_names": ["cat", "dog"]}
    facts |= {"suggested": [0, 1, 1, -1], "suggested_probability": [0.5, 0.75, 0.875, np.nan]}
    return dp.Run({"el2n": [0.25, 1.0, 0.5, np.nan]}, architecture="a", seed=0, **facts)


def tasks(path: Path, **options) -> list:
    dp.convert.to_label_studio(run(), path / "tasks.json", score="el2n", data=URLS, **options)
    return json.loads((path / "tasks.json").read_text())


def test_tasks_are_there_the_hardest_first_with_one_prediction(tmp_path: Path) -> None:
    found = tasks(tmp_path)
    assert [task["data"]["id"] for task in found] == ["b", "c", "a", "d"]
    assert found[0]["data"] == {"image": URLS[1], "id": "b", "index": 1, "label": "cat", "difficulty": 83.333}
    assert "difficulty" not in found[3]["data"]
    assert [len(task["predictions"]) for task in found] == [1] * 4
    chosen = [task["predictions"][0]["result"][0]["value"]["choices"] for task in found]
    assert chosen == [["dog"], ["dog"], ["cat"], ["dog"]]
    assert [task["predictions"][0].get("score") for task in found] == [0.75, 0.875, 0.5, None]
    assert [task["data"]["index"] for task in tasks(tmp_path, examples=[0, 2])] == [2, 0]


def test_its_sdk_takes_the_tasks(tmp_path: Path) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    label_interface = interface.LabelInterface(CONFIG)
    for task in tasks(tmp_path):
        assert label_interface.validate_task({"data": task["data"]})
        assert label_interface.validate_prediction(task["predictions"][0], return_errors=True) == []


def annotated(path: Path, *choices) -> list:
    """The export of a project in which people chose these, in the order of the tasks; None: skipped."""
    found = copy.deepcopy(tasks(path))
    for task, several in zip(found, choices, strict=True):
        task["annotations"] = []
        for choice in several:
            region = copy.deepcopy(task["predictions"][0]["result"][0])
            region["value"]["choices"] = [choice]
            task["annotations"].append({"result": [] if choice is None else [region], "was_cancelled": choice is None})
    return found


def test_annotations_read_as_decisions(tmp_path: Path) -> None:
    export = annotated(tmp_path, ["dog"], ["dog", "dog"], ["drop"], [None])
    (tmp_path / "export.json").write_text(json.dumps(export))
    decisions = dp.convert.from_label_studio(tmp_path / "export.json")
    assert [(e.id, e.decision, e.label) for e in decisions] == [
        ("b", "wrong", "dog"),
        ("c", "keep", None),
        ("a", "drop", None),
        ("d", "unsure", None),
    ]
    assert decisions.corrections(run()) == {1: 1}
    assert decisions.plan(run()).index.tolist() == [1, 2, 3]


def test_annotators_who_differ_are_unsure_and_no_annotation_is_no_decision(tmp_path: Path) -> None:
    decisions = dp.convert.from_label_studio(annotated(tmp_path, ["dog", "cat"], [], ["cat", None], []))
    found = [(e.id, e.decision, e.note) for e in decisions]
    assert found == [("b", "unsure", "annotators differ: cat, dog"), ("a", "keep", "")]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"data": {"label": "cat"}, "annotations": []}, "task 1: got data .* expected an object with label, and id or"),
        ({"id": 3, "image": "x", "choice": "cat"}, "task 1: got data None"),
        ({"data": {"label": "cat", "id": "a"}}, "task 1: got annotations None.* not JSON-MIN"),
        ({"data": {"label": "cat", "id": "a"}, "annotations": [3]}, "task 1: got annotations"),
        ({"data": {"label": "cat", "id": "a"}, "annotations": [{}]}, "task 1: an annotation is malformed"),
        ({"data": {"label": "cat", "id": "a"}, "annotations": [{"result": []}]}, r"has the choices \[\], expected one"),
    ],
)
def test_malformed_tasks_are_refused_by_number(task, message) -> None:
    with pytest.raises(ValueError, match=message):
        dp.convert.from_label_studio([task])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data: got 1, expected 4"):
        dp.convert.to_label_studio(run(), tmp_path / "t.json", score="el2n", data=["x"])
    bare = dp.Run({"el2n": [0.5]}, architecture="a", seed=0)
    with pytest.raises(ValueError, match="no run knows the labels"):
        dp.convert.to_label_studio(bare, tmp_path / "t.json", score="el2n", data=["x"])
    assert not list(tmp_path.iterdir())
