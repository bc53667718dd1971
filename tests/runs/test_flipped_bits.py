"""A flipped bit anywhere in a file is refused by the file's name, or makes no difference."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from file_kinds import KINDS, check_refused_or_same, good, some_run
from hypothesis import given
from hypothesis import strategies as st
from small_runs import SIZE, check_refused, make_run

import difficulty_prune as dp
from difficulty_prune.support import vector_file
from difficulty_prune.support.digest import DIGEST_BLOCK

OLD = Path(__file__).parent.parent / "data" / "version-0.1.0"


kinds = pytest.mark.parametrize("kind", ["run", "plan", "running-mean", "fingerprint"])


@kinds
def test_a_thousand_flipped_bits(kind: str, tmp_path: Path) -> None:
    content, _ = good(kind)
    begin = 8 + int.from_bytes(content[:8], "little")
    chosen = random.Random(0)
    refused = in_data = 0
    for number in range(1000):
        place = chosen.randrange(begin) if number % 2 else chosen.randrange(begin, len(content))
        flipped = bytearray(content)
        flipped[place] ^= 1 << chosen.randrange(8)
        refused += check_refused_or_same(kind, tmp_path / "file", bytes(flipped))
        in_data += place >= begin
    assert in_data == 500
    assert refused == 1000


@kinds
def test_every_bit_of_the_length_of_the_header(kind: str, tmp_path: Path) -> None:
    content, _ = good(kind)
    for bit in range(64):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        assert check_refused_or_same(kind, tmp_path / "file", bytes(flipped))


@kinds
@given(st.data())
def test_damage_of_any_size(kind: str, data: st.DataObject) -> None:
    content, _ = good(kind)
    start, size = data.draw(st.integers(0, len(content) - 1)), data.draw(st.sampled_from([2, 8, 64, 512]))
    part = content[start : start + size]
    elsewhere = data.draw(st.integers(0, len(content) - len(part)))
    new = {
        "zeros": bytes(len(part)),
        "ones": b"\xff" * len(part),
        "from elsewhere": content[elsewhere : elsewhere + len(part)],
        "left out": b"",
        "twice": part * 2,
    }
    damaged = content[:start] + new[data.draw(st.sampled_from(list(new)))] + content[start + size :]
    with tempfile.TemporaryDirectory() as folder:
        check_refused_or_same(kind, Path(folder, "file"), damaged)


@kinds
def test_digests_under_another_name_are_not_digests_that_a_file_lacks(kind: str, tmp_path: Path) -> None:
    """The description is damaged too: without digests nothing else would show it."""
    content, _ = good(kind)
    renamed = content.replace(b"difficulty_prune.digests", b"difficulty_prune.digestz")
    assert check_refused_or_same(kind, tmp_path / "file", renamed)
    assert check_refused_or_same(kind, tmp_path / "file", renamed.replace(b"el2n", b"el2m"))


@kinds
def test_arrays_that_are_exchanged_as_a_whole(kind: str, tmp_path: Path) -> None:
    """Also where both are of the same dtype and shape, so that the header fits."""
    content, _ = good(kind)
    arrays = list(safetensors.numpy.load(content).values())
    for a, b in itertools.combinations(arrays, 2):
        if (a.dtype, a.shape) != (b.dtype, b.shape) or np.array_equal(a, b):
            continue
        begin, end = content.index(a.tobytes()), content.index(b.tobytes())
        damaged = bytearray(content)
        damaged[begin : begin + a.nbytes], damaged[end : end + b.nbytes] = b.tobytes(), a.tobytes()
        assert check_refused_or_same(kind, tmp_path / "file", bytes(damaged))


@kinds
def test_what_is_said_of_a_damaged_file(kind: str, tmp_path: Path) -> None:
    content, _ = good(kind)
    path = tmp_path / "file"
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=re.escape(f"{path}: the file is damaged: '")) as refusal:
        KINDS[kind][1](path)
    assert re.search(r"'\w.*' is not as it was written. Take a copy, or make the file again", str(refusal.value))


def test_damage_is_told_from_content_that_is_no_run(tmp_path: Path) -> None:
    """A flipped bit that makes a score infinite is no training that diverged."""
    path = tmp_path / "run"
    dp.Run({"el2n": np.full(9, 1.5, np.float32)}, architecture="mlp", seed=0).save(path)
    content = bytearray(path.read_bytes())
    content[-4:] = np.float32(np.inf).tobytes()
    path.write_bytes(content)
    check_refused(path, "the file is damaged: 'el2n'")


def test_damage_after_the_file_was_loaded_is_noticed_by_the_next_that_reads_all_of_an_array(tmp_path: Path) -> None:
    """Also where the clock of the file system is too coarse for a change to show."""
    path = tmp_path / "run"
    make_run(labels=np.arange(SIZE)).save(path)
    run, before = dp.Run.load(path), path.stat()
    content = bytearray(path.read_bytes())
    content[content.index(run.scores["el2n"].tobytes())] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run.labels is not None
    assert run.scores["aum"].size == SIZE
    for read in (
        lambda: run.scores["el2n"],
        lambda: dp.RunSet([run]).mean("el2n"),
        lambda: run.save(tmp_path / "other"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"{path}: the file is damaged: 'el2n'")):
            read()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("at", [0, DIGEST_BLOCK - 1, DIGEST_BLOCK, 3 * DIGEST_BLOCK // 2, -1])
def test_a_large_file_is_checked_to_its_end(tmp_path: Path, at: int) -> None:
    path, size = tmp_path / "run", 600_000
    seen = np.arange(size) == 0  # whose first block answers the question whether there is any
    dp.Run({"el2n": np.zeros(size, np.float32)}, architecture="mlp", seed=0, seen=seen).save(path)
    assert len(dp.Run.load(path)) == size
    whole = path.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    for first, last in ((begin, begin + 4 * size), (begin + 4 * size, len(whole))):
        content = bytearray(whole)
        content[min(first + at, last - 1) if at >= 0 else last - 1] ^= 1
        path.write_bytes(content)
        check_refused(path, "the file is damaged")


def test_a_file_is_read_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    run = some_run()
    run.save(path)
    read, real = [], vector_file.VectorFile._fill

    def counted(self: Any, file: Any, content: Any) -> Any:
        read.append(len(content))
        return real(self, file, content)

    monkeypatch.setattr(vector_file.VectorFile, "_fill", counted)
    dp.Run.load(path)
    assert sum(read) <= path.stat().st_size + 4 * SIZE, "the predictions are compared with the probabilities"


def test_what_another_program_does_to_a_file_in_use_is_an_error_at_most(tmp_path: Path) -> None:
    path, stop = tmp_path / "run", threading.Event()
    runs = [make_run(seed=seed, size=5000) for seed in range(2)]
    contents = []
    for run in runs:
        run.save(path)
        contents.append(path.read_bytes())
    assert len(contents[0]) == len(contents[1])

    def disturb() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with open(path, "r+b") as file:  # in place, as nobody should
                file.write(contents[number % 2])
                if number % 5 == 0:
                    file.truncate(5000)
                    file.flush()
                    file.write(contents[number % 2][file.tell() :])

    thread = threading.Thread(target=disturb)
    thread.start()
    expected = [(run.seed, run.scores["el2n"].tobytes(), run.scores["aum"].tobytes()) for run in runs]
    refused = 0
    try:
        for _ in range(300):
            try:
                run = dp.Run.load(path)
                found = run.seed, run.scores["el2n"].tobytes(), run.scores["aum"].tobytes()
            except ValueError as error:
                if str(path) not in str(error):
                    pytest.fail(f"{error!r} does not name the file")
                refused += 1
            else:
                assert found in expected
    finally:
        stop.set()
        thread.join()
    assert refused > 0


@pytest.mark.parametrize("name", sorted(path.name for path in OLD.glob("*.safetensors")))
def test_files_of_old_have_no_digests_and_gain_them(name: str, tmp_path: Path) -> None:
    kind = name.removesuffix(".safetensors")
    kind = kind if kind in KINDS else "run"
    loaded = KINDS[kind][1](OLD / name)
    loaded.save(tmp_path / "new")
    old, new = (vector_file.VectorFile(path) for path in (OLD / name, tmp_path / "new"))
    assert new.metadata.keys() == old.metadata.keys() == {"difficulty_prune"}
    before, after = (json.loads(file.metadata["difficulty_prune"]) for file in (old, new))
    assert {**after, "definitions": None} == {**before, "definitions": None}, "but for the words of the definitions"
    for array in old:
        np.testing.assert_array_equal(new[array], old[array])
    assert b"difficulty_prune.digests" in (tmp_path / "new").read_bytes()
    assert b"difficulty_prune.digests" not in (OLD / name).read_bytes()
