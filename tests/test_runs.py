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
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import difficulty_prune as dp
from difficulty_prune import files, ranks

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


# Consistency


def rho(a, b):
    known = ~np.isnan(a) & ~np.isnan(b)
    return scipy.stats.spearmanr(a[known], b[known]).statistic


@pytest.mark.parametrize("score", ["el2n", "aum"])
def test_run_agreement_is_spearman_with_the_mean(score):
    runs = dp.RunSet(make_run(seed=s) for s in range(5))
    matrix = runs.matrix(score)
    expected = [rho(row, matrix.mean(0)) for row in matrix]
    agreement = dp.consistency.run_agreement(runs, score)
    assert agreement.shape == (5,)
    np.testing.assert_allclose(agreement, expected, rtol=1e-12)


def test_run_agreement_uses_the_examples_that_each_run_knows():
    runs = holes(run_count=3)
    matrix = runs.matrix("el2n")
    assert 3 < (~np.isnan(matrix).any(0)).sum() < SIZE
    expected = [rho(row[~np.isnan(row)], runs.mean("el2n")[~np.isnan(row)]) for row in matrix]
    np.testing.assert_allclose(dp.consistency.run_agreement(runs, "el2n"), expected, rtol=1e-12)


def test_one_run_agrees_with_itself():
    assert dp.consistency.run_agreement(dp.RunSet([make_run()]), "el2n") == pytest.approx([1.0], abs=1e-12)


def test_score_correlation_compares_difficulties():
    rng = np.random.default_rng(0)
    hard = rng.random(SIZE)
    runs = dp.RunSet(
        dp.Run(
            {"el2n": hard + 0.3 * rng.random(SIZE), "confidence": 1 - hard, "forgetting": (4 * hard).astype(int)},
            architecture="mlp",
            seed=s,
        )
        for s in range(3)
    )
    names = ("el2n", "confidence", "forgetting")
    assert runs.scores == names
    correlation = dp.consistency.score_correlation(runs)
    expected = [[rho(runs.difficulty(a), runs.difficulty(b)) for b in names] for a in names]
    np.testing.assert_allclose(correlation, expected, rtol=1e-12)
    assert (correlation > 0.5).all(), "all three call the same examples hard, also where a low score is hard"
    chosen = dp.consistency.score_correlation(runs, ["forgetting", "el2n"])
    np.testing.assert_allclose(chosen, correlation[np.ix_([2, 0], [2, 0])], rtol=1e-12)


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
