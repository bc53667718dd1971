"""Datasets that say which example is which."""

from __future__ import annotations

import functools
import hashlib
import operator
import warnings
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from .corrected import with_labels
from .dataset_facts import (
    class_names_of,
    columns_of,
    describe_sample,
    fetch_and_tell,
    key_of,
    known_labels,
    knows_files,
    may_return_another,
    paths_of,
    read_column,
)
from .decisions.decisions import Decisions, expect_decisions
from .support.counted import counted
from .support.ids import check_ids, id_of, positions_of

_EXACT_IN_FLOAT64: Final = 2**53


class IndexedDataset(Dataset[Any]):
    """Wraps a map-style dataset so that every sample carries its position 0..N-1.

    A tuple or list sample gains the index as its last element, a named tuple the field `index_key`, a mapping the key
    `index_key`, and any other sample becomes (sample, index). The default collate function turns indices into an int64
    tensor.

    With ids, which name examples for good, the index is that of the sample that *came*, not of the one asked for: some
    datasets return another where a file cannot be read.

    Args:
        dataset: map-style, with `__len__`; its `__getitems__` (batched fetching) is used where it has one.
        key: what names an example for good, text or a whole number:

            - None: the path below the root, where the dataset knows its files, as torchvision's ImageFolder and timm's
              datasets do; otherwise there are no ids;
            - "path": the same, and an error where the dataset does not know its files;
            - the name of a field of samples that are mappings (such as "__key__") or named tuples, or of a column of a
              Hugging Face dataset;
            - a number: the place of the id in samples that are tuples;
            - a function: of the sample, returns its id;
            - False: no ids. The index is the position that was asked for.
        ids: [N] the ids in order, where you know them, so that no sample has to be read for them.
        index_key: name of the index in samples that are mappings or named tuples.
        decisions: of people; examples that they gave another label are served with it. The label of a sample is its
            second element, or its key "label" or "labels". Decisions on ids that the dataset lacks are counted in a
            warning.

    Raises:
        TypeError: an iterable-style dataset, or one without a length, or a key that is none of these; or a sample with
            another label than a whole number, which is to be corrected.
        ValueError: an empty dataset, a sample that has `index_key` already, "path" of a dataset without files, an id
            that occurs twice; or a sample was asked for before `collect_ids`, where only samples know their ids.
        IndexError: a position outside the dataset.

    >>> IndexedDataset([("a", 0), ("b", 1)])[1]
    ('b', 1, 1)
    >>> named = IndexedDataset([{"name": "x7", "y": 0}, {"name": "x9", "y": 1}], key="name")
    >>> named.collect_ids()
    array(['x7', 'x9'], dtype=object)
    >>> named[1]
    {'name': 'x9', 'y': 1, 'index': 1}
    """

    def __init__(
        self,
        dataset: Any,
        key: str | int | Callable[[Any], Any] | None = None,
        *,
        ids: Any = None,
        index_key: str = "index",
        decisions: Decisions | None = None,
    ) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            raise TypeError(
                f"dataset: got {type(dataset).__name__}, expected a map-style dataset (one with __getitem__): "
                "the examples of an iterable dataset have no position to be scored by; to score them by their ids, see "
                "dp.StreamIndex, and to leave some out, dp.StreamPruner"
            )
        if not hasattr(dataset, "__len__"):
            raise TypeError(f"dataset: {type(dataset).__name__} has no __len__, so its examples cannot be counted")
        if len(dataset) == 0:
            raise ValueError(f"dataset: {type(dataset).__name__} is empty, there is nothing to score")
        if (key is not None and not isinstance(key, str | int) and not callable(key)) or key is True:
            raise TypeError(f"key: got {key!r}, expected a name, a place in the sample, a function of it, or False")
        self.dataset = dataset
        self.key = key
        self.index_key = index_key
        self._ids: NDArray[Any] | None = None
        self._positions: dict[str | int, int] | None = None
        self._by_path = key in (None, "path") and knows_files(dataset)
        self._in_sample = not (self._by_path or key is None or key is False)
        self._tells = self._by_path and may_return_another(dataset)
        if ids is not None:
            known = self._know(check_ids(ids))
            if len(known) != len(dataset):
                raise ValueError(f"ids: got {len(known)}, expected {len(dataset)}, one for each example")
        elif key == "path" and self._by_path:
            self._know(check_ids(paths_of(dataset), "path"))
        elif isinstance(key, str) and key in columns_of(dataset):
            self._know(check_ids(read_column(dataset, key), f"column {key!r}"))
        elif key == "path" and not isinstance(dataset[0], Mapping):
            raise ValueError(
                f"key: got 'path', but {type(dataset).__name__} does not know its files, by .samples and .root"
            )
        self.decisions = None if decisions is None else expect_decisions(decisions)
        self._corrections: Mapping[int, int] = {}
        if not self._in_sample or self._ids is not None:
            self._correct()

    def _know(self, ids: NDArray[Any]) -> NDArray[Any]:
        ids.setflags(write=False)
        self._ids = ids
        return ids

    def _correct(self) -> None:
        """Finds the examples whose labels are corrected, and warns of decisions on others."""
        if self.decisions is not None:
            corrections = self.decisions.corrections(self)
            before = self.labels if corrections else None
            self._corrections = corrections
            same = [] if before is None else [p for p, label in corrections.items() if before[p] == label]
            if same:
                labels = counted(
                    len(same),
                    "label is called wrong and corrected to what it is",
                    "labels are called wrong and corrected to what they are",
                )
                warnings.warn(
                    f"decisions: {labels}, the first of example {same[0]}: say 'keep', or give the right label",
                    stacklevel=3,
                )
            check = self.decisions.check(self)
            if check.missing:
                warnings.warn(f"decisions: {check}", stacklevel=3)

    @property
    def ids(self) -> NDArray[Any] | None:
        """[N] of Python texts (dtype object) or int64, in order; None where there are none, or before `collect_ids`.

        Raises:
            ValueError: an id that occurs twice; the message names it and both positions.
        """
        if self._ids is None and self._by_path:
            return self._know(check_ids(paths_of(self.dataset), "path"))
        return self._ids

    def collect_ids(self, *, num_workers: int = 0) -> NDArray[Any]:
        """The ids, for which every sample is read once where they are not known; do so before a loader has workers.

        Args:
            num_workers: processes that read; 0 for this one.

        Raises:
            ValueError: no ids; or one that occurs twice, as where a dataset returned another sample in place of one.
            TypeError: an id that is neither text nor a whole number.
        """
        known = self.ids
        if known is not None:
            return known
        if not self._in_sample:
            raise ValueError(f"collect_ids: {type(self.dataset).__name__} names no examples; say how with key=")
        loader = DataLoader(_Ids(self), batch_size=None, num_workers=num_workers, generator=torch.Generator())
        with torch.device("cpu"):  # where the loader draws seeds, whatever the default device is
            iterator = iter(loader)
        ids = self._know(check_ids(list(iterator), f"key {self.key!r}"))
        self._correct()
        return ids

    def id_at(self, position: int) -> str | int:
        """The id that the sample of a position brings; the sample is read for it."""
        return self._id_of(self.dataset[position], position)

    @property
    def labels(self) -> NDArray[Any] | None:
        """[N] int64, the classes of all examples, corrected; None where they are not known without reading examples."""
        known = known_labels(self.dataset)
        numbers = None if known is None else _numbers(known)
        if numbers is None or numbers.dtype.kind not in "iub":
            return None
        labels = numbers.astype(np.int64)
        for position, label in self._corrections.items():
            labels[position] = label
        return labels

    def correct_all(self, labels: Any) -> Any:
        """Labels of any kind, one per example, with the corrections; None for None."""
        if labels is None or not self._corrections:
            return labels
        return [self._corrections.get(position, label) for position, label in enumerate(labels)]

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The name of each class, from the dataset's `classes` or features; None where it does not know them."""
        return class_names_of(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets on the dataset what it has, such as `train.transform = ...`, which would do nothing here."""
        if name in _OWN:
            object.__setattr__(self, name, value)
        elif hasattr(self.dataset, name):
            setattr(self.dataset, name, value)
        else:
            raise AttributeError(
                f"{name}: {type(self.dataset).__name__} has no such attribute to be set; set it on the dataset itself"
            )

    def __getitem__(self, index: Any) -> Any:
        """The sample of a position; of several, in a list or an array, the batch that the dataset gives for them."""
        if isinstance(index, list | tuple | np.ndarray) or (isinstance(index, Tensor) and index.dim()):
            _refuse_mask(index)
            positions = [self._position(i) for i in index]
            batch = self.dataset[positions]
            if self._in_sample:
                positions = self._positions_in(batch, positions)
            return self._attach(batch, torch.tensor(positions, dtype=torch.int64, device="cpu"))
        position = self._position(index)
        if self._tells:
            return self._attach(*fetch_and_tell(self.dataset, position))
        sample = self.dataset[position]
        return self._attach(sample, self._came(sample, position))

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Samples of several positions; PyTorch's DataLoader fetches a batch by one such call."""
        positions = [self._position(index) for index in indices]
        if self._tells:
            return [self[position] for position in positions]
        fetch = getattr(self.dataset, "__getitems__", None)
        samples = fetch(positions) if fetch else [self.dataset[position] for position in positions]
        pairs = zip(samples, positions, strict=True)
        return [self._attach(sample, self._came(sample, position)) for sample, position in pairs]

    def _came(self, sample: Any, asked: int) -> int:
        """The position of the sample that came."""
        if not self._in_sample or not self._brings(sample):
            return asked
        return self._position_of(self._id_of(sample, asked), asked)

    def _brings(self, sample: Any) -> bool:
        """Whether a sample has its id; a transform of a Hugging Face dataset, which swaps none, may take it away."""
        has = isinstance(self.key, str) and isinstance(sample, Mapping) and self.key in sample
        return has or not columns_of(self.dataset)

    def _id_of(self, sample: Any, asked: int) -> str | int:
        assert self.key is not None
        try:
            found = key_of(sample, self.key)
        except KeyError as error:
            raise ValueError(
                f"key: got {self.key!r}, but the sample of example {asked} is {describe_sample(sample)}. (The name of "
                "the index in a sample is index_key=.)"
            ) from error
        return id_of(found, f"key {self.key!r}", f"example {asked}")

    def _position_of(self, name: str | int, asked: int) -> int:
        if self._positions is None:
            if self._ids is None:
                raise ValueError(
                    f"key: got {self.key!r}, so that only the samples know their ids; call collect_ids() first, which "
                    "reads every sample once, before a loader has workers"
                )
            self._positions = positions_of(self._ids)
        if name not in self._positions:
            raise ValueError(
                f"asked for example {asked}, the dataset returned one with the id {name!r}, which is not among its "
                f"{len(self)} ids: it has changed since they were read"
            )
        return self._positions[name]

    def _positions_in(self, batch: Any, asked: list[int]) -> list[int]:
        """Of a batch that is a mapping of lists, as Hugging Face datasets give them."""
        if not self._brings(batch):
            return asked
        if not (isinstance(batch, Mapping) and isinstance(self.key, str) and len(batch[self.key]) == len(asked)):
            raise TypeError(
                f"index: got {len(asked)} positions at once, but key {self.key!r} is asked of one sample at a time; "
                "fetch them one by one, as a DataLoader does"
            )
        pairs = zip(batch[self.key], asked, strict=True)
        return [self._position_of(id_of(name, f"key {self.key!r}", f"example {i}"), i) for name, i in pairs]

    def _position(self, index: int) -> int:
        try:
            position = operator.index(index)
        except TypeError as error:
            raise TypeError(f"index: got {index!r}, expected a whole number") from error
        size = len(self.dataset)
        if not -size <= position < size:
            raise IndexError(f"index: got {position}, expected 0..{size - 1}")
        return position % size

    def _attach(self, sample: Any, position: int | Tensor) -> Any:
        if self._corrections:
            sample = with_labels(sample, position, self._corrections)
        if isinstance(sample, Mapping):
            self._check_free(self.index_key in sample)
            return {**sample, self.index_key: position}
        if isinstance(sample, list):
            return [*sample, position]
        if isinstance(sample, tuple) and hasattr(sample, "_fields"):
            self._check_free(self.index_key in sample._fields)
            return _indexed_named_tuple(type(sample), self.index_key, (*sample, position))
        if isinstance(sample, tuple):
            return (*sample, position)
        return (sample, position)

    def _check_free(self, taken: bool) -> None:
        if taken:
            raise ValueError(
                f"the sample has a key {self.index_key!r} already; choose another name of the index with index_key=..."
            )


_OWN: Final = (
    "dataset",
    "key",
    "index_key",
    "decisions",
    "_corrections",
    "_ids",
    "_positions",
    "_by_path",
    "_in_sample",
    "_tells",
)


class _Ids(Dataset[Any]):
    """The ids of the samples, in the processes of a loader."""

    def __init__(self, dataset: IndexedDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> str | int:
        return self.dataset.id_at(position)


def _refuse_mask(index: Any) -> None:
    """TypeError for a mask of bool, whose values would pass for the positions 0 and 1."""
    first = index[0] if len(index) else None
    if isinstance(first, bool | np.bool_) or (isinstance(first, Tensor) and first.dtype == torch.bool):
        raise TypeError(
            "index: got a mask of bool, expected positions, such as [i for i, kept in enumerate(mask) if kept]"
        )


def _indexed_named_tuple(kind: Any, key: str, values: tuple[Any, ...]) -> Any:
    """A named tuple with one more field; workers send it as the call that made it, since its class is in no module."""
    return _with_field(kind, key)(*values)


@functools.cache
def _with_field(kind: Any, key: str) -> Any:
    def reduce(self: tuple[Any, ...]) -> tuple[Any, ...]:
        return _indexed_named_tuple, (kind, key, tuple(self))

    base: Any = namedtuple(kind.__name__, (*kind._fields, key))  # type: ignore[misc]
    return type(kind.__name__, (base,), {"__slots__": (), "__reduce__": reduce})


def dataset_fingerprint(dataset: Any, labels: Any = None, samples: int = 64) -> str:
    """Identifies a dataset: a hash of its length, its labels in order and a fixed sample of its examples.

    Args:
        dataset: map-style, without random augmentation. Wrap it in IndexedDataset before or after: no difference.
        labels: [N], one of any kind per example. Default: the dataset's `targets` or `labels`; where there is neither,
            every example is read for its label, which can take long. Where examples show no label, these count alone.
        samples: examples that are read and hashed, spread evenly.

    Returns:
        32 hexadecimal digits.

    Raises:
        ValueError: an empty dataset, labels of another length, or an example that differs from one reading to the
            next.
        TypeError: an example or a label that holds something else than numbers, text, arrays, tensors and images.

    >>> a = TensorDataset(torch.arange(6.0), torch.tensor([0, 1, 0, 1, 0, 1]))
    >>> dataset_fingerprint(a) == dataset_fingerprint(IndexedDataset(a))
    True
    """
    return fingerprint_and_classes(dataset, labels, samples)[0]


def fingerprint_and_classes(dataset: Any, labels: Any = None, samples: int = 64) -> tuple[str, NDArray[np.int64]]:
    """`dataset_fingerprint`, and the class that each example shows that is read for it, [N] int64; -1 for the others.

    A class is a whole number that is the second of a pair, or the label of a mapping: of longer tuples it is not known
    which element is trained on.

    >>> fingerprint_and_classes([("a", 2), ("b", 0)])[1]
    array([2, 0])
    """
    while isinstance(dataset, IndexedDataset):
        dataset = dataset.dataset
    size = len(dataset)
    if size == 0:
        raise ValueError(f"dataset: {type(dataset).__name__} is empty, there is nothing to identify")
    if isinstance(labels, Mapping):
        raise TypeError(f"labels: got {type(labels).__name__}, expected one label per example, in order")
    classes = np.full(size, -1)
    known = _declared(dataset) if labels is None else _as_sequence(labels)
    if known is None and _target(dataset[0]) is not None:
        known = []
        for position in range(size):
            sample = dataset[position]
            known.append(_target(sample))
            classes[position] = _class_in(sample)
    if known is not None and len(known) != size:
        raise ValueError(f"labels: got shape ({len(known)},), expected [{size}], one per example")
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.int64(size).tobytes())
    if known is not None:
        digest.update(_digest_of_labels(known))
    for position in np.unique(np.linspace(0, size - 1, num=min(samples, size)).astype(np.int64)).tolist():
        sample = dataset[position]
        example = _digest(sample)
        if example != _digest(dataset[position]):
            raise ValueError(
                f"dataset: example {position} differs between two readings; pass the data without random augmentation"
            )
        digest.update(example)
        classes[position] = _class_in(sample)
    return digest.hexdigest(), classes


def dataset_labels(dataset: Any) -> NDArray[np.int64]:
    """Class labels of a dataset in order, [N] int64: its `targets` or `labels`, else read example by example.

    Raises:
        TypeError: examples that show no label, or labels that are no whole numbers.

    >>> dataset_labels([("a", 2), ("b", 0)]).tolist()
    [2, 0]
    """
    targets = _targets(dataset)
    if targets is None:
        raise TypeError(f"labels: the examples of {type(dataset).__name__} show no label; pass labels=... explicitly")
    numbers = _numbers(targets)
    if numbers is None or numbers.dtype.kind not in "iub":
        got = f"{type(targets[0]).__name__} such as {targets[0]!r}" if numbers is None else numbers.dtype
        raise TypeError(f"labels: got {got}, expected whole numbers: the classes")
    return numbers.astype(np.int64)


def label_key(sample: Mapping[Any, Any]) -> str | None:
    """The key of the label in a mapping, "label" or "labels"; None if there is neither."""
    return next((key for key in ("label", "labels") if key in sample), None)


def _targets(dataset: Any) -> Sequence[Any] | NDArray[Any] | None:
    """One label of any kind per example, for which every one is read where need be; None where examples show none."""
    declared = _declared(dataset)
    if declared is not None or _target(dataset[0]) is None:
        return declared
    return [_target(dataset[i]) for i in range(len(dataset))]


def _declared(dataset: Any) -> Sequence[Any] | NDArray[Any] | None:
    """One label of any kind per example, as far as the dataset says so without reading examples; else None."""
    if isinstance(dataset, IndexedDataset):
        corrected: list[Any] | None = dataset.correct_all(_declared(dataset.dataset))
        return corrected
    if isinstance(dataset, Subset):
        whole = _declared(dataset.dataset)
        if isinstance(whole, np.ndarray):
            return np.asarray(whole[np.asarray(dataset.indices, dtype=np.int64)])
        return None if whole is None else [whole[int(i)] for i in dataset.indices]
    for name in ("targets", "labels"):
        value = getattr(dataset, name, None)
        if value is not None and hasattr(value, "__len__"):
            return _as_sequence(value)
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return _as_sequence(dataset.tensors[1])
    return known_labels(dataset)


def _as_sequence(labels: Any) -> Sequence[Any] | NDArray[Any]:
    if isinstance(labels, Tensor):
        values = labels.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return labels if isinstance(labels, np.ndarray) else list(labels)


def _numbers(labels: Sequence[Any] | NDArray[Any]) -> NDArray[Any] | None:
    """The labels as [N] numbers; None if they are something else, such as text or several numbers each."""
    if not isinstance(labels, np.ndarray):
        plain = [label.item() if isinstance(label, Tensor) and label.numel() == 1 else label for label in labels]
        if not all(isinstance(label, int | float | np.number | np.bool_) for label in plain):
            return None
        labels = np.array(plain)
    return labels if labels.ndim == 1 and labels.dtype.kind in "biuf" else None


def _digest_of_labels(labels: Sequence[Any] | NDArray[Any]) -> bytes:
    numbers = _numbers(labels)
    if numbers is None:
        return b"".join(_digest(label) for label in labels)
    dtype = np.float64 if numbers.dtype.kind == "f" else np.int64
    return np.ascontiguousarray(numbers, dtype=dtype).tobytes()


def _target(sample: Any) -> Any:
    """The label of a sample, None if it shows none."""
    if isinstance(sample, Mapping):
        key = label_key(sample)
        return None if key is None else sample[key]
    return sample[1] if isinstance(sample, (tuple, list)) and len(sample) > 1 else None


def _class_in(sample: Any) -> int:
    """The class that a pair, or a mapping with a label, shows; -1 where it shows none."""
    is_pair = isinstance(sample, (tuple, list)) and len(sample) == 2
    label = _target(sample) if is_pair or isinstance(sample, Mapping) else None
    if isinstance(label, Tensor | np.ndarray) and label.shape == ():
        label = label.item()
    return max(int(label), -1) if isinstance(label, int | np.integer | np.bool_) else -1


def _digest(value: Any) -> bytes:
    """Bytes that are equal for equal samples, whatever containers and arrays they are made of."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(str(key).encode() + _digest(value[key]))
    elif isinstance(value, (tuple, list)):
        for item in value:
            digest.update(_digest(item))
    elif isinstance(value, (str, bytes)):
        digest.update(value.encode() if isinstance(value, str) else value)
    elif value is None:
        digest.update(b"None")
    else:
        tensor = _as_tensor(value)
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.double().contiguous().numpy().tobytes())
        if tensor.dtype == torch.int64 and tensor.numel() and int(tensor.abs().max()) > _EXACT_IN_FLOAT64:
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.digest()


def _as_tensor(value: Any) -> Tensor:
    """Numbers, an array, an image or a tensor as a tensor of real numbers on the CPU."""
    try:
        tensor = value.detach().cpu() if isinstance(value, Tensor) else _array_as_tensor(np.array(value))
        tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor.resolve_conj()
        tensor = tensor.dequantize() if tensor.is_quantized else tensor
        if tensor.is_nested:
            raise TypeError("a nested tensor has no shape")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"dataset: an example holds {type(value).__name__}, which cannot be hashed; expected numbers, text, "
            "arrays, tensors, images, and tuples, lists or mappings of these"
        ) from error
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _array_as_tensor(array: NDArray[Any]) -> Tensor:
    return torch.as_tensor(array.astype(array.dtype.newbyteorder("="), copy=False), device="cpu")


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
