"""Tasks and their files: what counts as done, which data a worker accepts, what is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import difficulty_prune as dp
from difficulty_prune.study.study_data import load_data
from difficulty_prune.study.tasks import ComparisonTask, DataSource, ScoringTask, peak_memory
from difficulty_prune.study.train import Recipe

DIGITS = dp.dataset_fingerprint(load_data("digits").train)


def comparison(path: Path) -> ComparisonTask:
    source, policy = (
        DataSource("digits", None, DIGITS, dp.dataset_fingerprint(load_data("digits").test)),
        dp.policies.Random(0.02),
    )
    return ComparisonTask(
        source, "mlp", 4, Recipe(1), "random", 0.02, policy, np.zeros(1437), "el2n of 1 runs", str(path)
    )


def test_a_result_names_the_data_as_those_of_older_versions_do(tmp_path: Path) -> None:
    task = comparison(tmp_path / "result.json")
    assert not task.is_done()
    task.run(lambda steps: None)
    facts = json.loads((tmp_path / "result.json").read_text())["task"]
    assert facts["fingerprint"] == DIGITS
    assert task.is_done()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"task": 1}', "null"])
def test_a_damaged_result_is_not_done(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    assert not comparison(tmp_path / "result.json").is_done()


def test_a_worker_refuses_other_data_than_that_of_the_study(tmp_path: Path) -> None:
    source = DataSource("digits", None, "0" * 32, "0" * 32)
    task = ScoringTask(source, "mlp", 0, Recipe(1), ("el2n",), str(tmp_path / "run.safetensors"))
    with pytest.raises(
        ValueError, match=f"data: digits has dataset fingerprint {DIGITS} in a worker, expected 0{{32}}"
    ):
        task.run(lambda steps: None)
    assert not list(tmp_path.iterdir())


def test_memory_is_measured_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    peak = peak_memory()
    assert peak is not None
    assert 50e6 < peak < 1e12, "bytes, with torch in memory"
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory() is None


def test_a_study_can_be_imported_without_the_module_that_windows_lacks() -> None:
    code = "import sys; sys.modules['resource'] = None; import difficulty_prune.study"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
