"""Prune Hugging Face's `IterableDataset`: score its rows by their ids, then train on fewer of them.

    python examples/stream_hugging_face.py

The rows are scikit-learn's handwritten digits. `filter` asks the pruner for 256 rows at once, by their ids alone, and
`map` puts the weight into those that are kept.
"""

from __future__ import annotations

import tempfile

import torch
import torch.nn.functional as F
from datasets import Dataset, IterableDataset
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader

import difficulty_prune as dp

EPOCHS = 5


def stream() -> IterableDataset:
    pixels, digits = load_digits(return_X_y=True)
    ids = [f"digit-{i:04d}" for i in range(len(digits))]
    rows = Dataset.from_dict({"id": ids, "x": (pixels / 16).tolist(), "y": digits.tolist()})
    return rows.to_iterable_dataset(num_shards=4).shuffle(seed=0, buffer_size=300)


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
    rows = stream().with_format("torch")
    loader = DataLoader(rows, batch_size=64, num_workers=2, persistent_workers=True)
    for epoch in range(EPOCHS):
        rows.set_epoch(epoch)  # of its shuffle
        for batch in loader:
            y = batch["y"]
            tracker.update(index(batch["id"]), first.step(batch["x"], y, torch.ones(len(y))), y)
    runs = dp.RunSet([tracker.finish(architecture="mlp", seed=0, ids=index.ids)])

    with tempfile.TemporaryDirectory() as folder:
        policy = dp.policies.SoftPrune(keep=0.6)
        table = dp.InclusionTable.build(f"{folder}/digits.table", runs.ids, policy, runs.difficulty("loss"))
        pruner = dp.StreamPruner(table, key="id")
        second = Training()
        kept_rows = stream().filter(
            lambda ids: pruner.decide(ids)[0].tolist(), batched=True, batch_size=256, input_columns="id"
        )
        rows = kept_rows.map(pruner.attach).with_format("torch")
        loader = DataLoader(rows, batch_size=64, num_workers=2, persistent_workers=True)
        for epoch in range(EPOCHS):
            rows.set_epoch(epoch)
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
