"""The data of a study: labelled images, small ones in memory, and others read when they are needed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset

from ..data import IndexedDataset
from ..dataset_facts import class_names_of, known_labels
from ..support.name_some import name_some
from .hugging_face import open_saved
from .images import Images
from .named_function import import_function, names_function
from .photographs import Photographs, are_photographs, open_rgb, read_labels
from .plant import Planted, plant_wrong
from .read_sample import bring_to, check_class, check_shape, read_sample
from .tables import SCIKIT_LEARN_REGRESSION, Table, encoded, read_table, scikit_learn_table

_MEMORY_LIMIT: Final = 2**29  # bytes; every training that runs at the time holds the images too
TEST_SHARE: Final = 0.2
"""Of data without test data of its own, the part that is set aside for testing."""

_MOST_CLASSES: Final = 1_000_000
Examples = Images | Photographs
FORMS: Final = (
    "digits, imagefolder:DIR, torchvision:NAME:ROOT, datasets:DIR, sklearn:NAME, table:FILE (with --label, or "
    "table:FILE#COLUMN) or your.module:function"
)


@dataclass(frozen=True)
class StudyData:
    """Training and test images of one shape, and the number of classes; `split`: both are parts of the data named."""

    train: Examples
    test: Examples
    num_classes: int
    planted: Planted | None = None
    table: bool = False
    regression: bool = False
    split: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.train.shape

    @property
    def classes(self) -> Tensor | None:
        """The class of each training example, [N] int64; None where numbers are to be predicted."""
        return None if self.regression else self.train.labels

    @property
    def names_of_classes(self) -> tuple[str, ...] | None:
        """The name of each class, where all are known."""
        names = self.train.class_names
        return names if names is not None and len(names) >= self.num_classes else None

    @property
    def set_aside(self) -> list[str | int] | int:
        """What was set aside for testing, of the data that was named: ids, or how many where they are not known."""
        if not self.split:
            return 0
        return len(self.test) if self.test.ids is None else self.test.ids.tolist()

    @functools.cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, each [C, 1, 1], of a fixed part of the training images."""
        mean, deviation = self.train.moments()
        return mean, deviation.clamp(min=1e-6)  # a channel that never changes is divided by this


@functools.cache
def load_data(
    spec: str, test_spec: str | None = None, size: int | None = None, wrong: float = 0.0, seed: int = 0
) -> StudyData:
    """Loads the images that a `--data` argument names, and keeps them for the life of the process.

    Where no test data is named and the source brings none, a fifth of the images, chosen class by class and always
    the same, is set aside for testing.

    Args:
        spec, test_spec: of the forms in `FORMS`. Of one for the test that itself brings test data, these are taken.
        size: the side to which every image is brought; None for as they are. Of more than 96 pixels, and where they
            would take more than 512 MiB, images are not held in memory: see `Photographs`.
        wrong: the share of the training labels that is made wrong, at random by `seed`.

    Raises:
        TypeError, ValueError: a spec of an unknown form, samples that are no (image, label), images of different
            shapes, pixels that are not finite, labels that are no classes, a single class, or test data of another
            shape or with other classes. Of photographs, which are not read here, see `Photographs.read_all`.
        FileNotFoundError: there is no such folder.

    >>> data = load_data("digits")
    >>> data.shape, data.num_classes, len(data.train), len(data.test)
    ((1, 8, 8), 10, 1437, 360)
    """
    table = is_table(spec)
    if table:
        train, test = _load_tables(spec, test_spec, size)
        split = test_spec is None
    else:
        train, own_test = _load(spec, size)
        if test_spec is not None:
            other, its_test = _load(test_spec, size)
            own_test = other if its_test is None else its_test
        split = own_test is None
        train, test = (train, own_test) if own_test is not None else _split(train)
    regression = train.labels.is_floating_point()
    _check_test_data(train, test)
    classes = 1 if regression else int(train.labels.max()) + 1
    data = StudyData(train, test, classes, table=table, regression=regression, split=split)
    if not wrong:
        return data
    if regression:
        raise ValueError(f"plant_wrong: got {wrong} for numbers to predict, expected 0: it makes classes wrong")
    planted = plant_wrong(train.labels, wrong, seed, train.ids)
    labels = train.labels.clone()
    labels[torch.from_numpy(planted.index)] = torch.from_numpy(planted.given)
    return replace(data, train=train.with_labels(labels), planted=planted)


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


