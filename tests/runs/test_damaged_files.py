"""Files of any content: loading gives an object or a ValueError that names the file, never another exception."""

from __future__ import annotations

import contextlib
import json
import math
import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import GOOD_HEADER, SIZE, make_run, some_probabilities

import difficulty_prune as dp
from difficulty_prune.support import files
from difficulty_prune.support.digest import Digests
from difficulty_prune.support.safetensors_header import header_bytes, in_order
from difficulty_prune.support.vector_file import DIGESTS, VectorFile


def some_run(path: Path) -> None:
    labels, seen = np.arange(SIZE) % 5, np.arange(SIZE) > 3
    make_run(labels=labels, seen=seen, probabilities=some_probabilities(), options={"label": "true"}).save(path)


def some_mean(path: Path) -> None:
    mean = dp.RunningMean(["aum"])
    for seed in range(3):
        mean.update(make_run(seed=seed, labels=np.arange(SIZE)))
    mean.save(path)


def some_fingerprint(path: Path) -> None:
    runs = dp.RunSet(
        make_run(seed=seed, architecture=name) for name in ("cnn", "mlp") for seed in range(3 * (name == "mlp"), 6)
    )
    dp.ArchitectureFingerprint.fit(runs, "el2n", examples=2).save(path)


def some_plan(path: Path) -> None:
    dp.policies.SoftPrune(keep=0.5)(torch.arange(float(SIZE)), torch.arange(SIZE) % 3).save(path)


def use_run(run: dp.Run) -> None:
    assert all(len(dp.RunSet([run]).mean(name)) == len(run) for name in run.scores)
    assert repr(run)


def use_mean(mean: dp.RunningMean) -> None:
    assert [len(mean.mean(name)) for name in mean.scores if len(mean)] == [SIZE] * len(mean.scores) * bool(len(mean))
    assert repr(mean)


def use_fingerprint(fingerprint: dp.ArchitectureFingerprint) -> None:
    assert fingerprint.to_dict()
    assert str(fingerprint)
    with contextlib.suppress(ValueError):  # where it says that it is of other data or scores
        assert set(fingerprint.predict_proba(make_run())) == set(fingerprint.architectures)


