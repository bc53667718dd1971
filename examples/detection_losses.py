"""Prune images with boxes: the losses of all boxes and of the background are combined into one loss per image.

    python examples/detection_losses.py

Each image is a canvas with zero to four of scikit-learn's handwritten digits. For each of nine cells, a small detector
says which digit is there, if any, and where its box lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader

import difficulty_prune as dp

EPOCHS = 10
IMAGES = 600
CELL, GRID = 12, 3  # a canvas of 36 x 36 pixels
BACKGROUND = 10


def scenes() -> list[dict[str, Tensor]]:
    """Dicts of an image [1, 36, 36], boxes [n, 4] (left, top, right, bottom in pixels), and their labels [n]."""
    pixels, digits = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    samples = []
    for _ in range(IMAGES):
        image, boxes, labels = torch.zeros(1, GRID * CELL, GRID * CELL), [], []
        for cell in random.permutation(GRID * GRID)[: random.integers(5)]:
            row, column = CELL * (cell // GRID) + random.integers(5), CELL * (cell % GRID) + random.integers(5)
            digit = random.integers(len(digits))
            image[0, row : row + 8, column : column + 8] = torch.from_numpy(pixels[digit]).view(8, 8) / 16
            boxes.append([column, row, column + 8, row + 8])
            labels.append(digits[digit])
        boxes, labels = torch.tensor(boxes).view(-1, 4), torch.tensor(labels).long()
        samples.append({"image": image, "boxes": boxes, "labels": labels})
    return samples


def collate(samples: list[dict[str, Any]]) -> tuple[Tensor, list[dict[str, Any]]]:
    """What torchvision's detectors expect: images, and for each a dict with its boxes, labels and index."""
    return torch.stack([sample["image"] for sample in samples]), samples


def image_losses(classes: Tensor, boxes: Tensor, targets: list[dict[str, Any]]) -> Tensor:
    """One loss per image, [B]: the mean over its cells of the class loss, and over its boxes of the box loss.

    classes [B, 9, 11], boxes [B, 9, 4] from the detector.
    """
    size = len(targets)
    owner = torch.arange(size).repeat_interleave(torch.tensor([len(target["boxes"]) for target in targets]))
    true_boxes = torch.cat([target["boxes"] for target in targets]).float()
    true_labels = torch.cat([target["labels"] for target in targets])
    cell = (true_boxes[:, 1] // CELL * GRID + true_boxes[:, 0] // CELL).long()

    wanted = torch.full((size, GRID * GRID), BACKGROUND)
    wanted[owner, cell] = true_labels
    class_loss = F.cross_entropy(classes.flatten(0, 1), wanted.flatten(), reduction="none")
    box_loss = F.smooth_l1_loss(boxes[owner, cell], true_boxes / CELL, reduction="none").mean(1)

    cells_of = torch.arange(size).repeat_interleave(GRID * GRID)
    no_boxes_is_no_loss = dp.reduce_loss(box_loss, owner, size).nan_to_num()
    return dp.reduce_loss(class_loss, cells_of, size) + no_boxes_is_no_loss


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 64, CELL, stride=CELL), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU())
        self.classes = nn.Conv2d(64, BACKGROUND + 1, 1)
        self.boxes = nn.Conv2d(64, 4, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 1, 36, 36] -> classes [B, 9, 11] and boxes [B, 9, 4] in cells."""
        features = self.features(images)
        classes, boxes = (head(features).flatten(2).transpose(1, 2) for head in (self.classes, self.boxes))
        corner = torch.stack([torch.arange(9) % GRID, torch.arange(9) // GRID], 1).repeat(1, 2)
        return classes, boxes + corner


def main() -> None:
    samples = scenes()
    boxes_per_image = torch.tensor([len(sample["boxes"]) for sample in samples])
    train = dp.IndexedDataset(samples)  # a dict gains the key "index"

    torch.manual_seed(0)
    model = Detector()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    tracker = dp.DifficultyTracker(len(train), scores=("loss",))
    policy = dp.policies.PerClass(dp.policies.SoftPrune(keep=0.6))  # the same fraction for every number of boxes
    sampler = dp.PruneSampler(policy, tracker.source("loss"), labels=boxes_per_image, seed=0)
    loader = DataLoader(train, batch_size=16, sampler=sampler, collate_fn=collate)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        total = 0.0
        for images, targets in loader:
            index = torch.tensor([target["index"] for target in targets])
            loss = image_losses(*model(images), targets)
            tracker.update(index, loss=loss)
            weighted = loss * sampler.weight(index)
            optimizer.zero_grad()
            weighted.mean().backward()
            optimizer.step()
            total += float(weighted.detach().sum())
        print(f"epoch {epoch}: {len(sampler)} of {IMAGES} images, mean loss {total / IMAGES:.3f}")

    difficulty = tracker.source("loss")()
    for count in boxes_per_image.unique().tolist():
        those = boxes_per_image == count
        kept = int(those[sampler.plan.index].sum())
        print(f"images with {count} boxes: {kept} of {int(those.sum())} kept, mean loss {difficulty[those].mean():.3f}")


if __name__ == "__main__":
    main()
