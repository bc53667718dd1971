"""One decision: a line of a table, read and checked."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from torch import Tensor

DECISIONS: Final = ("keep", "wrong", "drop", "unsure")
_WHOLE: Final = re.compile(r"([+-]?[0-9]{1,100})(?:\.0*)?")  # of many more digits Python makes no number
_HEAVIEST: Final = float(np.finfo(np.float32).max)  # weights of plans are float32
COLUMNS: Final = ("id", "index", "decision", "label", "weight", "note")


@dataclasses.dataclass(frozen=True)
class Entry:
    """What was decided of one example.

    Attributes:
        place: where it stands, for messages, such as "line 3".
        id: what names the example for good, or None.
        index: its position in the data, or None.
        decision: one of `DECISIONS`.
        label: the corrected class, as a number or by name; None if not given.
        weight: what the example's weight is multiplied by.
        note: free text.
        more: columns that the library does not know.
    """

    place: str
    id: str | int | None
    index: int | None
    decision: str
    label: str | int | None
    weight: float
    note: str
    more: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """What says which example is meant: the id, else the index."""
        return ("index", str(self.index)) if self.id is None else ("id", str(self.id))

    @property
    def name(self) -> str:
        return f"{self.key[0]} {self.key[1]}"

    @property
    def said(self) -> tuple[str, str | None, float]:
        """What two entries on one example must agree on."""
        return self.decision, None if self.label is None else str(self.label), self.weight

    @property
    def leaves(self) -> bool:
        """Whether the example leaves the plan: to be dropped, or wrong without the right label."""
        return self.decision == "drop" or (self.decision == "wrong" and self.label is None)

    def cells(self) -> dict[str, Any]:
        """As a row of a table; None for an empty cell."""
        weight = None if self.weight == 1 else self.weight
        known = self.id, self.index, self.decision, self.label, weight, self.note or None
        return {**dict(zip(COLUMNS, known, strict=True)), **self.more}


def read_entry(cells: Mapping[str, Any], place: str) -> Entry:
    """The decision of a row.

    Raises:
        ValueError: it is malformed; the message names the place, what came, and what was expected.

    >>> read_entry({"id": "cat/1.png", "decision": "wrong", "label": "dog"}, "line 2").said
    ('wrong', 'dog', 1.0)
    """
    cells = {name: _plain(value) for name, value in cells.items()}
    for name in cells:
        meant = str(name).strip().lower()
        if meant in COLUMNS and meant not in cells:
            raise ValueError(
                f"{place}: got the column {name!r}, which is not {meant!r}; rename it, or it would not count"
            )
    found = Entry(
        place,
        _id(cells.get("id"), place),
        _index(cells.get("index"), place),
        _decision(cells, place),
        _label(cells.get("label"), place),
        _weight(cells.get("weight"), place),
        _note(cells.get("note"), place),
        {name: value for name, value in cells.items() if name not in COLUMNS},
    )
    if found.id is None and found.index is None:
        raise ValueError(f"{place} has neither id nor index, one of which says what example is meant")
    if found.decision == "keep" and found.label is not None:
        raise ValueError(
            f"{place} has the label {found.label!r} with 'keep', which leaves the label as it is; say 'wrong' to "
            "correct it, or leave the label out"
        )
    return found


def _plain(value: Any) -> Any:
    """A number of NumPy or PyTorch as one of Python."""
    return value.item() if isinstance(value, np.generic | np.ndarray | Tensor) and value.shape == () else value


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value)


def _id(value: Any, place: str) -> str | int | None:
    if _empty(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{place}: id: got {value!r}, expected text or a whole number")
    return value


def _index(value: Any, place: str) -> int | None:
    number = whole_cell(value)
    if number is not None and number >= 0:
        return number
    if _empty(value):
        return None
    raise ValueError(f"{place}: index: got {value!r}, expected a position in the data, 0 or more")


def whole_cell(value: Any) -> int | None:
    """The whole number that a cell holds, also as text or, as pandas writes it beside empty cells, as 3.0."""
    if isinstance(value, str):
        found = _WHOLE.fullmatch(value.strip())
        return None if found is None else int(found[1])
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _decision(cells: Mapping[str, Any], place: str) -> str:
    if "decision" not in cells:
        came = ", ".join(map(repr, cells)) or "none"
        hint = "; separate columns by commas" if len(cells) == 1 and ";" in str(next(iter(cells))) else ""
        raise ValueError(f"{place}: got the columns {came}, expected 'decision' among them{hint}")
    value = cells["decision"]
    word = value.strip().lower() if isinstance(value, str) else value
    if word not in DECISIONS:
        raise ValueError(f"{place}: decision: got {value!r}, expected one of {', '.join(DECISIONS)}")
    return str(word)


def _label(value: Any, place: str) -> str | int | None:
    if isinstance(value, str):
        return value.strip() or None
    if _empty(value):
        return None
    number = whole_cell(value)
    if number is None or number < 0:
        raise ValueError(f"{place}: label: got {value!r}, expected the number of a class, 0 or more, or its name")
    return number


def _weight(value: Any, place: str) -> float:
    if _empty(value) or (isinstance(value, str) and not value.strip()):
        return 1.0
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not 0 <= weight <= _HEAVIEST:
        raise ValueError(f"{place}: weight: got {value!r}, expected a number that float32 holds, 0 or more")
    return weight


def _note(value: Any, place: str) -> str:
    if _empty(value):
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{place}: note: got {value!r}, expected text")
    return value
