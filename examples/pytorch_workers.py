"""Prune while training, with the workers of a plain DataLoader, and resume in the middle of an epoch.

    python examples/pytorch_workers.py

It trains on scikit-learn's handwritten digits twice: first without workers and without a break; then with forked
workers until the middle of an epoch, and from that checkpoint to the end with a spawned worker. Both give the same
model.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

EPOCHS = 6
BATCH = 64
STOP = (3, 7)  # an epoch, and batches of it


class Training:
    def __init__(self, **loader_options: Any) -> None:
        pixels, digits = load_digits(return_X_y=True)
        train = dp.IndexedDataset(TensorDataset(torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits)))
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.tracker = dp.DifficultyTracker(len(train), scores=("loss",))
        policy = dp.policies.SoftPrune(keep=0.7, anneal=0.2, epochs=EPOCHS)
        self.sampler = dp.PruneSampler(policy, self.tracker.source("loss"), seed=0)
        self.loader = DataLoader(train, batch_size=BATCH, sampler=self.sampler, **loader_options)

    def run(self, stop: tuple[int, int] | None = None) -> list[int]:
        """Trains to the end or to `stop`, and returns what was visited, in order."""
        visited = []
        for epoch in range(self.sampler.epoch, EPOCHS):
            self.sampler.set_epoch(epoch)
            self.consumed = self.sampler.start  # 0, or where the checkpoint was made
            for batches, (x, y, index) in enumerate(self.loader, start=1):
                logits = self.model(x)
                self.tracker.update(index, logits, y)
                loss = F.cross_entropy(logits, y, reduction="none")
                self.optimizer.zero_grad()
                (loss * self.sampler.weight(index)).mean().backward()
                self.optimizer.step()
                visited += index.tolist()
                self.consumed += len(index)
                if (epoch, batches) == stop:
                    return visited
        return visited

    def save(self, path: Path) -> None:
        """Saves how much of the epoch was trained on, because workers have fetched more."""
        state = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "tracker")}
        torch.save({**state, "sampler": self.sampler.state_dict(consumed=self.consumed)}, path)

    def load(self, path: Path) -> None:
        for name, state in torch.load(path, weights_only=True).items():
            getattr(self, name).load_state_dict(state)


def main() -> None:
    whole = Training()
    expected = whole.run()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        first = Training(num_workers=2, multiprocessing_context="fork", persistent_workers=True)
        visited = first.run(stop=STOP)
        first.save(path)

        rest = Training(num_workers=1, multiprocessing_context="spawn", persistent_workers=True)
        rest.load(path)
        visited += rest.run()

    size = len(whole.loader.dataset)
    print(f"examples {size}, visited in {EPOCHS} epochs {len(expected)} instead of {size * EPOCHS}")
    print(f"cut off after {STOP[1]} batches of epoch {STOP[0]}")
    print(f"same order {visited == expected}")
    print(f"same scores {torch.equal(rest.tracker.compute()['loss'], whole.tracker.compute()['loss'])}")
    weights = zip(rest.model.parameters(), whole.model.parameters(), strict=True)
    print(f"same model {all(torch.equal(a, b) for a, b in weights)}")


if __name__ == "__main__":
    main()
