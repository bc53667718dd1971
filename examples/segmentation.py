"""Find spoiled masks: a torchvision segmentation model trains on pieces of two photographs.

    python examples/segmentation.py

The masks say where a photograph is dark, medium or bright; the borders between them are ignored (255), as in Pascal
VOC. On one mask in ten the classes are mixed up. These pieces come out hardest, because each is scored by the mean
over its pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import difficulty_prune as dp

EPOCHS = 4
SIZE, CLASSES, IGNORED = 64, 3, 255


def pieces() -> Tensor:
    """[120, 3, 64, 64] in 0..1, from scikit-learn's sample images."""
    cut = []
    for photograph in load_sample_images().images:
        rows = torch.from_numpy(photograph.copy()).permute(2, 0, 1).unfold(1, SIZE, SIZE).unfold(2, SIZE, SIZE)
        cut.append(rows.permute(1, 2, 0, 3, 4).reshape(-1, 3, SIZE, SIZE))
    return torch.cat(cut).float() / 255


def masks_of(images: Tensor) -> Tensor:
    """[B, H, W] int64: 0 dark, 1 medium, 2 bright, 255 on the borders."""
    brightness = F.avg_pool2d(images.mean(1, keepdim=True), 9, stride=1, padding=4, count_include_pad=False)
    masks = (brightness > 0.25).float() + (brightness > 0.55)
    inside = F.max_pool2d(masks, 3, stride=1, padding=1) == -F.max_pool2d(-masks, 3, stride=1, padding=1)
    return masks.where(inside, IGNORED).squeeze(1).long()


def main() -> None:
    torch.manual_seed(0)
    images = pieces()
    masks = masks_of(images)
    spoiled = torch.randperm(len(images))[: len(images) // 10]
    masks[spoiled] = ((masks[spoiled] + 1) % CLASSES).where(masks[spoiled] != IGNORED, IGNORED)

    train = dp.IndexedDataset(TensorDataset(images, masks))
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    tracker = dp.DifficultyTracker(len(train), scores=("loss", "el2n", "accuracy"))
    for epoch in range(EPOCHS):
        total = 0.0
        for x, mask, index in DataLoader(train, batch_size=12, shuffle=True):
            logits = model(x)["out"]  # [B, classes, H, W]
            tracker.update(index, logits, mask, ignore_index=IGNORED)
            loss = F.cross_entropy(logits, mask, ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
        print(f"epoch {epoch}: mean loss {total / len(train):.3f}")

    is_spoiled = torch.zeros(len(train), dtype=torch.bool).index_fill(0, spoiled, True)
    for name, score in tracker.compute().items():
        difficulty = score if dp.SCORES[name].higher_is_harder else -score
        auroc = roc_auc_score(is_spoiled, difficulty)
        hardest = is_spoiled[difficulty.topk(len(spoiled)).indices].float().mean()
        means = f"mean {score[is_spoiled].mean():.3f} of spoiled masks, {score[~is_spoiled].mean():.3f} of the others"
        print(f"{name}: {means}; AUROC {auroc:.3f}, {hardest:.3f} of the hardest are spoiled")


if __name__ == "__main__":
    main()