def _check_test_data(train: Examples, test: Examples) -> None:
    """ValueError unless a model trained on `train`, which has several classes, can be tested on `test`."""
    if train.shape != test.shape:
        raise ValueError(f"test: got images of shape {list(test.shape)}, expected {list(train.shape)} as for training")
    if train.labels.is_floating_point():
        return
    names, others = train.class_names or train.names_inside, test.class_names or test.names_inside
    if names and others and names != others:
        differing = sorted(set(names) ^ set(others))
        raise ValueError(
            f"test: got {len(others)} classes, expected the {len(names)} of the training data, or their numbers do not "
            f"match; {name_some(differing)} not in both"
        )
    known = set(train.labels.unique().tolist())
    if max(known) >= _MOST_CLASSES:  # a model has an output for each number
        raise ValueError(f"data: got label {max(known)}, expected classes numbered from 0, below {_MOST_CLASSES:,}")
    if len(known) < 2:
        raise ValueError(f"data: got examples of class {min(known)} only, expected two classes or more")
    unknown = sorted(set(test.labels.unique().tolist()) - known)
    if unknown:
        raise ValueError(f"test: got class {name_some(unknown)}, of which there is no training example")


def _load(spec: str, size: int | None) -> tuple[Examples, Examples | None]:
    train, test = _find(spec, size)
    return _examples(train, size), None if test is None else _examples(test, size)


def is_table(spec: str) -> bool:
    """Whether examples are rows of a table.

    >>> is_table("table:irises.csv#species"), is_table("sklearn:iris"), is_table("digits")
    (True, True, False)
    """
    return spec.partition(":")[0] in ("table", "regression", "sklearn")


def is_regression(spec: str) -> bool:
    """Whether numbers are to be predicted.

    >>> is_regression("sklearn:diabetes"), is_regression("regression:homes.csv#price"), is_regression("sklearn:iris")
    (True, True, False)
    """
    kind, _, rest = spec.partition(":")
    return kind == "regression" or (kind == "sklearn" and rest in SCIKIT_LEARN_REGRESSION)


def _load_tables(spec: str, test_spec: str | None, size: int | None) -> tuple[Examples, Examples]:
    if size is not None:
        raise ValueError(f"size: got {size} for {spec}, whose examples are no images; leave --size out")
    train = _table(spec)
    if test_spec is None:
        first, second = (train.select(chosen) for chosen in split_positions(train.targets, not train.classes))
        return encoded(first, second)
    if not is_table(test_spec):
        raise ValueError(f"test: got {test_spec!r}, expected a table as the training data: table:FILE")
    if is_regression(spec) != is_regression(test_spec):
        raise ValueError(f"test: got {test_spec!r}, expected labels of the kind that {spec!r} has")
    return encoded(train, _table(test_spec, train.classes))


def _table(spec: str, classes: tuple[str, ...] | None = None) -> Table:
    kind, _, rest = spec.partition(":")
    return scikit_learn_table(rest) if kind == "sklearn" else read_table(rest, classes, kind == "regression")


def _find(spec: str, size: int | None = None) -> tuple[Any, Any]:
    """The training data and the test data, or None, as map-style datasets of (image, label)."""
    kind, _, rest = spec.partition(":")
    if spec == "digits":
        return _digits(), None
    if kind == "imagefolder" and rest:
        return _image_folder(rest, size), None
    if kind == "datasets" and rest:
        return open_saved(rest)
    if is_table(spec) and rest:
        table = _table(spec)
        return IndexedDataset(table, ids=table.ids), None
    if kind == "torchvision" and ":" in rest:
        return _torchvision(*rest.split(":", 1))  # a folder of Windows has a colon of its own
    if names_function(spec) and rest:
        return _from_function(spec)
    raise ValueError(f"data: got {spec!r}, expected {FORMS}{_meant(spec)}")


