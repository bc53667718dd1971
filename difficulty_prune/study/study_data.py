"""The data of a study: labelled images, held in memory as two tensors."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

_MEMORY_LIMIT: Final = 4 * 2**30
_TEST_SHARE: Final = 0.2
FORMS: Final = "digits, imagefolder:DIR, torchvision:NAME:ROOT or your.module:function"


class Images(Dataset[tuple[Tensor, int]]):
    """Labelled images: images [N, C, H, W] uint8 or float, labels [N] int64. A sample is (image, label).

    >>> len(Images(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 0])))
    3
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


@dataclass(frozen=True)
class StudyData:
    """Training and test images of one shape, and the number of classes."""

    train: Images
    test: Images
    num_classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @functools.cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training images per channel, each [C, 1, 1], at most 10,000 images."""
        sample = self.train.images[:: max(1, len(self.train) // 10_000)].float()
        mean = sample.mean((0, 2, 3), keepdim=True)[0]
        return mean, sample.std((0, 2, 3), keepdim=True)[0].clamp(min=1e-6)


@functools.cache
def load_data(spec: str, test_spec: str | None = None) -> StudyData:
    """Loads the images that a `--data` argument names; kept for the life of the process.

    Where no test data is named and the source brings none, a fifth of the images, chosen class by class and always
    the same, is set aside for testing.

    Raises:
        ValueError: a spec of none of the known forms, images of different shapes, or more than 4 GiB of them.
        FileNotFoundError: no such folder.

    >>> data = load_data("digits")
    >>> data.shape, data.num_classes, len(data.train), len(data.test)
    ((1, 8, 8), 10, 1437, 360)
    """
    train, test = _load(spec)
    if test_spec is not None:
        test = _load(test_spec)[0]
    if test is None:
        train, test = _split(train)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"{spec}: images {tuple(train.images.shape[1:])}, but test images {tuple(test.images.shape[1:])}"
        )
    return StudyData(train, test, num_classes=int(max(train.labels.max(), test.labels.max())) + 1)


def _load(spec: str) -> tuple[Images, Images | None]:
    kind, _, rest = spec.partition(":")
    if spec == "digits":
        return _digits(), None
    if kind == "imagefolder" and rest:
        return _image_folder(rest), None
    if kind == "torchvision" and rest.count(":") == 1:
        return _torchvision(*rest.split(":"))
    if not rest:
        raise ValueError(f"data: got {spec!r}, expected {FORMS}")
    return _from_function(kind, rest)


def _digits() -> Images:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return Images(torch.from_numpy(pixels).float().view(-1, 1, 8, 8), torch.from_numpy(labels).long())


def _image_folder(folder: str) -> Images:
    from torchvision.datasets import ImageFolder

    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one folder of images per class in it")
    return _to_tensors(ImageFolder(folder))


def _torchvision(name: str, root: str) -> tuple[Images, Images]:
    from torchvision import datasets

    if not hasattr(datasets, name):
        raise ValueError(f"data: torchvision.datasets has no {name!r}")
    make: Callable[..., Any] = getattr(datasets, name)
    try:
        splits = make(root, train=True), make(root, train=False)
    except (RuntimeError, TypeError) as error:  # not downloaded, or a data set that has no `train` argument
        raise ValueError(f"data: torchvision.datasets.{name}({root!r}, train=...) failed: {error}") from error
    return _to_tensors(splits[0]), _to_tensors(splits[1])


def _from_function(module: str, function: str) -> tuple[Images, Images | None]:
    try:
        make: Callable[[], Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"data: {module}:{function} cannot be imported ({error}); expected {FORMS}") from error
    made = make()
    train, test = made if isinstance(made, tuple) else (made, None)
    return _to_tensors(train), None if test is None else _to_tensors(test)


def _to_tensors(dataset: Sequence[Any]) -> Images:
    """Reads a whole map-style dataset of (image, label); images are PIL, arrays [H, W(, C)] or tensors [C, H, W]."""
    if len(dataset) == 0:
        raise ValueError(f"data: {type(dataset).__name__} is empty")
    first = _image(dataset[0][0])
    size = len(dataset) * first.numel() * first.element_size()
    if size > _MEMORY_LIMIT:
        raise ValueError(
            f"data: {size / 2**30:.1f} GiB of images; a study holds at most {_MEMORY_LIMIT >> 30} GiB in memory"
        )
    images = torch.empty(len(dataset), *first.shape, dtype=first.dtype)
    labels = torch.empty(len(dataset), dtype=torch.int64)
    for i in range(len(dataset)):
        raw, label = dataset[i][:2]
        image = _image(raw)
        if image.shape != first.shape:
            raise ValueError(
                f"data: image {i} has shape {tuple(image.shape)}, the first {tuple(first.shape)}; resize them"
            )
        images[i], labels[i] = image, int(label)
    return Images(images, labels)


def _image(raw: Any) -> Tensor:
    if isinstance(raw, Tensor):
        return raw
    array = np.array(raw)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def split_positions(labels: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Positions of the examples to train on and of the fifth that is set aside for testing, always the same.

    Args:
        labels: [N], of which every class is split alike.
    """
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(len(labels)), test_size=_TEST_SHARE, stratify=labels, random_state=0)
    return np.sort(train), np.sort(test)


def _split(images: Images) -> tuple[Images, Images]:
    train, test = split_positions(images.labels)
    return (
        Images(images.images[train], images.labels[train]),
        Images(images.images[test], images.labels[test]),
    )
