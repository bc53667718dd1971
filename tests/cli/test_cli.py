"""The command line as people use it: real processes, real handwritten digits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import difficulty_prune as dp
from difficulty_prune.cli.main import main

COMMAND = [sys.executable, "-m", "difficulty_prune.cli"]
QUICK = ["study", "--model", "mlp", "--runs", "2", "--epochs", "2", "--keep", "0.5", "--policy", "hardest", "easiest"]
QUICK += ["--seeds", "2"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished quick study: its folder and the summary that it printed."""
    out = tmp_path_factory.mktemp("study")
    result = run(*QUICK, "--out", out, "--json")
    assert result.returncode == 0, result.stderr
    return out, json.loads(result.stdout)


def test_a_study_writes_runs_figures_and_the_summary_it_prints(study: tuple[Path, dict[str, Any]]) -> None:
    out, summary = study
    assert json.loads((out / "summary.json").read_text()) == summary
    runs = dp.RunSet.load(out / "runs")
    assert len(runs) == 2
    assert runs.num_examples == 1437
    assert runs.scores == ("el2n", "aum", "forgetting", "vog_loss")
    assert not any(runs[0].scores[name].max() == 0 for name in runs.scores)
    names = {path.name for path in (out / "figures").iterdir()}
    assert {"agreement-mlp.png", "accuracy-mlp.png", "score-correlation.png", "hardest.png", "easiest.png"} <= names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (out / "figures").iterdir())


def test_a_study_compares_full_pruned_and_random_at_equal_steps(study: tuple[Path, dict[str, Any]]) -> None:
    _, summary = study
    rows = {row["policy"]: row for row in summary["comparison"]}
    assert list(rows) == ["full", "random", "fewer-steps", "hardest", "easiest"]
    assert rows["full"]["examples"] == rows["fewer-steps"]["examples"] == 1437
    assert rows["hardest"]["examples"] == rows["easiest"]["examples"] == rows["random"]["examples"] == 719
    assert {rows[name]["steps"] for name in rows if name != "full"} == {2 * 12}
    assert {rows[name]["presentations"] for name in rows if name != "full"} == {2 * 719}
    assert rows["full"]["steps"] == 2 * 23
    assert all(row["seeds"] == 2 for row in rows.values())
    assert rows["full"]["test_accuracy"] > 0.5
    said = summary["verdicts"]["mlp"]
    of_policies = [row for row in said["rows"] if row["verdicts"]]
    assert [row["names"] for row in of_policies] == [["the hardest 50 % by el2n"], ["the easiest 50 % by el2n"]]
    for row in of_policies:
        assert set(row["verdicts"]["test accuracy"]) == {"chance", "all", "few"}
        assert len(row["verdicts"]["test accuracy"]["chance"]["differences"]) == 2
        assert set(row["classes"]["test accuracy per class"]) == set("0123456789")
    assert all(len(values) == 2 for values in summary["agreement"]["mlp"].values())


def test_a_second_study_in_the_same_folder_trains_nothing_again(study: tuple[Path, dict[str, Any]]) -> None:
    out, summary = study
    files = [*(out / "runs").iterdir(), *(out / "trainings").iterdir()]
    before = {path: path.stat().st_mtime_ns for path in files}
    result = run(*QUICK, "--out", out)
    assert result.returncode == 0, result.stderr
    assert {path: path.stat().st_mtime_ns for path in files} == before
    for text in (
        "mlp: With 2 runs the ranking by el2n has reliability",
        "Trained afresh, pruned by the mean el2n",
        "a random 50 %",
        "2 seeds each, paired",
    ):
        assert text in result.stdout
    assert result.stdout.splitlines()[0] == summary["verdicts"]["mlp"]["first_line"]
    assert result.stdout.startswith("Keeping the ")
    counts = dp.RunSet.load(out / "runs").dichotomy().to_dict()
    said = " ".join(result.stdout.split())
    assert f"Of 1,437 examples, {counts['always']:,} are always, {counts['never']:,} never" in said
    assert "memorization" not in said
    assert json.loads((out / "summary.json").read_text())["comparison"] == summary["comparison"]


def test_runs_of_another_study_are_neither_used_nor_overwritten(study: tuple[Path, dict[str, Any]]) -> None:
    out, _ = study
    before = (out / "runs" / "mlp-0.safetensors").read_bytes()
    result = run(*QUICK, "--epochs", "3", "--out", out)
    assert result.returncode == 2
    assert "mlp-0.safetensors is of another study" in result.stderr
    assert (out / "runs" / "mlp-0.safetensors").read_bytes() == before


