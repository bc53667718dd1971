"""How fast memory is: a plain copy, to compare the memory-bound operators with."""

from __future__ import annotations

import torch


class Copy:
    """`Tensor.copy_` between two arrays that are far larger than the last cache.

    Attributes:
        moved: bytes that one call reads and writes.

    >>> copy = Copy(1024)
    >>> copy()
    >>> copy.moved
    2048
    """

    def __init__(self, size: int = 256 << 20, device: torch.device | str = "cpu") -> None:
        self.source = torch.ones(size // 4, device=device)
        self.destination = torch.zeros(size // 4, device=device).fill_(0)  # written, so that the pages exist
        self.moved = 2 * size

    def __call__(self) -> None:
        self.destination.copy_(self.source)
