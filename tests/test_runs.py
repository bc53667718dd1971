"""Run files, sets of runs, and how far runs agree."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import difficulty_prune as dp
from difficulty_prune.support import files, ranks

SIZE = 40


def make_run(seed=0, architecture="mlp", size=SIZE, labels=None, fingerprint="f00d", missing=(), **metadata):
    rng = np.random.default_rng(seed)
    scores = {"el2n": rng.random(size, dtype=np.float32), "aum": rng.normal(size=size)}
    for values in scores.values():
        values[list(missing)] = np.nan
    return dp.Run(
        scores, architecture=architecture, seed=seed, labels=labels, dataset_fingerprint=fingerprint, **metadata
    )


def holes(run_count=6, size=SIZE, seed=0):
    """Runs in which examples are missing at random; example 0 in all of them, example 1 in all but the first."""
    rng = np.random.default_rng(seed)
    runs = []
    for i in range(run_count):
        missing = set(np.flatnonzero(rng.random(size) < 0.3)) | {0}
        missing = missing - {1} if i == 0 else missing | {1}
        runs.append(make_run(seed=i, size=size, missing=missing))
    return dp.RunSet(runs)


# Run


def test_round_trip_keeps_everything(tmp_path):
    run = make_run(
        seed=7, labels=np.arange(SIZE) % 4, missing=(3, 5), epochs=12, options={"lr": 0.1}, note="größer", tags=["a"]
    )
    run.save(tmp_path / "run.safetensors")
    loaded = dp.Run.load(tmp_path / "run.safetensors")
    assert list(loaded.scores) == list(run.scores)
    for name, values in run.scores.items():
        assert loaded.scores[name].dtype == values.dtype
        np.testing.assert_array_equal(loaded.scores[name], values)
    assert np.isnan(loaded.scores["el2n"][[3, 5]]).all()
    assert loaded.labels.dtype == np.int64
    np.testing.assert_array_equal(loaded.labels, np.arange(SIZE) % 4)
    assert dict(loaded.metadata) == dict(run.metadata)
    assert (loaded.architecture, loaded.seed, loaded.dataset_fingerprint) == ("mlp", 7, "f00d")
    assert loaded.metadata["epochs"] == 12
    assert loaded.metadata["note"] == "größer"


def test_round_trip_without_labels_and_fingerprint(tmp_path):
    make_run(fingerprint=None).save(tmp_path / "run.safetensors")
    loaded = dp.Run.load(tmp_path / "run.safetensors")
    assert loaded.labels is None
    assert loaded.dataset_fingerprint is None


def test_written_file_is_plain_safetensors_with_json(tmp_path):
    path = tmp_path / "run.safetensors"
    make_run(labels=np.zeros(SIZE, int), epochs=2).save(path)
    assert set(safetensors.numpy.load_file(path)) == {"el2n", "aum", "labels"}
    with safetensors.safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["difficulty_prune"])
    assert (header["kind"], header["format"], header["metadata"]["epochs"]) == ("run", 1, 2)
    assert header["definitions"]["aum"]["higher_is_harder"] is False


def test_a_second_generation_is_the_first(tmp_path):
    make_run(labels=np.arange(SIZE), epochs=3).save(tmp_path / "a.safetensors")
    dp.Run.load(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], np.float32),
        (np.array([1, 2], np.int64), np.float32),
        (np.array([1, 2], np.float16), np.float32),
        (np.array([1, 2], np.float64), np.float64),
        (torch.tensor([1.0, 2.0]), np.float32),
        (torch.tensor([1.0, 2.0], dtype=torch.float64), np.float64),
        (torch.tensor([1.0, 2.0], dtype=torch.bfloat16), np.float32),
        (torch.tensor([1.0, 2.0], requires_grad=True), np.float32),
    ],
    ids=["list", "int64", "float16", "float64", "torch float32", "torch float64", "torch bfloat16", "with gradient"],
)
def test_scores_are_kept_in_single_or_double_precision(values, dtype):
    kept = dp.Run({"el2n": values}, architecture="mlp", seed=0).scores["el2n"]
    assert kept.dtype == dtype
    assert kept.tolist() == [1.0, 2.0]


def test_run_is_read_only():
    run = make_run(labels=np.arange(SIZE))
    with pytest.raises(ValueError, match="read-only"):
        run.scores["el2n"][0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        run.labels[0] = 1
    with pytest.raises(TypeError):
        run.scores["aum"] = np.zeros(SIZE)
    with pytest.raises(TypeError):
        run.metadata["seed"] = 1
    for name in ("scores", "labels", "metadata", "architecture", "seed"):
        with pytest.raises(AttributeError):
            setattr(run, name, None)


def test_run_does_not_follow_the_arrays_it_was_made_from():
    values, labels = np.array([0.5, 1.0]), np.array([0, 1])
    run = dp.Run({"el2n": values}, architecture="mlp", seed=0, labels=labels)
    values[0], labels[0] = 9.0, 9
    assert run.scores["el2n"].tolist() == [0.5, 1.0]
    assert run.labels.tolist() == [0, 1]


def test_metadata_that_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match="model=<object object"):
        make_run(model=object()).save(tmp_path / "run.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_save_makes_the_folder(tmp_path):
    path = tmp_path / "new" / "runs" / "run.safetensors"
    make_run().save(os.fspath(path))
    assert len(dp.Run.load(path)) == SIZE


# What a run knows beside scores


def some_probabilities(size=SIZE, classes=5):
    return np.random.default_rng(0).dirichlet(np.ones(classes), size).astype(np.float32)


def test_seen_probabilities_and_predictions_come_back_from_the_file(tmp_path):
    p, seen = some_probabilities(), np.arange(SIZE) % 3 > 0
    run = dp.Run(
        {"el2n": np.where(seen, 0.5, np.nan)}, architecture="mlp", seed=0, seen=seen, probabilities=p, hold_out=1 / 3
    )
    run.save(tmp_path / "run.safetensors")
    loaded = dp.Run.load(tmp_path / "run.safetensors")
    for made in (run, loaded):
        assert (made.seen.dtype, made.probabilities.dtype, made.predictions.dtype) == (bool, np.float32, np.int64)
        np.testing.assert_array_equal(made.seen, seen)
        np.testing.assert_array_equal(made.probabilities, p)
        np.testing.assert_array_equal(made.predictions, p.argmax(1))
        np.testing.assert_array_equal(np.isnan(made.scores["el2n"]), ~seen)
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "run.safetensors").read_bytes()
    stored = safetensors.numpy.load_file(tmp_path / "run.safetensors")
    assert {name: array.dtype for name, array in stored.items()} == {
        "el2n": np.float64,
        "seen": bool,
        "probabilities": np.float32,
        "predictions": np.int32,
    }


def test_a_file_of_the_first_version_loads_and_knows_none_of_it(tmp_path):
    path = tmp_path / "run.safetensors"
    vectors = {"el2n": np.zeros(3, np.float32), "labels": np.arange(3)}
    files.save_vectors(path, "run", 1, vectors, {"metadata": {"architecture": "mlp", "seed": 0, "library": "0.1"}})
    run = dp.Run.load(path)
    run = dp.Run(run.scores, labels=run.labels, **{**run.metadata, "dataset_fingerprint": None})
    assert (run.seen, run.probabilities, run.predictions) == (None, None, None)
    assert run.labels.tolist() == [0, 1, 2]


def test_the_lowest_class_wins_a_tie_of_probabilities():
    p = [[0.25, 0.5, 0.25], [0.2, 0.4, 0.4], [1 / 3, 1 / 3, 1 / 3]]
    run = dp.Run({"el2n": [0, 0, 0]}, architecture="mlp", seed=0, probabilities=p)
    assert run.predictions.tolist() == [1, 1, 0]
    given = dp.Run({"el2n": [0, 0, 0]}, architecture="mlp", seed=0, probabilities=p, predictions=[1, 2, 2])
    assert given.predictions.tolist() == [1, 2, 2], "of equal probabilities another may be chosen"


@pytest.mark.parametrize("dtype", [np.float16, np.float64, torch.float32, torch.bfloat16])
def test_probabilities_of_any_precision_are_kept_in_single(dtype):
    p = [[0.25, 0.75], [1.0, 0.0]]
    given = torch.tensor(p, dtype=dtype) if isinstance(dtype, torch.dtype) else np.array(p, dtype)
    run = dp.Run({"el2n": [0, 0]}, architecture="mlp", seed=0, probabilities=given)
    assert run.probabilities.dtype == np.float32
    assert run.probabilities.tolist() == p
    for array in (run.probabilities, run.predictions):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"seen": [1, 0]}, r"seen: got int64 \(2,\), expected bool \[2\]"),
        ({"seen": [True]}, r"seen: got bool \(1,\)"),
        ({"seen": [False, False]}, "seen: got 2 times False"),
        ({"probabilities": [[1, 0], [0, 1]]}, "probabilities: got int64"),
        ({"probabilities": [[0.5, 0.5]]}, r"got float64 \(1, 2\), expected floating point \[2, C\]"),
        ({"probabilities": [[1.0], [1.0]]}, "at least 2 classes"),
        ({"probabilities": [[0.5, 0.5], [2.0, -3.0]]}, r"example 1 sum to -1, the smallest is -3;.*softmax\(1\)"),
        ({"probabilities": [[1.5, -0.5], [0.5, 0.5]]}, "example 0 sum to 1, the smallest is -0.5"),
        ({"probabilities": [[0.5, 0.5], [0.5, 0.502]]}, "example 1 sum to 1.002"),
        ({"probabilities": [[0.5, 0.5], [np.nan, 1.0]]}, "example 1 sum to nan"),
        ({"probabilities": [[np.inf, -np.inf], [1.0, 0.0]]}, "example 0 sum to nan"),
        ({"probabilities": [[1e300, 0.0], [1.0, 0.0]]}, "example 0 sum to inf"),
        ({"predictions": [0.0, 1.0]}, "predictions: got float64"),
        ({"predictions": [0]}, r"predictions: got int64 \(1,\)"),
        ({"predictions": [0, -1]}, "predictions: got -1"),
        ({"probabilities": [[0.4, 0.6]] * 2, "predictions": [1, 0]}, "got 0 for example 1, whose .* class 1"),
        ({"probabilities": [[0.4, 0.6]] * 2, "predictions": [1, 2]}, "got 2 for example 1"),
    ],
)
def test_what_a_run_cannot_know_is_refused(facts, message):
    with pytest.raises(ValueError, match=message):
        dp.Run({"el2n": [0.0, 1.0]}, architecture="mlp", seed=0, **facts)


def test_probabilities_may_be_rounded():
    p = some_probabilities(classes=100).astype(np.float16)
    assert np.abs(p.sum(1, dtype=np.float64) - 1).max() > 1e-5
    assert len(dp.Run({"el2n": np.zeros(SIZE)}, architecture="mlp", seed=0, probabilities=p)) == SIZE


def test_with_scores_adds_scores_and_keeps_all_else(tmp_path):
    run = make_run(labels=np.arange(SIZE) % 5, epochs=3, seen=np.arange(SIZE) > 2, probabilities=some_probabilities())
    more = run.with_scores({"prediction_depth": torch.arange(SIZE), "el2n": np.zeros(SIZE)})
    assert list(more.scores) == ["el2n", "aum", "prediction_depth"]
    assert more.scores["el2n"].tolist() == [0] * SIZE
    np.testing.assert_array_equal(more.scores["aum"], run.scores["aum"])
    assert list(run.scores) == ["el2n", "aum"], "the run itself stays as it is"
    assert dict(more.metadata) == dict(run.metadata)
    for name in ("labels", "seen", "probabilities", "predictions"):
        np.testing.assert_array_equal(getattr(more, name), getattr(run, name))
    more.with_scores(run.scores).with_scores({}).save(tmp_path / "run.safetensors")
    np.testing.assert_array_equal(dp.Run.load(tmp_path / "run.safetensors").scores["el2n"], run.scores["el2n"])
    with pytest.raises(ValueError, match="'prediction_depth': 3"):
        run.with_scores({"prediction_depth": [1, 2, 3]})


@pytest.mark.parametrize(
    "layout", [np.asfortranarray, lambda p: np.repeat(p, 2, axis=1)[:, ::2], lambda p: p[::-1][::-1]]
)
def test_probabilities_of_any_memory_layout_come_back_from_the_file(tmp_path, layout):
    p = layout(some_probabilities())
    dp.Run({"el2n": np.zeros(2 * SIZE)[::2]}, architecture="mlp", seed=0, probabilities=p).save(tmp_path / "a")
    np.testing.assert_array_equal(dp.Run.load(tmp_path / "a").probabilities, some_probabilities())


# A loaded run stays in its file


EVERY_DTYPE = (
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)


@pytest.mark.parametrize("dtype", [*EVERY_DTYPE, "bool", "complex64", ">f4", ">i8"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 0), (2, 3)])
def test_vectors_of_every_dtype_and_shape_come_back(tmp_path, dtype, shape):
    vectors = {"a": np.ones(1, np.int8), "b": (np.arange(np.prod(shape)) % 3).reshape(shape).astype(dtype)}
    files.save_vectors(tmp_path / "file", "test", 1, vectors, {})
    for read in (files.open_vectors, files.load_vectors):
        found, _ = read(tmp_path / "file", "test", 1)
        assert found.keys() == vectors.keys()
        for name, values in vectors.items():
            assert found[name].dtype == values.dtype.newbyteorder("<")
            np.testing.assert_array_equal(found[name], values)


def test_vectors_at_odd_positions_come_back_aligned(tmp_path):
    metadata = {"__metadata__": {"difficulty_prune": json.dumps({"kind": "test", "format": 1})}}
    place = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    place["b"] = {"dtype": "F64", "shape": [2], "data_offsets": [1, 17]}
    header = json.dumps({**metadata, **place}).encode()
    values = np.array([0.5, -1.0])
    (tmp_path / "odd").write_bytes(len(header).to_bytes(8, "little") + header + b"\x07" + values.tobytes())
    found, _ = files.open_vectors(tmp_path / "odd", "test", 1)
    assert found["a"].tolist() == [7]
    assert found["b"].flags.aligned
    assert found["b"].tolist() == values.tolist()
    with pytest.raises(ValueError, match="read-only"):
        found["b"][0] = 1


def test_a_dtype_that_numpy_has_not_is_refused_by_name(tmp_path):
    path = tmp_path / "run.safetensors"
    metadata = {"difficulty_prune": json.dumps({"kind": "run", "format": 1, **GOOD_HEADER})}
    path.write_bytes(safetensors.torch.save({"el2n": torch.zeros(3, dtype=torch.bfloat16)}, metadata=metadata))
    check_refused(path, "'el2n' is of BF16")


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
    row = runs[0].scores["el2n"]
    assert open_files() == before + 1
    del row, kept
    assert open_files() == before


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


def test_what_is_wrong_far_into_a_large_file_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr("difficulty_prune.run._PART", 7)
    good = {"el2n": np.zeros(SIZE), "probabilities": some_probabilities().astype(np.float64)}
    good |= {"labels": np.arange(SIZE), "predictions": good["probabilities"].argmax(1)}
    wrong = np.zeros(2)
    for name, at, value, message in (
        ("el2n", 33, np.inf, "infinite at example 33"),
        ("labels", 39, -5, "labels: got -5"),
        ("probabilities", (20, 1), 2.0, "those of example 20 sum to"),
        ("predictions", 25, 9, "got 9 for example 25"),
    ):
        wrong = good[name].copy()
        wrong[at] = value
        files.save_vectors(tmp_path / name, "run", 1, {**good, name: wrong}, GOOD_HEADER)
        check_refused(tmp_path / name, message)
    files.save_vectors(tmp_path / "good", "run", 1, good, GOOD_HEADER)
    assert len(dp.Run.load(tmp_path / "good")) == SIZE


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


# Writing whole or not at all


def fail(*_args, **_kwargs):
    raise OSError(28, "No space left on device")


def interrupt(*_args, **_kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name"), [(Path, "replace"), (os, "fsync"), (Path, "chmod")], ids=["rename", "flush", "mode"]
)
@pytest.mark.parametrize(("how", "error"), [(fail, OSError), (interrupt, KeyboardInterrupt)], ids=["full", "ctrl-c"])
def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, owner, name, how, error):
    path = tmp_path / "run.safetensors"
    make_run(seed=1).save(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, how)
        with pytest.raises(error):
            make_run(seed=2).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert dp.Run.load(path).seed == 1


def test_failed_first_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        make_run().save(tmp_path / "run.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    events = []
    real_fsync, real_replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("flush"), real_fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (events.append("rename"), real_replace(self, to))[1])
    make_run().save(tmp_path / "run.safetensors")
    assert events == ["flush", "rename"]


def test_overwriting_replaces_the_whole_content(tmp_path):
    path = tmp_path / "run.safetensors"
    make_run(size=500).save(path)
    make_run(size=5, seed=3).save(path)
    loaded = dp.Run.load(path)
    assert (len(loaded), loaded.seed) == (5, 3)


@pytest.mark.skipif(os.name != "posix", reason="file modes are a matter of POSIX")
def test_written_file_has_the_mode_of_any_new_file(tmp_path):
    make_run().save(tmp_path / "run.safetensors")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "run.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


# Refused files


def check_refused(path, *reasons):
    with pytest.raises(ValueError, match=re.escape(str(path))) as refusal:
        dp.Run.load(path)
    assert type(refusal.value) is ValueError
    for reason in reasons:
        assert re.search(reason, str(refusal.value))


@pytest.mark.parametrize("left", [0, 1, 7, 8, 9, 100, 0.5, 0.9, -8, -1])
def test_truncated_run_is_refused_by_name(tmp_path, left):
    path = tmp_path / "run.safetensors"
    make_run(labels=np.arange(SIZE)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content)) if isinstance(left, float) else left])
    check_refused(path, "cut short or not a safetensors file")


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n" + bytes(200), b"el2n,aum\n0.5,1.0\n" * 20, bytes(1000), b"\xff" * 1000, b"PK\x03\x04" * 50],
    ids=["png", "csv", "zeros", "ones", "zip"],
)
def test_garbage_is_refused_by_name(tmp_path, content):
    path = tmp_path / "garbage"
    path.write_bytes(content)
    check_refused(path, "not a safetensors file")


def test_extended_file_is_refused_by_name(tmp_path):
    path = tmp_path / "run.safetensors"
    make_run().save(path)
    path.write_bytes(path.read_bytes() + b"more")
    check_refused(path, "not a safetensors file")


def test_foreign_safetensors_is_refused_by_name(tmp_path):
    path = tmp_path / "weights.safetensors"
    for metadata in (None, {"format": "pt"}):
        path.write_bytes(safetensors.numpy.save({"el2n": np.zeros(3)}, metadata=metadata))
        check_refused(path, "not one that difficulty_prune wrote")


@pytest.mark.parametrize(
    "header",
    [
        "not json",
        "{}",
        "[]",
        "3",
        '{"kind": "run"}',
        '{"kind": "run", "format": "1"}',
        '{"kind": "run", "format": null}',
    ],
)
def test_broken_header_is_refused_by_name(tmp_path, header):
    path = tmp_path / "run.safetensors"
    path.write_bytes(safetensors.numpy.save({"el2n": np.zeros(3)}, metadata={"difficulty_prune": header}))
    check_refused(path)


def test_plan_given_as_run_is_refused_by_name(tmp_path):
    path = tmp_path / "plan.safetensors"
    dp.policies.Hardest(keep=0.5)(torch.arange(4.0)).save(path)
    check_refused(path, "holds a plan, expected a run")


def test_newer_format_is_refused_by_name(tmp_path):
    path = tmp_path / "run.safetensors"
    files.save_vectors(path, "run", 2, {"el2n": np.zeros(3)}, {"metadata": {"architecture": "mlp", "seed": 0}})
    check_refused(path, "format 2 is newer than 1", "upgrade")


GOOD_HEADER = {"metadata": {"architecture": "mlp", "seed": 0}}


@pytest.mark.parametrize(
    ("vectors", "header", "reason"),
    [
        ({"el2n": np.zeros(3)}, {}, "metadata"),
        ({"el2n": np.zeros(3)}, {"metadata": {"seed": 0}}, "architecture"),
        ({"el2n": np.zeros(3)}, {"metadata": []}, "mapping"),
        ({"vmax": np.zeros(3)}, GOOD_HEADER, "'vmax'"),
        ({}, GOOD_HEADER, "got none"),
        ({"el2n": np.zeros(3), "aum": np.zeros(4)}, GOOD_HEADER, "'aum': 4"),
        ({"el2n": np.zeros((3, 2))}, GOOD_HEADER, r"\(3, 2\)"),
        ({"el2n": np.array([0, np.inf])}, GOOD_HEADER, "infinite at example 1"),
        ({"el2n": np.zeros(3), "labels": np.zeros(2, int)}, GOOD_HEADER, r"labels: got int64 \(2,\)"),
        ({"el2n": np.zeros(3), "labels": np.zeros(3)}, GOOD_HEADER, "labels: got float64"),
        ({"el2n": np.zeros(3), "seen": np.ones(2, bool)}, GOOD_HEADER, r"seen: got bool \(2,\)"),
        ({"el2n": np.zeros(3), "probabilities": np.zeros((3, 2))}, GOOD_HEADER, "example 0 sum to 0"),
        ({"el2n": np.zeros(3), "predictions": -np.ones(3, int)}, GOOD_HEADER, "predictions: got -1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_content_is_refused_by_name(tmp_path, vectors, header, reason):
    path = tmp_path / "run.safetensors"
    files.save_vectors(path, "run", 1, vectors, header)
    check_refused(path, "not a valid run file", reason)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.safetensors"))):
        dp.Run.load(tmp_path / "none.safetensors")


def test_a_folder_is_no_run_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        dp.Run.load(tmp_path)


# RunSet: statistics


def test_matrix_is_one_row_per_run():
    runs = holes()
    matrix = runs.matrix("el2n")
    assert matrix.dtype == np.float64
    assert matrix.shape == (6, SIZE)
    for row, run in zip(matrix, runs, strict=True):
        np.testing.assert_array_equal(row, run.scores["el2n"].astype(np.float64))


@pytest.mark.parametrize("score", ["el2n", "aum"])
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
def test_mean_and_standard_error_leave_out_missing_examples(score):
    runs = holes()
    matrix = runs.matrix(score)
    seen = (~np.isnan(matrix)).sum(0)
    assert seen[0] == 0
    assert seen[1] == 1
    assert 0 < np.isnan(matrix[:, 2:]).sum() < matrix[:, 2:].size
    np.testing.assert_allclose(runs.mean(score), np.nanmean(matrix, axis=0), rtol=1e-12)
    expected = np.nanstd(matrix, axis=0, ddof=1) / np.sqrt(np.maximum(seen, 1))
    np.testing.assert_allclose(runs.standard_error(score), expected, rtol=1e-9, atol=1e-15)
    assert np.isnan(runs.mean(score)[0])
    assert np.isnan(runs.standard_error(score)[:2]).all()
    assert not np.isnan(runs.mean(score)[1:]).any()


def test_statistics_raise_no_warning_where_nothing_is_known():
    runs = dp.RunSet([make_run(seed=s, missing=range(SIZE)) for s in range(2)])
    assert np.isnan(runs.mean("el2n")).all()
    assert np.isnan(runs.standard_error("el2n")).all()


def test_standard_error_of_one_run_is_not_known():
    assert np.isnan(dp.RunSet([make_run()]).standard_error("el2n")).all()


def test_mean_is_double_precision_from_single_precision_runs():
    runs = dp.RunSet(
        dp.Run({"loss": np.full(2, value, np.float32)}, architecture="mlp", seed=s)
        for s, value in enumerate((2.0**24, 1.0))
    )
    assert runs.mean("loss").tolist() == [(2.0**24 + 1) / 2] * 2
    assert runs.mean("loss").dtype == np.float64


@pytest.mark.parametrize("score", [name for name in dp.score_names() if name not in dp.score_names("runs")])
def test_difficulty_is_high_for_hard_examples(score):
    runs = dp.RunSet([dp.Run({score: [1.0, 2.0, np.nan]}, architecture="mlp", seed=0)])
    sign = 1 if dp.SCORES[score].higher_is_harder else -1
    np.testing.assert_array_equal(runs.difficulty(score), [sign * 1.0, sign * 2.0, np.nan])
    np.testing.assert_array_equal(runs.mean(score), [1.0, 2.0, np.nan])


def test_names_of_scores_and_architectures():
    runs = dp.RunSet(
        [
            dp.Run({"aum": [1.0], "el2n": [1.0], "loss": [1.0]}, architecture="b", seed=0),
            dp.Run({"loss": [1.0], "aum": [1.0]}, architecture="a", seed=0),
            dp.Run({"loss": [1.0], "aum": [1.0], "margin": [1.0]}, architecture="b", seed=1),
        ]
    )
    assert runs.scores == ("loss", "aum"), "those of every run, in the order of the catalogue"
    assert runs.architectures == ("b", "a")
    with pytest.raises(ValueError, match=r"Run\('a'.*no score 'el2n'.*loss, aum"):
        runs.matrix("el2n")


def test_where_selects_by_metadata():
    runs = dp.RunSet(
        [make_run(seed=s, architecture=a, epochs=e) for s, (a, e) in enumerate([("a", 1), ("b", 1), ("a", 2)])]
    )
    assert [run.seed for run in runs.where(architecture="a")] == [0, 2]
    assert [run.seed for run in runs.where(epochs=1)] == [0, 1]
    assert [run.seed for run in runs.where(architecture="a", epochs=2)] == [2]
    assert isinstance(runs.where(seed=1), dp.RunSet)
    with pytest.raises(ValueError, match=r"'epochs': 3.*\['1', '2'\]"):
        runs.where(epochs=3)
    with pytest.raises(ValueError, match="width"):
        runs.where(width=64)


def test_runs_are_counted_iterated_and_indexed():
    runs = dp.RunSet(make_run(seed=s) for s in range(3))
    assert len(runs) == 3
    assert runs.num_examples == SIZE
    assert [run.seed for run in runs] == [0, 1, 2]
    assert runs[-1].seed == 2


def test_labels_come_from_the_first_run_that_knows_them():
    labels = np.arange(SIZE) % 3
    runs = dp.RunSet([make_run(seed=0), make_run(seed=1, labels=labels), make_run(seed=2, labels=labels)])
    np.testing.assert_array_equal(runs.labels, labels)
    assert dp.RunSet([make_run()]).labels is None


score_tables = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 7), st.integers(1, 9)),
    elements=st.one_of(st.just(np.nan), st.integers(-3, 3).map(float), st.floats(-1e6, 1e6)),
)


def runs_of(table, score="aum"):
    return [dp.Run({score: row}, architecture="mlp", seed=seed) for seed, row in enumerate(table)]


@given(table=score_tables)
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
def test_mean_error_and_median_are_those_of_numpy(table):
    runs = dp.RunSet(runs_of(table))
    known = (~np.isnan(table)).sum(0)
    error = np.nanstd(table, axis=0, ddof=1) / np.sqrt(np.maximum(known, 1))
    np.testing.assert_allclose(runs.mean("aum"), np.nanmean(table, axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(runs.standard_error("aum"), error, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(runs.median("aum"), np.nanmedian(table, axis=0))


def slow_rank_fractions(row):
    """(rank - 0.5) / n, where the rank is the middle of the places that an example and its equals could take."""
    known = [x for x in row if not np.isnan(x)]
    for x in row:
        lower, equal = sum(y < x for y in known), sum(y == x for y in known)
        yield (lower + (equal + 1) / 2 - 0.5) / len(known) if equal else np.nan


@given(table=score_tables)
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
def test_rank_mean_is_the_mean_of_the_ranks_within_the_runs(table):
    expected = np.nanmean([list(slow_rank_fractions(row)) for row in table], axis=0)
    np.testing.assert_allclose(dp.RunSet(runs_of(table)).rank_mean("aum"), expected, rtol=1e-12)


def test_rank_mean_does_not_depend_on_the_scale_of_a_run():
    rows = np.random.default_rng(0).random((5, SIZE))
    scaled = rows * np.array([[1.0], [1e6], [1e-6], [3.0], [1.0]]) - 7
    expected = dp.RunSet(runs_of(rows)).rank_mean("aum")
    np.testing.assert_allclose(dp.RunSet(runs_of(scaled)).rank_mean("aum"), expected)
    assert 0 < expected.min() < expected.max() < 1
    assert expected.mean() == pytest.approx(0.5)


def test_parts_of_the_examples_make_the_whole(monkeypatch):
    p = some_probabilities(classes=3)
    rng = np.random.default_rng(0)
    runs = dp.RunSet(
        make_run(seed=seed, labels=np.arange(SIZE) % 3, seen=rng.random(SIZE) < 0.5, probabilities=rng.permutation(p))
        for seed in range(6)
    )

    def numbers():
        estimates = runs.memorization(), runs.held_out_consistency()
        facts = [np.stack([e.value, e.standard_error, e.seen, e.unseen]) for e in estimates]
        return [*facts, runs.median("aum"), runs.model_accuracy(), runs.mean("aum"), runs.standard_error("aum")]

    whole = numbers()
    monkeypatch.setattr("difficulty_prune.runs._PART", 6 * 7)
    monkeypatch.setattr("difficulty_prune.running._PART", 7)
    for a, b in zip(numbers(), whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_matrix_of_some_examples():
    runs = holes()
    for examples in (slice(3, 9), slice(None, None, -7), np.array([5, 0, 5]), np.arange(SIZE) % 2 == 0):
        np.testing.assert_array_equal(runs.matrix("aum", examples), runs.matrix("aum")[:, examples])


@pytest.mark.parametrize("what", ["matrix", "median", "rank_mean"])
def test_what_needs_one_number_per_run_says_so(what, tmp_path):
    np.savez(tmp_path / "table.npz", c_score=np.linspace(0, 1, SIZE))
    runs = dp.RunSet([make_run()]).with_table(tmp_path / "table.npz")
    for score in ("memorization", "c_score"):
        with pytest.raises(ValueError, match=rf"{what}: '{score}' is one number .*runs\.mean\('{score}'\)"):
            getattr(runs, what)(score)
    with pytest.raises(ValueError, match=r"Run\('mlp'.*no score 'loss'; all runs have el2n, aum"):
        getattr(runs, what)("loss")
    with pytest.raises(ValueError, match="there is no score 'eln2'; did you mean 'el2n'"):
        getattr(runs, what)("eln2")


def test_group_by_parts_the_runs_in_order_of_appearance():
    facts = [("b", 1), ("a", 1), ("b", 2)]
    runs = dp.RunSet(make_run(seed=s, architecture=a, epochs=e) for s, (a, e) in enumerate(facts))
    groups = runs.group_by("architecture")
    assert {name: [run.seed for run in group] for name, group in groups.items()} == {"b": [0, 2], "a": [1]}
    assert list(groups) == ["b", "a"]
    for name, group in groups.items():
        np.testing.assert_array_equal(group.mean("aum"), runs.where(architecture=name).mean("aum"))
    assert {epochs: len(group) for epochs, group in runs.group_by("epochs").items()} == {1: 2, 2: 1}


def test_group_by_keeps_tables_and_runs_without_the_field(tmp_path):
    np.savez(tmp_path / "table.npz", c_score=np.linspace(0, 1, SIZE))
    runs = dp.RunSet([make_run(width=8), make_run(seed=1)]).with_table(tmp_path / "table.npz")
    groups = runs.group_by("width")
    assert list(groups) == [8, None]
    np.testing.assert_array_equal(groups[None].mean("c_score"), np.linspace(0, 1, SIZE))


def test_group_by_refuses_what_it_cannot_group_by():
    runs = dp.RunSet([make_run(options={"lr": 0.1}, epochs=3)])
    with pytest.raises(
        ValueError, match=r"no run has a field 'width'; known are architecture, seed, .*options, epochs"
    ):
        runs.group_by("width")
    with pytest.raises(ValueError, match=r"'options' of Run\('mlp'.* is \{'lr': 0.1\}, expected text or a number"):
        runs.group_by("options")


# RunSet: what does not mix


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match="no runs"):
        dp.RunSet([])


def test_different_fingerprints_do_not_mix():
    with pytest.raises(ValueError, match="fingerprints, aaaa and bbbb"):
        dp.RunSet([make_run(fingerprint="aaaa"), make_run(seed=1, fingerprint="bbbb")])


def test_different_lengths_do_not_mix():
    with pytest.raises(ValueError, match="numbers of examples, 40 and 39"):
        dp.RunSet([make_run(), make_run(size=39)])


def test_different_labels_do_not_mix():
    labels = np.arange(SIZE) % 3
    other = labels.copy()
    other[:2] = 7
    with pytest.raises(ValueError, match="different labels for 2 examples"):
        dp.RunSet([make_run(labels=labels), make_run(seed=1, labels=other)])


def test_different_labels_do_not_mix_behind_a_run_without_labels():
    labels = np.arange(SIZE) % 3
    with pytest.raises(ValueError, match="different labels"):
        dp.RunSet([make_run(), make_run(seed=1, labels=labels), make_run(seed=2, labels=labels[::-1])])


GRADIENT = {"channel_dim": 1, "every": 1, "pixels": None, "m2_dtype": "float32"}


def scored(seed, scores=("vog",), architecture="cnn", **metadata):
    rng = np.random.default_rng(seed)
    return dp.Run({name: rng.random(SIZE) for name in scores}, architecture=architecture, seed=seed, **metadata)


def check_do_not_mix(runs, *reasons):
    """Neither in a set nor one after the other."""
    running = dp.RunningMean()
    for run in runs[:-1]:
        running.update(run)
    before = running.mean(running.scores[0])
    for mix in (lambda: dp.RunSet(runs), lambda: running.update(runs[-1])):
        with pytest.raises(ValueError, match=reasons[0]) as refusal:
            mix()
        for reason in reasons:
            assert re.search(reason, str(refusal.value))
    assert len(running) == len(runs) - 1
    np.testing.assert_array_equal(running.mean(running.scores[0]), before)


def test_different_options_do_not_mix():
    first = scored(0, options={"gradient": {**GRADIENT, "pixels": 256}})
    fields = {**GRADIENT, "m2_dtype": "bfloat16"}
    check_do_not_mix(
        [first, scored(1, options={"gradient": fields})],
        "options.gradient.pixels: 256 and None",
        "options.gradient.m2_dtype: 'float32' and 'bfloat16'",
        r"seed=0.* and .*seed=1.* computed 'vog' with different options",
    )


def test_different_temporal_options_do_not_mix():
    runs = [scored(w, ("tdds",), options={"temporal": {"window": w, "decay": 0.9}}) for w in (10, 5)]
    check_do_not_mix(runs, "'tdds'.* options.temporal.window: 10 and 5; ")


def test_different_options_do_not_mix_behind_runs_that_say_nothing():
    options = [None, {}, {"gradient": GRADIENT}, {"gradient": {**GRADIENT, "every": 2}}]
    runs = [scored(s, **({} if o is None else {"options": o})) for s, o in enumerate(options)]
    check_do_not_mix(runs, r"seed=2.*seed=3.*options\.gradient\.every: 1 and 2")


def test_scores_of_predicted_labels_do_not_mix_with_those_of_true_ones():
    runs = [scored(0, ("loss",), options={}), scored(1, ("loss",), options={"label": "predicted"})]
    check_do_not_mix(runs, "'loss'.*options.label: None and 'predicted'")


def test_different_layers_of_an_architecture_do_not_mix():
    runs = [scored(s, ("prediction_depth",), layers=["stem", f"block{s}"]) for s in range(2)]
    check_do_not_mix(runs, r"layers of cnn: \['stem', 'block0'\] and \['stem', 'block1'\]")


def test_options_that_concern_no_score_of_both_runs_may_differ():
    other = {**GRADIENT, "pixels": 64}
    assert len(
        dp.RunSet([scored(0, options={"gradient": GRADIENT}), scored(1, ("el2n",), options={"gradient": other})])
    )
    assert len(
        dp.RunSet([scored(0, options={"gradient": GRADIENT}), scored(1, ("vog_loss",), options={"gradient": other})])
    )
    assert len(dp.RunSet([scored(0, options={"gradient": GRADIENT}), scored(1, options="those of my own")]))
    assert len(dp.RunSet(scored(s, options={"lr": 0.1 * s}) for s in range(2)))
    depths = [scored(s, ("prediction_depth",), architecture=str(s), layers=[f"block{s}"]) for s in range(2)]
    assert len(dp.RunSet(depths))
    assert len(dp.RunSet(scored(s, layers=[f"block{s}"]) for s in range(2)))


def test_trackers_with_different_options_give_runs_that_do_not_mix():
    def run(seed, pixels):
        tracker = dp.DifficultyTracker(4, scores=("vog", "el2n"), gradient=dp.GradientOptions(pixels=pixels))
        generator = torch.Generator().manual_seed(seed)
        for _ in range(2):
            x = torch.rand(4, 3, 4, 4, generator=generator, requires_grad=True)
            tracker.update(torch.arange(4), x.flatten(1)[:, :3] ** 2, torch.tensor([0, 1, 2, 0]), inputs=x)
        return tracker.finish(architecture="mlp", seed=seed)

    assert len(dp.RunSet([run(0, 8), run(1, 8)])) == 2
    check_do_not_mix([run(0, 8), run(1, None)], "options.gradient.pixels: 8 and None")


@pytest.mark.parametrize("missing", [(), (2, 3), range(SIZE)], ids=["all", "holes", "none"])
def test_a_run_and_its_copy_do_not_mix(tmp_path, missing):
    run = make_run(seed=3, missing=missing)
    check_do_not_mix([make_run(seed=2), run, make_run(seed=3, missing=missing, note="copied")], r"seed=3.*once")
    for name in "ab":
        run.save(tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match=r"runs 0 and 1 are one.*a\.safetensors and .*b\.safetensors") as refusal:
        dp.RunSet.load(tmp_path)
    assert "same architecture, seed and scores. A copy always agrees with its original" in str(refusal.value)
    more = run.with_scores({"loss": np.zeros(SIZE)})
    with pytest.raises(ValueError, match="runs 0 and 1 are one"):
        dp.RunSet([run, more])


def test_equal_scores_of_another_seed_or_architecture_or_other_scores_of_the_same_are_no_copies():
    values = np.zeros(SIZE)
    runs = [dp.Run({"loss": values}, architecture=a, seed=s) for a, s in (("a", 0), ("b", 0), ("a", 1))]
    runs.append(dp.Run({"loss": values + 1}, architecture="a", seed=0))
    runs.append(dp.Run({"loss": values, "aum": values}, architecture="c", seed=0))
    runs.append(dp.Run({"loss": values, "aum": values + 1}, architecture="c", seed=0))
    assert len(dp.RunSet(runs)) == 6
    running = dp.RunningMean(["loss"])
    for run in runs[:4]:
        running.update(run)
    assert len(running) == 4


# RunSet: loading


@pytest.fixture
def folder(tmp_path):
    for seed in range(3):
        make_run(seed=seed).save(tmp_path / f"mlp-{seed}.safetensors")
    (tmp_path / "notes.txt").write_text("not a run")
    return tmp_path


def test_load_from_glob_folder_path_and_list(folder):
    def seeds(paths):
        return [run.seed for run in dp.RunSet.load(paths)]

    assert seeds(str(folder / "*.safetensors")) == [0, 1, 2]
    assert seeds(folder / "mlp-[12].safetensors") == [1, 2]
    assert seeds(folder) == [0, 1, 2]
    assert seeds(str(folder)) == [0, 1, 2]
    assert seeds(folder / "mlp-1.safetensors") == [1]
    assert seeds([folder / "mlp-2.safetensors", str(folder / "mlp-0.safetensors")]) == [2, 0]
    assert seeds(path for path in sorted(folder.glob("*.safetensors"))) == [0, 1, 2]


def test_load_one_file_whose_name_looks_like_a_pattern(tmp_path):
    path = tmp_path / "mlp[width=64].safetensors"
    make_run(seed=5).save(path)
    assert [run.seed for run in dp.RunSet.load(path)] == [5]


def test_load_where_nothing_is(folder):
    for paths in (folder / "resnet-*", str(folder / "none"), [folder / "none.safetensors"]):
        with pytest.raises(FileNotFoundError, match=re.escape(str(paths[0] if isinstance(paths, list) else paths))):
            dp.RunSet.load(paths)
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        dp.RunSet.load(folder / "empty")


def test_load_names_the_one_bad_file(folder):
    path = folder / "mlp-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        dp.RunSet.load(folder)


def test_load_refuses_runs_of_different_data(folder):
    make_run(seed=3, fingerprint="beef").save(folder / "mlp-3.safetensors")
    with pytest.raises(ValueError, match="f00d and beef"):
        dp.RunSet.load(folder)


# Running mean


@given(table=score_tables, saved_after=st.integers(0, 7))
def test_a_running_mean_is_that_of_the_set(tmp_path_factory, table, saved_after):
    path = tmp_path_factory.mktemp("running") / "mean.safetensors"
    runs = runs_of(table)
    running = dp.RunningMean()
    for position, run in enumerate(runs):
        if position == saved_after:
            running.save(path)
            running = dp.RunningMean.load(path)
        running.update(run)
    together = dp.RunSet(runs)
    for what in ("mean", "standard_error", "difficulty"):
        np.testing.assert_array_equal(getattr(running, what)("aum"), getattr(together, what)("aum"))
        assert getattr(running, what)("aum").dtype == np.float64
    assert len(running) == len(table)
    path.unlink(missing_ok=True)


def some_running_mean(count=3):
    running = dp.RunningMean()
    for seed in range(count):
        running.update(make_run(seed=seed, architecture="ab"[seed % 2], labels=np.arange(SIZE) % 3, missing=[seed, 9]))
    return running


def test_a_running_mean_comes_back_from_its_file_and_goes_on(tmp_path):
    path = tmp_path / "mean.safetensors"
    some_running_mean().save(path)
    before = path.read_bytes()
    loaded = dp.RunningMean.load(path)
    loaded.save(path)
    assert path.read_bytes() == before
    assert (len(loaded), loaded.scores, loaded.architectures) == (3, ("el2n", "aum"), ("a", "b"))
    assert repr(loaded) == "RunningMean(3 runs, scores=['el2n', 'aum'], architectures=['a', 'b'])"
    new = make_run(seed=7, labels=np.arange(SIZE) % 3)
    loaded.update(new)
    assert len(loaded) == 4
    for run, message in (
        (
            make_run(seed=1, architecture="b", labels=np.arange(SIZE) % 3, missing=[1, 9]),
            "in the mean already, as run 1 of 4",
        ),
        (make_run(seed=8, fingerprint="beef"), "fingerprints, f00d and beef"),
        (make_run(seed=8, size=SIZE + 1), "numbers of examples, 40 and 41"),
        (make_run(seed=8, labels=np.arange(SIZE) % 4), "different labels for 28 examples"),
        (scored(8, ("el2n",), dataset_fingerprint="f00d"), "no score 'aum'; the mean is of el2n, aum"),
    ):
        with pytest.raises(ValueError, match=message):
            loaded.update(run)
    assert len(loaded) == 4
    with pytest.raises(TypeError, match="expected a run"):
        loaded.update(path)


def test_a_running_mean_follows_the_scores_that_it_was_asked_for(tmp_path):
    running = dp.RunningMean(["aum"])
    running.save(tmp_path / "mean")
    running = dp.RunningMean.load(tmp_path / "mean")
    running.update(make_run(seed=0))
    running.update(scored(1, ("aum", "loss"), dataset_fingerprint="f00d"))
    assert running.scores == ("aum",)
    with pytest.raises(ValueError, match="got score 'el2n', expected of aum"):
        running.mean("el2n")
    with pytest.raises(ValueError, match="there is no score 'eln2'"):
        dp.RunningMean(["eln2"])


def test_a_running_mean_of_no_runs_has_no_numbers():
    for what in ("mean", "standard_error", "difficulty"):
        with pytest.raises(ValueError, match="no runs yet"):
            getattr(dp.RunningMean(), what)("aum")
    assert len(dp.RunningMean()) == 0
    assert dp.RunningMean().architectures == ()


def test_options_are_remembered_with_the_running_mean(tmp_path):
    running = dp.RunningMean()
    running.update(scored(0, options={"gradient": GRADIENT}))
    running.save(tmp_path / "mean")
    with pytest.raises(ValueError, match=r"options\.gradient\.every: 1 and 3"):
        dp.RunningMean.load(tmp_path / "mean").update(scored(1, options={"gradient": {**GRADIENT, "every": 3}}))


def check_no_running_mean(path, *reasons):
    with pytest.raises(ValueError, match=re.escape(str(path))) as refusal:
        dp.RunningMean.load(path)
    for reason in reasons:
        assert re.search(reason, str(refusal.value))


@pytest.mark.parametrize("left", [0, 8, 0.5, -1])
def test_a_truncated_running_mean_is_refused_by_name(tmp_path, left):
    path = tmp_path / "mean"
    some_running_mean().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content)) if isinstance(left, float) else left])
    check_no_running_mean(path, "cut short or not a safetensors file")


def test_a_foreign_or_newer_file_is_no_running_mean(tmp_path):
    path = tmp_path / "mean"
    make_run().save(path)
    check_no_running_mean(path, "holds a run, expected a running mean")
    some_running_mean().save(path)
    with pytest.raises(ValueError, match="holds a running mean, expected a run"):
        dp.Run.load(path)
    vectors, header = files.load_vectors(path, "running mean", 1)
    files.save_vectors(path, "running mean", 2, vectors, header)
    check_no_running_mean(path, "format 2 is newer than 1")
    with pytest.raises(FileNotFoundError, match="none"):
        dp.RunningMean.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v, h: v.pop("aum.spread"), "aum.spread"),
        (lambda v, h: v.update({"aum.count": v["aum.count"] + 9}), "counts that are not of 3 runs"),
        (lambda v, h: v.update({"aum.spread": v["aum.spread"] - 99}), "negative spread"),
        (lambda v, h: v.update({"aum.total": v["aum.total"] * np.nan}), "aum.total: got nan"),
        (lambda v, h: v.update({"aum.total": v["aum.total"][1:]}), r"aum.total: got float64 \(39,\), expected .*40"),
        (lambda v, h: v.update({"labels": v["labels"].astype(float)}), "labels: got float64"),
        (lambda v, h: h.pop("runs"), "'runs'"),
        (lambda v, h: h.update(runs=[3]), "subscriptable"),
        (lambda v, h: h.update(common={}), "'data'"),
        (lambda v, h: h.update(common={"data": 3}), "not iterable"),
        (lambda v, h: h.update(scores=["vmax"]), "no score 'vmax'"),
        (lambda v, h: h["definitions"]["aum"].update(higher_is_harder=True), "aum.higher_is_harder: True in the file"),
    ],
)
def test_a_damaged_running_mean_is_refused_by_name(tmp_path, change, reason):
    path = tmp_path / "mean"
    some_running_mean().save(path)
    vectors, header = files.load_vectors(path, "running mean", 1)
    change(vectors, header)
    files.save_vectors(path, "running mean", 1, vectors, header)
    check_no_running_mean(path, "not a valid running mean file", reason)


def test_a_running_mean_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    some_running_mean(2).save(tmp_path / "mean")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        some_running_mean(3).save(tmp_path / "mean")
    assert len(dp.RunningMean.load(tmp_path / "mean")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mean"]


# Rank statistics, compiled and without the compiled module


needs_compiled = pytest.mark.skipif(ranks._host is None, reason="built without the compiled module")
both_builds = pytest.mark.parametrize(
    "host", [pytest.param(ranks._host, marks=needs_compiled), None], ids=["compiled", "without"]
)


@contextmanager
def built_with(host):
    """Rank statistics with the compiled module, or with None in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "_host", host)
        yield


