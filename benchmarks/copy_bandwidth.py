"""What memory can do: a plain copy, to which the memory-bound operators are compared."""

from __future__ import annotations

import torch


class Copy:
    """`Tensor.copy_` from one array to another, both far larger than the last cache.

    Attributes:
        moved: bytes read and written by a call.
    """

    def __init__(self, size: int = 256 << 20) -> None:
        self.source = torch.ones(size // 4)
        self.destination = torch.zeros(size // 4).fill_(0)  # writes, so that the pages exist
        self.moved = 2 * size

    def __call__(self) -> None:
        self.destination.copy_(self.source)
