"""Killed at random moments: a study, and a process that saves. Nothing is lost, nothing is half-written."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import difficulty_prune as dp
from difficulty_prune.study.result_file import read_result

pytestmark = pytest.mark.stress
STUDIES, SAVES, TOGETHER = (
    int(os.environ.get(f"STRESS_{name}", count))
    for name, count in (("STUDIES", "20"), ("SAVES", "40"), ("TOGETHER", "3"))
)
OPTIONS = ("--model", "mlp", "--runs", "3", "--epochs", "2", "--policy", "soft", "--seeds", "2", "--workers", "2")
SETTINGS = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def start_study(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "difficulty_prune.cli", "study", *OPTIONS, "--out", str(folder)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=SETTINGS, text=True, **pipes)


def found(folder: Path) -> dict[str, object]:
    """What a study left: the bytes of scores, and of each training what does not depend on the clock."""
    runs = {path.name: dp.Run.load(path) for path in sorted((folder / "runs").glob("*.safetensors"))}
    scores = {name: {s: values.tobytes() for s, values in run.scores.items()} for name, run in runs.items()}
    trainings = {path.name: read_result(path) for path in sorted((folder / "trainings").glob("*.json"))}
    return {**scores, **{name: {**result, "seconds": 0} for name, result in trainings.items()}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], float]:
    """What the study finds, and how long it takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    begin = time.monotonic()
    process = start_study(folder)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return found(folder), time.monotonic() - begin


def without_peaks(content: dict[str, object]) -> str:
    """The peak of memory depends on what the process did before."""
    kept = {
        name: {**value, "peak_memory_bytes": None} if name.endswith(".json") else sorted(value)
        for name, value in content.items()
    }
    return json.dumps(kept, sort_keys=True, default=str)


def assert_same(content: dict[str, object], expected: dict[str, object]) -> None:
    assert without_peaks(content) == without_peaks(expected)
    for name, scores in expected.items():
        if not name.endswith(".json"):
            assert content[name] == scores, name


def test_a_study_killed_at_random_moments_ends_as_one_that_was_not(undisturbed, tmp_path: Path, tell) -> None:
    expected, seconds = undisturbed
    moments = random.Random(0)
    finished_before_the_end = []
    for _ in range(STUDIES):
        process = start_study(tmp_path)
        time.sleep(moments.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        whole = found(tmp_path) if (tmp_path / "runs").exists() else {}  # every file that is there can be read
        assert whole.keys() <= expected.keys()
        finished_before_the_end.append(len(whole))
    assert finished_before_the_end == sorted(finished_before_the_end), "nothing that was there is lost"
    process = start_study(tmp_path)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert_same(found(tmp_path), expected)
    assert not list(tmp_path.rglob("*.tmp")), "what killed writers left is swept"
    assert (tmp_path / "summary.json").exists()
    outcome = f"all {len(expected)} runs and trainings bit for bit as without"
    tell("a study, SIGKILL at random moments", f"{STUDIES} times", outcome)


def test_two_studies_in_one_folder(undisturbed, tmp_path: Path, tell) -> None:
    expected, _ = undisturbed
    for attempt in range(TOGETHER):
        both = [start_study(tmp_path / str(attempt)) for _ in range(2)]
        errors = [process.communicate()[1] for process in both]
        assert sorted(process.returncode for process in both) == [0, 2], errors
        (refused,) = (text for process, text in zip(both, errors, strict=True) if process.returncode == 2)
        assert "another study is running in" in refused
        assert "Traceback" not in refused
        assert_same(found(tmp_path / str(attempt)), expected)
    tell("two studies begun at once in one folder", f"{TOGETHER} times", "one refused by name, the other right")


WRITER = """
import os, sys, tempfile
import numpy as np
import difficulty_prune as dp
with tempfile.TemporaryDirectory() as folder:  # what a save imports is there before the first one that is killed
    dp.Run({"el2n": np.zeros(3)}, architecture="mlp", seed=0).save(folder + "/run.safetensors")
print("ready", flush=True)
for line in sys.stdin:  # each asks for a process that saves again and again until it is killed
    child = os.fork()
    if child == 0:
        for number in range(10**9):
            seed = int(line) + number
            run = dp.Run({"el2n": np.full(500_000, seed, np.float32)}, architecture="mlp", seed=seed % 1000)
            run.save(sys.argv[1])
            os.write(1, f"saved {seed}\\n".encode())
    os.write(1, f"child {child}\\n".encode())
    os.waitpid(child, 0)
    os.write(1, b"ended\\n")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_save_killed_at_random_moments_leaves_the_old_file_or_the_new_one(tmp_path: Path, tell) -> None:
    path, moments, last, kept = tmp_path / "run.safetensors", random.Random(1), -1, 0
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-c", WRITER, path], **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for kill in range(SAVES):
            process.stdin.write(f"{kill * 10_000}\n")
            said = [process.stdout.readline()]
            while not said[-1].startswith("child "):
                said.append(process.stdout.readline())
            time.sleep(moments.uniform(0, 0.3))
            os.kill(int(said[-1].split()[1]), signal.SIGKILL)
            while said[-1] != "ended\n":
                said.append(process.stdout.readline())
            seeds = [int(line.split()[1]) for line in said if line.startswith("saved ")]
            if not path.exists():
                assert last == -1
                assert not seeds
                continue
            run = dp.Run.load(path)
            value = int(run.scores["el2n"][0])
            assert np.array_equal(run.scores["el2n"], np.full(500_000, value, np.float32))
            assert run.seed == value % 1000
            assert value in ({seeds[-1], seeds[-1] + 1} if seeds else {last, kill * 10_000}), "one save was under way"
            last, kept = value, kept + 1
        process.kill()
    assert len(list(tmp_path.iterdir())) <= 2, "the next writer sweeps what one left"
    dp.Run({"el2n": np.zeros(3)}, architecture="mlp", seed=0).save(path)
    assert list(tmp_path.iterdir()) == [path]
    assert kept > SAVES / 2
    tell("a save, SIGKILL at random moments", f"{SAVES} times", f"the file whole all {kept} times that there was one")