tied_or_not = st.one_of(
    st.integers(-3, 3).map(float), st.floats(allow_nan=False), st.sampled_from([0.0, -0.0, np.inf, -np.inf])
)


def matrices(rows, columns):
    shapes = st.tuples(st.integers(1, rows), st.integers(1, columns))
    return hnp.arrays(np.float64, shapes, elements=tied_or_not)


@both_builds
@settings(deadline=None, max_examples=50)
@given(x=matrices(6, 24))
def test_ranks_are_those_of_scipy(host, x):
    with built_with(host):
        np.testing.assert_array_equal(ranks.rank_rows(x), scipy.stats.rankdata(x, axis=1))


@both_builds
@settings(deadline=None, max_examples=50)
@given(x=matrices(3, 24))
def test_spearman_is_that_of_scipy(host, x):
    with built_with(host):
        got = ranks.spearman_matrix(x)
    assert got.shape == (len(x), len(x))
    np.testing.assert_array_equal(got, got.T)
    constant = (x == x[:, :1]).all(1)
    assert np.isnan(got[constant]).all()
    known = got[~constant][:, ~constant]
    np.testing.assert_allclose(np.diag(known), 1, rtol=1e-12)
    assert (np.abs(known) <= 1).all()
    for a, b in itertools.combinations(np.flatnonzero(~constant), 2):
        expected = scipy.stats.spearmanr(scipy.stats.rankdata(x[a]), scipy.stats.rankdata(x[b])).statistic
        assert got[a, b] == pytest.approx(expected, abs=1e-12)


