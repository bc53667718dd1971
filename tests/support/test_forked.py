"""Whatever takes an executor ends in real processes too, also in those forked after PyTorch computed with threads."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from difficulty_prune.support.forked import in_worker, one_thread_if_forked

LIMIT = 300  # seconds: what hangs never ends; the rest takes a few on idle cores
PROGRAM = """
import io, json, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from rich.console import Console

import difficulty_prune as dp
from difficulty_prune.study import Settings, run_study

torch.set_num_threads(2)
images = torch.rand(500, 500, generator=torch.Generator().manual_seed(0))
assert (images @ images).sort().values.isfinite().all()  # there are threads now, in a fork server too


def train(sampler, seed):
    torch.manual_seed(seed)
    model = torch.nn.Linear(500, 10)
    for index in torch.tensor(list(sampler)).split(250):
        model(images[index]).square().mean().backward()
    return {"threads": torch.get_num_threads()}


def study(pool):
    settings = Settings(data="sklearn:digits", models="mlp", runs=2, epochs=1, scores=("el2n",), keep=(), out="out")
    return run_study(settings, Console(file=io.StringIO()), executor=pool)["settings"]["runs"]


def compare(pool):
    found = dp.compare(train, dp.policies.Hardest(0.5), np.arange(500.0), seeds=1, executor=pool)
    return sorted({threads for row in found.rows for threads in row.results["threads"]})


def stable(pool):
    noise = np.random.default_rng(0)
    runs = dp.RunSet(dp.Run({"el2n": noise.random(50000)}, architecture="mlp", seed=seed) for seed in range(3))
    there, here = (dp.consistency.stable_subset(runs, "el2n", dp.policies.Hardest(0.5), resamples=40, executor=where)
                   for where in (pool, None))
    return bool((there.frequency == here.frequency).all())


if __name__ == "__main__":
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(json.loads(sys.argv[1]))) as pool:
        for part in sys.argv[2:]:
            print(part, json.dumps(globals()[part](pool)), flush=True)
"""


@pytest.mark.parametrize(("method", "parts"), [(None, ["study", "compare", "stable"]), ("spawn", ["study", "compare"])])
def test_work_ends_in_processes(tmp_path: Path, method: str | None, parts: list[str]) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    program = subprocess.Popen(
        [sys.executable, "program.py", json.dumps(method), *parts],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    try:
        out, _ = program.communicate(timeout=LIMIT)
    finally:
        if program.returncode is None and hasattr(os, "killpg"):
            os.killpg(program.pid, signal.SIGKILL)  # its workers too, which would wait for ever
        program.kill()
    threads = 2 if multiprocessing.get_context(method).get_start_method() == "spawn" else 1
    assert out.splitlines() == ["study 2", f"compare [{threads}.0]", "stable true"][: len(parts)]
    assert program.returncode == 0
    assert len(list((tmp_path / "out" / "runs").glob("*.safetensors"))) == 2


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="Windows does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # Python 3.12 and later
def test_only_a_fork_computes_with_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        one_thread_if_forked()
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(in_worker, torch.get_num_threads).result() == 3
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as forks:
            assert forks.submit(torch.get_num_threads).result() == 3
            assert forks.submit(in_worker, torch.get_num_threads).result() == 1
        # The module in place of a context, whose processes are of another class.
        with ProcessPoolExecutor(1, multiprocessing) as forks:  # type: ignore[call-overload]
            assert forks.submit(in_worker, torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
