"""Images of plain colours with names, some under wrong labels, and runs that know which."""

from __future__ import annotations

import numpy as np
from PIL import Image

import difficulty_prune as dp

CLASSES = ("red", "green", "blue")
COLOURS = ((200, 40, 40), (40, 160, 60), (40, 70, 200))


class Colours:
    """Samples (image, label); as an image folder, it knows its files."""

    def __init__(self, names, labels, true, classes=CLASSES):
        self.samples = [(f"/data/{name}", int(label)) for name, label in zip(names, labels, strict=True)]
        self.targets, self.true, self.root, self.classes = [int(label) for label in labels], true, "/data", classes

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, position):
        return Image.new("RGB", (24, 16), COLOURS[self.true[position]]), self.targets[position]


def colours(size=120, wrong=0.1, seed=0):
    """The data, and which of its labels are wrong, [N] bool."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, size)
    is_wrong = rng.random(size) < wrong
    labels = np.where(is_wrong, (true + 1) % 3, true)
    names = [f"{CLASSES[label]}/{number:04d}.png" for number, label in enumerate(labels)]
    return Colours(names, labels, true), is_wrong


def runs_of(data, is_wrong, number=4, seed=0, **facts):
    """Runs of two architectures that find the wrong labels hard, and suggest the true ones."""
    labels, size = np.array(data.targets), len(data)
    true = np.array(data.true)
    runs = []
    for place in range(number):
        rng = np.random.default_rng([seed, place])
        hard = np.clip(0.9 * is_wrong + 0.5 * rng.random(size), 0, 1.4)
        if place % 2:
            hard[::7] += 0.2
        means = np.full((size, 3), 0.05)
        means[np.arange(size), true] = 0.9
        scores = {"el2n": hard, "confidence": 1 - hard / 1.4, "variability": 0.3 * rng.random(size)}
        known = {"labels": labels, "class_names": data.classes, "mean_probabilities": means, **facts}
        runs.append(dp.Run(scores, architecture=("cnn", "vit")[place % 2], seed=place, **known))
    return dp.RunSet(runs)


def indexed_runs(size=120, wrong=0.1, seed=0):
    """The data with ids, and its runs."""
    data, is_wrong = colours(size, wrong, seed)
    train = dp.IndexedDataset(data)
    return train, runs_of(data, is_wrong, ids=train.ids), is_wrong
