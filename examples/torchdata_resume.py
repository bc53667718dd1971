"""Stop in the middle of an epoch and resume exactly there, with torchdata's StatefulDataLoader.

    python examples/torchdata_resume.py

The loader's state includes the sampler's: the plan of the current epoch, its order and the position. The tracker's
state holds the scores, from which later epochs are planned.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import difficulty_prune as dp

EPOCHS = 4
STOP = (2, 5)  # an epoch, and batches of it
SAVED = ("model", "optimizer", "tracker", "loader")


class Training:
    def __init__(self) -> None:
        pixels, digits = load_digits(return_X_y=True)
        train = dp.IndexedDataset(TensorDataset(torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits)))
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.tracker = dp.DifficultyTracker(len(train), scores=("loss", "el2n"))
        self.sampler = dp.PruneSampler(dp.policies.SoftPrune(keep=0.7), self.tracker.source("loss"), seed=0)
        self.loader = StatefulDataLoader(
            train, batch_size=64, sampler=self.sampler, num_workers=2, persistent_workers=True
        )

    def run(self, start: int = 0, stop: tuple[int, int] | None = None) -> list[int]:
        """Trains from epoch `start` to the end or to `stop`, and returns what was visited, in order."""
        visited = []
        for epoch in range(start, EPOCHS):
            self.sampler.set_epoch(epoch)
            for batches, (x, y, index) in enumerate(self.loader, start=1):
                logits = self.model(x)
                self.tracker.update(index, logits, y)
                loss = F.cross_entropy(logits, y, reduction="none")
                self.optimizer.zero_grad()
                (loss * self.sampler.weight(index)).mean().backward()
                self.optimizer.step()
                visited += index.tolist()
                if (epoch, batches) == stop:
                    return visited
        return visited

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in SAVED}

    def load(self, state: dict[str, Any]) -> None:
        for name in SAVED:
            getattr(self, name).load_state_dict(state[name])


def main() -> None:
    whole = Training()
    expected = whole.run()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        first = Training()
        visited = first.run(stop=STOP)
        torch.save({"epoch": STOP[0], **first.state()}, path)

        rest = Training()
        checkpoint = torch.load(path, weights_only=True)
        rest.load(checkpoint)
        visited += rest.run(start=checkpoint["epoch"])

    print(f"examples {len(whole.loader.dataset)}, visited in {EPOCHS} epochs {len(expected)}")
    print(f"cut off after {STOP[1]} batches of epoch {STOP[0]}, {len(first.loader)} in all")
    print(f"same order {visited == expected}")
    scores = rest.tracker.compute()
    print(f"same scores {all(torch.equal(scores[name], own) for name, own in whole.tracker.compute().items())}")


if __name__ == "__main__":
    main()
