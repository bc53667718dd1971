"""Labels made wrong on purpose, to see whether they are found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..decisions.decisions import Decisions
from ..support.files import MALFORMED
from ..support.json_text import read_json
from ..support.plain import plain_fields
from ..support.randomness import generator_from

_PLANT = 4  # the purpose of the generator


@dataclass(frozen=True)
class Planted:
    """Which labels were made wrong.

    Attributes:
        index: [k] positions in the training data, in ascending order.
        ids: [k] what names these examples, or None.
        true: [k] the labels that they had.
        given: [k] the wrong ones.
    """

    index: NDArray[np.int64]
    ids: list[Any] | None
    true: NDArray[np.int64]
    given: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return plain_fields(self)

    def decisions(self) -> Decisions:
        """What gives a dataset with the true labels these wrong ones."""
        names = [{"index": i} for i in self.index.tolist()] if self.ids is None else [{"id": name} for name in self.ids]
        labels = self.given.tolist()
        return Decisions(
            ({**name, "decision": "wrong", "label": label} for name, label in zip(names, labels, strict=True)),
            source="labels made wrong",
        )


def plant_wrong(labels: torch.Tensor, share: float, seed: int, ids: NDArray[Any] | None = None) -> Planted:
    """Another class, drawn evenly from the others, for a random share of the labels.

    Args:
        labels: [N] int64, of two classes or more.
        share: in [0, 1), of the labels; rounded to a whole number of them.
        seed: the same one plants the same.
        ids: [N], what names the examples, or None.

    >>> planted = plant_wrong(torch.tensor([0, 1, 2, 0, 1, 2]), 0.5, seed=0)
    >>> len(planted.index), bool((planted.true != planted.given).all())
    (3, True)
    """
    classes = labels.unique()
    generator = generator_from(seed, _PLANT)
    chosen = torch.randperm(len(labels), generator=generator, device="cpu")[: round(share * len(labels))].sort().values
    true = labels[chosen]
    further = torch.randint(1, len(classes), (len(chosen),), generator=generator, device="cpu")
    given = classes[(torch.searchsorted(classes, true) + further) % len(classes)]
    index = chosen.numpy()
    return Planted(index, None if ids is None else ids[index].tolist(), true.numpy(), given.numpy())


def read_planted(folder: str | Path) -> Planted | None:
    """What the study in a folder says that it planted; None if it planted nothing, or if this is no study.

    Raises:
        ValueError: a summary that cannot be read.
    """
    path = Path(folder) / "summary.json"
    if not path.is_file():
        return None
    try:
        found = read_json(path).get("planted")
        if found is None:
            return None
        arrays = [np.asarray(found[name], np.int64) for name in ("index", "true", "given")]
        return Planted(arrays[0], found["ids"], arrays[1], arrays[2])
    except MALFORMED as error:
        raise ValueError(f"{path}: not a summary of a study, or damaged ({error})") from error
