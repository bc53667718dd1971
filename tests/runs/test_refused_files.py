"""A file that is no run, or no longer a whole one, is refused by its name."""

from __future__ import annotations

import re

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from small_runs import GOOD_HEADER, SIZE, check_refused, make_run

import difficulty_prune as dp
from difficulty_prune.support import files


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
    files.save_vectors(path, "run", 4, {"el2n": np.zeros(3)}, {"metadata": {"architecture": "mlp", "seed": 0}})
    check_refused(path, "format 4 is newer than 3", "upgrade")


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
