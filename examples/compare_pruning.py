"""Does it pay to leave out what looks mislabelled? An answer for your own training loop.

    python examples/compare_pruning.py [FOLDER]

A network learns scikit-learn's handwritten digits, of which a fifth have a wrong label. One training scores them. Then
`dp.compare` trains afresh, five times each, on what two policies keep, on random parts of the same size, and on all,
and says what of the differences is more than chance. With a FOLDER, an interrupted comparison goes on where it was.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune.policies import Hardest, Random, WithoutWrong

EPOCHS = 12
WRONG = 0.2
pixels, digits = load_digits(return_X_y=True)
images, digits = torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits).long()
order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
train_part, test_part = order[:1000], order[1000:]
labels = digits[train_part].clone()
wrong = torch.rand(len(labels), generator=torch.Generator().manual_seed(1)) < WRONG
labels[wrong] = (labels[wrong] + 3) % 10
train_set = dp.IndexedDataset(TensorDataset(images[train_part], labels))


def train(sampler: dp.PruneSampler, seed: int, tracker: dp.DifficultyTracker | None = None) -> dict[str, object]:
    """Your training: a new model with this seed, on what the sampler yields."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    loader = DataLoader(train_set, batch_size=50, sampler=sampler)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        for x, y, index in loader:
            logits = model(x)
            if tracker is not None:
                tracker.update(index, logits, y)
            loss = F.cross_entropy(logits, y, reduction="none")
            optimizer.zero_grad()
            (loss * sampler.weight(index)).mean().backward()
            optimizer.step()
    with torch.no_grad():
        right = (model(images[test_part]).argmax(1) == digits[test_part]).float()
    per_class = [right[digits[test_part] == digit].mean() for digit in range(10)]
    return {"accuracy": right.mean(), "accuracy per class": torch.stack(per_class)}


def main() -> None:
    tracker = dp.DifficultyTracker(len(train_set), scores=("el2n",))
    train(dp.PruneSampler(Random(keep=1.0), torch.zeros(len(train_set))), seed=100, tracker=tracker)
    found = dp.compare(
        train,
        [Hardest(keep=0.6), WithoutWrong(Random(keep=0.6), wrong=WRONG)],
        tracker.compute()["el2n"],
        labels=labels,
        by="el2n",
        folder=sys.argv[1] if len(sys.argv) > 1 else None,
    )
    print(found)


if __name__ == "__main__":
    main()
