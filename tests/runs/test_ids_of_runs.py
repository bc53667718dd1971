"""Ids and class names in a run, in its file, in a pickle, and when more scores are added."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import difficulty_prune as dp
from difficulty_prune.support.files import save_vectors
from difficulty_prune.support.vector_file import VectorFile

TEXTS = ["cat/1.png", "cat/é.png", "dog/\udcff.png"]  # the last is how Python names a file that is no UTF-8
HEADER: dict[str, Any] = {"metadata": {"architecture": "mlp", "seed": 0}}


def make(**facts: Any) -> dp.Run:
    return dp.Run({"el2n": [0.5, 1.0, 0.25]}, architecture="mlp", seed=0, **facts)


def assert_same(a: dp.Run, b: dp.Run) -> None:
    assert a.class_names == b.class_names
    assert a.ids is not None
    assert b.ids is not None
    assert a.ids.dtype == b.ids.dtype
    assert a.ids.tolist() == b.ids.tolist()
    assert a.read("ids", slice(1, 3)).tolist() == a.ids.tolist()[1:3]
    assert a.read("ids", np.array([2, 0])).tolist() == [a.ids.tolist()[i] for i in (2, 0)]


@pytest.mark.parametrize("ids", [TEXTS, [2**62, -5, 0]])
def test_through_a_file_a_pickle_and_more_scores(ids: list[Any], tmp_path: Path) -> None:
    run = make(ids=ids, labels=[0, 0, 1], class_names=["cat", "dog"])
    assert run.ids is not None
    assert run.ids.tolist() == ids
    assert run.class_names == ("cat", "dog")
    assert not run.ids.flags.writeable
    run.save(tmp_path / "run.safetensors")
    loaded = dp.Run.load(tmp_path / "run.safetensors")
    assert_same(loaded, run)
    assert_same(pickle.loads(pickle.dumps(loaded)), run)  # noqa: S301
    assert_same(loaded.with_scores({"aum": [1.0, 2.0, 3.0]}), run)
    loaded.save(tmp_path / "run.safetensors")  # onto itself
    assert_same(loaded, run)
    assert list(loaded.scores) == ["el2n"]


def test_a_run_without_them_is_as_before(tmp_path: Path) -> None:
    run = make()
    assert run.ids is None
    assert run.class_names is None
    assert not run.has("ids")
    with pytest.raises(KeyError, match="ids"):
        run.read("ids")
    for name, of, number in (("plain", run, 1), ("names", make(class_names=["a"]), 1), ("ids", make(ids=TEXTS), 3)):
        of.save(tmp_path / name)
        assert f'"format": {number}' in VectorFile(tmp_path / name).metadata["difficulty_prune"]


@pytest.mark.parametrize(
    ("facts", "kind", "said"),
    [
        ({"ids": ["a", "b"]}, ValueError, "ids: got 2, expected 3"),
        ({"ids": ["a", "b", "a"]}, ValueError, "'a' names both example 0 and example 2"),
        ({"ids": [0.5, 1.5, 2.5]}, TypeError, "got 0.5 for example 0"),
        ({"class_names": "cat"}, TypeError, "got 'cat'"),
        ({"class_names": ["cat", 3]}, TypeError, "got 3 for class 1"),
        ({"class_names": ["cat"], "labels": [0, 0, 1]}, ValueError, "got 1, but example 2 has the label 1"),
    ],
)
def test_what_cannot_be_is_refused(facts: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        make(**facts)


BYTES = np.frombuffer(b"abc", np.uint8)


@pytest.mark.parametrize(
    ("parts", "header", "said"),
    [
        ({"ids": np.arange(2)}, {}, "ids: got 2, expected 3"),
        ({"ids": np.arange(3.0)}, {}, "ids: got float64"),
        ({"ids.text": BYTES}, {}, "expected numbers"),
        ({"ids.text": BYTES, "ids.lengths": np.ones(2, np.uint32)}, {}, "ids: got 2, expected 3"),
        ({"ids.text": BYTES, "ids.lengths": np.ones(3, np.int64)}, {}, "ids.lengths: got int64"),
        ({"ids.text": BYTES, "ids.lengths": np.array([1, 1, 2], np.uint32)}, {}, "has 3 characters"),
        ({}, {"class_names": "abc"}, "class_names: got 'abc'"),
    ],
)
def test_a_file_that_says_otherwise_is_refused(
    parts: dict[str, Any], header: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.safetensors"
    save_vectors(path, "run", 3, {"el2n": np.zeros(3), **parts}, HEADER | header)
    with pytest.raises(ValueError, match=f"run.safetensors.*{said}"):
        dp.Run.load(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    make(ids=["aaaa", "bbbb", "cccc"]).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"bbbb")] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged: 'ids\.text'"):
        _ = dp.Run.load(path).ids
