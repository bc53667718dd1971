"""The command `study`: what it refuses before any work, where it looks for functions, how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import difficulty_prune as dp
from difficulty_prune.cli.main import main

# As the installed script runs it: without the current folder on the module path.
INSTALLED = "import sys; sys.path = [p for p in sys.path if p]; from difficulty_prune.cli.main import main; "
OWN_IMAGES = """
import torch
from torch.utils.data import TensorDataset

def make(channels=2):
    images = torch.rand(60, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return TensorDataset(images, torch.arange(60) % 2)
"""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in {"own_images", "own_net"} - before:
        sys.modules.pop(name, None)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command says of arguments that it does not take; it must not have written anything."""
    files = sorted(Path().rglob("*"))
    assert main(["study", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert sorted(path for path in Path().rglob("*") if "__pycache__" not in path.parts) == files
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model mlp mlp", "model: got 'mlp' twice, expected each one once"),
        ("--policy soft soft", "policy: got 'soft' twice"),
        ("--scores el2n aum el2n", "scores: got 'el2n' twice"),
        ("--scores late_aum --epochs 1", "epochs: got 1, expected at least 2: late_aum is of the second half"),
        ("--keep 0.5 0.50", "keep: got 0.5 twice"),
        ("--keep 0.5 0.5000001", "keep: got 0.5 and 0.5000001, whose results would have the same file name"),
        ("--keep 0.001", "keep: got 0.001, expected more"),
        ("--seed -3", "seed: got -3, expected 0 or more"),
        ("--scores tdds --epochs 2", "epochs: got 2, expected at least 10: tdds looks at windows of 10 epochs"),
        ("--model math:pi", "model: got 'math:pi'"),
        ("--data own_images:make --model vit cnn --test digits", "test: got images of shape [1, 8, 8], expected [2"),
        ("--data own_images:no", "data: own_images:no cannot be imported (module 'own_images' has no attribute 'no')"),
        ("--out own_images.py", "own_images.py is a file, expected a folder; choose another --out"),
        ("--out own_images.py/results", "own_images.py is a file, expected a folder; choose another --out"),
    ],
)
def test_what_must_fail_is_refused_in_one_line_and_writes_nothing(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_images.py").write_text(OWN_IMAGES)
    assert message in refused(capsys, *arguments.split())


def test_a_folder_with_a_run_of_another_recipe_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """`consistency` would average it with the runs of the study."""
    run = dp.Run({"el2n": [0.0] * 1437}, architecture="cnn", seed=9, recipe={"epochs": 5})
    run.save("out/runs/cnn-9.safetensors")
    line = refused(capsys, "--model", "mlp", "--epochs", "1", "--out", "out")
    assert "cnn-9.safetensors is of another study" in line.replace("\\", "/")
    assert "'recipe': ({'epochs': 5}, {'epochs': 1" in line


def test_an_error_of_several_lines_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own_images.py").write_text("def make():\n    raise ValueError('first\\nsecond')\n")
    assert refused(capsys, "--data", "own_images:make") == "difficulty-prune study: first second"


def test_the_current_folder_is_looked_in_last_and_only_for_functions(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own_images.py").write_text(OWN_IMAGES)
    before = [*sys.path]
    refused(capsys, "--data", "imagefolder:nowhere", "--model", "mlp", "--keep", "2")
    assert sys.path == before
    refused(capsys, "--data", "own_images:make", "--model", "nope")
    assert sys.path == [*before, str(Path.cwd())]
    refused(capsys, "--model", "own_images:none")
    assert sys.path == [*before, str(Path.cwd())]


def test_files_of_the_current_folder_do_not_replace_installed_modules() -> None:
    Path("own_images.py").write_text(OWN_IMAGES)
    for name in ("random", "types", "sklearn", "joblib", "matplotlib", "rich"):
        Path(f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    code = INSTALLED + "sys.exit(main(['study', '--data', 'own_images:make', '--model', 'mlp', '--keep', '0.01']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "keep: got 0.01, expected more" in done.stderr
    assert done.returncode == 2


def test_names_are_printed_and_images_drawn_whatever_they_are() -> None:
    """A folder named like rich's markup, a model of one's own, images of two channels, a score that stays the same."""
    Path("own_images.py").write_text(OWN_IMAGES)
    Path("own_net.py").write_text("from difficulty_prune.study.models import mlp as small\n")
    arguments = ["study", "--data", "own_images:make", "--model", "own_net:small", "--runs", "1", "--epochs", "1"]
    arguments += ["--scores", "forgetting", "--keep", "0.5", "--policy", "easiest", "--seeds", "2", "--workers", "1"]
    arguments += ["--out", "re[red]sults[/]"]
    code = INSTALLED + f"sys.exit(main({arguments}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\nown_net:small: " in done.stdout
    assert "Written: re[red]sults[/]/summary.json" in done.stdout.replace("\\", "/")
    out = Path("re[red]sults[/]")
    assert {"agreement-own_net-small.png", "accuracy-own_net-small.png", "hardest.png"} <= {
        path.name for path in (out / "figures").iterdir()
    }

    def no_number(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    summary = json.loads((out / "summary.json").read_text(), parse_constant=no_number)
    runs = dp.RunSet.load(out / "runs")
    assert summary["data"]["dataset_fingerprint"] == runs[0].dataset_fingerprint
    assert list(summary["agreement"]) == ["own_net:small"]


def test_sigterm_leaves_finished_runs_usable_and_no_process_behind() -> None:
    arguments = ["study", "--model", "mlp", "--runs", "200", "--epochs", "2", "--workers", "1", "--out", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "difficulty_prune.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(Path("out").glob("runs/*.safetensors")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        stderr = process.communicate(timeout=60)[1]  # ends when the last process that has the pipe does
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 143, stderr
    runs = dp.RunSet.load("out/runs")
    assert f"Stopped. {len(runs)} finished scoring run" in " ".join(stderr.split())
    assert "Traceback" not in stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_while_data_is_read_ends_the_command_and_restores_the_handlers(
    number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_images.py").write_text(f"import signal\ndef make():\n    signal.raise_signal({int(number)})\n")
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)]
    try:
        assert main(["study", "--data", "own_images:make"]) == status
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is before[1]
    finally:
        signal.signal(signal.SIGINT, before[0])
    assert capsys.readouterr().err == "Stopped before the first scoring run was finished.\n"


def test_a_stop_of_another_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("difficulty_prune.cli.doctor.surroundings", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "difficulty-prune doctor: stopped\n"
