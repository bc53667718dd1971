"""From losses as tasks compute them to one loss per example."""

from __future__ import annotations

import torch
from torch import Tensor


def reduce_loss(loss: Tensor, owner: Tensor, batch_size: int | None = None) -> Tensor:
    """Mean loss per example where an example has several rows (tokens, boxes, crops).

    Args:
        loss: [R] floating point, one per row.
        owner: [R] int64, the row's position in the batch, 0..B-1.
        batch_size: B; default: the largest owner + 1, which reads the device.

    Returns:
        [B] of the loss's dtype; NaN for an example without rows. Differentiable.

    Raises:
        TypeError, ValueError: wrong dtype or shape.

    >>> reduce_loss(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]))
    tensor([2., 5.])
    """
    if loss.dim() != 1 or loss.shape != owner.shape:
        raise ValueError(f"got loss {tuple(loss.shape)} and owner {tuple(owner.shape)}, expected [rows] for both")
    if owner.dtype != torch.int64:
        raise TypeError(f"owner: got {owner.dtype}, expected int64: the row's position in the batch")
    size = int(owner.max()) + 1 if batch_size is None else batch_size
    total = loss.new_zeros(size).index_add(0, owner, loss)
    return total / loss.new_zeros(size).index_add(0, owner, torch.ones_like(loss))
