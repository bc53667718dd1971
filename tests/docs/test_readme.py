"""What README and docs say is true: their code runs, their files exist, their table is the catalogue."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from places import ROOT
from torch.utils.data import DataLoader, Subset

import difficulty_prune as dp
from difficulty_prune.study.models import build_model
from difficulty_prune.study.study_data import Images, load_data

README = (ROOT / "README.md").read_text()
PAGES = [page for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")) if page.name != "CHANGELOG.md"]


def code_of(page: str) -> list[str]:
    """The blocks of Python on a page, in order."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


def test_the_python_code_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [*code_of("README.md"), *code_of("docs/policies.md"), *code_of("docs/performance.md")]
    assert len(blocks) == 7
    data = load_data("digits")
    model = build_model("mlp", data.shape, data.num_classes)
    names = {
        "dataset": data.train,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
        "epochs": 2,
        "early_loss": torch.rand(len(data.train), generator=torch.Generator().manual_seed(1)),
    }
    samplers = []
    for block in blocks:
        exec(block, names)
        samplers.append(names.get("sampler"))
        if len(samplers) == 1:  # "after a few runs, with other seeds"
            exec(block.replace("seed=0", "seed=1").replace("mlp-0", "mlp-1"), names)
    assert len(dp.RunSet.load("runs/*.safetensors")) == 2
    assert len(samplers[1]) == round(0.7 * len(data.train))
    said = samplers[2].plan.summary()
    assert abs(said["kept_cost"] / said["cost"] - 0.5) < 0.05
    assert len(samplers[3]) == round(0.3 * len(data.train))
    assert len(samplers[4]) == len(data.train)  # the last epoch of dynamic pruning is full
    assert samplers[4].epoch == names["epochs"] - 1
    assert len(samplers[5]) == round(0.7 * len(data.train))
    assert samplers[5].epoch == names["epochs"] - 1


def names_of_the_page(folder: Path) -> dict[str, Any]:
    """What docs/scores.md takes for granted: data, a model that trains, a run, a published table."""
    images = load_data("digits").train
    data = dp.IndexedDataset(Images(images.images[:200], images.labels[:200]))
    model = build_model("mlp", (1, 8, 8), 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loader = DataLoader(data, batch_size=50)

    def train_one_epoch(model: torch.nn.Module) -> None:
        model.train()
        for x, y, _ in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    def train_on(part: Subset, tracker: dp.DifficultyTracker) -> torch.nn.Module:
        for x, y, index in DataLoader(part, batch_size=50):
            tracker.update(index, model(x).detach(), y)
        return model

    train_one_epoch(model)
    tracker = dp.DifficultyTracker(len(data), scores=("el2n", "grand"))
    dp.score_checkpoint(model, loader, tracker)
    labels = images.labels[:200].numpy()
    np.savez(folder / "cifar10_infl_matrix.npz", tr_mem=np.linspace(0, 1, len(labels)), tr_labels=labels)
    return {
        "dp": dp, "train": data, "loader": loader, "model": model, "tracker": tracker, "epochs": 4, "epoch": 2,
        "run": tracker.finish(architecture="mlp", seed=0), "train_one_epoch": train_one_epoch, "torch": torch,
        "F": F, "Subset": Subset, "DataLoader": DataLoader, "dataset": data.dataset, "labels": labels,
        "train_on": train_on,
    }  # fmt: skip


def test_the_training_loop_is_short() -> None:
    lines = [line for line in code_of("README.md")[0].splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith(("import", "from"))]) <= 12


def test_every_score_is_named_with_the_way_to_get_it() -> None:
    section = README.split("## Scores")[1].split("##")[0]
    rows = [row for row in section.splitlines() if row.startswith("|")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[2])}
    assert named == set(dp.SCORES)


def test_the_page_of_scores_is_the_catalogue() -> None:
    """Else: python docs/catalogue.py"""
    assert subprocess.run([sys.executable, ROOT / "docs" / "catalogue.py", "--check"], check=False).returncode == 0


def test_the_python_code_of_the_page_of_scores_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = code_of("docs/scores.md")
    assert len(blocks) >= 4
    names = names_of_the_page(tmp_path)
    for block in blocks:
        if "timm" in block:  # has a test of its own
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # with which no batch is mixed half and half
            exec(block, names)
        if "dp.dominant" in block:
            assert not names["tracker"].compute()["el2n"].isnan().any()
        if "with_scores" in block:
            names["run_with_features"] = names["run"]
    assert len(names["runs"]) == 4
    assert names["runs"].mean("memorization").max() == 1  # of the table
    assert "prediction_depth" in names["run_with_features"].scores


def test_the_python_code_of_the_page_of_scores_runs_with_timm(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    (block,) = (block for block in code_of("docs/scores.md") if "timm" in block)
    names = names_of_the_page(tmp_path)
    before = np.random.get_state()  # noqa: NPY002  the generator that timm draws from
    np.random.seed(0)  # noqa: NPY002
    try:
        exec(block, names)
    finally:
        np.random.set_state(before)  # noqa: NPY002
    assert not names["tracker"].compute()["el2n"].isnan().any()


def test_the_python_code_of_the_page_of_consistency_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = code_of("docs/consistency.md")
    assert len(blocks) >= 7
    hard = np.random.default_rng(0).normal(size=(3, 300)).cumsum(0)  # shared, and more of its own each time
    runs = dp.RunSet(
        dp.Run(
            {"el2n": hard[k] + np.random.default_rng([k, seed]).normal(size=300), "aum": -hard[k] + 0.01 * seed},
            architecture=name,
            seed=seed,
        )
        for k, name in enumerate(("mlp", "cnn", "vit"))
        for seed in range(4)
    )
    names = {"dp": dp, "os": os, "runs": runs, "run": runs[5]}
    for block in blocks:
        exec(block, names)
    assert 0 < names["reliability"].single_run < names["reliability"].value < 1
    assert names["fingerprint"].predict(runs[5]) == "cnn"
    assert len(dp.RunningMean.load("running.safetensors")) == 1


def test_every_command_in_the_readme_is_known() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """Links, and paths such as `benchmarks/results/cpu.json`; NAME and <device> stand for any name."""
    text = page.read_text()
    linked = [page.parent / link for link in re.findall(r"\]\(([^)#:]+)\)", text)]
    rooms = "benchmarks|csrc|docs|difficulty_prune|examples|tests"
    named = [ROOT / path for path in re.findall(rf"(?<![\w./])((?:{rooms})/[\w./-]*\w)(?![\w<])", text)]
    missing = [path for path in linked + named if not path.exists() and "NAME" not in path.name]
    assert not missing
