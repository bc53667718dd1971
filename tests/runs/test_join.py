"""Runs over versions of a dataset, joined by id: against a loop, what is warned of, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.runs.join import join_by_id

versions = st.lists(st.lists(st.integers(0, 6), min_size=1, unique=True), min_size=1, max_size=4)


def run(seed: int, ids: list[Any], **facts: Any) -> dp.Run:
    values = [10.0 * seed + position + 0.5 for position in range(len(ids))]
    return dp.Run({"loss": values}, architecture="mlp", seed=seed, ids=ids, **facts)


def save(folder: Path, *runs: dp.Run) -> Path:
    for place, one in enumerate(runs):
        one.save(folder / f"{place}.safetensors")
    return folder


@given(versions, st.data())
def test_against_a_loop(of_runs: list[list[int]], data: st.DataObject) -> None:
    label = [data.draw(st.lists(st.integers(0, 1), min_size=7, max_size=7)) for _ in of_runs]
    runs = [run(s, ids, labels=[label[s][i] for i in ids]) for s, ids in enumerate(of_runs)]
    last = {i: label[s][i] for s, ids in enumerate(of_runs) for i in ids}
    if any(all(label[s][i] != last[i] for i in ids) for s, ids in enumerate(of_runs)):
        with pytest.raises(ValueError, match="have other labels than in the last run"):
            join_by_id(runs)
        return
    joined, warning = join_by_id(runs)
    union = list(dict.fromkeys(i for ids in of_runs for i in ids))
    together = dp.RunSet(joined)
    assert together.ids is not None
    assert together.ids.tolist() == union
    assert together.labels is not None
    assert together.labels.tolist() == [last[i] for i in union]
    matrix = np.full((len(runs), len(union)), np.nan)
    for s, ids in enumerate(of_runs):
        for position, i in enumerate(ids):
            if label[s][i] == last[i]:
                matrix[s, union.index(i)] = np.float32(10.0 * s + position + 0.5)
    np.testing.assert_array_equal(together.matrix("loss"), matrix)
    known = (~np.isnan(matrix)).sum(0)
    np.testing.assert_allclose(together.mean("loss"), np.nansum(matrix, 0) / known)
    error = [np.nanstd(c, ddof=1) / np.sqrt(n) if n > 1 else np.nan for c, n in zip(matrix.T, known, strict=True)]
    np.testing.assert_allclose(together.standard_error("loss"), error)
    np.testing.assert_array_equal(together.seen, ~np.isnan(matrix))
    moved = [i for i in union if any(i in ids and label[s][i] != last[i] for s, ids in enumerate(of_runs))]
    assert (warning is not None) == bool(moved)
    if warning is not None:
        assert warning.startswith(f"join: {len(moved)} of {len(union)} ids have different labels")
        assert repr(moved[0]) in warning


def test_from_files(tmp_path: Path) -> None:
    save(tmp_path, run(0, ["a", "b"], labels=[0, 1]), run(1, ["b", "c"], labels=[1, 0], dataset_fingerprint="f"))
    with pytest.raises(ValueError, match=r"different ids.*join='ids'"):
        dp.RunSet.load(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = dp.RunSet.load(tmp_path, join="ids")
    np.testing.assert_array_equal(runs.difficulty("loss"), [0.5, 6.0, 11.5])
    with pytest.raises(ValueError, match="join: got 'labels', expected 'ids' or None"):
        dp.RunSet.load(tmp_path, join="labels")  # type: ignore[arg-type]


def test_other_labels_are_reported(tmp_path: Path) -> None:
    save(tmp_path, run(0, ["a", "b"], labels=[0, 1]), run(1, ["b", "a"], labels=[0, 0]))
    with pytest.warns(UserWarning, match="1 of 2 ids have different labels in different runs \\('b'\\)") as c:
        runs = dp.RunSet.load(tmp_path, join="ids")
    assert c[0].filename == __file__
    np.testing.assert_array_equal(runs.mean("loss"), [6.0, 10.5])
    assert runs.labels is not None
    assert runs.labels.tolist() == [0, 0]


def test_predictions_are_kept_where_they_are_of_all() -> None:
    means = [[0.25, 0.75], [0.5, 0.5]]
    old = run(0, ["a", "b"], predictions=[1, 0], mean_probabilities=means)
    joined, warning = join_by_id([old, run(1, ["b", "a"], predictions=[0, 1])])
    assert [one.read("predictions").tolist() for one in joined] == [[1, 0], [1, 0]]
    assert warning is None
    joined, warning = join_by_id([old, run(1, ["c"])])
    assert warning == "join: predictions and probabilities of 1 run is left out, which does not know all examples"
    assert not joined[0].has("predictions")
    assert joined[0].read("suggested").tolist() == [1, 0, -1]
    np.testing.assert_array_equal(joined[0].mean_probabilities, [*means, [np.nan] * 2])
    assert joined[1].labels is None


def test_classes_may_be_added_but_not_renamed() -> None:
    facts: dict[str, Any] = {"labels": [0]}
    joined, _ = join_by_id([run(0, ["a"], class_names=["x"], **facts), run(1, ["b"], class_names=["x", "y"], **facts)])
    assert [one.class_names for one in joined] == [("x", "y")] * 2
    with pytest.raises(ValueError, match=r"join: class 0 is 'x' in .* and 'w' in another"):
        join_by_id([run(0, ["a"], class_names=["x"]), run(1, ["b"], class_names=["w", "x"])])


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (dp.Run({"loss": [1.0]}, architecture="mlp", seed=1), "has no ids"),
        (run(1, [3]), "of different kinds, text and numbers"),
    ],
)
def test_what_cannot_be_joined(second: dp.Run, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        join_by_id([run(0, ["a"]), second])


def test_a_copy_is_refused(tmp_path: Path) -> None:
    save(tmp_path, run(0, ["a"]), run(0, ["a"]))
    with pytest.raises(ValueError, match="are the same"):
        dp.RunSet.load(tmp_path, join="ids")