def test_a_study_that_holds_out_tells_memorization_and_that_its_runs_are_too_few(tmp_path: Path) -> None:
    """Two runs that share the data: each example is seen by one and left out by the other."""
    arguments = ["--model", "mlp", "--runs", "2", "--epochs", "1", "--keep", "--scores", "el2n", "--workers", "1"]
    result = run("study", *arguments, "--hold-out", "0.5", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "sometimes predicted correctly by the 2 trained models memorization and held-out consistency" in said
    assert "standard error unknown and unknown" in said
    assert "1,437 examples with fewer than 2 runs of a kind" in said

    runs = dp.RunSet.load(tmp_path / "runs")
    assert (runs.seen.sum(0) == 1).all()
    written = (tmp_path / "summary.json").read_text()
    assert "NaN" not in written
    summary = json.loads(written)
    assert summary["settings"]["hold_out"] == 0.5
    assert summary["together"]["memorization"] == runs.memorization().to_dict()
    assert summary["together"]["held_out_consistency"]["too_few_runs"] == 1437


def test_ctrl_c_leaves_finished_runs_usable_and_no_process_behind(tmp_path: Path) -> None:
    arguments = ["study", "--model", "mlp", "--runs", "200", "--epochs", "2", "--workers", "1", "--out", str(tmp_path)]
    # A shell's background jobs are started with SIGINT ignored, and so would be what a test run there starts.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from difficulty_prune.cli.main import main; sys.exit(main({arguments!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: any(tmp_path.glob("runs/*.safetensors")) or process.poll() is not None, seconds=120)
        assert process.poll() is None, process.communicate()[1]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        stderr = process.communicate(timeout=60)[1]
        assert process.returncode == 130, stderr
        runs = dp.RunSet.load(tmp_path / "runs")
        assert f"Stopped. {len(runs)} finished scoring run" in " ".join(stderr.split())
        wait_until(lambda: not group_is_alive(process.pid), seconds=30)
    finally:
        if group_is_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "--keep", "1.2"], "keep: got 1.2"),
        (["study", "--keep", "0"], "keep: got 0"),
        (["study", "--keep", "nan"], "keep: got nan"),
        (["study", "--keep", "much"], "--keep: invalid float value: 'much'"),
        (["study", "--scores", "el3n"], "no score 'el3n'"),
        (["study", "--scores", "memorization"], "'memorization' is a score of several runs"),
        (["study", "--scores", "prediction_depth"], "'prediction_depth' is not tracked in training"),
        (["study", "--hold-out", "1"], "hold_out: got 1.0"),
        (["study", "--hold-out", "0.8"], "hold_out: got 0.8 with runs 4"),
        (["study", "--policy", "best"], "policy: got 'best'"),
        (["study", "--model", "vgg"], "model: got 'vgg'"),
        (["study", "--runs", "0"], "runs: got 0"),
        (["study", "--data", "imagefolder:/nowhere"], "/nowhere: no such folder"),
        (["study", "--data", "cifar"], "data: got 'cifar'"),
        (["prune"], "invalid choice: 'prune'"),
        ([], "the following arguments are required: command"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as stop:  # how argparse ends
        status = int(stop.code or 0)
    stderr = capsys.readouterr().err
    assert status == 2
    assert message in stderr
    assert len(stderr.strip().splitlines()) == 1, stderr
    assert not list(tmp_path.iterdir()), "nothing is written for bad input"


def test_help_and_version() -> None:
    assert run("--version").stdout.strip() == dp.__version__
    shown = run("study", "--help").stdout
    options = "data test model runs epochs scores keep policy hold-out out seed workers json"
    assert all(f"--{option}" in shown for option in options.split())


def test_a_data_function_in_the_current_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "own_images.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\n"
        "def make():\n    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))\n"
        "    return TensorDataset(x, torch.arange(60) % 2)\n"
    )
    # As the installed script runs it: without the current folder on the module path.
    code = (
        "import sys; sys.path = [p for p in sys.path if p]; from difficulty_prune.cli.main import main; "
        "common = ['study', '--data', 'own_images:make', '--out', 'out']; "
        "assert main([*common, '--model', 'nope']) == 2; "
        "sys.exit(main([*common, '--model', 'mlp', '--runs', '1', '--epochs', '1', '--keep']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "model: got 'nope'" in done.stderr.splitlines()[0]
    assert "own_images" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    assert len(dp.RunSet.load(tmp_path / "out" / "runs")) == 1
