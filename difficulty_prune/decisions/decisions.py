"""Decisions of people: a table of what is right, wrong, to be dropped or unsure, and what follows from it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..identity import Identity
from ..policies.plan import Plan, make_plan
from ..support.counted import counted
from ..support.name_some import name_some
from ..support.table_rows import Row, read_rows, write_rows
from .check import Check, check_entries
from .entry import COLUMNS, DECISIONS, Entry, read_entry, whole_cell


class Decisions:
    """What people decided of examples.

    A table with the columns `id` or `index` or both, `decision`, and, where wanted, `label`, `weight` and `note`:

    - `keep`: the label is right. `unsure`: nobody could tell. The example stays as it is.
    - `wrong`: the label is wrong. With `label`, the right one, it is relabelled; without, it leaves the plan.
    - `drop`: it leaves the plan.
    - `weight`, 0 or more, multiplies the example's weight in the plan.

    An id counts more than an index. Other columns are kept and named in `other_columns`.

    Args:
        rows: one mapping per decision.
        source: what messages call the table.

    Attributes:
        repeated: rows that said once more what a row before them said of the same example.
        other_columns: names of columns that the library does not know.

    Raises:
        TypeError: rows that are no mappings.
        ValueError: a malformed row, a column such as "Label", or two rows that contradict each other; the message names
            them.

    >>> decisions = Decisions([{"id": "a", "decision": "drop"}, {"id": "b", "decision": "wrong", "label": 2}])
    >>> print(decisions)
    2 decisions: 1 wrong (1 with the right label), 1 drop
    >>> decisions.relabel([0, 0, 0], ["a", "b", "c"])
    array([0, 2, 0])
    >>> decisions.plan(["a", "b", "c"]).index.tolist()
    [1, 2]
    """

    def __init__(self, rows: Iterable[Mapping[str, Any] | Row], *, source: str = "decisions") -> None:
        known: dict[tuple[str, str], Entry] = {}
        self.repeated = 0
        for number, given in enumerate(rows, 1):
            row = given if isinstance(given, Row) else Row(f"row {number}", given)
            if not isinstance(row.cells, Mapping):
                raise TypeError(
                    f"{source}: {row.place}: got {row.cells!r}, expected a mapping such as {{'id': 'cat/1.png', "
                    "'decision': 'drop'}; a file is read by dp.Decisions.load(path), a DataFrame has "
                    '.to_dict("records")'
                )
            try:
                entry = read_entry(row.cells, row.place)
                before = known.setdefault(entry.key, entry)
                if before is not entry:
                    known[entry.key] = _merged(before, entry)
                    self.repeated += 1
            except ValueError as error:
                raise ValueError(f"{source}: {error}") from error
        self._entries = tuple(known.values())
        self._source = source
        self.other_columns = tuple(dict.fromkeys(name for entry in self._entries for name in entry.more))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Decisions:
        """Reads a table: `.csv` or `.tsv` with a header, `.json` (a list of objects), `.jsonl`, or `.parquet`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a malformed line, or two that contradict each other; the message names the file and the lines.
            ImportError: `.parquet` without pyarrow.
            OSError: it cannot be read; the message names the file and says what to do.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "decisions.csv")
        ...     Decisions([{"index": 3, "decision": "wrong"}]).save(path)
        ...     print(Decisions.load(path))
        1 decision: 1 wrong (0 with the right label)
        """
        return cls(read_rows(path), source=os.fspath(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a table that `load` reads, in the format of the suffix, whole or not at all.

        Raises:
            ValueError: another suffix.
            ImportError: `.parquet` without pyarrow.
            OSError: it cannot be written; the message names the file and says what to do.
        """
        rows = [entry.cells() for entry in self._entries]
        given = [name for name in COLUMNS if name == "decision" or any(row[name] is not None for row in rows)]
        write_rows(path, (*given, *self.other_columns), rows)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __eq__(self, other: object) -> bool:
        """Whether both say the same of the same examples, wherever that stands."""
        if not isinstance(other, Decisions):
            return NotImplemented
        return [e.cells() for e in self] == [e.cells() for e in other]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Decisions({len(self)} from {self._source!r})"

    def __str__(self) -> str:
        number = Counter(entry.decision for entry in self._entries)
        corrected = sum(entry.decision == "wrong" and entry.label is not None for entry in self._entries)
        words = [
            f"{number[word]:,} {word}" + (f" ({corrected:,} with the right label)" if word == "wrong" else "")
            for word in DECISIONS
            if number[word]
        ]
        text = counted(len(self), "decision") + (f": {', '.join(words)}" if words else "")
        if self.repeated:
            text += f"; {counted(self.repeated, 'row repeats', 'rows repeat')} an earlier one"
        if self.other_columns:
            text += f"; columns that are not used: {', '.join(self.other_columns)}"
        return text

    # What they mean for today's data

    def check(self, data: Any) -> Check:
        """Which examples of today's data are meant, and which ids it lacks.

        Args:
            data: a `dp.IndexedDataset`, a run, runs, ids [N], or the number N of examples if no decision has an id.

        Raises:
            TypeError: data that is none of these.
            ValueError: an index outside the data, ids where the data has none, or decisions on the same example by id
                and by index that contradict each other.

        >>> check = Decisions([{"id": "a", "decision": "drop"}, {"id": "x", "decision": "keep"}]).check(["a", "b"])
        >>> print(check)
        1 of 2 decisions is of examples of this data (2 examples); 1 is of an id that it lacks: 'x'
        """
        try:
            return check_entries(self._entries, Identity.of(data))
        except ValueError as error:
            raise ValueError(f"{self._source}: {error}") from error

    def _of(self, data: Any) -> list[tuple[int, Entry]]:
        """Each example that is meant and there, with its entry; ValueError if none is there."""
        check = self.check(data)
        if check.missing and len(check.missing) == len(self):
            which = "the only decision is of an id" if len(self) == 1 else f"all {len(self):,} decisions are of ids"
            raise ValueError(
                f"{self._source}: {which} that the data lacks, such as "
                f"{name_some(check.missing)}: is it other data, or are its ids made in another way?"
            )
        pairs = zip(check.position.tolist(), self._entries, strict=True)
        return [(position, entry) for position, entry in pairs if position >= 0]

    def corrections(self, data: Any, class_names: Sequence[str] | None = None) -> dict[int, int]:
        """Position -> corrected class, of the examples that are wrong and have their right label.

        Args:
            data: as for `check`.
            class_names: the name of each class; default: those that the data knows. Needed for labels by name.

        Raises:
            ValueError: as for `check`; or a label that is the name of no class, outside the known classes, or both the
                name of a class and the number of another.
        """
        identity = Identity.of(data)
        names = identity.class_names if class_names is None else class_names
        wrong = [(p, e) for p, e in self._of(identity) if e.decision == "wrong" and e.label is not None]
        return {position: self._class_of(entry, names) for position, entry in wrong}

    def _class_of(self, entry: Entry, names: Sequence[str] | None) -> int:
        label, where = entry.label, f"{self._source}: {entry.place}: label {entry.label!r}"
        named = [number for number, name in enumerate(names or ()) if name.strip() == label]
        number = whole_cell(label)
        if number is not None and not 0 <= number < (2**63 if names is None else len(names)):
            number = None
        meant: set[int] = {*named, *(() if number is None else (number,))}
        if not meant:
            known = "no names of classes are known; pass class_names=" if names is None else name_some(names)
            raise ValueError(f"{where} is no class: {known}")
        if len(meant) > 1:
            raise ValueError(
                f"{where} may be any of the classes {sorted(meant)}, by name or by number; write decisions as JSON or "
                "Parquet, with the number of the class as a number"
            )
        return meant.pop()

    def relabel(self, labels: Any, data: Any = None, class_names: Sequence[str] | None = None) -> NDArray[np.int64]:
        """The labels with the corrections, [N] int64.

        Args:
            labels: [N] whole numbers.
            data: as for `check`; default: the number of labels.
            class_names: as for `corrections`.

        Raises:
            ValueError: as for `corrections`, or another number of labels than of examples.
        """
        given = np.asarray(labels)
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise TypeError(f"labels: got {given.dtype} {given.shape}, expected whole numbers [N]")
        identity = Identity.of(len(given) if data is None else data)
        if len(given) != identity.size:
            raise ValueError(f"labels: got {len(given)}, expected {identity.size}, one per example")
        result = given.astype(np.int64)
        for position, label in self.corrections(identity, class_names).items():
            result[position] = label
        return result

    # What they mean for plans

    def plan(self, data: Any, labels: Any = None) -> Plan:
        """All examples of the data but those that leave, with the weights that were given.

        A plan is a policy too, and `dp.policies.within(decisions.plan(train), policy, difficulty)` prunes what is left.

        Args:
            data: as for `check`.
            labels: as for `apply_to_plan`.

        Raises:
            ValueError: as for `apply_to_plan`.
        """
        identity = Identity.of(data)
        everything = torch.arange(identity.size, device="cpu")
        whole = Plan(everything, torch.ones(identity.size, device="cpu"), {"policy": "all examples"})
        return self.apply_to_plan(whole, identity, labels)

    def apply_to_plan(self, plan: Plan, data: Any, labels: Any = None) -> Plan:
        """The plan without the examples that leave, and with weights multiplied.

        An example with a corrected label stays in the plan, and its weight too. That the model is trained on the
        corrected label is for the dataset to see to: `dp.IndexedDataset(dataset, decisions=decisions)`.

        Args:
            plan: for the same data.
            data: as for `check`.
            labels: [N] int64, corrected ones, for what the summary says of classes.

        Returns:
            A plan, whose `summary()["decisions"]` says how many examples left, were relabelled and weighted, and how
            many decisions are of ids that the data lacks.

        Raises:
            ValueError: as for `check`; all decisions are of ids that the data lacks; a plan of other data, with a
                position outside it; or no example is left.

        >>> decisions = Decisions([{"index": 0, "decision": "drop"}, {"index": 2, "decision": "keep", "weight": 0.5}])
        >>> plan = decisions.apply_to_plan(Plan(torch.tensor([0, 2]), torch.tensor([1.0, 3.0])), 4)
        >>> plan.index.tolist(), plan.weight.tolist()
        ([2], [1.5])
        """
        identity = Identity.of(data)
        plan.check_data(identity.size, None if plan.ids_digest is None else identity.ids)
        pairs = self._of(identity)
        found = dict(pairs)
        stays = torch.ones(identity.size, dtype=torch.bool, device="cpu")
        factor = torch.ones(identity.size, dtype=torch.float32, device="cpu")
        for position, entry in found.items():
            stays[position] = not entry.leaves
            factor[position] = entry.weight
        kept = stays[plan.index]
        if not bool(kept.any()):
            raise ValueError(
                f"{self._source}: no example of the plan is left, {counted(len(plan), 'is', 'are')} wrong or to be "
                "dropped"
            )
        index = plan.index[kept]
        weight = plan.weight[kept] * factor[index]
        name = f"{plan.summary()['policy']}, as decided"
        classes = None if labels is None else torch.as_tensor(np.asarray(labels), dtype=torch.int64, device="cpu")
        made = make_plan(index, weight, identity.size, name, classes, may_drop_classes=True)
        planned = torch.zeros(identity.size, dtype=torch.bool, device="cpu").index_fill_(0, plan.index, True)
        inside = {position for position in found if bool(planned[position])}
        report = {
            "left": len(plan) - len(index),
            "relabelled": sum(p in inside and e.decision == "wrong" and not e.leaves for p, e in found.items()),
            "weighted": sum(p in inside and e.weight != 1 and not e.leaves for p, e in found.items()),
            "missing": len(self) - len(pairs),
        }
        return Plan(made.index, made.weight, {**made.summary(), "decisions": report}, ids_digest=plan.ids_digest)


def expect_decisions(given: Any) -> Decisions:
    """TypeError for what are no decisions, such as the path of a file of them."""
    if not isinstance(given, Decisions):
        raise TypeError(f"decisions: got {given!r}, expected dp.Decisions, such as dp.Decisions.load(path)")
    return given


def _merged(before: Entry, entry: Entry) -> Entry:
    """An entry and its repetition; ValueError if they contradict each other."""
    if before.said != entry.said:
        raise ValueError(
            f"{before.place} and {entry.place} are both of {entry.name} and contradict each other: {before.said} and "
            f"{entry.said} (decision, label, weight); remove one"
        )
    new = "" if entry.note in before.note else entry.note
    note = f"{before.note}\n{new}" if before.note and new else before.note or new
    return replace(before, note=note, more={**entry.more, **before.more})
