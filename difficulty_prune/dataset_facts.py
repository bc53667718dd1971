"""What a dataset knows of its examples without reading them, and which of them it returned."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

_MISSING: Final = object()


def columns_of(dataset: Any) -> tuple[str, ...]:
    """The names of the columns of a Hugging Face dataset; none of any other."""
    names = getattr(dataset, "column_names", None)
    whole = isinstance(names, list) and hasattr(dataset, "with_format") and hasattr(dataset, "features")
    return tuple(names) if whole and names is not None else ()


def read_column(dataset: Any, name: str) -> list[Any]:
    """A column of a Hugging Face dataset, read at once, as it is stored."""
    return list(dataset.with_format(None)[name])


def paths_of(dataset: Any) -> list[str] | None:
    """The path of each example below the root, with forward slashes; None for a dataset that does not know its files.

    It knows them by `samples` (or `imgs`) and `root`, as torchvision's folders do, or by a `reader` that has these, as
    timm's datasets do.

    >>> class Folder:
    ...     root, samples = "photos", [("photos/cat/1.png", 0), ("photos/dog/1.png", 1)]
    ...
    ...     def __len__(self):
    ...         return 2
    >>> paths_of(Folder())
    ['cat/1.png', 'dog/1.png']
    """
    if type(dataset) is Subset:
        paths = paths_of(dataset.dataset)
        return None if paths is None else [paths[int(i)] for i in dataset.indices]
    source = _reader(dataset) or dataset
    samples, root = _samples(source, len(dataset)), getattr(source, "root", None)
    if not samples or not isinstance(root, str | os.PathLike):
        return None
    if not isinstance(samples[0][0], str | os.PathLike):
        return _names_in_archive(source, len(samples))
    start = os.path.join(os.fspath(root), "")
    paths = [os.fspath(sample[0]) for sample in samples]
    below = [path[len(start) :] if path.startswith(start) else os.path.relpath(path, root) for path in paths]
    return below if os.sep == "/" else [path.replace(os.sep, "/") for path in below]


def files_of(dataset: Any) -> list[str] | None:
    """The file of each example as the dataset opens it, in order; None for a dataset that does not know its files."""
    if type(dataset) is Subset:
        files = files_of(dataset.dataset)
        return None if files is None else [files[int(i)] for i in dataset.indices]
    samples = _samples(_reader(dataset) or dataset, len(dataset))
    if not samples or not knows_files(dataset) or not isinstance(samples[0][0], str | os.PathLike):
        return None
    return [os.fspath(sample[0]) for sample in samples]


def knows_files(dataset: Any) -> bool:
    """Whether `paths_of` has an answer; found out at once, whatever the number of examples."""
    if type(dataset) is Subset:
        return knows_files(dataset.dataset)
    source = _reader(dataset) or dataset
    samples = _samples(source, len(dataset))
    if not samples or not isinstance(getattr(source, "root", None), str | os.PathLike):
        return False
    return isinstance(samples[0][0], str | os.PathLike) or _names_in_archive(source, len(samples)) is not None


def _reader(dataset: Any) -> Any:
    reader = vars(dataset).get("reader") if hasattr(dataset, "__dict__") else None
    return reader if hasattr(reader, "__getitem__") and hasattr(reader, "filename") else None


def _samples(source: Any, size: int) -> Sequence[Any] | None:
    """(file, class) of each example."""
    for name in ("samples", "imgs"):
        found = getattr(source, name, None)
        if isinstance(found, list | tuple) and len(found) == size and _is_pair(found[0]):
            return found
    return None


def _is_pair(sample: Any) -> bool:
    return isinstance(sample, list | tuple) and len(sample) > 1


def _names_in_archive(reader: Any, size: int) -> list[str] | None:
    """Of a reader of timm whose files are in an archive."""
    names = reader.filenames() if hasattr(reader, "filenames") else []
    return list(names) if len(names) == size and all(isinstance(name, str) for name in names) else None


def known_labels(dataset: Any) -> Sequence[Any] | NDArray[Any] | None:
    """One label of any kind per example, as far as they are known without reading examples; else None."""
    if isinstance(dataset, Subset):
        whole = known_labels(dataset.dataset)
        return None if whole is None else [whole[int(i)] for i in dataset.indices]
    if callable(getattr(dataset, "target_transform", None)):
        return None  # which makes other labels of these
    for name in ("targets", "labels"):
        value = getattr(dataset, name, None)
        if value is not None and hasattr(value, "__len__") and len(value) == len(dataset):
            return value.tolist() if isinstance(value, Tensor) else value
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return list(dataset.tensors[1].tolist())
    label = _label_column(dataset)
    if label is not None:
        return read_column(dataset, label)
    reader = _reader(dataset)
    samples = None if reader is None else _samples(reader, len(dataset))
    return None if samples is None else [sample[1] for sample in samples]


def _label_column(dataset: Any) -> str | None:
    """Of a Hugging Face dataset; None where a transform may make other labels of it."""
    names = columns_of(dataset)
    if names and dataset.format["type"] == "custom":
        return None
    return next((name for name in ("label", "labels") if name in names), None)


def class_names_of(dataset: Any) -> tuple[str, ...] | None:
    """The name of each class, where the dataset knows them; of several names for one, all, with commas."""
    if isinstance(dataset, Subset):
        return class_names_of(dataset.dataset)
    if callable(getattr(dataset, "target_transform", None)):
        return None
    names = getattr(dataset, "classes", None)
    label = _label_column(dataset)
    if label is not None:
        names = getattr(dataset.features[label], "names", None)
    reader = _reader(dataset)
    if names is None and reader is not None:
        places = getattr(reader, "class_to_idx", None)
        in_order = isinstance(places, Mapping) and sorted(places.values()) == list(range(len(places)))
        names = sorted(places, key=places.__getitem__) if in_order and places is not None else None
    if not isinstance(names, list | tuple):
        return None
    texts = [", ".join(name) if isinstance(name, list | tuple) else name for name in names]
    return tuple(texts) if all(isinstance(text, str) for text in texts) else None


# Which example was returned


def may_return_another(dataset: Any) -> bool:
    """Whether a dataset of files may return another example than the one asked for, and tells which one it read.

    torchvision's folders do not; classes derived from them may, and timm's do where a file cannot be read.
    """
    if type(dataset) is Subset:
        return may_return_another(dataset.dataset)
    if _reader(dataset) is not None:
        return True
    plain = getattr(type(dataset).__getitem__, "__module__", "") == "torchvision.datasets.folder"
    own = vars(dataset) if hasattr(dataset, "__dict__") else {}
    return not plain and "samples" in own and callable(own.get("loader"))


def fetch_and_tell(dataset: Any, position: int) -> tuple[Any, int]:
    """The sample that the dataset returns for a position, and the position of the file that it is of.

    The dataset is asked through a stand-in: an object of the same class with the same attributes, of which those that
    give out files note which ones. The dataset itself stays as it is, and threads do not see each other's notes.

    Raises:
        ValueError: several files were read, so that it is not known whose sample it is; or one that a subset lacks.
    """
    if type(dataset) is Subset:
        sample, inner = fetch_and_tell(dataset.dataset, int(dataset.indices[position]))
        if inner == dataset.indices[position]:
            return sample, position
        places = [place for place, i in enumerate(dataset.indices) if i == inner]
        if not places:
            raise ValueError(
                f"example {position} could not be read, and the dataset returned its example {inner} in its place, "
                "which is not in this subset: leave out files that cannot be read"
            )
        return sample, places[0]
    reads: list[int] = []
    reader = _reader(dataset)
    noting: dict[str, Any]
    if reader is not None:
        noting = {"reader": _Noting(reader, reads.append)}
    else:
        loaded = _Loads(dataset.loader, reads)
        noting = {"samples": _Noting(dataset.samples, loaded.note), "loader": loaded}
    sample = _ask(dataset, noting, position)
    size = len(dataset)
    found = list(dict.fromkeys(read % size for read in reads))
    if len(found) > 1 and reader is None:
        raise ValueError(
            f"for example {position} the files of examples {', '.join(map(str, found))} were read, so that it is not "
            "known whose sample it is. Let the sample bring its path and name it with key=; or, if several are meant "
            "to be mixed, say key=False: the index is then the position that was asked for"
        )
    return sample, found[-1] if found else position


def _ask(dataset: Any, noting: Mapping[str, Any], position: int) -> Any:
    stand_in = object.__new__(type(dataset))
    stand_in.__dict__.update({**vars(dataset), **noting})
    try:
        return stand_in[position]
    finally:  # what the dataset remembers of itself, such as an open file
        for name, value in vars(stand_in).items():
            if name not in noting and vars(dataset).get(name, _MISSING) is not value:
                dataset.__dict__[name] = value


class _Noting:
    """A list of samples or a reader that notes which of them are asked for."""

    def __init__(self, source: Any, note: Callable[[int], None]) -> None:
        self._source, self._note = source, note

    def __getitem__(self, index: Any) -> Any:
        found = self._source[index]
        if not isinstance(index, slice):
            self._note(int(index))
        return found

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._source)

    def __getattr__(self, name: str) -> Any:
        if name == "_source":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._source, name)


class _Loads:
    """A loader of files that notes whose it could read: those of the sample that was asked for last."""

    def __init__(self, loader: Callable[[Any], Any], reads: list[int]) -> None:
        self._loader, self._reads = loader, reads
        self._asked: int | None = None

    def note(self, index: int) -> None:
        self._asked = index

    def __call__(self, path: Any) -> Any:
        loaded = self._loader(path)
        if self._asked is not None:
            self._reads.append(self._asked)
        return loaded


def key_of(sample: Any, key: str | int | Callable[[Any], Any]) -> Any:
    """What `key` says of a sample: a field of a mapping or named tuple, an element of a tuple, or a function's result.

    Raises:
        KeyError: the sample has no such field or element.
    """
    if isinstance(key, str):
        if isinstance(sample, Mapping) and key in sample:
            return sample[key]
        if isinstance(sample, tuple) and key in getattr(sample, "_fields", ()):
            return getattr(sample, key)
    elif isinstance(key, int):
        if isinstance(sample, list | tuple) and -len(sample) <= key < len(sample):
            return sample[key]
    else:
        return key(sample)
    raise KeyError(key)


def describe_sample(sample: Any) -> str:
    """What a sample has, for messages."""
    if isinstance(sample, Mapping):
        return f"a mapping with {', '.join(map(repr, sample))}"
    if isinstance(sample, tuple) and hasattr(sample, "_fields"):
        return f"a named tuple with {', '.join(sample._fields)}"
    if isinstance(sample, list | tuple):
        return f"a {type(sample).__name__} of {len(sample)}"
    return f"{tuple(sample.shape)}" if isinstance(sample, torch.Tensor) else type(sample).__name__
