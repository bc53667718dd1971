"""Find wrong labels where each example has several: which digits are on the picture?

    python examples/multi_label.py

Each picture shows two of scikit-learn's handwritten digits, and has a label for each of the ten digits: 1 if it is
there, 0 if not. A fifth of the labels is not known (NaN). On one picture in ten the label of one digit was moved to
another digit; these come out hardest, because each picture is scored by the mean over the labels that are known.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

EPOCHS = 30


def pictures() -> tuple[Tensor, Tensor]:
    """Pictures [898, 1, 8, 16] and their labels [898, 10] of 0 and 1."""
    pixels, digits = load_digits(return_X_y=True)
    order = torch.randperm(len(digits))[:1796].view(-1, 2)
    images = torch.from_numpy(pixels).float().view(-1, 8, 8) / 16
    labels = F.one_hot(torch.from_numpy(digits), 10)
    return torch.cat([images[order[:, 0]], images[order[:, 1]]], 2)[:, None], labels[order].amax(1).float()


def spoil(labels: Tensor, rows: Tensor) -> None:
    """In these rows, a digit that is there becomes one that is not."""
    for row in rows.tolist():
        there, absent = (labels[row] == 1).nonzero()[:, 0], (labels[row] == 0).nonzero()[:, 0]
        labels[row, there[0]] = 0
        labels[row, absent[torch.randint(len(absent), ())]] = 1


def main() -> None:
    torch.manual_seed(0)
    images, labels = pictures()
    wrong = torch.randperm(len(images))[: len(images) // 10]
    spoil(labels, wrong)
    labels[torch.rand(labels.shape) < 0.2] = torch.nan

    train = dp.IndexedDataset(TensorDataset(images, labels))
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, (8, 5)), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    tracker = dp.DifficultyTracker(len(train), scores=("loss", "el2n", "aum", "accuracy"), target="binary")
    for epoch in range(EPOCHS):
        total = 0.0
        for x, y, index in DataLoader(train, batch_size=64, shuffle=True):
            logits = model(x)  # [B, 10], before the sigmoid
            tracker.update(index, logits, y)
            known = ~y.isnan()
            loss = F.binary_cross_entropy_with_logits(logits[known], y[known])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
        if epoch % 10 == 9:
            print(f"epoch {epoch}: mean loss {total / len(train):.3f}")

    is_wrong = torch.zeros(len(train), dtype=torch.bool).index_fill(0, wrong, True)
    for name, score in tracker.compute().items():
        difficulty = score if dp.SCORES[name].higher_is_harder else -score
        auroc = roc_auc_score(is_wrong, difficulty)
        hardest = is_wrong[difficulty.topk(len(wrong)).indices].float().mean()
        means = f"mean {score[is_wrong].mean():.3f} where a label is wrong, {score[~is_wrong].mean():.3f} elsewhere"
        print(f"{name}: {means}; AUROC {auroc:.3f}, {hardest:.3f} of the hardest are wrong")


if __name__ == "__main__":
    main()
