"""The data of a study: labelled images, held in memory as two tensors."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from ..data import IndexedDataset
from ..dataset_facts import class_names_of, fetch_and_tell, may_return_another
from ..support.digest import digest_of_array
from ..support.name_some import name_some
from .named_function import import_function, names_function
from .photographs import open_rgb
from .plant import Planted, plant_wrong

_MEMORY_LIMIT: Final = 4 * 2**30  # every worker holds the images too
_TEST_SHARE: Final = 0.2
_STATISTICS_FROM: Final = 10_000  # images: more would hardly change a mean over all their pixels
FORMS: Final = "digits, imagefolder:DIR, torchvision:NAME:ROOT or your.module:function"


class Images(Dataset[tuple[Tensor, int]]):
    """Labelled images. A sample is (image, label).

    Args:
        images: [N, C, H, W], uint8 or floating point.
        labels: [N] int64.
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

    def select(self, positions: NDArray[Any]) -> Images:
        """The images at these positions."""
        ids = None if self.ids is None else self.ids[positions]
        return Images(self.images[positions], self.labels[positions], self.class_names, ids, self.names_inside)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    @functools.cached_property
    def digest(self) -> str:
        """A hash of all images and labels, 32 hexadecimal digits; computed once, so change neither."""
        total = hashlib.blake2b(digest_size=16)
        for part in (self.images, self.labels):
            content = part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
            total.update(f"{part.dtype} {list(part.shape)} {digest_of_array(content)}".encode())
        return total.hexdigest()


