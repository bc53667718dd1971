"""Names of the columns that the operators read and write; the order is that of `csrc/core`."""

from __future__ import annotations

from typing import Final

STATS: Final = ("loss", "el2n", "entropy", "p_label", "p_max", "logit_margin", "p_margin", "correct")
"""Columns of `softmax_stats`."""

RECORD: Final = (
    "count",
    "loss",
    "el2n",
    "entropy",
    "p_label_mean",
    "p_label_m2",
    "p_max",
    "logit_margin",
    "p_margin",
    "correct",
    "forgotten",
    "first_correct",
    "last_wrong",
    "label",
)
"""Columns of a record table; `RECORD_WIDTH` - len(RECORD) more are unused."""

RECORD_WIDTH: Final = 16
STAT: Final = {name: column for column, name in enumerate(STATS)}
FIELD: Final = {name: column for column, name in enumerate(RECORD)}

SKIPPED: Final = ("bad index", "bad label", "not finite")
"""Why presentations were left out: positions in the `skipped` counter."""
