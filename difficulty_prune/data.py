"""Datasets that say which example is which."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset


class IndexedDataset(Dataset[Any]):
    """Wraps a map-style dataset so that every sample carries its position 0..N-1.

    A tuple or list sample gains the index as its last element, a mapping gains the key `key`, and any other
    sample becomes (sample, index). The default collate function turns indices into an int64 tensor.

    Args:
        dataset: map-style, with `__len__`; its `__getitems__` (batched fetching) is used where it has one.
        key: name of the index in mapping samples.

    Raises:
        TypeError: an iterable-style dataset, or one without a length.
        ValueError: an empty dataset, or a mapping sample that has `key` already.
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

    def __getitem__(self, index: int) -> Any:
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

    def _attach(self, sample: Any, position: int) -> Any:
        if isinstance(sample, Mapping):
            if self.key in sample:
                raise ValueError(f"the sample has a key {self.key!r} already; choose another with key=...")
            return {**sample, self.key: position}
        if isinstance(sample, list):
            return [*sample, position]
        if isinstance(sample, tuple):
            return (*sample, position)
        return (sample, position)


def dataset_fingerprint(dataset: Any, labels: Sequence[int] | Tensor | None = None, samples: int = 64) -> str:
    """Identifies a dataset: a hash of its length, its labels in order and a fixed sample of its examples.

    Args:
        dataset: map-style, without random augmentation. Wrap it in IndexedDataset before or after: no difference.
        labels: [N] class labels. Default: the dataset's `targets` or `labels`; where there is neither, every
            example is read for its label, which can take long.
        samples: examples that are read and hashed, spread evenly.

    Returns:
        32 hexadecimal digits.

    Raises:
        ValueError: an empty dataset, labels of another length, or an example that differs from one reading to the
            next.

    >>> a = TensorDataset(torch.arange(6.0), torch.tensor([0, 1, 0, 1, 0, 1]))
    >>> dataset_fingerprint(a) == dataset_fingerprint(IndexedDataset(a))
    True
    """
    while isinstance(dataset, IndexedDataset):
        dataset = dataset.dataset
    size = len(dataset)
    if size == 0:
        raise ValueError(f"dataset: {type(dataset).__name__} is empty, there is nothing to identify")
    values = _targets(dataset) if labels is None else np.asarray(labels)
    if values.shape != (size,):
        raise ValueError(f"labels: got shape {values.shape}, expected [{size}], one per example")
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.int64(size).tobytes())
    number = np.float64 if values.dtype.kind == "f" else np.int64
    digest.update(np.ascontiguousarray(values, dtype=number).tobytes())
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
        TypeError: an example is no (input, label) pair and has no "label", or labels that are no whole numbers.

    >>> dataset_labels([("a", 2), ("b", 0)]).tolist()
    [2, 0]
    """
    targets = _targets(dataset)
    if targets.dtype.kind not in "iub":
        raise TypeError(f"labels: got {targets.dtype}, expected whole numbers: the classes")
    return targets.astype(np.int64)


def _targets(dataset: Any) -> NDArray[Any]:
    """One number per example, whole or not."""
    if isinstance(dataset, IndexedDataset):
        return _targets(dataset.dataset)
    if isinstance(dataset, Subset):
        return _targets(dataset.dataset)[np.asarray(dataset.indices, dtype=np.int64)]
    for name in ("targets", "labels"):
        if hasattr(dataset, name):
            return np.asarray(getattr(dataset, name))
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return np.asarray(dataset.tensors[1].cpu())
    return np.array([_target(dataset[i]) for i in range(len(dataset))])


def _target(sample: Any) -> float:
    if isinstance(sample, Mapping) and ("label" in sample or "labels" in sample):
        target = sample["label"] if "label" in sample else sample["labels"]
        return target.item() if isinstance(target, Tensor) else target
    if isinstance(sample, (tuple, list)) and len(sample) > 1:
        return sample[1].item() if isinstance(sample[1], Tensor) else sample[1]
    raise TypeError(f"labels: a sample of type {type(sample).__name__} shows no label; pass labels=... explicitly")


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
    else:
        tensor = value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(np.array(value))
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.double().contiguous().numpy().tobytes())
    return digest.digest()


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
