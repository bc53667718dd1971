"""Real file systems that are full or read-only: one clear error, the old file untouched, nothing half-written.

Mounting takes root; each test says so where it is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stress

SAVES = """
import errno, os, sys
from pathlib import Path
import numpy as np, torch
import difficulty_prune as dp
from difficulty_prune.study.result_file import write_result
from file_kinds import RESULT

size, expected = 3_000_000, getattr(errno, sys.argv[2])
place = Path(sys.argv[1])
run = dp.Run({"el2n": np.zeros(size, np.float32)}, architecture="mlp", seed=0)
mean = dp.RunningMean()
mean.update(run)
runs = dp.RunSet(
    dp.Run({"el2n": np.random.default_rng(seed).random(size // 2, dtype=np.float32)}, architecture=name, seed=seed)
    for name in "ab" for seed in range(2)
)
saves = {
    "run": run.save,
    "plan": dp.Plan(torch.arange(size), torch.ones(size)).save,
    "mean": mean.save,
    "table": lambda path: dp.InclusionTable.write(path, [(np.arange(size), np.full(size, 0.5))], weighted=True),
    "export": lambda path: dp.convert.to_csv(run, str(path) + ".csv"),
    "result": lambda path: write_result(path, {**RESULT, "task": {"text": "x" * 5_000_000}}),
}
for name, save in saves.items():
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    try:
        save(place / name)
    except OSError as error:
        assert error.errno == expected, error
        assert str(place) in str(error), error
    else:
        raise AssertionError(f"{name}: no error")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before, name
print("refused", len(saves))
"""


def on_disk(folder: Path, kind: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command while there is such a file system in the folder, in a name space of its own."""
    options = {"full": "size=2m", "read-only": "size=20m"}[kind]
    script = f'mount -t tmpfs -o {options} none "$0" && mkdir -p "$0/out" && echo old > "$0/out/old" && '
    script += 'mount -o remount,ro "$0" && "$@"' if kind == "read-only" else '"$@"'
    helpers = str(Path(__file__).parents[1] / "helpers")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, helpers]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, folder, *command],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.fixture(autouse=True)
def can_mount(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    try:
        tried = on_disk(tmp_path / "disk", "full", "true")
    except FileNotFoundError:
        pytest.skip("no unshare: nothing can be mounted")
    if tried.returncode != 0:
        pytest.skip(f"nothing can be mounted: {tried.stderr.strip()}")


@pytest.mark.parametrize(("kind", "number"), [("full", "ENOSPC"), ("read-only", "EROFS")])
def test_every_save(kind: str, number: str, tmp_path: Path, tell) -> None:
    done = on_disk(tmp_path / "disk", kind, sys.executable, "-c", SAVES, tmp_path / "disk" / "out", number)
    assert done.returncode == 0, done.stderr
    tell(f"saves to a {kind} disk", f"{done.stdout.split()[-1]} kinds of file", "an error that names it, nothing left")


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_a_study(kind: str, tmp_path: Path, tell) -> None:
    out = tmp_path / "disk" / ("out" if kind == "full" else "new")
    said = {"full": "No space left", "read-only": "cannot be written to; choose another --out"}[kind]
    study = ("study", "--model", "mlp", "--runs", "8", "--epochs", "1", "--keep", "--workers", "1", "--out", out)
    fill = f'head -c 1900k /dev/zero > "{out}/other" 2>/dev/null; "$@"'
    command = ("sh", "-c", fill, "sh") if kind == "full" else ()
    done = on_disk(tmp_path / "disk", kind, *command, sys.executable, "-m", "difficulty_prune.cli", *study)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert said in done.stderr.splitlines()[-1]
    tell(f"a study on a {kind} disk", "once", "exit status 2 and one line that says so")
