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
        [B] of the loss's dtype (sums are kept in float32 at least); NaN for an example without rows, of which
        `.nan_to_num()` makes 0. Differentiable.

    Raises:
        TypeError: no tensors, a loss that is not floating point, or an owner that is not int64.
        ValueError: shapes that differ, or no rows and no batch_size.
        IndexError: an owner outside the batch (looked at on the CPU only).

    >>> reduce_loss(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]))
    tensor([2., 5.])
    """
    size = _checked_size(loss, owner, batch_size)
    wide = torch.promote_types(loss.dtype, torch.float32)  # where adding 1 to 256 is no 256
    zero = torch.zeros(size, dtype=wide, device=loss.device)
    total = zero.index_add(0, owner, loss.to(wide))
    return (total / zero.index_add(0, owner, torch.ones_like(loss, dtype=wide))).to(loss.dtype)


def _checked_size(loss: Tensor, owner: Tensor, batch_size: int | None) -> int:
    for name, value in (("loss", loss), ("owner", owner)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
    if loss.dim() != 1 or loss.shape != owner.shape:
        raise ValueError(f"got loss {tuple(loss.shape)} and owner {tuple(owner.shape)}, expected [rows] for both")
    if not loss.dtype.is_floating_point:
        raise TypeError(f"loss: got {loss.dtype}, expected floating point")
    if owner.dtype != torch.int64:
        raise TypeError(f"owner: got {owner.dtype}, expected int64: the row's position in the batch")
    if batch_size is None and len(owner) == 0:
        raise ValueError("batch_size: got None and no rows, expected the number of examples in the batch")
    size = int(owner.max()) + 1 if batch_size is None else batch_size
    if owner.is_cpu and len(owner) and not torch.compiler.is_compiling():
        lowest, highest = (int(bound) for bound in owner.aminmax())
        if lowest < 0 or highest >= size:
            bad = lowest if lowest < 0 else highest
            raise IndexError(f"owner: got {bad}, expected 0..{size - 1}, positions in the batch")
    return size
