"""A running mean is that of the set, and goes on from its file."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import GRADIENT, SIZE, fail, make_run, runs_of, score_tables, scored

import difficulty_prune as dp
from difficulty_prune.support import files


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
    with pytest.raises(ValueError, match="got score 'el2n', expected one of aum"):
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
        (lambda v, h: v.update({"aum.count": v["aum.count"] + 9}), r"counts outside 0\.\.3"),
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
