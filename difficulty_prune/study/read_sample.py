"""One sample of a dataset: its image and its class, or an error that says which example it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import IndexedDataset
from ..dataset_facts import fetch_and_tell, may_return_another

Bring = Callable[[Tensor], Tensor]


def bring_to(side: int | None) -> Bring | None:
    """What squeezes images into a square; None where they stay as they are."""
    return None if side is None else functools.partial(_squeezed, side=side)


def _squeezed(image: Tensor, side: int) -> Tensor:
    return image if image.shape[1:] == (side, side) else cut_out(image, 0, 0, image.shape[1], image.shape[2], side)


def cut_out(image: Tensor, top: int, left: int, height: int, width: int, side: int) -> Tensor:
    """A part of an image [C, H, W], brought to `side` pixels a side; [C, side, side]."""
    from torchvision.transforms.v2.functional import resize

    found: Tensor = resize(image[:, top : top + height, left : left + width], [side, side], antialias=True)
    return found


def name_of(dataset: Any, position: int) -> str:
    """What a message calls an image: its file, where the dataset knows it."""
    files = getattr(dataset, "samples", None)
    if isinstance(files, list) and len(files) == len(dataset) and isinstance(files[position], tuple):
        return f"image {files[position][0]}"
    return f"image {position}"


def _read(dataset: Any, position: int) -> Any:
    """The sample of a position, and of no other: some datasets return another where a file cannot be read."""
    try:
        sample, came = _fetch(dataset, position)
    except (OSError, SyntaxError) as error:  # PIL raises either for a file that is damaged
        raise ValueError(
            f"data: {name_of(dataset, position)} cannot be read ({error}); replace or remove it"
        ) from error
    if came != position:
        raise ValueError(
            f"data: {name_of(dataset, position)} cannot be read, and the dataset returned {name_of(dataset, came)} in "
            "its place; replace or remove it"
        )
    return sample


def _fetch(dataset: Any, position: int) -> tuple[Any, int]:
    """A sample, and the position of the example that it is of, as far as the dataset tells."""
    if isinstance(dataset, IndexedDataset):
        sample = dataset[position]
        return sample, sample[-1] if isinstance(sample, tuple | list) else position
    if may_return_another(dataset):
        return fetch_and_tell(dataset, position)
    return dataset[position], position


def read_sample(dataset: Any, position: int, bring: Bring | None = None) -> tuple[Tensor, int]:
    """The image [C, H, W] and the class of an example; `bring` brings the image to its size."""
    sample = _read(dataset, position)
    if not isinstance(sample, (tuple, list)) or len(sample) < 2:
        raise TypeError(f"data: example {position} is a {type(sample).__name__}, expected (image, label)")
    image = sample[0] if isinstance(sample[0], Tensor) else _from_array(np.array(sample[0]))
    if image.dim() != 3:
        raise ValueError(
            f"data: image {position} has shape {tuple(image.shape)}, expected a tensor [C, H, W], an array [H, W] or "
            "[H, W, C], or a PIL image"
        )
    if image.is_floating_point() and not bool(image.isfinite().all()):
        raise ValueError(f"data: image {position} has pixels that are infinite or NaN")
    return image if bring is None else bring(image), check_class(sample[1], position)


def check_shape(dataset: Any, position: int, image: Tensor, expected: tuple[int, ...]) -> None:
    """ValueError for an image of another shape than the first."""
    if image.shape != expected:
        raise ValueError(
            f"data: {name_of(dataset, position)} has shape {tuple(image.shape)}, the first {expected}; resize them, "
            "such as with --size 64"
        )


def check_class(label: Any, position: int) -> int:
    """The label as a number; ValueError if it is not the number of a class."""
    try:
        number = int(label)
        good = bool(number == label) and number >= 0
    except (TypeError, ValueError, RuntimeError):  # text, NaN, several numbers
        good = False
    if not good:
        raise ValueError(f"data: example {position} has label {label!r}, expected the number of a class: 0, 1, ...")
    return number


def _from_array(array: NDArray[Any]) -> Tensor:
    if array.ndim == 3:
        return torch.from_numpy(array.transpose(2, 0, 1).copy())
    return torch.from_numpy(array[None] if array.ndim == 2 else array)
