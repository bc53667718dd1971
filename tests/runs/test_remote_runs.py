"""Run files under URLs: only the ranges that are asked for are read; errors name the URL; a real S3 server."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import difficulty_prune as dp
from difficulty_prune.cli.main import main
from difficulty_prune.runs.run_files import find_run_files
from difficulty_prune.runs.score_of_runs import ScoreOfRuns
from difficulty_prune.support.remote import Url

SIZE = 50_000
FACTS: dict[str, Any] = {"architecture": "mlp", "labels": np.arange(SIZE) % 10, "dataset_fingerprint": "made up"}


def make(seed: int, **more: Any) -> dp.Run:
    rng = np.random.default_rng(seed)
    hard = np.linspace(-1, 1, SIZE)
    scores = {name: (hard + rng.normal(size=SIZE)).astype(np.float32) for name in ("el2n", "aum")}
    return dp.Run(scores, seed=seed, **{**FACTS, **more})


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of bytes of each request; the files in memory are gone afterwards."""
    requests: list[int] = []
    own = MemoryFileSystem.cat_file

    def counted(self: Any, path: str, start: Any = None, end: Any = None, **more: Any) -> bytes:
        content: bytes = own(self, path, start, end, **more)
        requests.append(len(content))
        return content

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    yield requests
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_only_what_is_asked_for_is_read(read_bytes: list[int]) -> None:
    run = make(0)
    run.save("memory://bucket/runs/mlp-0.safetensors")
    whole = len(fsspec.open("memory://bucket/runs/mlp-0.safetensors").open().read())
    read_bytes.clear()
    loaded = dp.Run.load("memory://bucket/runs/mlp-0.safetensors")
    header = sum(read_bytes)
    assert header == whole - 4 * SIZE - 4 * SIZE - 8 * SIZE  # all but two scores and the labels
    assert loaded.metadata == run.metadata
    assert str(loaded.path) == "memory://bucket/runs/mlp-0.safetensors"
    read_bytes.clear()
    np.testing.assert_array_equal(loaded.scores["el2n"], run.scores["el2n"])
    assert read_bytes == [4 * SIZE]
    read_bytes.clear()
    np.testing.assert_array_equal(loaded.read("aum", slice(10, 30)), run.scores["aum"][10:30])
    np.testing.assert_array_equal(loaded.read("aum", np.array([50, 40])), run.scores["aum"][[50, 40]])
    assert read_bytes == [4 * 20, 4 * 11]


def test_a_set_reads_labels_and_ids_of_the_first_file_alone(read_bytes: list[int]) -> None:
    ids = [f"example-{i:05}.png" for i in range(SIZE)]
    for seed in range(3):
        make(seed, ids=ids).save(f"memory://bucket/runs/mlp-{seed}.safetensors")
    read_bytes.clear()
    runs = dp.RunSet.load("memory://bucket/runs/*.safetensors")
    assert len(runs) == 3
    of_first = 8 * SIZE + sum(part.nbytes for part in runs[0].encoded_ids().values())
    assert sum(read_bytes) < 2 * of_first + 3 * 5000  # once for the set, once in the line above
    read_bytes.clear()
    in_memory = dp.RunSet(make(seed) for seed in range(3))
    np.testing.assert_array_equal(runs.mean("el2n"), in_memory.mean("el2n"))
    assert sum(read_bytes) == 3 * 4 * SIZE
    np.testing.assert_array_equal(runs.ids, ids)