@both_builds
@settings(deadline=None, max_examples=30)
@given(x=hnp.arrays(np.float64, (3, 12), elements=st.integers(-3, 3)), missing=hnp.arrays(bool, (3, 12)))
def test_spearman_leaves_out_examples_that_a_row_does_not_know(host, x, missing):
    missing[:, 0] = False
    with built_with(host):
        expected = ranks.spearman_matrix(x[:, ~missing.any(0)])
        np.testing.assert_array_equal(ranks.spearman_matrix(np.where(missing, np.nan, x)), expected)


@both_builds
def test_spearman_without_a_common_example_is_not_known(host):
    x = np.array([[1.0, 2.0, np.nan, np.nan], [np.nan, np.nan, 1.0, 2.0]])
    with built_with(host):
        assert np.isnan(ranks.spearman_matrix(x)).all()


@both_builds
def test_ranks_of_many_values(host):
    x = np.random.default_rng(0).integers(0, 500, size=(7, 20_000)).astype(np.float64)
    with built_with(host):
        np.testing.assert_array_equal(ranks.rank_rows(x), scipy.stats.rankdata(x, axis=1))
        np.testing.assert_allclose(ranks.spearman_matrix(x), scipy.stats.spearmanr(x, axis=1).statistic, atol=1e-12)


