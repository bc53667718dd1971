"""Scores relative to the class of each example."""

from __future__ import annotations

import torch
from torch import Tensor


def class_normalize(score: Tensor, labels: Tensor) -> Tensor:
    """z-score within the true class (ddof 0).

    Args:
        score: [N] floating point. NaN stays NaN, and does not count towards its class's mean and deviation.
        labels: [N] int64, 0 or more.

    Returns:
        [N], the score's dtype. Where all scores of a class are equal, they become 0.

    Raises:
        ValueError: the shapes differ, or a label is negative.

    >>> class_normalize(torch.tensor([1.0, 3.0, 10.0, 10.0]), torch.tensor([0, 0, 1, 1]))
    tensor([-1.,  1.,  0.,  0.])
    """
    if score.shape != labels.shape or score.dim() != 1:
        raise ValueError(f"got score {tuple(score.shape)} and labels {tuple(labels.shape)}, expected [N] for both")
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"labels: got {int(labels.min())}, expected 0 or more for every example")
    known = ~score.isnan()
    value = torch.where(known, score, 0).double()
    classes = int(labels.max()) + 1 if len(labels) else 0

    def class_mean(x: Tensor) -> Tensor:
        total = torch.zeros(classes, dtype=torch.float64, device=x.device).index_add_(0, labels, x * known)
        size = torch.zeros_like(total).index_add_(0, labels, known.double())
        return (total / size.clamp(min=1))[labels]

    def class_extreme(reduce: str, missing: float) -> Tensor:
        extreme = torch.full((classes,), missing, dtype=torch.float64, device=score.device)
        return extreme.scatter_reduce(0, labels, torch.where(known, value, missing), reduce)[labels]

    deviation = value - class_mean(value)
    spread = class_mean(deviation.square()).sqrt()
    # Not spread > 0, which rounding can leave even where all scores are equal.
    differ = class_extreme("amax", -torch.inf) > class_extreme("amin", torch.inf)
    z = torch.where(differ, deviation / torch.where(differ, spread, 1), 0)
    return torch.where(known, z, torch.nan).to(score.dtype)
