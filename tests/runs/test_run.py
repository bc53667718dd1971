"""A run: what it holds, what it refuses to hold, and its file read back."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from small_runs import SIZE, make_run, some_probabilities

import difficulty_prune as dp
from difficulty_prune.support import files

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


def test_runs_travel_between_processes():
    run = make_run(labels=np.arange(SIZE))
    copy = pickle.loads(pickle.dumps(run))  # noqa: S301 - written one call earlier
    np.testing.assert_array_equal(copy.scores["el2n"], run.scores["el2n"])
    assert dict(copy.metadata) == dict(run.metadata)
