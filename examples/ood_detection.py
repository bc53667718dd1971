"""Detect foreign images by Variance of Gradients: scikit-learn's handwritten digits, with 8 and 9 never trained on.

    python examples/ood_detection.py

A small network learns the digits 0 to 7. After every epoch, the frozen network sees two test sets: images of 0 to 7,
and images of 8 and 9. Images of 8 and 9 have no right answer, so the gradient is that of the predicted class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

EPOCHS = 20
SCORES = ("vog", "vog_probability", "vog_loss", "entropy", "max_confidence")


def main() -> dict[str, dp.scores.Detection]:
    pixels, digits = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
    digits = torch.from_numpy(digits).long()
    known = (digits < 8).nonzero()[:, 0]
    train, own = known[:1000], known[1000:]
    foreign = (digits >= 8).nonzero()[:, 0]

    def loader(part: torch.Tensor, shuffle: bool = False) -> DataLoader:
        dataset = dp.IndexedDataset(TensorDataset(images[part], digits[part]))
        return DataLoader(dataset, batch_size=64, shuffle=shuffle, generator=torch.Generator().manual_seed(0))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trackers = {name: dp.DifficultyTracker(len(part), SCORES) for name, part in (("own", own), ("foreign", foreign))}
    for _ in range(EPOCHS):
        for x, y, _ in loader(train, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        dp.score_checkpoint(model, loader(own), trackers["own"], label="predicted")
        dp.score_checkpoint(model, loader(foreign), trackers["foreign"], label="predicted")

    scores = {name: tracker.compute() for name, tracker in trackers.items()}
    result = {}
    for name in SCORES:
        sign = 1 if dp.SCORES[name].higher_is_harder else -1
        result[name] = dp.scores.ood(sign * scores["own"][name], sign * scores["foreign"][name])
        print(f"{name:<16} {result[name]}")
    return result


if __name__ == "__main__":
    main()
