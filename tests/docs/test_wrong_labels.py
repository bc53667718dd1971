"""The blocks of docs/wrong_labels.md run in order, and print what they claim."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

import difficulty_prune as dp


def saved_runs(folder: Path) -> Any:
    """Saves two runs over 2,000 examples, and returns which of their labels are wrong [N]."""
    rng = np.random.default_rng(0)
    wrong = rng.random(2000) < 0.06
    labels = rng.integers(0, 5, 2000)
    hard = rng.normal(0, 0.3, 2000)
    folder.mkdir()
    for seed in range(2):
        margin = 0.6 - 0.9 * wrong + hard + rng.normal(0, 0.05, 2000)
        scores = {"margin": margin, "el2n": 0.8 - 0.5 * margin}
        facts = {
            "suggested": np.where(margin < 0, (labels + 1) % 5, labels),
            "suggested_probability": np.full(2000, 0.6),
        }
        run = dp.Run(scores, architecture="mlp", seed=seed, labels=labels, **facts)
        run.save(folder / f"mlp-{seed}.safetensors")
    return wrong


def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"dp": dp, "np": np, "is_wrong": saved_runs(tmp_path / "runs")}
    page = (ROOT / "docs" / "wrong_labels.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, names)
        printed = capsys.readouterr().out
        for claimed in re.findall(r"^print\((?:issues|left)\)  # (.*)$", block, flags=re.MULTILINE):
            assert claimed in printed.splitlines()