def test_answers_are_those_of_files_here(read_bytes: list[int], tmp_path: Path) -> None:
    for seed in range(4):
        for folder in (tmp_path, "memory://bucket/study/runs"):
            make(seed).save(f"{folder}/mlp-{seed}.safetensors")
    there, here = dp.RunSet.load("memory://bucket/study"), dp.RunSet.load(tmp_path)
    assert [str(run.path) for run in there] == [
        f"memory://bucket/study/runs/mlp-{seed}.safetensors" for seed in range(4)
    ]
    read_bytes.clear()
    found = dp.consistency.reliability(there, "el2n", splits=10).to_dict()
    assert found == dp.consistency.reliability(here, "el2n", splits=10).to_dict()
    assert sum(read_bytes) <= 3 * 4 * 4 * SIZE + 4 * 100_000  # a pass for the halves, two for the runs; and headers
    kept = pickle.loads(pickle.dumps(ScoreOfRuns(there, "el2n")))  # noqa: S301 - of this test
    np.testing.assert_array_equal(kept.read(0), here[0].scores["el2n"])


def test_the_commands_take_urls(read_bytes: list[int], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for seed in range(2):
        make(seed).save(f"memory://bucket/runs/mlp-{seed}.safetensors")
    out = str(tmp_path / "plan.safetensors")
    assert main(["plan", "memory://bucket/runs/*.safetensors", "--keep", "0.5", "--score", "el2n", "--out", out]) == 0
    assert len(dp.Plan.load(out)) == SIZE // 2
    assert main(["consistency", "memory://bucket/nothing"]) == 2
    assert "memory://bucket/nothing: no run files there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("memory://b/runs/*.safetensors", ["a", "b"]),
        ("memory://b", ["a", "b"]),
        ("memory://b/runs/", ["a", "b"]),
        ("memory://b/runs/b.safetensors", ["b"]),
        (["memory://b/runs/b.safetensors", "memory://b"], ["b", "a"]),
    ],
)
def test_urls_stand_for_files(read_bytes: list[int], named: Any, expected: list[str]) -> None:
    for name in ("runs/a.safetensors", "runs/b.safetensors", "runs/notes.txt", "summary.json"):
        MemoryFileSystem().pipe_file(f"/b/{name}", b"")
    assert find_run_files(named) == [Url(f"memory://b/runs/{name}.safetensors") for name in expected]


def test_a_folder_that_is_there_is_no_pattern(read_bytes: list[int]) -> None:
    for name in ("runs[1]/a.safetensors", "runs1/a.safetensors"):
        MemoryFileSystem().pipe_file(f"/b/{name}", b"")
    for named in ("memory://b/runs[1]", "memory://b/runs[1]/*.safetensors", "memory://b/runs[1]/a.safetensors"):
        assert find_run_files(named) == [Url("memory://b/runs[1]/a.safetensors")]
    assert find_run_files("memory://b/runs?/*") == [Url("memory://b/runs1/a.safetensors")]


def test_a_path_made_of_a_url_names_no_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (make(0).save, dp.Run.load, dp.RunSet.load):
        with pytest.raises(ValueError, match=r"s3:/b/x: expected a URL as text, s3://b/x: a URL with one slash"):
            use(Path("s3://b/x"))
    assert list(tmp_path.iterdir()) == []


