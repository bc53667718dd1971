"""The page on many processes: every block runs in order, in a group of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from pages import blocks
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.data import DataLoader, Subset, TensorDataset

import difficulty_prune as dp

PAGE = "many_processes.md"


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_every_block_runs(group: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xxhash", reason="xxhash is not installed")
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(4, 3)
    names = {
        "dp": dp, "torch": torch, "F": F, "DataLoader": DataLoader, "Subset": Subset, "Path": Path, "rank": 0,
        "init_device_mesh": init_device_mesh, "model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "whole": TensorDataset(torch.randn(60, 4), torch.arange(60) % 3),
    }  # fmt: skip
    first, named, *rest = blocks(PAGE)
    exec(first, names)
    assert names["tracker"].presentations == 60 + 42
    exec(named, dict(names))
    for block in rest:
        exec(block, names)
    assert names["tracker"].num_examples == len(names["run"].ids) == 60