def use_plan(plan: dp.Plan) -> None:
    assert str(plan.summary())
    assert len(plan.index) == len(plan) == len(plan.weight)


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any], Callable[[Any], None]]] = {
    "run": (some_run, dp.Run.load, use_run),
    "running mean": (some_mean, dp.RunningMean.load, use_mean),
    "fingerprint": (some_fingerprint, dp.ArchitectureFingerprint.load, use_fingerprint),
    "plan": (some_plan, dp.Plan.load, use_plan),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@cache
def good_bytes(kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        KINDS[kind][0](Path(folder, "file"))
        return Path(folder, "file").read_bytes()


def check_loads_or_refuses(kind: str, path: Path) -> None:
    _, load, use = KINDS[kind]
    try:
        loaded = load(path)
    except ValueError as error:
        if type(error) is not ValueError or str(path) not in str(error):
            pytest.fail(f"{error!r} does not name the file")
    else:
        use(loaded)


@kinds
@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes(kind: str, data: st.DataObject) -> None:
    content = bytearray(good_bytes(kind))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789-[]{},:"eE.'))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        check_loads_or_refuses(kind, path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["el2n", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in nested dictionaries and lists."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, entry in below for place in places(entry, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@kinds
@settings(max_examples=150)
@given(st.data())
def test_a_description_with_anything_in_the_place_of_something(kind: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(good_bytes(kind))
        vectors, header = files.load_vectors(path, kind, 1)
        place = data.draw(st.sampled_from([place for place in places(header) if place]))
        files.save_vectors(path, kind, 1, vectors, replaced(header, place, data.draw(json_values)))
        check_loads_or_refuses(kind, path)


LIES = (5, -1, 0, 0.5, "x", "", None, True, [], {}, [5], {"x": 5}, math.inf, math.nan, 10**400, -(10**4000), "\ud800")


@kinds
@pytest.mark.parametrize("lie", LIES, ids=lambda lie: repr(lie)[:9])
def test_a_description_that_lies_once(kind: str, lie: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(good_bytes(kind))
    vectors, header = files.load_vectors(path, kind, 1)
    for place in places(header)[1:]:
        files.save_vectors(path, kind, 1, vectors, replaced(header, place, lie))
        check_loads_or_refuses(kind, path)


def with_description(path: Path, text: str) -> None:
    """Puts another description into a file, with a digest that fits."""
    vectors = VectorFile(path)
    arrays = {name: vectors.read(name) for name in in_order(vectors.kinds)}
    texts = {"difficulty_prune": text}
    header = header_bytes(vectors.kinds, {**texts, DIGESTS: str(Digests.of(arrays, texts))})
    path.write_bytes(header + b"".join(array.tobytes() for array in arrays.values()))


@kinds
def test_a_description_without_a_key_or_with_one_twice(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(good_bytes(kind))
    text = VectorFile(path).metadata["difficulty_prune"]
    with_description(path, text)
    assert path.read_bytes() == good_bytes(kind), "this is how files are written"
    header = json.loads(text)
    for name, entry in header.items():
        with_description(path, json.dumps({key: header[key] for key in header if key != name}))
        check_loads_or_refuses(kind, path)
        again = f'"{name}": {json.dumps(entry)}'
        for twice in ("{" + again + ", " + text[1:], text[:-1] + ", " + again + "}"):
            with_description(path, twice)
            with pytest.raises(ValueError, match=f"{re.escape(str(path))}: the description in the file is damaged"):
                KINDS[kind][1](path)


@kinds
@pytest.mark.parametrize("depth", [90, 101, 900, 10_000, 100_000])
@pytest.mark.parametrize("brackets", ["[]", '{"x":}'])
def test_a_description_with_a_deep_entry(kind: str, depth: int, brackets: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(good_bytes(kind))
    text = VectorFile(path).metadata["difficulty_prune"]
    deep = brackets[:-1] * depth + "1" + brackets[-1] * depth
    for place in places(json.loads(text))[1:]:
        key = json.dumps(place[-1])
        with_description(path, re.sub(rf"{key}: [^,{{}}\[\]]+", f"{key}: {deep}", text, count=1))
        check_loads_or_refuses(kind, path)


arrays = st.builds(
    lambda dtype, shape, value: np.full(shape, value).astype(dtype),
    st.sampled_from(["float16", "float32", "float64", "int8", "uint64", "int64", "bool", "complex64"]),
    st.lists(st.sampled_from([0, 1, 2, 5, SIZE]), max_size=3).map(tuple),
    st.sampled_from([0, 1, 2, 100]),
)


@kinds
@settings(max_examples=150)
@given(st.data())
def test_another_array_in_the_place_of_one(kind: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(good_bytes(kind))
        vectors, header = files.load_vectors(path, kind, 1)
        name = data.draw(st.sampled_from(sorted(vectors)))
        if data.draw(st.booleans()):
            vectors[name] = data.draw(arrays)
        elif data.draw(st.booleans()):
            with np.errstate(all="ignore"):
                vectors[name] = vectors[name] * np.float64(data.draw(st.sampled_from([np.nan, np.inf, -1, 1e300])))
        else:
            del vectors[name]
        files.save_vectors(path, kind, 1, vectors, header)
        check_loads_or_refuses(kind, path)


@kinds
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, '{"kind": "%s", "format": 1e999}', '{"kind": [], "format": []}'],
    ids=["deep list", "deep object", "infinite", "lists"],
)
def test_a_description_that_no_parser_likes(kind: str, text: str, tmp_path: Path) -> None:
    import safetensors.numpy

    path = tmp_path / "file"
    text = text.replace("%s", kind)
    path.write_bytes(safetensors.numpy.save({"el2n": np.zeros(3)}, metadata={"difficulty_prune": text}))
    with pytest.raises(ValueError, match="damaged"):
        KINDS[kind][1](path)
    check_loads_or_refuses(kind, path)


def test_metadata_nested_as_deeply_as_json_reads_it(tmp_path: Path) -> None:
    """What the parser takes, writing it again may not."""
    path = tmp_path / "file"
    for depth in (90, 98, 99, 100, 101, 300, 600):  # a stack of its own has the test runner too
        nested: Any = 1
        for _ in range(depth):
            nested = [nested]
        try:
            text = json.dumps(nested)
        except RecursionError:
            break
        deep = json.loads(text)
        make_run().save(path)
        metadata = {**GOOD_HEADER["metadata"], "deep": deep}
        with_description(path, json.dumps({"kind": "run", "format": 1, "metadata": metadata}))
        check_loads_or_refuses("run", path)
        if depth <= 98:
            dp.Run({"el2n": np.zeros(3)}, architecture="mlp", seed=0, deep=deep).save(path)
            assert dp.Run.load(path).metadata["deep"] == deep
        else:
            with pytest.raises(TypeError, match=r"deep=.* cannot be written as JSON .nested too deeply"):
                dp.Run({"el2n": np.zeros(3)}, architecture="mlp", seed=0, deep=deep)


# Tables


def write_table(path: Path) -> None:
    columns = {"index": np.arange(SIZE), "c_score": np.linspace(0, 1, SIZE)}
    if path.suffix == ".npz":
        np.savez_compressed(path, **columns)
    elif path.suffix == ".npy":
        table = np.empty(SIZE, [("index", "i4"), ("c_score", "f8")])
        for name, values in columns.items():
            table[name] = values
        np.save(path, table)
    else:
        rows = (f"{i},{value}" for i, value in zip(*columns.values(), strict=True))
        path.write_text("\n".join([",".join(columns), *rows]))


@cache
def table_bytes(suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table" + suffix)
        write_table(path)
        return path.read_bytes()


@pytest.mark.filterwarnings("ignore:Reading .* required additional header parsing:UserWarning")  # NumPy's, of a space
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv"])
@settings(max_examples=150)
@given(st.data())
def test_a_damaged_table(suffix: str, data: st.DataObject) -> None:
    content = bytearray(table_bytes(suffix))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] = data.draw(st.integers(0, 255))
        else:
            content[place:place] = data.draw(st.sampled_from([b"(", b"[", b"{", b"'", b"9" * 20, b"-", b"\n", b"\0"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table" + suffix)
        path.write_bytes(content)
        try:
            dp.RunSet([make_run()]).with_table(path)
        except ValueError as error:
            if str(path) not in str(error):
                pytest.fail(f"{error!r} does not name the file")