class Silent(SimpleHTTPRequestHandler):
    """Python's own server, which knows no ranges and sends whole files."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="http:// of fsspec needs aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(tmp_path)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_without_ranges_and_a_file_that_changes_there(website: str, tmp_path: Path) -> None:
    run, path = make(0), tmp_path / "a.safetensors"
    run.save(path)
    loaded = dp.Run.load(f"{website}/a.safetensors")
    np.testing.assert_array_equal(loaded.scores["aum"], run.scores["aum"])
    np.testing.assert_array_equal(loaded.read("aum", slice(30_000, 30_004)), run.scores["aum"][30_000:30_004])
    make(1).save(path)  # as long as the other one
    os.utime(path, (0, 0))
    with pytest.raises(ValueError, match=r"a\.safetensors: the file has changed since it was loaded"):
        loaded.read("el2n", slice(3))


def test_a_server_that_does_not_say_how_long_a_file_is(read_bytes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    make(0).save("memory://b/x")
    info = MemoryFileSystem.info
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *given, **more: {**info(*given, **more), "size": None})
    with pytest.raises(OSError, match="does not say how long it is; copy the file to a folder"):
        dp.Run.load("memory://b/x")


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/mlp-0.safetensors"
    make(0).save(url)
    assert dp.Run.load(url).path == tmp_path / "mlp-0.safetensors"
    assert find_run_files(f"file://{tmp_path}/*") == [tmp_path / "mlp-0.safetensors"]
    with pytest.raises(FileNotFoundError, match=f"^file://{tmp_path}/none: no run files there"):
        dp.RunSet.load(f"file://{tmp_path}/none")


def test_a_file_that_changed_or_vanished_is_noticed(read_bytes: list[int]) -> None:
    url = "memory://b/mlp-0.safetensors"
    make(0).save(url)
    run = dp.Run.load(url)
    make(1).save(url)
    with pytest.raises(ValueError, match=f"{url}: the file has changed since it was loaded"):
        run.read("el2n", slice(3))
    MemoryFileSystem().rm("/b/mlp-0.safetensors")
    with pytest.raises(FileNotFoundError, match=f"{url}: the file is gone since it was loaded"):
        run.read("el2n")


def test_saved_again_it_reads_the_file_that_is_there_now(read_bytes: list[int]) -> None:
    url = "memory://b/mlp-0.safetensors"
    make(0).save(url)
    run = dp.Run.load(url)
    run.save(url)
    np.testing.assert_array_equal(run.scores["el2n"], make(0).scores["el2n"])


def test_damage_is_found_when_an_array_is_read(read_bytes: list[int]) -> None:
    make(0).save("memory://b/mlp-0.safetensors")
    content = bytearray(MemoryFileSystem().cat_file("/b/mlp-0.safetensors"))
    content[-1] ^= 1  # in a score
    MemoryFileSystem().pipe_file("/b/mlp-0.safetensors", bytes(content))
    run = dp.Run.load("memory://b/mlp-0.safetensors")
    with pytest.raises(ValueError, match=r"memory://b/mlp-0\.safetensors: the file is damaged: 'el2n' is not"):
        run.read("el2n")
    run.read("aum")


@pytest.mark.parametrize(("name", "value"), [("el2n", np.inf), ("labels", -1), ("labels", 10)])
def test_values_that_cannot_be_are_refused_when_they_are_read(read_bytes: list[int], name: str, value: Any) -> None:
    """Of a file without digests, as another program may write it."""
    import safetensors.numpy

    make(0, class_names=list("abcdefghij")).save("memory://b/run")
    content = MemoryFileSystem().cat_file("/b/run")
    arrays = safetensors.numpy.load(content)
    arrays[name][3] = value
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    metadata.pop("difficulty_prune.digests")
    MemoryFileSystem().pipe_file("/b/run", safetensors.numpy.save(arrays, metadata))
    run = dp.Run.load("memory://b/run")
    with pytest.raises(ValueError, match="memory://b/run: not a valid run file"):
        run.read(name)
    if name == "el2n":
        with pytest.raises(ValueError, match="memory://b/run: not a valid run file"):
            dp.consistency.reliability(dp.RunSet([run, make(1)]), "el2n")


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("memory://b/none.safetensors", FileNotFoundError, "no such file"),
        ("memory://b/runs", FileNotFoundError, "a folder, expected a file"),
        ("memory://b/text", ValueError, "cut short or not a safetensors file"),
        ("nonsense://b/x", ValueError, "Protocol not known: nonsense; expected a URL that fsspec knows"),
        ("http://127.0.0.1:9/x", FileNotFoundError, "no such file, or nobody answers there"),
    ],
)
def test_what_cannot_be_loaded_names_the_url(
    read_bytes: list[int], url: str, error: type[Exception], message: str
) -> None:
    MemoryFileSystem().pipe_file("/b/text", b"some text")
    MemoryFileSystem().pipe_file("/b/runs/a", b"")
    if url.startswith("http"):
        pytest.importorskip("aiohttp", reason="http:// of fsspec needs aiohttp")
    with pytest.raises(error, match=re.escape(url)) as caught:
        dp.Run.load(url)
    assert message in str(caught.value)


def test_other_failures_name_the_url(read_bytes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentialsError(Exception):
        """As botocore has it, which is no OSError."""

    def refuse(self: Any, path: str, **more: Any) -> Any:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    with pytest.raises(OSError, match=r"Unable to locate credentials; check the address, your rights .*memory://b/x"):
        dp.Run.load("memory://b/x")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(ImportError, match="s3://b/x: Install s3fs to access S3; pip install the library"):
        dp.Run.load("s3://b/x")


def test_where_files_may_be_seen_half_written_nothing_is_written() -> None:
    with pytest.raises(ValueError, match=r"sftp://host/x: a file may be seen half written by sftp://; write it"):
        make(0).save("sftp://host/x")


def test_the_name_of_a_folder_is_none_of_a_file(read_bytes: list[int]) -> None:
    make(0).save("memory://runs/0.safetensors")
    with pytest.raises(ValueError, match="memory://runs/: names a folder, expected the name of a file"):
        make(1).save("memory://runs/")
    assert len(dp.RunSet.load("memory://runs")) == 1


def test_what_is_written_to_folders_alone_is_refused_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"s3://b/x\.csv: such a file is written to a folder of this machine alone"):
        dp.convert.to_csv(dp.RunSet([make(0)]), "s3://b/x.csv")
    assert main(["study", "--out", "s3://b/study"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_plans_go_there_and_back(read_bytes: list[int]) -> None:
    plan = dp.policies.Hardest(keep=0.5)(np.arange(4.0))
    plan.save("memory://b/plan.safetensors")
    assert dp.Plan.load("memory://b/plan.safetensors").index.tolist() == [2, 3]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server on this machine that speaks S3."""
    pytest.importorskip("s3fs", reason="s3:// of fsspec needs s3fs")
    server_of = pytest.importorskip("moto.server", reason="a server that speaks S3 needs moto[server]")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobody")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.makedirs("bucket", exist_ok=True)
        yield "s3://bucket"
    finally:
        server.stop()


