"""What the audit page shows, in a sentence and as a dict."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..support.counted import counted
from ..support.plain import plain_fields


@dataclasses.dataclass(frozen=True)
class AuditReport:
    """What was written, and what was found.

    Attributes:
        path: of the page.
        shown: m, how many examples it shows.
        examples: n, how many examples both the runs and the dataset know.
        runs: how many.
        score: by which the examples are sorted.
        other_label: of the n, how many have another label than training suggests; None if it suggests none.
        unreadable: of the shown examples, how many could not be read, or are of a kind that cannot be shown.
        first_unreadable: the first of them, and why.
        matched: how the ids of the runs and of the dataset went together; empty where all match.
        sheets: how many files with images are beside the page.
        bytes: of the page itself.
        index: [m] int64, positions of the shown examples in the dataset, most likely wrong first.
        sampled: [s] int64, positions of the random stratum, in the order in which they are to be looked at.
    """

    path: Path
    shown: int
    examples: int
    runs: int
    score: str
    other_label: int | None
    unreadable: int
    first_unreadable: str
    matched: str
    sheets: int
    bytes: int
    index: NDArray[np.int64]
    sampled: NDArray[np.int64]

    def __str__(self) -> str:
        runs = counted(self.runs, "run")
        text = (
            f"{self.path} shows {self.shown:,} of {self.examples:,} examples, sorted by the {self.score} of {runs}, "
            f"{len(self.sampled):,} of them drawn at random ({self.bytes / 1e6:.1f} MB"
        )
        text += f" and {counted(self.sheets, 'file')} with images beside it)" if self.sheets else ")"
        if self.other_label is not None:
            text += f"; training suggests another label for {self.other_label:,}"
        if self.unreadable:
            text += f"; {self.unreadable:,} could not be shown, the first is {self.first_unreadable}"
        if self.matched:
            text += f"; {self.matched}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """For JSON; positions are lists."""
        return plain_fields(self, path=str(self.path))
