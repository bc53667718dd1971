"""Which examples of yesterday are which of today's dataset: matched by id, counted, and put in today's order."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .data import IndexedDataset
from .support.ids import check_ids, id_array, positions_of

_NAMED: Final = 3  # of each kind, in a message


@dataclass(frozen=True)
class IdReport:
    """How ids go with a dataset of today.

    Attributes:
        matched: examples that both know, those that moved class among them.
        vanished: ids that the dataset does not have any more.
        new: examples of the dataset without such an id.
        moved_class: matched ones whose class is another now.
        text: the same for people, with the first of each kind by name.
    """

    matched: int
    vanished: int
    new: int
    moved_class: int
    text: str

    @property
    def all_match(self) -> bool:
        """Whether there is nothing to report."""
        return not (self.vanished or self.new or self.moved_class)

    def __str__(self) -> str:
        return self.text


class Match(NamedTuple):
    """Today's examples among earlier ones.

    Attributes:
        positions: [M] int64, where each of today's examples was; -1 for a new one.
        labels: [M] int64, today's classes, if known.
        report: what matched, and what did not.
        earlier: N, how many examples there were.
    """

    positions: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    report: IdReport
    earlier: int

    def align(self, values: Any) -> NDArray[Any]:
        """Values [N] or [N, ...] of the earlier examples in today's order, [M, ...] float64; NaN for new ones.

        Raises:
            ValueError: values of another number of examples.
        """
        array = np.asarray(values)
        if array.ndim == 0 or len(array) != self.earlier:
            raise ValueError(
                f"values: got shape {array.shape}, expected [{self.earlier}, ...], one for each earlier id"
            )
        found = np.full((len(self.positions), *array.shape[1:]), np.nan)
        known = self.positions >= 0
        found[known] = array[self.positions[known]]
        return found

    def warn_of_others(self, stacklevel: int) -> None:
        """Warns of what did not match, with numbers; of nothing where all did."""
        if not self.report.all_match:
            warnings.warn(
                f"dataset: {self.report}. New examples have no difficulty (NaN), so a policy needs unseen='keep'; "
                "those that moved keep what they had in their other class",
                stacklevel=stacklevel + 1,
            )


class Facts(NamedTuple):
    """What names and classes a dataset has."""

    ids: NDArray[Any]
    labels: NDArray[Any] | None
    class_names: tuple[str, ...] | None


def match_ids(
    ids: Any, dataset: Any, *, labels: Any = None, class_names: Iterable[str] | None = None, name: str = "ids"
) -> Match:
    """Finds today's examples among earlier ones by their ids.

    Args:
        ids: [N] of the earlier examples, such as `run.ids`.
        dataset: today's, of M examples: an `IndexedDataset` with ids (or what it may wrap), or an array of ids [M].
        labels: [N] the earlier classes, to notice examples that moved to another one.
        class_names: of these; where both sides have names, classes are compared by name.
        name: of the ids, for messages.

    Raises:
        ValueError: a dataset without ids, ids that occur twice, or none that matches.
        TypeError: ids that are none.

    >>> match = match_ids(["a", "b", "c"], np.array(["c", "d", "a"]))
    >>> match.positions, str(match.report)
    (array([ 2, -1,  0]), "2 of 3 examples match; 1 vanished ('b'); 1 are new ('d')")
    """
    before = Facts(id_array(ids, name), _labels(labels), None if class_names is None else tuple(class_names))
    if before.labels is not None and len(before.labels) != len(before.ids):
        raise ValueError(f"labels: got {len(before.labels)}, expected {len(before.ids)}, one for each id")
    today = facts_of(dataset)
    places = positions_of(before.ids, name)
    found = np.fromiter((places.get(item, -1) for item in today.ids.tolist()), np.int64, len(today.ids))
    if not (found >= 0).any():
        raise ValueError(
            f"{name}: none of {len(before.ids)} ids, such as {before.ids.tolist()[0]!r}, is among the {len(found)} of "
            f"the dataset, such as {today.ids.tolist()[0]!r}: it is another dataset, or its key= is another"
        )
    return Match(found, today.labels, _report(before, today, found), len(before.ids))


def facts_of(dataset: Any) -> Facts:
    """Ids, labels and class names of a dataset; ids alone of an array of them.

    Raises:
        ValueError: a dataset that names no examples.
    """
    if isinstance(dataset, np.ndarray):
        return Facts(check_ids(dataset, "dataset"), None, None)
    indexed = dataset if isinstance(dataset, IndexedDataset) else IndexedDataset(dataset)
    if indexed.ids is None:
        raise ValueError(
            f"dataset: {type(indexed.dataset).__name__} names no examples; wrap it in dp.IndexedDataset(dataset, "
            "key=...), and call its collect_ids() where only samples know their ids"
        )
    return Facts(indexed.ids, indexed.labels, indexed.class_names)


def _labels(labels: Any) -> NDArray[Any] | None:
    return None if labels is None else np.asarray(labels)


def _report(before: Facts, today: Facts, found: NDArray[np.int64]) -> IdReport:
    known = found >= 0
    gone = np.ones(len(before.ids), bool)
    gone[found[known]] = False
    moved = _moved(before, today, found)
    counts = int(known.sum()), int(gone.sum()), int((~known).sum()), int(moved.sum())
    text = f"{counts[0]} of {len(found)} examples match"
    for number, said, names in (
        (counts[1], "vanished", before.ids[gone]),
        (counts[2], "are new", today.ids[~known]),
        (counts[3], "moved to another class", today.ids[moved]),
    ):
        if number:
            first = ", ".join(map(repr, names[:_NAMED].tolist()))
            text += f"; {number} {said} ({first}{', ...' if number > _NAMED else ''})"
    return IdReport(*counts, text)


def _moved(before: Facts, today: Facts, found: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[M], which of today's examples had another class."""
    moved = np.zeros(len(found), bool)
    if before.labels is None or today.labels is None:
        return moved
    known = found >= 0
    old, new = before.labels[found[known]], today.labels[known]
    if before.class_names is not None and today.class_names is not None and before.class_names != today.class_names:
        old, new = (_names(labels, names) for labels, names in ((old, before.class_names), (new, today.class_names)))
    moved[known] = old != new
    return moved


def _names(labels: NDArray[Any], names: tuple[str, ...]) -> NDArray[Any]:
    return np.array([names[label] if 0 <= label < len(names) else label for label in labels.tolist()], object)