def test_runs_that_others_have_added_since_are_found(bucket: str, tmp_path: Path) -> None:
    """File systems remember what was in a folder, for as long as the process lives."""
    make(0).save(tmp_path / "run")
    others = fsspec.filesystem("s3", skip_instance_cache=True)
    for named in ("study", "study/runs", "*/runs/*.safetensors"):
        for number in range(1, 3):
            others.pipe_file(f"bucket/study/runs/mlp-{number}.safetensors", (tmp_path / "run").read_bytes())
            assert len(find_run_files(f"{bucket}/{named}")) == number
        others.rm("bucket/study", recursive=True)


def test_runs_on_s3(bucket: str) -> None:
    for seed in range(2):
        make(seed).save(f"{bucket}/study/runs/mlp-{seed}.safetensors")
    for named in (f"{bucket}/study", f"{bucket}/study/runs/*.safetensors", f"{bucket}/study/runs/"):
        runs = dp.RunSet.load(named)
        assert [run.seed for run in runs] == [0, 1]
    np.testing.assert_array_equal(runs[1].read("aum", slice(5, 9)), make(1).scores["aum"][5:9])
    here = dp.RunSet(make(seed) for seed in range(2))
    np.testing.assert_array_equal(runs.mean("el2n"), here.mean("el2n"))
    make(2).save(f"{bucket}/study/runs/mlp-1.safetensors")
    with pytest.raises(ValueError, match=r"s3://bucket/study/runs/mlp-1\.safetensors: the file has changed"):
        runs.mean("el2n")
    with pytest.raises(FileNotFoundError, match=r"s3://bucket/no\.safetensors: no such file"):
        dp.Run.load(f"{bucket}/no.safetensors")
    with pytest.raises(OSError, match=r"s3://other/x\.safetensors"):
        make(0).save("s3://other/x.safetensors")
