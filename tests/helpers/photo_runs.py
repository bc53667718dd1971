"""Tiny photographs in a folder for each class, and run files of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import difficulty_prune as dp

NAMES = [f"{animal}/{number}.png" for animal in ("cat", "dog") for number in range(10)]


def make_photos(folder: Path, names: list[str] = NAMES) -> Path:
    """A PNG of two by two pixels for each name, each of another colour."""
    for shade, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (shade, 9, 0)).save(path)
    return folder


def make_runs(folder: Path, photos: Path, number: int = 3, with_ids: bool = True, **facts) -> Path:
    """Runs that know what `tracker.finish(dataset=)` tells them, in files."""
    from torchvision.datasets import ImageFolder  # a PyTorch may have none that imports beside it

    data = dp.IndexedDataset(ImageFolder(photos))
    size = len(data)
    known = {"labels": data.labels, "class_names": data.class_names, **({"ids": data.ids} if with_ids else {})}
    for seed in range(number):
        rng = np.random.default_rng(seed)
        scores = {"el2n": rng.random(size), "aum": rng.normal(size=size)}
        means = rng.dirichlet(np.ones(len(data.class_names)), size).astype(np.float32)
        run = dp.Run(scores, architecture="mlp", seed=seed, mean_probabilities=means, **{**known, **facts})
        run.save(folder / f"mlp-{seed}.safetensors")
    return folder
