"""Labelled images that are held in memory."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..support.digest import digest_of_array

_STATISTICS_FROM: Final = 10_000  # images: more would hardly change a mean over all their pixels


class Images(Dataset[tuple[Tensor, float]]):
    """Labelled images. A sample is (image, label).

    Args:
        images: [N, C, H, W], uint8 or floating point.
        labels: [N] int64; floating point where the label is a number to predict.
        class_names: the name of each class, where they are known.
        ids: [N] what names each image for good, such as its path below the folder, where that is known.
        names_inside: the names of classes that a wrapped dataset has; a wrapper may have made other labels of them.

    >>> len(Images(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 0])))
    3
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        class_names: tuple[str, ...] | None = None,
        ids: NDArray[Any] | None = None,
        names_inside: tuple[str, ...] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.class_names = class_names
        self.ids = ids
        self.names_inside = names_inside

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def at(self, positions: Any) -> Tensor:
        """The images at these positions [K], as the model is tested on them: [K, C, H, W]."""
        return self.images[positions]

    def batches(self, size: int, positions: Tensor | None = None) -> Iterator[Tensor]:
        """All images, or those at these positions, in order, in batches of `size` or fewer."""
        if positions is None:
            yield from self.images.split(size)
        else:
            yield from (self.images[part] for part in positions.split(size))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, each [C, 1, 1], of at most about 10,000 images."""
        sample = self.images[:: max(1, len(self) // _STATISTICS_FROM)].float()
        return sample.mean((0, 2, 3), keepdim=True)[0], sample.std((0, 2, 3), keepdim=True)[0]

    def with_labels(self, labels: Tensor) -> Images:
        """The same images with other labels."""
        return Images(self.images, labels, self.class_names, self.ids)

    def select(self, positions: NDArray[Any]) -> Images:
        """The images at these positions."""
        ids = None if self.ids is None else self.ids[positions]
        return Images(self.images[positions], self.labels[positions], self.class_names, ids, self.names_inside)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        return self.images[index], self.labels[index].item()

    @functools.cached_property
    def digest(self) -> str:
        """A hash of all images and labels, 32 hexadecimal digits; computed once, so change neither."""
        total = hashlib.blake2b(digest_size=16)
        for part in (self.images, self.labels):
            content = part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
            total.update(f"{part.dtype} {list(part.shape)} {digest_of_array(content)}".encode())
        return total.hexdigest()
