"""Answer only where Variance of Gradients is low: accuracy on fractions of scikit-learn's handwritten digits.

    python examples/selective_prediction.py

A small network trains on 300 digits. After every epoch the frozen network sees each test image, with its own prediction
as the label, because there is no other at test time. Images are then answered from the lowest score up.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

EPOCHS = 20
SHARES = (0.25, 0.5, 0.75, 1.0)
SCORES = ("vog", "vog_probability", "vog_loss", "max_confidence")


def main() -> dict[str, np.ndarray]:
    pixels, digits = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
    digits = torch.from_numpy(digits).long()
    test = DataLoader(dp.IndexedDataset(TensorDataset(images[300:], digits[300:])), batch_size=256)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tracker = dp.DifficultyTracker(len(test.dataset), SCORES)
    for epoch in range(EPOCHS):
        order = torch.randperm(300, generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), digits[batch]).backward()
            optimizer.step()
        dp.score_checkpoint(model, test, tracker, label="predicted")

    with torch.no_grad():
        correct = model(images[300:]).argmax(1) == digits[300:]
    result = {}
    print(f"{'answered':<16}" + "".join(f"{share:>8.0%}" for share in SHARES))
    for name, score in tracker.compute().items():
        sign = 1 if dp.SCORES[name].higher_is_harder else -1
        result[name] = dp.scores.selective_accuracy(sign * score, correct, SHARES)
        print(f"{name:<16}" + "".join(f"{accuracy:>8.3f}" for accuracy in result[name]))
    return result


if __name__ == "__main__":
    main()
