"""Processes that work together, of which one dies, stops, comes late or differs: an error or its work done, no hang."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dask_cluster import dask_cluster

import difficulty_prune as dp

pytestmark = pytest.mark.stress
CLUSTERS = int(os.environ.get("STRESS_CLUSTERS", "5"))

RANK = """
import os, signal, sys, time
from datetime import timedelta
from pathlib import Path
import torch, torch.distributed as dist
import difficulty_prune as dp

rank, folder, what = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=120))
dist.barrier()
group = dist.new_group(timeout=timedelta(seconds=10))
options = {
    "other examples": {"num_examples": 40 + rank}, "other scores": {"scores": ("el2n", "aum")[rank:]},
    "other options": {"right_from": 1.0 - 0.25 * rank},
}.get(what, {})
tracker = dp.DifficultyTracker(
    **{"num_examples": 40, "scores": ("el2n", "aum"), "process_group": group, **options}
)
(folder / f"ready-{rank}").touch()
index = torch.arange(4) + 4 * rank
for step in range(60):
    if rank == 1 and step == 20:
        if what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        if what == "late":
            time.sleep(5)
        if what == "fails":
            raise SystemExit("no luck")
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(step + 1000 * rank))
    try:
        tracker.update(index, logits, index % 3)
    except (RuntimeError, ValueError) as error:
        (folder / f"error-{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        os._exit(3)
torch.save(tracker.compute(), folder / f"scores-{rank}.pt")
os._exit(0)  # some have lost the other
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(folder: Path, what: str, processes: list[subprocess.Popen[str]]) -> None:
    for rank in range(2):
        command = [sys.executable, "-c", RANK, str(rank), str(folder), what]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))


@pytest.mark.parametrize("what", ["killed", "stopped", "fails"])
def test_one_that_is_lost_is_an_error_in_the_other(what: str, tmp_path: Path, started, tell) -> None:
    start(tmp_path, what, started)
    begin = time.monotonic()
    assert started[0].wait(timeout=240) == 3, started[0].stderr
    text = (tmp_path / "error-0.txt").read_text()
    assert text.startswith("RuntimeError: ")
    assert "could not exchange with the others" in text
    if what == "stopped":
        os.kill(started[1].pid, signal.SIGCONT)
    tell(
        f"a process of a group that is lost ({what})",
        "once",
        f"an error in the other, after {time.monotonic() - begin:.0f} s",
    )


def test_one_that_is_late_is_waited_for(tmp_path: Path, started, tell) -> None:
    import torch

    for what in ("late", "in time"):
        (tmp_path / what).mkdir()
        processes: list[subprocess.Popen[str]] = []
        start(tmp_path / what, what, processes)
        started += processes
        for process in processes:
            assert process.wait(timeout=240) == 0, process.stderr
    found = [
        {name: values.numpy().tobytes() for name, values in torch.load(path, weights_only=True).items()}
        for path in tmp_path.glob("*/scores-*.pt")
    ]
    assert len(found) == 4
    assert all(scores == found[0] for scores in found)
    tell("a process of a group that is late", "once", "waited for; the same scores, bit for bit")


@pytest.mark.parametrize("what", ["other examples", "other scores", "other options"])
def test_one_that_differs_is_an_error_in_both(what: str, tmp_path: Path, started, tell) -> None:
    start(tmp_path, what, started)
    for rank, process in enumerate(started):
        assert process.wait(timeout=240) == 3, process.stderr
        text = (tmp_path / f"error-{rank}.txt").read_text()
        assert text.startswith("ValueError: ")
    tell(f"a process of a group that has {what}", "once", "an error in both, in the first exchange")


def test_a_worker_of_a_cluster_killed_at_random_moments_loses_nothing(tmp_path: Path, tell) -> None:
    moments, killed_early = random.Random(2), 0
    options = ("--model", "mlp", "--runs", "6", "--epochs", "2", "--scores", "el2n", "--keep", "--out", "results")
    for attempt in range(CLUSTERS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with dask_cluster(folder) as (address, workers):
            command = [sys.executable, "-m", "difficulty_prune.cli", "study", "--executor", f"dask:{address}", *options]
            study = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            while study.poll() is None and not (folder / "results" / "runs").exists():
                time.sleep(0.05)  # what it does before the first training is not what is tried
            time.sleep(moments.uniform(0, 5))
            workers[0].kill()
            killed_early += study.poll() is None
            _, errors = study.communicate(timeout=300)
        assert study.returncode == 0, errors
        names = [f"mlp-{seed}.safetensors" for seed in range(6)]
        assert sorted(path.name for path in (folder / "results" / "runs").iterdir()) == names
        assert errors.count("scoring run") == 6, "every run once"
        assert [run.seed for run in dp.RunSet.load(folder / "results")] == list(range(6))
    assert killed_early, "none of the kills met a study"
    outcome = f"every run present once; {killed_early} of the kills met the study"
    tell("a worker of a Dask cluster, SIGKILL at random moments", f"{CLUSTERS} times", outcome)
