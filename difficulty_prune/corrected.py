"""Samples and batches of them with corrected labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def with_labels(sample: Any, position: int | Tensor, corrections: Mapping[int, int]) -> Any:
    """The sample of a position with its corrected label, if it has one; of several positions, their batch.

    The label is the second element of a tuple or list, or the key "label" or "labels" of a mapping, and stays of the
    type that it is. The sample given does not change.

    Raises:
        TypeError: a sample that shows no label, or one that is no whole number.

    >>> with_labels(("x", 0), 5, {5: 2}), with_labels(("x", 0), 4, {5: 2})
    (('x', 2), ('x', 0))
    """
    if isinstance(position, Tensor):
        found = {row: corrections[p] for row, p in enumerate(position.tolist()) if p in corrections}
        places = position.tolist()
        return _replaced(sample, lambda labels: _in_batch(labels, found, places)) if found else sample
    if position not in corrections:
        return sample
    return _replaced(sample, lambda label: _like(label, corrections[position], position))


def _replaced(sample: Any, change: Any) -> Any:
    if isinstance(sample, Mapping):
        key = next((key for key in ("label", "labels") if key in sample), None)
        if key is not None:
            return {**sample, key: change(sample[key])}
    elif isinstance(sample, tuple) and hasattr(sample, "_fields") and len(sample) > 1:
        return sample._replace(**{sample._fields[1]: change(sample[1])})  # type: ignore[attr-defined]
    elif isinstance(sample, tuple | list) and len(sample) > 1:
        return type(sample)([sample[0], change(sample[1]), *sample[2:]])
    raise TypeError(
        f"decisions: a label is to be corrected, but the sample is {type(sample).__name__}; expected (x, label, ...), "
        "or a mapping with the key 'label' or 'labels'"
    )


def _like(label: Any, corrected: int, position: int) -> Any:
    """The corrected label in the type of the other."""
    if isinstance(label, Tensor) and label.dim() == 0 and not label.is_floating_point():
        return torch.full_like(label, corrected)
    if isinstance(label, np.integer | np.ndarray) and np.ndim(label) == 0 and np.asarray(label).dtype.kind in "iu":
        return np.asarray(corrected, np.asarray(label).dtype)[()]
    if isinstance(label, int) and not isinstance(label, bool):
        return corrected
    raise TypeError(
        f"decisions: the label of example {position} is to be corrected to {corrected}, but it is "
        f"{type(label).__name__}; expected a whole number: let the dataset serve classes, and make of them later what "
        "the loss takes"
    )


def _in_batch(labels: Any, corrected: Mapping[int, int], positions: list[int]) -> Any:
    """A column of labels with some replaced."""
    if isinstance(labels, Tensor) and labels.dim() == 1:
        changed: Any = labels.clone()
    elif isinstance(labels, np.ndarray) and labels.ndim == 1:
        changed = labels.copy()
    elif isinstance(labels, Sequence) and not isinstance(labels, str):
        changed = list(labels)
    else:
        raise TypeError(f"decisions: labels of a batch are {type(labels).__name__}, expected one for each example")
    for row, label in corrected.items():
        changed[row] = _like(changed[row], label, positions[row])
    return changed