def _meant(spec: str) -> str:
    """What a file or folder that is there may have been meant as."""
    path = Path(spec)
    if path.is_file():
        return f"; for this file say table:{spec} --label COLUMN"
    if path.is_dir():
        return f"; for this folder say {'datasets' if _is_saved(path) else 'imagefolder'}:{spec}"
    return ""


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def _digits() -> IndexedDataset:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = Images(torch.from_numpy(pixels).float().view(-1, 1, 8, 8), torch.from_numpy(labels).long())
    return IndexedDataset(images, ids=np.arange(len(images)))  # by their number in scikit-learn's table


def _image_folder(folder: str, size: int | None) -> Any:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one that holds a folder of images for each class")
    from torchvision.datasets import ImageFolder

    found = ImageFolder(folder, loader=functools.partial(open_rgb, side=size) if are_photographs(size) else open_rgb)
    names: dict[str, str] = {}
    for name in dict.fromkeys(os.path.dirname(path) for path, _ in found.samples):
        other = names.setdefault(os.path.realpath(name), name)
        if other != name:  # a link, perhaps to a folder that it is in
            raise ValueError(f"data: {name} is {other} once more, whose images would be there twice; remove the link")
    return found


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


def _examples(dataset: Any, side: int | None = None) -> Examples:
    """A map-style dataset of (image, label): small images in memory, others where they are."""
    if len(dataset) == 0:
        raise ValueError(f"data: {type(dataset).__name__} is empty")
    ids, names, inside = _ids(dataset), _class_names(dataset), _names_inside(dataset)
    first, _ = read_sample(dataset, 0, bring_to(side))
    if are_photographs(side) or len(dataset) * first.numel() * first.element_size() > _MEMORY_LIMIT:
        labels = _labels_alone(dataset)
        return Photographs(dataset, labels, side, class_names=_naming(names, labels), ids=ids, names_inside=inside)
    images, labels = _to_tensors(dataset, first, side)
    return Images(images, labels, _naming(names, labels), ids, inside)


def _naming(names: tuple[str, ...] | None, labels: Tensor) -> tuple[str, ...] | None:
    """The names of the classes, unless they are of other classes."""
    return names if names is not None and len(names) > int(labels.max()) else None


def _to_tensors(dataset: Any, first: Tensor, side: int | None) -> tuple[Tensor, Tensor]:
    """All images [N, C, H, W] and labels [N]; images are PIL, arrays [H, W(, C)] or tensors [C, H, W]."""
    images = torch.empty(len(dataset), *first.shape, dtype=first.dtype, device="cpu")
    labels = torch.empty(len(dataset), dtype=torch.int64, device="cpu")
    for i in range(len(dataset)):
        image, label = read_sample(dataset, i, bring_to(side))
        check_shape(dataset, i, image, tuple(first.shape))
        images[i], labels[i] = image, label
    return images, labels


def _labels_alone(dataset: Any) -> Tensor:
    """The label of each example, [N] int64; every one is read for it where the dataset does not know them."""
    known = known_labels(dataset)
    if known is None:
        return read_labels(dataset)
    return torch.tensor([check_class(label, i) for i, label in enumerate(known)], dtype=torch.int64, device="cpu")


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


def split_positions(labels: Any, regression: bool = False) -> tuple[NDArray[Any], NDArray[Any]]:
    """Positions of the examples to train on and of the fifth that is set aside for testing, always the same.

    Args:
        labels: [N], of which every class is split alike.
        regression: the labels are no classes, and split at random.

    Raises:
        ValueError: too few examples for a fifth of each class.
    """
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(
            np.arange(len(labels)), test_size=TEST_SHARE, stratify=None if regression else labels, random_state=0
        )
    except ValueError as error:
        raise ValueError(
            f"data: a fifth of each class cannot be set aside for testing: {error} Add examples, or name test data"
        ) from error
    return np.sort(train), np.sort(test)


def _split(images: Examples) -> tuple[Examples, Examples]:
    train, test = (images.select(chosen) for chosen in split_positions(images.labels))
    return train, test
