"""A real cluster of Dask on this machine: a scheduler, and two workers that nobody starts again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def start(*arguments: str, folder: Path) -> subprocess.Popen[bytes]:
    with open(folder / "dask.log", "ab") as log:
        return subprocess.Popen([sys.executable, "-m", "dask", *arguments], cwd=folder, stdout=log, stderr=log)


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of the scheduler, and the workers, whose current folder is `folder`; a skip where Dask is missing."""
    pytest.importorskip("distributed", reason="needs Dask: pip install 'difficulty-prune[dask]'")
    file, log = folder / "scheduler.json", folder / "dask.log"
    started = [start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file), folder=folder)]
    try:
        while not file.exists():
            assert started[0].poll() is None, log.read_text()
            time.sleep(0.1)
        options = "--nthreads", "1", "--no-nanny", "--no-dashboard", "--scheduler-file", str(file)
        started += [start("worker", *options, folder=folder) for _ in range(2)]
        while log.read_text().count("Registered to") < 2:
            assert all(process.poll() is None for process in started), log.read_text()
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"], started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()
