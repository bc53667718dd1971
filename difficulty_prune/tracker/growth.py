"""State that grows with the largest index, for trackers that do not know the number of examples."""

from __future__ import annotations

import os
from typing import Final

import torch
from torch import Tensor

from ..ops.operators import new_state
from .mapped import mapped_zeros

_FIRST: Final = 64  # examples
_MOST: Final = 1 << 40  # which no memory holds


def resized(tensor: Tensor, size: int, mmap: str | os.PathLike[str] | None = None) -> Tensor:
    """The first `size` rows of state [N, ...]: a view, or a larger copy with zeros; in a file of the folder `mmap`.

    >>> resized(torch.tensor([1, 2]), 3), resized(torch.tensor([1, 2]), 1)
    (tensor([1, 2, 0]), tensor([1]))
    """
    if size <= len(tensor):
        return tensor[:size]
    shape = size, *tensor.shape[1:]
    grown = new_state(shape, tensor.dtype, tensor.device) if mmap is None else mapped_zeros(shape, tensor.dtype, mmap)
    with torch.inference_mode(False):
        grown[: len(tensor)].copy_(tensor)
    return grown


def room_for(index: Tensor, size: int) -> int:
    """How many examples state of `size` should have room for, so that a batch fits; doubled, so that growth is rare.

    Raises:
        ValueError: an index on an accelerator, whose values are not known here; or in a compiled step; or one so large
            that it is an id.

    >>> room_for(torch.tensor([70, 3]), 64), room_for(torch.tensor([3]), 64), room_for(torch.tensor([999]), 64)
    (128, 64, 1000)
    """
    if torch.compiler.is_compiling():
        raise ValueError(
            "num_examples: this tracker grows when a larger index comes, which a compiled step cannot do; make it with "
            "DifficultyTracker(len(dataset), ...)"
        )
    if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.numel() == 0:
        return size  # which the checks refuse, or of which there is nothing to record
    if not index.is_cpu:
        raise ValueError(
            f"index: got one on {index.device}, but this tracker grows when a larger index comes, and to read it there "
            "would hold up the training step: give the index of the loader, on the CPU, or make the tracker with "
            "DifficultyTracker(len(dataset), ...)"
        )
    needed = int(index.max()) + 1
    if needed > _MOST:
        raise ValueError(
            f"index: got {needed - 1}, but a tracker that grows has room for every index up to the largest; an id of a "
            "stream has an index from dp.StreamIndex(), as in tracker.update(index(batch['id']), ...)"
        )
    return size if needed <= size else max(needed, 2 * size, _FIRST)
