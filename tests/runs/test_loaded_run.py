"""A loaded run stays in its file, and refuses a file that is another now."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from small_runs import GOOD_HEADER, SIZE, check_refused, make_run, some_probabilities

import difficulty_prune as dp
from difficulty_prune.support import files


@pytest.fixture
def loaded(tmp_path):
    path = tmp_path / "run.safetensors"
    make_run(labels=np.arange(SIZE) % 4, seen=np.arange(SIZE) > 2, probabilities=some_probabilities()).save(path)
    return dp.Run.load(path)


def arrays_of(run):
    return {**run.scores, **{name: getattr(run, name) for name in ("labels", "seen", "probabilities", "predictions")}}


def test_a_loaded_run_is_read_only_and_holds_no_array(loaded):
    for name, values in arrays_of(loaded).items():
        assert type(values) is np.ndarray, name
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0
    assert loaded.scores["el2n"] is not loaded.scores["el2n"]
    assert not any(isinstance(value, np.ndarray) for value in vars(loaded).values())
    with pytest.raises(KeyError, match="labels"):
        loaded.scores["labels"]


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts what Linux says is open")
def test_open_files_do_not_grow_with_the_runs(tmp_path):
    for seed in range(30):
        make_run(
            seed=seed, labels=np.arange(SIZE), seen=np.arange(SIZE) % 30 != seed, probabilities=some_probabilities()
        ).save(tmp_path / f"{seed}.safetensors")
    before = open_files()
    runs = dp.RunSet.load(tmp_path)
    assert open_files() == before
    kept = [
        runs.mean("el2n"),
        runs.median("aum"),
        runs.rank_mean("aum"),
        runs.matrix("el2n"),
        runs.matrix("aum", slice(9)),
    ]
    kept += [runs.seen, runs.memorization(), runs.model_accuracy(), runs.agreement(), runs.where(seed=3)]
    assert open_files() == before
    kept.append(runs[0].scores["el2n"])
    assert open_files() == before, "an array that was read needs its file no more"


def test_a_run_keeps_what_it_gave_when_its_file_is_replaced(loaded, tmp_path):
    el2n, expected = loaded.scores["el2n"], loaded.scores["el2n"].copy()
    make_run(seed=1).save(tmp_path / "run.safetensors")
    np.testing.assert_array_equal(el2n, expected)


def replace(path):
    make_run(seed=1, labels=np.arange(SIZE)).save(path)


def append(path):
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path):
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"more")
    os.utime(path, ns=(0, 0))  # the clock of a file system may be too coarse for two writes


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (replace, ValueError, "the file has changed since it was loaded; load it again"),
        (append, ValueError, "has changed"),
        (rewrite, ValueError, "has changed"),
        (Path.unlink, FileNotFoundError, "the file is gone since it was loaded; load it again"),
    ],
)
def test_a_file_that_is_another_now_is_refused_by_name(loaded, tmp_path, change, error, message):
    path = tmp_path / "run.safetensors"
    runs = dp.RunSet([loaded])
    change(path)
    calls = (
        lambda: loaded.scores["el2n"],
        lambda: loaded.labels,
        lambda: loaded.predictions,
        lambda: loaded.save(tmp_path / "other.safetensors"),
        lambda: runs.mean("aum"),
    )
    for call in calls:
        with pytest.raises(error, match=f"{re.escape(str(path))}.*{message}"):
            call()
    assert not (tmp_path / "other.safetensors").exists()
    assert "el2n" in loaded.scores
    assert runs.scores == ("el2n", "aum"), "names and metadata need no file"


def test_a_loaded_run_is_saved_onto_its_own_file(loaded, tmp_path):
    path = tmp_path / "run.safetensors"
    before, arrays = path.read_bytes(), {name: values.copy() for name, values in arrays_of(loaded).items()}
    loaded.save(path)
    assert path.read_bytes() == before
    for name, values in arrays_of(loaded).items():
        np.testing.assert_array_equal(values, arrays[name])
    loaded.with_scores({"loss": np.zeros(SIZE)}).save(path)
    assert list(dp.Run.load(path).scores) == ["loss", "el2n", "aum"]


def test_a_loaded_run_is_found_after_a_change_of_folder(loaded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = dp.Run.load("run.safetensors")
    monkeypatch.chdir(Path(__file__).parent)
    np.testing.assert_array_equal(run.scores["el2n"], loaded.scores["el2n"])


def test_predictions_of_a_file_with_probabilities_alone_follow_from_them(tmp_path):
    path = tmp_path / "run.safetensors"
    p = some_probabilities().astype(np.float64)
    files.save_vectors(path, "run", 1, {"el2n": np.zeros(SIZE), "probabilities": p}, GOOD_HEADER)
    run = dp.Run.load(path)
    assert (run.predictions.dtype, run.probabilities.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(run.predictions, p.argmax(1))
    runs = dp.RunSet([run, make_run(seed=1, fingerprint=None, labels=p.argmax(1), predictions=p.argmax(1))])
    assert runs.model_accuracy().tolist() == [1.0] * SIZE


def test_scores_of_a_file_in_other_dtypes_are_kept_in_single_or_double_precision(tmp_path):
    path = tmp_path / "run.safetensors"
    vectors = {"el2n": np.array([0.5, 1.5], np.float16), "forgetting": np.array([3, 0]), "aum": np.array([0.1, 0.2])}
    files.save_vectors(path, "run", 1, vectors, GOOD_HEADER)
    scores = dp.Run.load(path).scores
    assert {name: values.dtype for name, values in scores.items()} == {
        "el2n": np.float32,
        "forgetting": np.float32,
        "aum": np.float64,
    }
    assert scores["forgetting"].tolist() == [3, 0]


def test_a_loaded_run_travels_with_its_values_and_without_its_file(loaded, tmp_path):
    expected, data = {name: values.copy() for name, values in arrays_of(loaded).items()}, pickle.dumps(loaded)
    (tmp_path / "run.safetensors").unlink()
    copy = pickle.loads(data)  # noqa: S301 - written a few lines earlier
    for name, values in arrays_of(copy).items():
        np.testing.assert_array_equal(values, expected[name])
        assert not values.flags.writeable
    assert dict(copy.metadata) == dict(loaded.metadata)


def test_what_is_wrong_far_into_a_large_file_is_named_with_its_place(tmp_path):
    """Beyond the first million numbers, which is what is looked at together."""
    path, size = tmp_path / "run", 1_050_000
    good = {"el2n": np.zeros(size, np.float32), "probabilities": np.full((size, 2), [0.75, 0.25], np.float32)}
    good |= {"labels": np.zeros(size, np.int64), "predictions": np.zeros(size, np.int64)}
    for name, at, value, message in (
        ("el2n", 1_049_993, np.inf, "infinite at example 1049993"),
        ("labels", 1_049_999, -5, "labels: got -5"),
        ("probabilities", (1_049_980, 1), 2.0, "those of example 1049980 sum to"),
        ("predictions", 1_049_985, 9, "got 9 for example 1049985"),
    ):
        wrong = good[name].copy()
        wrong[at] = value
        files.save_vectors(path, "run", 1, {**good, name: wrong}, GOOD_HEADER)
        check_refused(path, message)
    files.save_vectors(path, "run", 1, good, GOOD_HEADER)
    assert len(dp.Run.load(path)) == size


@pytest.mark.parametrize(
    ("definitions", "reason"),
    [
        ({"el2n": {"higher_is_harder": False}}, r"definitions\.el2n\.higher_is_harder: False in the file and True in"),
        ({"el2n": {}}, "higher_is_harder"),
        ({"el2n": 3}, "not a valid run file"),
        (7, "not a valid run file"),
    ],
)
def test_a_score_that_another_version_defines_in_the_other_direction_is_refused(tmp_path, definitions, reason):
    header = {**GOOD_HEADER, "definitions": definitions}
    files.save_vectors(tmp_path / "run", "run", 1, {"el2n": np.zeros(3)}, header)
    check_refused(tmp_path / "run", reason)
