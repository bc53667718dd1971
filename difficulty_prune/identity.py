"""What tells the examples of some data apart: their number, and their ids."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .support.ids import check_ids


@dataclass(frozen=True)
class Identity:
    """What tells the examples of some data apart.

    Attributes:
        size: N.
        ids: [N] texts or whole numbers, or None.
        class_names: the name of each class, or None.
        source: what it is of.
    """

    size: int
    ids: NDArray[Any] | None
    class_names: Sequence[str] | None
    source: Any = None

    @classmethod
    def of(cls, data: Any, name: str = "data") -> Identity:
        """Of an `IndexedDataset`, a run, runs, ids [N], or the number N of examples.

        Raises:
            TypeError: none of these.
            ValueError: an id that occurs twice.

        >>> Identity.of(["a", "b"]).size, Identity.of(3).size
        (2, 3)
        """
        if isinstance(data, Identity):
            return data
        if hasattr(data, "ids"):
            size = data.num_examples if hasattr(data, "num_examples") else len(data)
            return cls(size, data.ids, getattr(data, "class_names", None), data)
        if isinstance(data, np.ndarray | list | tuple):
            ids = check_ids(data, name)
            return cls(len(ids), ids, None)
        try:
            return cls(operator.index(data), None, None)
        except TypeError as error:
            raise TypeError(
                f"{name}: got {type(data).__name__}, expected a dp.IndexedDataset, a run, runs, ids [N], or the number "
                "of examples"
            ) from error

    @property
    def labels(self) -> NDArray[Any] | None:
        """[N] int64 classes, where the source knows them; looked up only when they are asked for."""
        labels: NDArray[Any] | None = getattr(self.source, "labels", None)
        return labels
