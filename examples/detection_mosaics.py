"""Find wrong labels of boxes: torchvision's RetinaNet trains on mosaics, and each box counts for its source image.

    python examples/detection_mosaics.py

The dataset is scikit-learn's handwritten digits, each with one box. A mosaic shows four of them, other ones in each
epoch, and each of its boxes carries the position in the dataset of the digit that it shows. Every anchor that the model
matches with a box is a row of logits; a digit is scored by the mean over its rows. One label in ten is wrong.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

import difficulty_prune as dp

EPOCHS = 6
CLASSES, CELL = 10, 12  # a mosaic has 24 x 24 pixels


def mosaic(images: Tensor, labels: Tensor, source: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Four of the images [N, 8, 8] on one [1, 24, 24], and its boxes [4, 4], their labels [4] and source [4]."""
    canvas, boxes = torch.zeros(1, 2 * CELL, 2 * CELL), []
    for cell, (image, shift) in enumerate(zip(images[source], torch.randint(5, (4, 2)).tolist(), strict=True)):
        top, left = cell // 2 * CELL + shift[0], cell % 2 * CELL + shift[1]
        canvas[0, top : top + 8, left : left + 8] = image
        boxes.append([left, top, left + 8, top + 8])
    return canvas, {"boxes": torch.tensor(boxes).float(), "labels": labels[source], "source": source}


class ScoringHead(RetinaNetHead):
    """A head that shows the tracker what its loss compares."""

    def __init__(self, channels: int, tracker: dp.DifficultyTracker) -> None:
        super().__init__(channels, 1, CLASSES, norm_layer=nn.BatchNorm2d)
        self.tracker = tracker

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """See `RetinaNetHead.compute_loss`; `matched_idxs` tells the box of each anchor, or is negative."""
        matched = [box.clamp(min=0) for box in matched_idxs]
        labels = torch.stack([target["labels"][box] for target, box in zip(targets, matched, strict=True)])
        source = torch.stack([target["source"][box] for target, box in zip(targets, matched, strict=True)])
        shows_a_box = torch.stack(matched_idxs) >= 0  # [B, anchors]
        index, owner = source[shows_a_box].unique(return_inverse=True)
        logits = head_outputs["cls_logits"][shows_a_box]  # [R, classes], each for its own sigmoid
        self.tracker.update(index, logits, F.one_hot(labels[shows_a_box], CLASSES), owner=owner)
        losses: dict[str, Tensor] = super().compute_loss(targets, head_outputs, anchors, matched_idxs)
        return losses


def make_model(tracker: dp.DifficultyTracker) -> RetinaNet:
    backbone: Any = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
    )  # fmt: skip
    backbone.out_channels = 64
    return RetinaNet(
        backbone,
        CLASSES,
        min_size=2 * CELL,
        max_size=2 * CELL,
        image_mean=[0.0],
        image_std=[1.0],
        anchor_generator=AnchorGenerator(sizes=((8,),), aspect_ratios=((1.0,),)),
        head=ScoringHead(64, tracker),
    )


def main() -> None:
    torch.manual_seed(0)
    pixels, digits = load_digits(return_X_y=True)
    images, labels = torch.from_numpy(pixels).float().view(-1, 8, 8) / 16, torch.from_numpy(digits)
    wrong = torch.randperm(len(labels))[: len(labels) // 10]
    labels[wrong] = (labels[wrong] + torch.randint(1, CLASSES, wrong.shape)) % CLASSES

    tracker = dp.DifficultyTracker(len(images), scores=("loss", "el2n", "accuracy"), target="binary")
    model = make_model(tracker)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    for epoch in range(EPOCHS):
        total, order = 0.0, torch.randperm(len(images))[: len(images) // 4 * 4].view(-1, 4)
        mosaics = [mosaic(images, labels, source) for source in order]
        for batch in DataLoader(mosaics, batch_size=16, collate_fn=list):
            loss = torch.stack(list(model(*zip(*batch, strict=True)).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch}: mean loss {total / len(mosaics):.3f}")

    is_wrong = torch.zeros(len(images), dtype=torch.bool).index_fill(0, wrong, True)
    for name, score in tracker.compute().items():
        difficulty = score if dp.SCORES[name].higher_is_harder else -score
        auroc = roc_auc_score(is_wrong, difficulty)
        hardest = is_wrong[difficulty.topk(len(wrong)).indices].float().mean()
        means = f"mean {score[is_wrong].mean():.3f} of wrong labels, {score[~is_wrong].mean():.3f} of the others"
        print(f"{name}: {means}; AUROC {auroc:.3f}, {hardest:.3f} of the hardest are wrong")


if __name__ == "__main__":
    main()
