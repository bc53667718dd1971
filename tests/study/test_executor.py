"""Training processes: how many there are, and that none outlives a failure, Ctrl-C or its parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

TASKS = """
import os, time
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Task:
    what: str

    def steps(self, train_size):
        return 1

    def describe(self):
        return self.what

    def run(self, report):
        Path(f"{self.what}-{os.getpid()}").write_text(str(torch.get_num_threads()))
        if self.what == "fail":
            while not list(Path().glob("sleep-*")):
                time.sleep(0.05)
            raise RuntimeError("no luck")
        time.sleep(600 if self.what == "sleep" else 0)
        report(1)
"""
SCRIPT = """
import multiprocessing, os, signal, threading, time

if __name__ == "__main__":
    from own_tasks import Task
    from rich.console import Console

    from difficulty_prune.study.executor import default_workers, run_tasks

    def show(*whats):  # where people look
        run_tasks([Task(what) for what in whats], 1, 1, Console(stderr=True), "scoring")

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for its background jobs

    def run(*whats, workers=2):
        run_tasks([Task(what) for what in whats], workers, 1, Console(file=open(os.devnull, "w")), "tasks")

    {code}
"""


def start(folder: Path, code: str, stderr: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    """The code in a process of its own, whose children hold its output open as long as they live."""
    (folder / "own_tasks.py").write_text(TASKS)
    (folder / "script.py").write_text(SCRIPT.format(code=code.replace("\n", "\n    ")))
    pipes = {"stdout": subprocess.PIPE, "stderr": stderr, "text": True}
    # A file or a pipe is no terminal, whatever colours are forced upon it.
    terminal = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}
    return subprocess.Popen([sys.executable, "script.py"], cwd=folder, start_new_session=True, env=terminal, **pipes)


def outcome(process: subprocess.Popen[str], seconds: float = 60) -> tuple[str, str]:
    """What the process and its children printed, once all of them are gone."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise AssertionError(f"a process is left after {seconds} s") from None


def test_a_failure_ends_the_own_workers_and_no_other_process(tmp_path: Path) -> None:
    code = """
other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
other.start()
try:
    run("sleep", "fail", "sleep", "sleep")
except RuntimeError as error:
    print(error)
print(other.is_alive(), multiprocessing.active_children() == [other])
other.kill()
"""
    stdout, stderr = outcome(start(tmp_path, code))
    assert stdout.splitlines() == ["no luck", "True True"], stderr


def test_a_failure_leaves_no_thread_of_the_executor(tmp_path: Path) -> None:
    """Python's end and that thread's would race, and sometimes print a traceback."""
    code = """
try:
    run("sleep", "fail", "sleep", "sleep")
except RuntimeError as error:
    print(error, threading.enumerate() == [threading.main_thread()])
"""
    assert outcome(start(tmp_path, code)) == ("no luck True\n", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_their_parent_dies(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, 'run("sleep", "sleep")')
    while len(list(tmp_path.glob("sleep-*"))) < 2:
        assert process.poll() is None, process.communicate()[1]
    process.send_signal(number)
    assert process.wait() == -number
    outcome(process)


def test_workers_end_when_their_parent_dies_while_they_import(tmp_path: Path) -> None:
    code = """
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
run("sleep", "sleep")
"""
    outcome(start(tmp_path, code))
    assert not list(tmp_path.glob("sleep-*")), "importing takes longer than half a second"


def test_ctrl_c_while_workers_import_is_the_business_of_the_parent_alone(tmp_path: Path) -> None:
    code = """
threading.Timer(0.5, os.killpg, (0, signal.SIGINT)).start()  # as a terminal does
try:
    run("sleep", "sleep")
except KeyboardInterrupt:
    print("stopped", multiprocessing.active_children(), signal.getsignal(signal.SIGINT).__name__)
"""
    assert outcome(start(tmp_path, code)) == ("stopped [] default_int_handler\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="looks into how processes start on POSIX")
def test_an_interrupt_while_a_worker_starts_waits_until_it_is_known(tmp_path: Path) -> None:
    code = """
from multiprocessing import resource_tracker, util
resource_tracker.ensure_running()
spawn = util.spawnv_passfds
def spawn_and_interrupt(*arguments):
    pid = spawn(*arguments)
    signal.raise_signal(signal.SIGINT)
    return pid
util.spawnv_passfds = spawn_and_interrupt
try:
    run("sleep", "sleep")
except KeyboardInterrupt:
    print("stopped", multiprocessing.active_children())
"""
    assert outcome(start(tmp_path, code)) == ("stopped []\n", "")


def test_tasks_can_be_run_outside_the_main_thread(tmp_path: Path) -> None:
    code = """
thread = threading.Thread(target=run, args=("do", "do"))
thread.start()
thread.join()
"""
    process = start(tmp_path, code)
    assert outcome(process) == ("", "")
    assert process.returncode == 0
    assert list(tmp_path.glob("do-*"))


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores to allow one"
)
def test_only_cores_that_may_be_used_count(tmp_path: Path) -> None:
    code = """
os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
print(default_workers())
run("do")
"""
    stdout, stderr = outcome(start(tmp_path, code))
    assert stdout == "1\n", stderr
    (done,) = tmp_path.glob("do-*")
    assert done.read_text() == "1", "threads of the worker"


def test_an_interrupt_while_results_are_awaited_leaves_no_lock_behind(tmp_path: Path) -> None:
    """`wait` locks all futures: interrupted there, the program never ended, since the executor's thread waited."""
    code = """
from concurrent.futures import _base
enter = _base._AcquireFutures.__enter__
def enter_and_interrupt(self):
    enter(self)
    signal.raise_signal(signal.SIGINT)
_base._AcquireFutures.__enter__ = enter_and_interrupt
try:
    run("sleep", "sleep")
except KeyboardInterrupt:
    print("stopped", multiprocessing.active_children())
"""
    assert outcome(start(tmp_path, code)) == ("stopped []\n", "")


# What people see of it


def test_without_a_terminal_each_training_is_a_line_that_comes_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, 'show("do", "do", "sleep")')
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        assert process.poll() is None, "the third is not finished"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    more = outcome(process)[1]
    for number, line in enumerate(lines, start=1):
        expected = rf"scoring run {number} of 3 \(do\) finished after 0 s; about \d+ s left\n"
        assert re.fullmatch(expected, line), (lines, more)
    assert more == ""


def test_on_a_terminal_a_bar_says_what_is_trained_how_far_and_how_long(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="needs a POSIX terminal")
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        with open(theirs, "w") as terminal:
            process = start(tmp_path, 'show("do", "do", "sleep")', stderr=terminal)
        shown, text, end = b"", "", time.monotonic() + 120
        try:
            while not re.search(r"scoring (do; )?sleep .* 67% 2 of 3 0:0\d:\d\d left 0:0\d:\d\d", text):
                assert time.monotonic() < end, text[-200:]
                shown += screen.read(1000)
                text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).decode(errors="replace")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            outcome(process)
