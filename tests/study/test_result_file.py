"""The files of trainings that are compared: whole, or told by name and trained again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from file_kinds import RESULT as GOOD

from difficulty_prune.study.result_file import read_result, write_result
from difficulty_prune.support.digest import digest_of_text


def test_a_result_comes_back(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", GOOD)
    assert read_result(tmp_path / "a.json") == GOOD


def test_a_result_of_an_earlier_version_does_not_say_whether_it_ran_alone(tmp_path: Path) -> None:
    for result in (GOOD, {**GOOD, "alone": True}):
        write_result(tmp_path / "a.json", result)
        assert read_result(tmp_path / "a.json") == result
    with pytest.raises(ValueError, match=r"^alone: got 1, expected true or false"):
        write_result(tmp_path / "a.json", {**GOOD, "alone": 1})


@pytest.mark.parametrize("change", [{"test_accuracy": 0.95}, {"task": {**GOOD["task"], "keep": 0.7}}, {"seconds": 1}])
def test_an_edited_result_is_refused_by_name(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_result(path, GOOD)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=r"a\.json: not a result .* does not have the digest .*; remove it"):
        read_result(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("test_accuracy", value) for value in ("0.9", True, 1.5, -0.1, float("nan"), [])),
        *((name, value) for name in ("steps", "examples") for value in (None, 0, 1.5, "3", True)),
        *(("seconds", value) for value in (None, -5, float("inf"), float("nan"), 10**400)),
        *(("peak_memory_bytes", value) for value in (-1, 0.5, "1")),
        *(("class_accuracy", value) for value in (None, 0.9, [1.5], ["0.5"], [True])),
        ("presentations", 0),
        ("task", None),
        ("task", []),
        ("plan", None),
    ],
)
def test_values_that_no_training_has_are_refused_whatever_the_digest(name: str, value: Any, tmp_path: Path) -> None:
    bad = {**GOOD, name: value}
    with pytest.raises(ValueError, match=rf"^{name}: got "):
        write_result(tmp_path / "a.json", bad)
    digest = digest_of_text(json.dumps(bad, sort_keys=True))
    (tmp_path / "a.json").write_text(json.dumps({**bad, "digest": digest}))
    with pytest.raises(ValueError, match=rf"a\.json: .*\({name}: got .*, expected .*remove it"):
        read_result(tmp_path / "a.json")


def test_a_training_without_an_accuracy_has_a_loss(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^got the keys .*, expected .*test_loss"):
        write_result(tmp_path / "a.json", {**GOOD, "test_accuracy": None})


@pytest.mark.parametrize("key", GOOD)
def test_missing_and_unknown_keys_are_refused(key: str, tmp_path: Path) -> None:
    content = {**GOOD, f"{key}_": GOOD[key]}
    del content[key]
    (tmp_path / "a.json").write_text(json.dumps({**content, "digest": digest_of_text(json.dumps(content))}))
    with pytest.raises(ValueError, match=rf"a\.json: .*got the keys .*expected .*{key}"):
        read_result(tmp_path / "a.json")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 5000, b'{"task": 1}', b"9" * 5000])
def test_what_is_no_result_is_refused_by_name(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"a\.json: not a result of a training"):
        read_result(tmp_path / "a.json")


def test_a_result_of_an_earlier_version_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(GOOD, indent=1))
    with pytest.raises(ValueError, match=r"a\.json: .*it has no digest"):
        read_result(tmp_path / "a.json")
