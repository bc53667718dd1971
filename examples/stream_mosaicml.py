"""Prune MosaicML Streaming: score its samples by their ids, then train on fewer of them.

    python examples/stream_mosaicml.py

The shards hold scikit-learn's handwritten digits. `StreamingDataset` shares the samples out among processes and workers
and shuffles them; `dp.PrunedStream` around it drops samples that are not kept.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from streaming import MDSWriter, StreamingDataset
from torch import Tensor, nn
from torch.utils.data import DataLoader

import difficulty_prune as dp

EPOCHS = 5


class Digits(StreamingDataset):
    def __getitem__(self, at: Any) -> dict[str, Any]:
        sample = super().__getitem__(at)
        return {**sample, "x": torch.tensor(sample["x"])}  # a copy: arrays of a shard cannot be written to


def write_shards(folder: str) -> None:
    pixels, digits = load_digits(return_X_y=True)
    with MDSWriter(out=folder, columns={"id": "str", "x": "ndarray:float32:64", "y": "int"}) as out:
        for i, (x, y) in enumerate(zip((pixels / 16).astype(np.float32), digits.tolist(), strict=True)):
            out.write({"id": f"digit-{i:04d}", "x": x, "y": y})


class Training:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.2, momentum=0.9)

    def step(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        logits = self.model(x)
        self.optimizer.zero_grad()
        (F.cross_entropy(logits, y, reduction="none") * weight).mean().backward()
        self.optimizer.step()
        return logits.detach()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_shards(f"{folder}/mds")
        dataset = Digits(local=f"{folder}/mds", shuffle=True, batch_size=64)

        first, index, tracker = Training(), dp.StreamIndex(), dp.DifficultyTracker(None, scores=("loss",))
        loader = DataLoader(dataset, batch_size=64, num_workers=2, persistent_workers=True)
        for _ in range(EPOCHS):
            for batch in loader:
                y = batch["y"]
                tracker.update(index(batch["id"]), first.step(batch["x"], y, torch.ones(len(y))), y)
        runs = dp.RunSet([tracker.finish(architecture="mlp", seed=0, ids=index.ids)])

        policy = dp.policies.SoftPrune(keep=0.6)
        table = dp.InclusionTable.build(f"{folder}/digits.table", runs.ids, policy, runs.difficulty("loss"))
        pruner = dp.StreamPruner(table, key="id")
        second = Training()
        loader = DataLoader(dp.PrunedStream(dataset, pruner), batch_size=64, num_workers=2, persistent_workers=True)
        for epoch in range(EPOCHS):
            pruner.set_epoch(epoch)
            pruner.reset_counts()
            total = 0.0
            for batch in loader:
                second.step(batch["x"], batch["y"], batch["weight"].float() * pruner.scale)
                total += float(batch["weight"].sum())
            seen, kept, _ = pruner.counts
            print(f"epoch {epoch}: kept {kept / seen:.3f} of {seen}, weights add up to {total / seen:.3f} of it")

    pixels, digits = load_digits(return_X_y=True)
    for name, training in (("all", first), ("pruned", second)):
        right = training.model(torch.from_numpy(pixels).float() / 16).argmax(1) == torch.from_numpy(digits)
        print(f"{name}: {right.float().mean():.3f} right")


if __name__ == "__main__":
    main()
