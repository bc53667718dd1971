"""Prune a WebDataset: score its samples by their keys, then train on fewer of them.

    python examples/stream_webdataset.py

The tar files hold scikit-learn's handwritten digits. `pruner.pipe` stands before `decode`, so that what is dropped is
not decoded. The weight's name begins with two underscores: `decode` would try to decode a field of any other name.
"""

from __future__ import annotations

import random
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
import webdataset as wds
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader

import difficulty_prune as dp

EPOCHS = 5
SHARDS = 6


def write_shards(folder: str) -> list[str]:
    pixels, digits = load_digits(return_X_y=True)
    paths = [f"{folder}/digits-{shard}.tar" for shard in range(SHARDS)]
    for shard, path in enumerate(paths):
        with wds.TarWriter(path) as tar:
            for i in range(shard, len(digits), SHARDS):
                x = (pixels[i] / 16).astype(np.float32)
                tar.write({"__key__": f"digit-{i:04d}", "x.npy": x, "y.cls": int(digits[i])})
    return paths


class Training:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def step(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        logits = self.model(x)
        self.optimizer.zero_grad()
        (F.cross_entropy(logits, y, reduction="none") * weight).mean().backward()
        self.optimizer.step()
        return logits.detach()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(folder)

        first, index, tracker = Training(), dp.StreamIndex(), dp.DifficultyTracker(None, scores=("loss",))
        samples = wds.WebDataset(shards, shardshuffle=SHARDS, seed=0)
        samples = samples.shuffle(300, rng=random.Random(0))  # else the time and the process decide the order
        batches = samples.decode().to_tuple("__key__", "x.npy", "y.cls").batched(64)
        loader = DataLoader(batches, batch_size=None, num_workers=2, persistent_workers=True)
        for _ in range(EPOCHS):
            for keys, x, y in loader:
                x, y = torch.as_tensor(x), torch.as_tensor(y)
                tracker.update(index(keys), first.step(x, y, torch.ones(len(y))), y)
        runs = dp.RunSet([tracker.finish(architecture="mlp", seed=0, ids=index.ids)])

        policy = dp.policies.SoftPrune(keep=0.6)
        table = dp.InclusionTable.build(f"{folder}/digits.table", runs.ids, policy, runs.difficulty("loss"))
        pruner = dp.StreamPruner(table, key="__key__", weight_key="__weight__")
        second = Training()
        samples = wds.WebDataset(shards, shardshuffle=SHARDS, seed=0).compose(pruner.pipe)
        samples = samples.shuffle(300, rng=random.Random(0))
        batches = samples.decode().to_tuple("x.npy", "y.cls", "__weight__").batched(64)
        loader = DataLoader(batches, batch_size=None, num_workers=2, persistent_workers=True)
        for epoch in range(EPOCHS):
            pruner.set_epoch(epoch)
            pruner.reset_counts()
            total = 0.0
            for x, y, weight in loader:
                weight = torch.as_tensor(weight).float()
                second.step(torch.as_tensor(x), torch.as_tensor(y), weight * pruner.scale)
                total += float(weight.sum())
            seen, kept, _ = pruner.counts
            print(f"epoch {epoch}: kept {kept / seen:.3f} of {seen}, weights add up to {total / seen:.3f} of it")

    pixels, digits = load_digits(return_X_y=True)
    for name, training in (("all", first), ("pruned", second)):
        right = training.model(torch.from_numpy(pixels).float() / 16).argmax(1) == torch.from_numpy(digits)
        print(f"{name}: {right.float().mean():.3f} right")


if __name__ == "__main__":
    main()