@both_builds
def test_ranks_take_any_numeric_layout(host):
    x = np.random.default_rng(0).integers(0, 9, size=(20, 6))
    expected = scipy.stats.rankdata(x, axis=0).T
    with built_with(host):
        np.testing.assert_array_equal(ranks.rank_rows(x.T), expected)
        np.testing.assert_array_equal(ranks.rank_rows(x.T.astype(np.float32)), expected)
        np.testing.assert_array_equal(ranks.rank_rows(x[:, ::-1].T), expected[::-1])


@needs_compiled
def test_ranks_of_nan_do_not_depend_on_the_build():
    def outcome(host):
        with built_with(host):
            try:
                return repr(ranks.rank_rows(np.array([[1.0, np.nan, 0.0]])))
            except ValueError:
                return "refused"

    assert outcome(ranks._host) == outcome(None)


def test_runs_travel_between_processes():
    run = make_run(labels=np.arange(SIZE))
    copy = pickle.loads(pickle.dumps(run))  # noqa: S301 - written one call earlier
    np.testing.assert_array_equal(copy.scores["el2n"], run.scores["el2n"])
    assert dict(copy.metadata) == dict(run.metadata)


def test_means_of_counts_are_tied_whatever_the_order_of_the_runs():
    values = np.array(list(itertools.permutations((0, 1, 3))) + list(itertools.permutations((0, 1, 4)))).T
    runs = dp.RunSet(dp.Run({"forgetting": row}, architecture="mlp", seed=i) for i, row in enumerate(values))
    assert len(np.unique(runs.mean("forgetting"))) == 2
