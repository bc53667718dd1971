"""Files are written whole or not at all, and give back every dtype and shape."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from small_runs import GOOD_HEADER, check_refused, fail, make_run

import difficulty_prune as dp
from difficulty_prune.support import files
from difficulty_prune.support.safetensors_header import ArrayKind

# Arrays in files


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


def test_a_dtype_numpy_lacks_is_refused_by_name(tmp_path):
    path = tmp_path / "run.safetensors"
    metadata = {"difficulty_prune": json.dumps({"kind": "run", "format": 1, **GOOD_HEADER})}
    path.write_bytes(safetensors.torch.save({"el2n": torch.zeros(3, dtype=torch.bfloat16)}, metadata=metadata))
    check_refused(path, "'el2n' is of 'BF16'")


# Writing whole or not at all


def interrupt(*_args, **_kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(("owner", "name"), [(Path, "replace"), (os, "fsync")], ids=["rename", "flush"])
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


# Arrays in parts


def kinds_of(vectors):
    return {name: ArrayKind(array.dtype, array.shape) for name, array in vectors.items()}


def test_parts_make_the_file_that_whole_arrays_make(tmp_path):
    vectors = {"a": np.arange(7, dtype="<f4"), "b": np.arange(5, dtype="<i8"), "c": np.empty(0, "<f4")}
    files.save_vectors(tmp_path / "whole", "test", 1, vectors, {"note": "x"})
    parts = [("b", vectors["b"][:2]), ("b", vectors["b"][2:]), ("a", vectors["a"][:0]), ("a", vectors["a"])]
    files.save_parts(tmp_path / "parts", "test", 1, kinds_of(vectors), iter(parts), {"note": "x"})
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    found, _ = files.open_vectors(tmp_path / "parts", "test", 1)
    assert found.mapped("b").tolist() == [0, 1, 2, 3, 4]
    assert not found.mapped("a").flags.writeable
    assert found.digest("a") != found.digest("c")


@pytest.mark.parametrize("wrong", [["a"], ["a", "b"], ["b"], ["b", "a", "a"], ["b", "z"], ["b", "float"]])
def test_parts_that_do_not_make_up_the_arrays_leave_no_file(tmp_path, wrong):
    vectors = {"a": np.arange(7, dtype="<f4"), "b": np.arange(5, dtype="<i8")}
    odd = {"z": np.zeros(1, "<f4"), "float": vectors["a"].astype("<f8")}
    parts = [("a" if name == "float" else name, {**vectors, **odd}[name]) for name in wrong]
    with pytest.raises(RuntimeError, match="to come"):
        files.save_parts(tmp_path / "parts", "test", 1, kinds_of(vectors), parts, {})
    assert list(tmp_path.iterdir()) == []
