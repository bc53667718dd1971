"""Scores relative to the class of each example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..support.arrays import as_tensor


def class_normalize(score: Any, labels: Any) -> Any:
    """z-score within the true class (ddof 0).

    Args:
        score: [N] numbers: a tensor, an array such as `runs.difficulty("el2n")`, or a list. NaN stays NaN, and does not
            count towards its class's mean and deviation.
        labels: [N] whole numbers, 0 or more.

    Returns:
        [N], a tensor on the score's device where the score is one, else an array; of the score's dtype, or float64 of
        whole numbers. Where all scores of a class are equal, they become 0.

    Raises:
        TypeError: not numbers.
        ValueError: the shapes differ, or a label is negative.

    >>> class_normalize(torch.tensor([1.0, 3.0, 10.0, 10.0]), torch.tensor([0, 0, 1, 1]))
    tensor([-1.,  1.,  0.,  0.])
    """
    values, classes = as_tensor(score, "score"), as_tensor(labels, "labels")
    if values.shape != classes.shape or values.dim() != 1:
        raise ValueError(f"got score {tuple(values.shape)} and labels {tuple(classes.shape)}, expected [N] for both")
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise TypeError(f"labels: got {classes.dtype}, expected whole numbers, the classes")
    if len(classes) and int(classes.min()) < 0:
        raise ValueError(
            f"labels: got {int(classes.min())}, expected 0 or more for every example; leave out those without a class: "
            "class_normalize(score[known], labels[known])"
        )
    numbers = values if values.is_floating_point() else values.double()
    z = _z_scores(numbers, classes.to(numbers.device, torch.int64))
    return z if isinstance(score, Tensor) else z.numpy()


def _z_scores(score: Tensor, labels: Tensor) -> Tensor:
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
