"""Score the samples of a stream, then train on fewer of them, without an index, a plan or a word between workers.

    python examples/stream_pruning.py

The stream is scikit-learn's handwritten digits, each with an id, read by two workers. The first training records the
loss of each id. From it a table says with what probability each sample is kept, and the second training draws anew in
every epoch; what it keeps weighs 1 / probability, and `pruner.scale` makes the steps no larger for it. A sample that
came after the table was made is kept and counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import difficulty_prune as dp

EPOCHS = 5
LATE = 20  # samples that the first training did not have


class Digits(IterableDataset[Any]):
    """Samples (pixels, digit, id), shared out among workers as any stream does it."""

    def __init__(self, start: int = 0) -> None:
        self.pixels, self.digits = load_digits(return_X_y=True)
        self.start = start

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for i in range(self.start + first, len(self.digits), step):
            yield torch.from_numpy(self.pixels[i]).float() / 16, int(self.digits[i]), f"digit-{i:04d}"


class Training:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.2, momentum=0.9)

    def step(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = self.model(x)
        self.optimizer.zero_grad()
        (F.cross_entropy(logits, y, reduction="none") * weight).mean().backward()
        self.optimizer.step()
        return logits


def main() -> None:
    first = Training()
    index, tracker = dp.StreamIndex(), dp.DifficultyTracker(None, scores=("loss",))
    loader = DataLoader(Digits(start=LATE), batch_size=64, num_workers=2, persistent_workers=True)
    for _ in range(EPOCHS):
        for x, y, ids in loader:
            logits = first.step(x, y, torch.ones(len(y)))
            tracker.update(index(ids), logits.detach(), y)
    run = tracker.finish(architecture="mlp", seed=0, ids=index.ids)

    with tempfile.TemporaryDirectory() as folder:
        policy, runs = dp.policies.SoftPrune(keep=0.6), dp.RunSet([run])
        table = dp.InclusionTable.build(Path(folder, "digits.table"), runs.ids, policy, runs.difficulty("loss"))
        pruner = dp.StreamPruner(table, key=2)
        second = Training()
        stream = dp.PrunedStream(Digits(), pruner)
        loader = DataLoader(stream, batch_size=64, num_workers=2, persistent_workers=True)
        for epoch in range(EPOCHS):
            pruner.set_epoch(epoch)  # before the loader is iterated; its workers see it
            pruner.reset_counts()
            kept: dict[str, float] = {}
            for x, y, ids, weight in loader:
                second.step(x, y, weight.float() * pruner.scale)
                kept |= dict(zip(ids, weight.tolist(), strict=True))
            counts, alone = pruner.counts, dp.StreamPruner(table, key=2)
            same = kept == {sample[2]: weight for sample, weight in alone(Digits(), epoch)}
            print(
                f"epoch {epoch}: kept {counts.kept / counts.seen:.3f} of {counts.seen}, weights add up to "
                f"{sum(kept.values()) / counts.seen:.3f} of it, unknown {counts.unknown}, same without workers {same}"
            )
    pixels, digits = load_digits(return_X_y=True)
    for name, training in (("all", first), ("pruned", second)):
        right = training.model(torch.from_numpy(pixels).float() / 16).argmax(1) == torch.from_numpy(digits)
        print(f"{name}: {right.float().mean():.3f} right")


if __name__ == "__main__":
    main()
