"""Prune torchdata's nodes: score samples by their ids, then train on fewer of them.

    python examples/stream_torchdata.py

The samples are scikit-learn's handwritten digits. The pruner gets lists of 256, since many at once cost less than one
by one, and hands on those that are kept, each with its weight.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchdata.nodes import BaseNode, Batcher, IterableWrapper, Loader, Mapper, Unbatcher

import difficulty_prune as dp

EPOCHS = 5


class Digits:
    """Samples in another order in each pass."""

    def __init__(self) -> None:
        self.pixels, self.digits = load_digits(return_X_y=True)
        self.generator = torch.Generator().manual_seed(0)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for i in torch.randperm(len(self.digits), generator=self.generator).tolist():
            x = torch.from_numpy(self.pixels[i]).float() / 16
            yield {"id": f"digit-{i:04d}", "x": x, "y": int(self.digits[i])}


def batches_of(node: BaseNode[Any]) -> Loader[Any]:
    return Loader(Mapper(Batcher(node, 64, drop_last=False), default_collate))


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
    first, index, tracker = Training(), dp.StreamIndex(), dp.DifficultyTracker(None, scores=("loss",))
    loader = batches_of(IterableWrapper(Digits()))
    for _ in range(EPOCHS):
        for batch in loader:
            y = batch["y"]
            tracker.update(index(batch["id"]), first.step(batch["x"], y, torch.ones(len(y))), y)
    runs = dp.RunSet([tracker.finish(architecture="mlp", seed=0, ids=index.ids)])

    with tempfile.TemporaryDirectory() as folder:
        policy = dp.policies.SoftPrune(keep=0.6)
        table = dp.InclusionTable.build(f"{folder}/digits.table", runs.ids, policy, runs.difficulty("loss"))
        pruner = dp.StreamPruner(table, key="id")
        second = Training()
        lists = Batcher(IterableWrapper(Digits()), 256, drop_last=False)
        loader = batches_of(Unbatcher(Mapper(lists, pruner.prune)))
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
