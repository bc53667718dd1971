"""The page on ids: every block runs in order, over a folder that changes between two trainings."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from places import ROOT
from torch import nn
from torch.utils.data import DataLoader

import difficulty_prune as dp

datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
v2 = pytest.importorskip("torchvision.transforms.v2", reason="torchvision is not installed")

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "identity.md").read_text(), flags=re.DOTALL)
THEN = [f"{animal}/{number}.png" for animal in ("cat", "dog") for number in range(4)]
TODAY = ["ape/1.png", *THEN[:2], *THEN[3:]]


class ImageFolder(datasets.ImageFolder):
    def __init__(self, root: str) -> None:
        super().__init__(root, v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32)]))


def make(folder: str, names: list[str]) -> None:
    for shade, name in enumerate(names):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (shade, 9, 0)).save(path)


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make("photos", THEN)
    make("photos-of-today", TODAY)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    names = {"dp": dp, "torch": torch, "ImageFolder": ImageFolder, "DataLoader": DataLoader, "model": model}
    for number, block in enumerate(BLOCKS):
        if number in (3, 4):
            with pytest.warns(UserWarning, match=r"1 vanished \('cat/2\.png'\); 1 is new \('ape/1\.png'\)"):
                exec(block, names)
        else:
            if number == 5:  # a run over the data of today, whose classes have names that come first
                facts = {"ids": TODAY[1:], "labels": [0] * 3 + [1] * 4}
                later = dp.Run({"el2n": np.linspace(0.1, 0.7, 7)}, architecture="mlp", seed=1, **facts)
                later.save("runs-of-today/mlp-1.safetensors")
            exec(block, names)
    assert names["train"].ids.tolist() == THEN
    assert names["difficulty"].shape == names["el2n"].shape == (8,)
    np.testing.assert_array_equal(np.isnan(names["el2n"]), [True] + [False] * 7)
    assert names["versions"].num_examples == 8
