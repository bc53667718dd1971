"""Datasets that say which example is which."""

from __future__ import annotations

import functools
import hashlib
import operator
from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

_EXACT_IN_FLOAT64: Final = 2**53


class IndexedDataset(Dataset[Any]):
    """Wraps a map-style dataset so that every sample carries its position 0..N-1.

    A tuple or list sample gains the index as its last element, a named tuple the field `key`, a mapping the key `key`,
    and any other sample becomes (sample, index). The default collate function turns indices into an int64 tensor.

    Args:
        dataset: map-style, with `__len__`; its `__getitems__` (batched fetching) is used where it has one.
        key: name of the index in samples that are mappings or named tuples.

    Raises:
        TypeError: an iterable-style dataset, or one without a length.
        ValueError: an empty dataset, or a sample that has `key` already.
        IndexError: a position outside the dataset.

    >>> IndexedDataset([("a", 0), ("b", 1)])[1]
    ('b', 1, 1)
    """

    def __init__(self, dataset: Any, key: str = "index") -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            raise TypeError(
                f"dataset: got {type(dataset).__name__}, expected a map-style dataset (one with __getitem__): "
                "the examples of an iterable dataset have no position to be scored by"
            )
        if not hasattr(dataset, "__len__"):
            raise TypeError(f"dataset: {type(dataset).__name__} has no __len__, so its examples cannot be counted")
        if len(dataset) == 0:
            raise ValueError(f"dataset: {type(dataset).__name__} is empty, there is nothing to score")
        self.dataset = dataset
        self.key = key

    def __len__(self) -> int:
        return len(self.dataset)

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets on the dataset what it has, such as `train.transform = ...`, which would do nothing here."""
        if name in ("dataset", "key"):
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
            return self._attach(self.dataset[positions], torch.tensor(positions, dtype=torch.int64, device="cpu"))
        position = self._position(index)
        return self._attach(self.dataset[position], position)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Samples of several positions; PyTorch's DataLoader fetches a batch by one such call."""
        positions = [self._position(index) for index in indices]
        fetch = getattr(self.dataset, "__getitems__", None)
        samples = fetch(positions) if fetch else [self.dataset[position] for position in positions]
        return [self._attach(sample, position) for sample, position in zip(samples, positions, strict=True)]

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
        if isinstance(sample, Mapping):
            self._check_free(self.key in sample)
            return {**sample, self.key: position}
        if isinstance(sample, list):
            return [*sample, position]
        if isinstance(sample, tuple) and hasattr(sample, "_fields"):
            self._check_free(self.key in sample._fields)
            return _indexed_named_tuple(type(sample), self.key, (*sample, position))
        if isinstance(sample, tuple):
            return (*sample, position)
        return (sample, position)

    def _check_free(self, taken: bool) -> None:
        if taken:
            raise ValueError(f"the sample has a key {self.key!r} already; choose another with key=...")


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
    while isinstance(dataset, IndexedDataset):
        dataset = dataset.dataset
    size = len(dataset)
    if size == 0:
        raise ValueError(f"dataset: {type(dataset).__name__} is empty, there is nothing to identify")
    if isinstance(labels, Mapping):
        raise TypeError(f"labels: got {type(labels).__name__}, expected one label per example, in order")
    known = _targets(dataset) if labels is None else _as_sequence(labels)
    if known is not None and len(known) != size:
        raise ValueError(f"labels: got shape ({len(known)},), expected [{size}], one per example")
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.int64(size).tobytes())
    if known is not None:
        digest.update(_digest_of_labels(known))
    for position in np.unique(np.linspace(0, size - 1, num=min(samples, size)).astype(np.int64)):
        example = _digest(dataset[int(position)])
        if example != _digest(dataset[int(position)]):
            raise ValueError(
                f"dataset: example {position} differs between two readings; pass the data without random augmentation"
            )
        digest.update(example)
    return digest.hexdigest()


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
    """One label of any kind per example; None where examples show none."""
    if isinstance(dataset, IndexedDataset):
        return _targets(dataset.dataset)
    if isinstance(dataset, Subset):
        whole = _targets(dataset.dataset)
        if isinstance(whole, np.ndarray):
            return np.asarray(whole[np.asarray(dataset.indices, dtype=np.int64)])
        return None if whole is None else [whole[int(i)] for i in dataset.indices]
    for name in ("targets", "labels"):
        value = getattr(dataset, name, None)
        if value is not None and hasattr(value, "__len__"):
            return _as_sequence(value)
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return _as_sequence(dataset.tensors[1])
    if _target(dataset[0]) is None:
        return None
    return [_target(dataset[i]) for i in range(len(dataset))]


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
