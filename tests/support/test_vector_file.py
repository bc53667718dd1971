"""Arrays that stay in their file: what is read, what is refused, and what any bytes at all can do."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from small_runs import fail, make_run

import difficulty_prune as dp
from difficulty_prune.support.vector_file import VectorFile

ARRAYS = {
    "a": np.arange(12, dtype=np.float64).reshape(6, 2),
    "b": np.array([3, -1, 4], np.int16),
    "c": np.array([True, False, True]),
    "flat": np.array([True, False, True, True, False, False]),
    "hollow": np.zeros((6, 0), np.int8),
    "empty": np.zeros((0, 3), np.float32),
    "one": np.array(2.5),
}

GOOD_FILE = safetensors.numpy.save(ARRAYS, metadata={"note": "größer"})


def with_header(header: Any, data: bytes = b"") -> bytes:
    """A file with any header: text as it is, all else as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def contents(path: Path) -> dict[str, np.ndarray]:
    return dict(VectorFile(path).items())


# What is read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "arrays.safetensors"
    path.write_bytes(GOOD_FILE)
    return path


def test_arrays_come_back_with_their_kinds_and_metadata(path: Path) -> None:
    vectors = VectorFile(path)
    assert vectors.metadata == {"note": "größer"}
    assert set(vectors) == set(ARRAYS)
    for name, expected in ARRAYS.items():
        assert vectors.kinds[name] == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(vectors[name], expected)
        assert not vectors[name].flags.writeable
        assert vectors.read(name).flags.writeable


bounds = st.none() | st.integers(-8, 8)
rows = st.one_of(
    st.builds(slice, bounds, bounds, st.none() | st.integers(-3, 3).filter(bool)),
    st.lists(st.integers(0, 5), max_size=7).map(lambda chosen: np.array(chosen, np.int64)),
)


