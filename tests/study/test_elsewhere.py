"""Trainings on executors and on a real cluster of Dask, one of whose workers is killed in a run."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask_cluster import dask_cluster
from rich.console import Console

import difficulty_prune as dp
from difficulty_prune.cli.main import main
from difficulty_prune.study.elsewhere import Elsewhere, ask_workers, run_once
from difficulty_prune.study.settings import Settings
from difficulty_prune.study.study import run_study

OWN_CODE = """
import os, signal
from pathlib import Path
import torch
from torch.utils.data import TensorDataset

def data():
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return TensorDataset(images, torch.arange(60) % 2)

class Net(torch.nn.Sequential):
    steps = 0

    def forward(self, x):
        here = Path(__file__).parent
        Net.steps += 1
        worker = str(os.getpid()) != (here / "driver").read_text()
        if worker and Net.steps > 3 and not (here / "killed").exists():  # in the middle of a training
            (here / "killed").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

def net(shape, classes):
    return Net(torch.nn.Flatten(), torch.nn.Linear(64, classes))
"""
QUIET = Console(file=io.StringIO())
STUDY = shlex.split("--data own_code:data --model own_code:net --runs 5 --epochs 2 --scores el2n --keep --out")


def settings(out: Path, **more: Any) -> Settings:
    """Those of STUDY, with two runs."""
    facts = {"data": "own_code:data", "models": ("own_code:net",), "runs": 2, "epochs": 2, "scores": ("el2n",)}
    return Settings(**{**facts, "keep": (), "out": out, **more})  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with functions of the user."""
    (tmp_path / "own_code.py").write_text(OWN_CODE)
    (tmp_path / "driver").write_text(str(os.getpid()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("own_code", None)


@pytest.fixture
def cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    with dask_cluster(folder) as found:
        yield found


@pytest.mark.slow
def test_of_a_cluster_whose_worker_is_killed_every_run_is_there_once(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from distributed import Client

    address, workers = cluster
    assert main(["study", "--executor", f"dask:{address}", *STUDY, "results", "--json"]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    killed = [process for process in workers if process.poll() is not None]
    assert [process.pid for process in killed] == [int((folder / "killed").read_text())]
    assert summary["workers"] is None
    names = [f"own_code-net-{seed}.safetensors" for seed in range(5)]
    assert sorted(path.name for path in (folder / "results" / "runs").iterdir()) == names
    assert not list((folder / "results").rglob("*.tmp"))
    assert err.count("scoring run") == 5
    with ThreadPoolExecutor(2) as threads:
        here = run_study(settings(folder / "here", runs=5), QUIET, executor=threads)
    for name in names:
        there, own = (dp.Run.load(folder / out / "runs" / name) for out in ("results", "here"))
        np.testing.assert_allclose(there.scores["el2n"], own.scores["el2n"], rtol=1e-4)
    assert here["settings"]["out"] == str(folder / "here")
    assert main(["study", "--executor", f"dask:{address}", *STUDY, "results", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reused"]["runs"] == 5
    runs = dp.RunSet.load(folder / "results")
    with Client(address, set_as_default=False) as client, client.get_executor() as executor:
        spread = dp.consistency.reliability(runs, "el2n", executor=executor)
    assert spread.value == pytest.approx(dp.consistency.reliability(runs, "el2n").value, rel=1e-9)
    for seed in range(3):
        for name, far in (("cnn", 0.0), ("mlp", 5.0)):
            values = np.array([0.1 * seed, far + 0.1 * seed, 0.5])
            dp.Run({"el2n": values}, architecture=name, seed=seed).save(folder / f"two/{name}-{seed}.safetensors")
    for command, what in (
        (["consistency", "results"], "rank_error"),
        (["fingerprint", "two", "--examples", "1"], "sensitive"),
    ):
        found = []
        for where in ([], ["--executor", f"dask:{address}"]):
            assert main([*command, "--json", *where]) == 0
            found.append(json.loads(capsys.readouterr().out)[what])
        assert found[0] == found[1]


def test_a_scheduler_that_is_not_there_is_one_line_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="needs Dask: pip install 'difficulty-prune[dask]'")
    monkeypatch.setattr("difficulty_prune.study.elsewhere._PATIENCE", 1)
    for seed in range(4):
        run = dp.Run({"el2n": [0.1, 0.2 * seed]}, architecture="ab"[seed % 2], seed=seed)
        run.save(folder / f"runs/{seed}.safetensors")
    for command in ("study", "consistency", "fingerprint"):
        address = "tcp://127.0.0.1:9" if command == "study" else "nonsense://x"
        rest = [*STUDY, "results"] if command == "study" else ["runs"]
        assert main([command, "--executor", f"dask:{address}", *rest]) == 2
        *_, line = capsys.readouterr().err.splitlines()
        assert f"executor: no scheduler of Dask answers at {address} within 1 s (" in line
        assert "start one with `dask scheduler`" in line
    assert not (folder / "results").exists()


def test_without_dask_it_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["study", "--executor", "dask:tcp://127.0.0.1:9", *STUDY, "results"]) == 2
    assert "executor: Dask needs distributed: pip install 'difficulty-prune[dask]'" in capsys.readouterr().err
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "dask"}, "executor: got 'dask', expected dask:ADDRESS, such as"),
        ({"executor": "dask:"}, "executor: got 'dask:', expected"),
        ({"executor": "dask:tcp://a:1", "workers": 2}, "workers: got 2, but dask:tcp://a:1 has its own"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**options)


def test_an_executor_is_one_and_only_one(folder: Path) -> None:
    with pytest.raises(TypeError, match=r"executor: got 2, expected a concurrent\.futures\.Executor"):
        run_study(settings(folder / "out"), QUIET, executor=2)  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match="choose one"):
        run_study(settings(folder / "out", executor="dask:tcp://a:1"), QUIET, executor=threads)
    with pytest.raises(ValueError, match="out: got s3:/b/x, expected a folder of this machine, not a URL"):
        run_study(settings(Path("s3://b/x")), QUIET, executor=threads)
    assert not (folder / "out").exists()


class Answering(Executor):
    """Does what it likes with a training; other calls it makes at once."""

    def __init__(self, train: Callable[[Future[Any]], Any]) -> None:
        self._train = train
        self.made: list[Future[Any]] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if function is run_once:
            self._train(future)
            self.made.append(future)
        else:
            future.set_result(function(*args, **kwargs))
        return future


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (
            lambda future: future.set_result(0.1),
            FileNotFoundError,
            "a worker of Answering has written it, but",
        ),
        (lambda future: future.cancel(), ConnectionError, "Answering gave up own_code:net, seed 0; is its scheduler"),
        (lambda future: future.set_exception(KeyError("x")), KeyError, "x"),
    ],
    ids=["another disk", "cancelled", "failed"],
)
def test_what_an_executor_does_not_deliver(folder: Path, train: Any, error: type[Exception], message: str) -> None:
    first = True

    def only_first(future: Future[Any]) -> None:
        nonlocal first
        if first:
            train(future)
        first = False

    executor = Answering(only_first)
    with pytest.raises(error, match=message):
        run_study(settings(folder / "out"), QUIET, executor=executor)
    assert executor.made[1].cancelled()


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((None, dp.__version__), FileNotFoundError, "a worker of far does not see the folder .*; results are files"),
        (("abc", "0.0.1"), ValueError, r"a worker of far has difficulty_prune 0\.0\.1, this process"),
        (ImportError("No module named 'x'"), ImportError, "a worker of far lacks a module .No module named 'x'."),
    ],
)
def test_workers_that_cannot_serve_are_found_before_any_training(
    tmp_path: Path, answer: Any, error: type[Exception], message: str
) -> None:
    def ask(*call: Any) -> list[Any]:
        if isinstance(answer, Exception):
            raise answer
        return [answer]

    with pytest.raises(error, match=message):
        Elsewhere(Answering(print), "far", ask).check(tmp_path)
    assert list(tmp_path.iterdir()) == []


class Asked:
    """Stands for the client of a cluster, whose workers answer so; that a real one does is tried by make stress."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers

    def run(self, *call: Any, on_error: str) -> dict[int, Any]:
        assert on_error == "return"
        return dict(enumerate(self.answers))


def test_of_workers_that_are_asked_those_answer_that_live() -> None:
    lost = OSError("in <TCP (closed)>: Stream is closed")
    assert ask_workers(Asked(("abc", "1"), lost), print) == [("abc", "1")]
    with pytest.raises(ImportError, match="no x"):
        ask_workers(Asked(lost, ImportError("no x")), print)
    with pytest.raises(ConnectionError, match="no worker of the cluster is left; start some"):
        ask_workers(Asked(lost, lost), print)


def test_a_worker_that_came_later_with_another_version_trains_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"a worker has difficulty_prune {dp.__version__}, the process that asks 0"):
        run_once(None, str(tmp_path), "study", "0.0.1")  # type: ignore[arg-type]