@dataclass(frozen=True)
class StudyData:
    """Training and test images of one shape, and the number of classes."""

    train: Images
    test: Images
    num_classes: int
    planted: Planted | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def names_of_classes(self) -> tuple[str, ...] | None:
        """The name of each class, where all are known."""
        names = self.train.class_names
        return names if names is not None and len(names) >= self.num_classes else None

    @functools.cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, each [C, 1, 1], of at most about 10,000 training images."""
        sample = self.train.images[:: max(1, len(self.train) // _STATISTICS_FROM)].float()
        mean = sample.mean((0, 2, 3), keepdim=True)[0]
        deviation = sample.std((0, 2, 3), keepdim=True)[0]
        return mean, deviation.clamp(min=1e-6)  # a channel that never changes is divided by this


@functools.cache
def load_data(
    spec: str, test_spec: str | None = None, size: int | None = None, wrong: float = 0.0, seed: int = 0
) -> StudyData:
    """Loads the images that a `--data` argument names, and keeps them for the life of the process.

    Where no test data is named and the source brings none, a fifth of the images, chosen class by class and always
    the same, is set aside for testing.

    Args:
        spec, test_spec: of the forms in `FORMS`.
        size: the side to which every image is resized; None for as they are.
        wrong: the share of the training labels that is made wrong, at random by `seed`.

    Raises:
        TypeError, ValueError: a spec of an unknown form, samples that are no (image, label), images of different
            shapes, pixels that are not finite, labels that are no classes, a single class, test data of another shape
            or with other classes, or more than 4 GiB of images.
        FileNotFoundError: there is no such folder.

    >>> data = load_data("digits")
    >>> data.shape, data.num_classes, len(data.train), len(data.test)
    ((1, 8, 8), 10, 1437, 360)
    """
    train, test = _load(spec, size)
    if test_spec is not None:
        test = _load(test_spec, size)[0]
    if test is None:
        train, test = _split(train)
    _check_test_data(train, test)
    data = StudyData(train, test, num_classes=int(train.labels.max()) + 1)
    if not wrong:
        return data
    planted = plant_wrong(train.labels, wrong, seed, train.ids)
    labels = train.labels.clone()
    labels[torch.from_numpy(planted.index)] = torch.from_numpy(planted.given)
    return replace(data, train=Images(train.images, labels, train.class_names, train.ids), planted=planted)


def open_data(spec: str) -> IndexedDataset:
    """The training data that a `--data` argument names, without reading an image: for its ids, labels and class names.

    Ids are paths below the root where the data are files. A function of the user may return an `IndexedDataset`, which
    is taken as it is: with the `key=` that names its examples.

    Raises:
        TypeError, ValueError: a spec of an unknown form, or data that are no map-style dataset, or empty.
        FileNotFoundError: there is no such folder, or a folder of a class in it has no images.

    >>> data = open_data("digits")
    >>> len(data), data.ids[:3], data.labels[:3]
    (1797, array([0, 1, 2]), array([0, 1, 2]))
    """
    dataset, _ = _find(spec)
    return dataset if isinstance(dataset, IndexedDataset) else IndexedDataset(dataset)


def _check_test_data(train: Images, test: Images) -> None:
    """ValueError unless a model trained on `train`, which has several classes, can be tested on `test`."""
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"test: got images of shape {list(test.images.shape[1:])}, expected {list(train.images.shape[1:])} as for "
            "training"
        )
    names, others = train.class_names or train.names_inside, test.class_names or test.names_inside
    if names and others and names != others:
        differing = sorted(set(names) ^ set(others))
        raise ValueError(
            f"test: got {len(others)} classes, expected the {len(names)} of the training data, or their numbers do not "
            f"match; {name_some(differing)} not in both"
        )
    known = set(train.labels.unique().tolist())
    if len(known) < 2:
        raise ValueError(f"data: got examples of class {min(known)} only, expected two classes or more")
    unknown = sorted(set(test.labels.unique().tolist()) - known)
    if unknown:
        raise ValueError(f"test: got class {name_some(unknown)}, of which there is no training example")


def _load(spec: str, size: int | None) -> tuple[Images, Images | None]:
    train, test = _find(spec)
    return _to_tensors(train, size), None if test is None else _to_tensors(test, size)


def _find(spec: str) -> tuple[Any, Any]:
    """The training data and the test data, or None, as map-style datasets of (image, label)."""
    kind, _, rest = spec.partition(":")
    if spec == "digits":
        return _digits(), None
    if kind == "imagefolder" and rest:
        return _image_folder(rest), None
    if kind == "torchvision" and ":" in rest:
        return _torchvision(*rest.split(":", 1))  # a folder of Windows has a colon of its own
    if names_function(spec) and rest:
        return _from_function(spec)
    raise ValueError(f"data: got {spec!r}, expected {FORMS}")


def _digits() -> IndexedDataset:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = Images(torch.from_numpy(pixels).float().view(-1, 1, 8, 8), torch.from_numpy(labels).long())
    return IndexedDataset(images, ids=np.arange(len(images)))  # by their number in scikit-learn's table


def _image_folder(folder: str) -> Any:
    from torchvision.datasets import ImageFolder

    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one that holds a folder of images for each class")
    return ImageFolder(folder, loader=open_rgb)


def _torchvision(name: str, root: str) -> tuple[Any, Any]:
    from torchvision import datasets

    if not hasattr(datasets, name):
        raise ValueError(f"data: torchvision.datasets has no {name!r}")
    make: Callable[..., Any] = getattr(datasets, name)
    try:
        return make(root, train=True), make(root, train=False)
    except (RuntimeError, TypeError) as error:  # not downloaded, or a data set that has no `train` argument
        raise ValueError(f"data: torchvision.datasets.{name}({root!r}, train=...) failed: {error}") from error


def _from_function(spec: str) -> tuple[Any, Any]:
    try:
        make = import_function(spec)
    except ImportError as error:
        raise ValueError(f"data: {spec} cannot be imported ({error}); expected {FORMS}") from error
    made = make()
    parts: tuple[Any, ...] = made if isinstance(made, tuple) else (made, None)
    if len(parts) != 2 or not _is_map_style(parts[0]) or not (parts[1] is None or _is_map_style(parts[1])):
        raise TypeError(
            f"data: {spec} returned {_types(made)}, expected a map-style dataset of (image, label), or a training and "
            "a test set of that kind"
        )
    return parts[0], parts[1]


def _is_map_style(dataset: Any) -> bool:
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def _types(made: Any) -> str:
    if isinstance(made, tuple):
        return f"a tuple of ({', '.join(type(part).__name__ for part in made)})"
    return f"a {type(made).__name__}"


def _to_tensors(dataset: Any, side: int | None = None) -> Images:
    """Reads a whole map-style dataset of (image, label); images are PIL, arrays [H, W(, C)] or tensors [C, H, W]."""
    if len(dataset) == 0:
        raise ValueError(f"data: {type(dataset).__name__} is empty")
    ids = _ids(dataset)
    first, _ = _sample(dataset, 0, side)
    size = len(dataset) * first.numel() * first.element_size()
    if size > _MEMORY_LIMIT:
        raise ValueError(
            f"data: got {size / 2**30:.1f} GiB of images, expected at most {_MEMORY_LIMIT >> 30} GiB: a study holds "
            "them in memory; take smaller or fewer images"
        )
    images = torch.empty(len(dataset), *first.shape, dtype=first.dtype, device="cpu")
    labels = torch.empty(len(dataset), dtype=torch.int64, device="cpu")
    for i in range(len(dataset)):
        image, label = _sample(dataset, i, side)
        if image.shape != first.shape:
            raise ValueError(
                f"data: {_name(dataset, i)} has shape {tuple(image.shape)}, the first {tuple(first.shape)}; resize "
                "them, such as with --size 64"
            )
        images[i], labels[i] = image, label
    names = _class_names(dataset)
    named = names is not None and len(names) > int(labels.max())  # else they are of other classes
    return Images(images, labels, names if named else None, ids, _names_inside(dataset))


def _ids(dataset: Any) -> NDArray[Any] | None:
    """What names each example for good, where the dataset knows it."""
    try:
        return (dataset if isinstance(dataset, IndexedDataset) else IndexedDataset(dataset)).ids
    except ValueError as error:
        raise ValueError(
            f"data: {error}; where examples are meant to occur several times, return dp.IndexedDataset(dataset, "
            "key=False), which names none"
        ) from error


def _class_names(dataset: Any) -> tuple[str, ...] | None:
    """Those of a torchvision dataset; also of a part of it, of several that agree, and of one with an index."""
    names = class_names_of(dataset)
    if names is not None or callable(getattr(dataset, "target_transform", None)):
        return names
    if isinstance(dataset, ConcatDataset):
        of_parts = {_class_names(part) for part in dataset.datasets}
        return of_parts.pop() if len(of_parts) == 1 else None
    return _class_names(dataset.dataset) if isinstance(dataset, IndexedDataset) else None


def _names_inside(dataset: Any) -> tuple[str, ...] | None:
    """The names of classes of the outermost dataset that has any, of those that this one wraps."""
    names = _class_names(dataset)
    inner = getattr(dataset, "dataset", None)
    return names if names is not None or inner is None else _names_inside(inner)


def _name(dataset: Any, position: int) -> str:
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
        raise ValueError(f"data: {_name(dataset, position)} cannot be read ({error}); replace or remove it") from error
    if came != position:
        raise ValueError(
            f"data: {_name(dataset, position)} cannot be read, and the dataset returned {_name(dataset, came)} in its "
            "place; replace or remove it"
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


def _resized(image: Tensor, side: int | None) -> Tensor:
    if side is None or image.shape[1:] == (side, side):
        return image
    from torchvision.transforms.v2.functional import resize

    found: Tensor = resize(image, [side, side], antialias=True)
    return found


def _sample(dataset: Any, position: int, side: int | None = None) -> tuple[Tensor, int]:
    """The image [C, H, W] and the class of an example."""
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
    return _resized(image, side), _class(sample[1], position)


def _class(label: Any, position: int) -> int:
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


def split_positions(labels: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Positions of the examples to train on and of the fifth that is set aside for testing, always the same.

    Args:
        labels: [N], of which every class is split alike.

    Raises:
        ValueError: too few examples for a fifth of each class.
    """
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(np.arange(len(labels)), test_size=_TEST_SHARE, stratify=labels, random_state=0)
    except ValueError as error:
        raise ValueError(
            f"data: a fifth of each class cannot be set aside for testing: {error} Add examples, or name test data"
        ) from error
    return np.sort(train), np.sort(test)


def _split(images: Images) -> tuple[Images, Images]:
    train, test = (images.select(chosen) for chosen in split_positions(images.labels))
    return train, test