@given(st.sampled_from(["a", "flat", "hollow"]), rows)
def test_rows_are_those_of_the_array(name: str, rows: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(GOOD_FILE)
        found = VectorFile(path).read(name, rows)
    np.testing.assert_array_equal(found, ARRAYS[name][rows])
    assert found.dtype == ARRAYS[name].dtype
    assert found.flags.c_contiguous
    assert found.flags.writeable


@pytest.mark.parametrize(
    ("rows", "span"),
    [
        (slice(1_000_000, 1_000_100), 100),
        (slice(-50, None), 50),
        (slice(200, 100, -1), 100),
        (slice(5, 5), 0),
        (np.array([7_000_200, 7_000_000, 7_000_100]), 201),
        (np.array([], np.int64), 0),
    ],
)
def test_only_the_span_of_the_rows_is_read(tmp_path: Path, rows: Any, span: int) -> None:
    size = 10_000_000
    path = tmp_path / "large"
    path.write_bytes(with_header({"x": entry(shape=(size,), offsets=(0, 4 * size))}))
    os.truncate(path, path.stat().st_size + 4 * size)  # a hole, which takes no room on the disk
    vectors = VectorFile(path)
    vectors.read("x", slice(0, 1))
    tracemalloc.start()
    assert not vectors.read("x", rows).any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000 + 12 * span, "a buffer of the file, and the span with its copy"


def test_a_byte_that_is_neither_0_nor_1_is_true(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(with_header({"x": entry("BOOL", (3,), (0, 3))}, b"\x00\x02\xff"))
    found = VectorFile(path)["x"]
    assert found.tolist() == [False, True, True]
    assert found.sum() == 2
    assert (~found).tolist() == [True, False, False]


def test_nothing_is_kept_of_a_file_that_another_program_cuts_short(tmp_path: Path) -> None:
    """A map of the file would end the process here, by SIGBUS."""
    path = tmp_path / "run.safetensors"
    make_run(size=100_000).save(path)
    run = dp.Run.load(path)
    el2n, expected = run.scores["el2n"], run.scores["el2n"].copy()
    os.truncate(path, 4096)
    np.testing.assert_array_equal(el2n, expected)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: the file has changed since it was loaded"):
        run.read("el2n")


def test_a_file_that_ends_while_it_is_read_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, stat = VectorFile(path), path.stat()
    os.truncate(path, path.stat().st_size - 4)
    monkeypatch.setattr(os, "fstat", lambda descriptor: stat)  # as if it had not been cut yet
    last = max(vectors, key=lambda name: GOOD_FILE.find(ARRAYS[name].tobytes()) if ARRAYS[name].size else -1)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: the file has changed"):
        vectors.read(last)


def test_a_file_that_changes_while_it_is_read_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, real, calls = VectorFile(path), os.fstat, []

    def write_before_the_second(descriptor: int) -> os.stat_result:
        calls.append(descriptor)
        if len(calls) == 2:
            os.utime(path, ns=(0, 0))
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", write_before_the_second)
    with pytest.raises(ValueError, match="the file has changed"):
        vectors.read("a")


# Errors name the file


def test_an_error_of_reading_names_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = VectorFile(path)

    def broken(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", broken)
        for read in (lambda: VectorFile(path), lambda: vectors["a"]):
            with pytest.raises(OSError, match=re.escape(str(path))) as refusal:
                read()
            assert refusal.value.errno == errno.EIO
    (path.parent / "folder").mkdir()
    for name in ("folder", "none"):
        with pytest.raises(FileNotFoundError, match=re.escape(str(path.parent / name))):
            VectorFile(path.parent / name)


@pytest.mark.parametrize("function", ["mkdir", "replace"])
def test_an_error_of_writing_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    path = tmp_path / "folder" / "run.safetensors"
    monkeypatch.setattr(Path, function, fail)
    if function != "mkdir":
        path.parent.mkdir()
    message = f"No space left on device; make room there, or choose another disk: '{path}'"
    with pytest.raises(OSError, match=re.escape(message)) as refusal:
        make_run().save(path)
    assert refusal.value.errno == errno.ENOSPC


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = f"{tmp_path / 'file'} is not a folder; choose another folder: '{tmp_path / 'file' / 'run'}'"
    with pytest.raises(NotADirectoryError, match=re.escape(message)):
        make_run().save(tmp_path / "file" / "run")


# Headers that lie


GOOD = entry()
DEEP = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"3",
        b"\xff\xfe{}",
        DEEP,
        b'{"x":' + json.dumps(GOOD).encode() + b',"x":' + json.dumps(GOOD).encode() + b"}",
        b'{"x": {"dtype": "F32", "shape": [2], "shape": [2], "data_offsets": [0, 8]}}',
        b'{"x": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 8]}}' % (b"9" * 5000),
        {"x": 3},
        {"x": []},
        {"x": {}},
        {"x": entry(dtype=None)},
        {"x": entry(dtype=["F32"])},
        {"x": entry(dtype="F128")},
        {"x": entry(dtype="x" * 10_000)},
        {"x": entry(shape=None)},
        {"x": entry(shape=2)},
        {"x": entry(shape=["2"])},
        {"x": entry(shape=[2.0])},
        {"x": entry(shape=[True, 2])},
        {"x": entry(shape=[-1, -2])},
        {"x": entry(shape=[3])},
        {"x": entry(shape=[10**30])},
        {"x": entry(shape=[2**62, 0], offsets=[0, 0])},
        {"x": entry(shape=[2] + [1] * 70)},
        {"x": entry(shape=[10**18] * 10_000)},
        {"x": entry(offsets=None)},
        {"x": entry(offsets=[0])},
        {"x": entry(offsets=[0, 8, 8])},
        {"x": entry(offsets=["0", "8"])},
        {"x": entry(offsets=[0.0, 8.0])},
        {"x": entry(offsets=[False, 8])},
        {"x": entry(offsets=[-8, 0])},
        {"x": entry(offsets=[8, 0])},
        {"x": entry(offsets=[0, 10**30])},
        {"x": entry(shape=[10**12], offsets=[0, 4 * 10**12])},
        {"x": entry(shape=[1], offsets=[0, 4])},
        {"x": entry(shape=[1], offsets=[4, 8])},
        {"x": GOOD, "y": entry(shape=[1], offsets=[4, 8])},
        {"x": GOOD, "y": GOOD},
        {"__metadata__": 3, "x": GOOD},
        {"__metadata__": {"a": 3}, "x": GOOD},
        {"__metadata__": [["a", "b"]], "x": GOOD},
    ],
    ids=lambda header: str(header)[:60],
)
def test_a_header_that_lies_is_refused_by_name(tmp_path: Path, header: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(with_header(header, bytes(8)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=re.escape(str(path))) as refusal:
        VectorFile(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert type(refusal.value) is ValueError
    assert len(str(refusal.value)) < 500
    assert peak < 1_000_000 + 100 * path.stat().st_size
    with pytest.raises(ValueError, match=re.escape(str(path))):
        dp.Run.load(path)


@pytest.mark.parametrize("length", [0, 7, 8, 9, 2**31, 2**63, 2**64 - 1])
def test_a_length_of_the_header_beyond_the_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(length.to_bytes(8, "little"))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        VectorFile(path)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2, 4, 8, 16, 2**31, 2**63, 2**64, 10**400])
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["F32", "F64", "I8", "BOOL", "BF16", "F8_E4M3", "U64"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ITEMSIZE = {"F32": 4, "F64": 8, "I8": 1, "BOOL": 1, "U16": 2}
fields = st.sampled_from(["dtype", "shape", "data_offsets"])


@st.composite
def nearly_good_files(draw: st.DrawFn) -> bytes:
    """A file with arrays one after the other, of which up to two facts are lies."""
    header: dict[str, Any] = {}
    begin = 0
    for name in draw(st.lists(st.text(max_size=3), unique=True, max_size=4)):
        dtype, shape = draw(st.sampled_from(list(ITEMSIZE))), draw(st.lists(st.integers(0, 3), max_size=3))
        end = begin + int(np.prod(shape)) * ITEMSIZE[dtype]
        header[name], begin = entry(dtype, shape, [begin, end]), end
    for name in draw(st.lists(st.sampled_from(list(header)), max_size=2)) if header else []:
        near = st.lists(st.integers(-1, 24), min_size=1, max_size=3) | st.sampled_from(list(ITEMSIZE))
        header[name][draw(fields)] = draw(near | json_values)
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.text(max_size=3), st.text(max_size=3)) | json_values)
    length = max(0, begin + draw(st.sampled_from([0, 0, 0, -1, 1])))
    return with_header(header, draw(st.binary(min_size=length, max_size=length)))


def check_like_safetensors(content: bytes) -> None:
    """ValueError with the name of the file, or what safetensors itself reads."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        try:
            found = contents(path)
        except ValueError as error:
            if type(error) is not ValueError or str(path) not in str(error):
                pytest.fail(f"{error!r} does not name the file")
            return
        try:
            with safe_open(path, framework="numpy") as file:
                expected = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            pytest.fail(f"safetensors refuses what was accepted: {error}")
        assert found.keys() == expected.keys()
        for name, values in found.items():
            assert values.dtype == expected[name].dtype
            assert values.shape == expected[name].shape
            if values.dtype != np.bool_:
                assert values.tobytes() == expected[name].tobytes()


@settings(max_examples=300)
@given(nearly_good_files())
def test_any_header_is_refused_or_read_as_safetensors_reads_it(content: bytes) -> None:
    check_like_safetensors(content)


@given(json_values, st.binary(max_size=16))
def test_a_header_of_any_json_is_refused_or_read_as_safetensors_reads_it(header: Any, data: bytes) -> None:
    check_like_safetensors(with_header(header, data))


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_refused_or_read_as_safetensors_reads_them(data: st.DataObject) -> None:
    content = bytearray(GOOD_FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["flip", "set", "cut", "insert"]))
        if how == "flip":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "set":
            content[place] = data.draw(st.sampled_from(b'0123456789-[]{},:"eE.'))
        elif how == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=4))
        elif len(content) > 1:
            del content[place:]
        if not content:
            return
    check_like_safetensors(bytes(content))


@given(st.integers(0, len(GOOD_FILE) - 1))
def test_every_truncation_is_refused_by_name(length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(GOOD_FILE[:length])
        with pytest.raises(ValueError, match=re.escape(f"{path}: cut short or not a safetensors file")):
            VectorFile(path)
