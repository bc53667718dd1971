"""Two processes that train together, of which one dies, stops, comes late or differs: an error in the others, no hang.

A killed worker of a Dask cluster is tried by the tests of that executor.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.stress

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
