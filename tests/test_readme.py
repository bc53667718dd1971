"""What the README says is true: its code runs, its table is the catalogue."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import difficulty_prune as dp
from difficulty_prune.study.data import load_data
from difficulty_prune.study.models import build_model

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_python_code_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 2
    data = load_data("digits")
    model = build_model("mlp", data.shape, data.num_classes)
    names = {
        "dataset": data.train,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
        "epochs": 2,
    }
    for block in blocks:
        exec(block, names)
    assert len(dp.RunSet.load("runs/*.safetensors")) == 1
    assert len(names["sampler"]) == round(0.7 * len(data.train))


def test_the_training_loop_is_short() -> None:
    loop = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert loop is not None
    lines = [line for line in loop[1].splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 12


def test_the_table_of_scores_is_the_catalogue() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (high|low) \|", README, flags=re.MULTILINE)
    assert {name: harder == "high" for name, harder in rows} == {
        name: score.higher_is_harder for name, score in dp.SCORES.items()
    }


def test_every_command_in_the_readme_is_known() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
