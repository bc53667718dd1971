"""Which examples of yesterday are which of today's dataset: matched by id, counted, and put in today's order."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .data import IndexedDataset
from .identity import Identity
from .support.counted import counted
from .support.ids import id_array, positions_of
from .support.name_some import name_some

_NAMED: Final = 3  # of each kind, in a message
_MOVED: Final = "moved to another class"
_GAPS: Final = 2  # of the numbers of rows, at least one in so many is there
_MORE_THAN_CHANCE: Final = 0.25  # of what agreement could be above chance
NEW: Final = ("is new", "are new")  # of one, and of several


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
        ValueError: a dataset without ids, ids that occur twice, or none that matches; or ids that are numbers of rows,
            which match whatever the data is, where labels agree hardly more often than by chance.
        TypeError: ids that are none.

    >>> match = match_ids(["a", "b", "c"], np.array(["c", "d", "a"]))
    >>> match.positions, str(match.report)
    (array([ 2, -1,  0]), "2 of 3 examples match; 1 vanished ('b'); 1 is new ('d')")
    """
    before = id_array(ids, name)
    if not len(before):
        raise ValueError(f"{name}: got none, expected one for each earlier example")
    old = None if labels is None else np.asarray(labels)
    if old is not None and len(old) != len(before):
        raise ValueError(f"labels: got {len(old)}, expected {len(before)}, one for each id")
    today = identity_of(dataset)
    now: NDArray[Any] = today.ids  # type: ignore[assignment]
    places = positions_of(before, name)
    found = np.fromiter((places.get(item, -1) for item in now.tolist()), np.int64, len(now))
    if not (found >= 0).any():
        raise ValueError(
            f"{name}: none of {len(before)} ids, such as {before.tolist()[0]!r}, is among the {len(found)} of "
            f"the dataset, such as {now.tolist()[0]!r}: it is another dataset, or its key= is another"
        )
    labels_now = today.labels
    moved = np.zeros(len(found), bool)
    if old is not None and labels_now is not None:
        known = found >= 0
        names = (None if class_names is None else tuple(class_names)), today.class_names
        classes = _comparable(old[found[known]], labels_now[known], *names)
        moved[known] = np.asarray(classes[0] != classes[1])
        if moved.any() and are_row_numbers(before) and are_row_numbers(now):
            _check_agreement(*classes, name)
    return Match(found, labels_now, _report(before, now, found, moved), len(before))


def identity_of(dataset: Any) -> Identity:
    """Of a dataset whose examples have ids, or of ids [M].

    Raises:
        ValueError: a dataset that names no examples.
    """
    whole = isinstance(dataset, np.ndarray) or hasattr(dataset, "ids")
    today = Identity.of(dataset if whole else IndexedDataset(dataset), "dataset")
    if today.ids is None:
        raise ValueError(
            f"dataset: {type(getattr(dataset, 'dataset', dataset)).__name__} names no examples; wrap it in "
            "dp.IndexedDataset(dataset, key=...), and call its collect_ids() where only samples know their ids"
        )
    return today


def _report(before: NDArray[Any], now: NDArray[Any], found: NDArray[np.int64], moved: NDArray[np.bool_]) -> IdReport:
    known = found >= 0
    gone = np.ones(len(before), bool)
    gone[found[known]] = False
    text = f"{int(known.sum())} of {len(found)} examples match"
    for chosen, said, names in ((gone, ("vanished",) * 2, before), (~known, NEW, now), (moved, (_MOVED,) * 2, now)):
        if chosen.any():
            text += f"; {counted(int(chosen.sum()), *said)} ({name_some(names[chosen].tolist(), _NAMED)})"
    return IdReport(int(known.sum()), int(gone.sum()), int((~known).sum()), int(moved.sum()), text)


def are_row_numbers(ids: NDArray[Any]) -> bool:
    """Whether ids are numbers such as those of the rows of a table, or of a part of one, which tell nothing of it.

    >>> are_row_numbers(np.array([0, 2, 3])), are_row_numbers(np.array([90217, 90344])), are_row_numbers(["a", "b"])
    (True, False, False)
    """
    items = np.asarray(ids).tolist()
    if not all(isinstance(item, int) or (item.isdecimal() and len(item) < 19) for item in items):
        return False
    numbers = [int(item) for item in items]
    return min(numbers) >= 0 and max(numbers) <= _GAPS * len(numbers)


def _check_agreement(old: NDArray[Any], new: NDArray[Any], name: str) -> None:
    """ValueError where classes of examples that only a number matches agree hardly more often than by chance."""
    agreement, counts = float((old == new).mean()), (Counter(old.tolist()), Counter(new.tolist()))
    by_chance = sum(number * counts[1][label] for label, number in counts[0].items()) / len(old) ** 2
    if agreement <= by_chance + (1 - by_chance) * _MORE_THAN_CHANCE:
        raise ValueError(
            f"{name}: {int((old != new).sum())} of the {len(old)} examples with an id that the dataset has are of "
            "another class there, and the ids are numbers of rows, which match whatever the data is: it is another "
            "dataset, or in another order. Give the one that was scored, or ids that name examples, with "
            "dp.IndexedDataset(dataset, key=...)"
        )


def _comparable(
    old: NDArray[Any], new: NDArray[Any], names: tuple[str, ...] | None, names_now: Sequence[str] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Classes as they can be compared: by name, where the numbers of classes may have changed."""
    if names is not None and names_now is not None and names != tuple(names_now):
        return _names(old, names), _names(new, names_now)
    return old, new


def _names(labels: NDArray[Any], names: Sequence[str]) -> NDArray[Any]:
    return np.array([names[label] if 0 <= label < len(names) else label for label in labels.tolist()], object)
