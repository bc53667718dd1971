"""Names of the columns that the operators read and write; the order is that of `csrc/core`."""

from __future__ import annotations

from typing import Final

from torch import Tensor

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
    "unrivalled",
    "recent_loss",
)
"""Columns of a record table.

label: of all presentations, for one with another label is left out. A negative one stays, and labels are then neither
kept nor compared. unrivalled: presentations whose logit margin is in no sum, since all other classes were masked.
recent_loss: the sum of (1 - decay) decay^k loss, where k presentations came later; NaN: it starts anew with the next.
"""

RECORD_WIDTH: Final = 16
STAT: Final = {name: column for column, name in enumerate(STATS)}
FIELD: Final = {name: column for column, name in enumerate(RECORD)}


def temporal_width(window: int, classes: int | None = None) -> int:
    """Columns of a temporal table: with `classes` all those of `temporal_parts`, else the first three of its parts."""
    return 2 + window if classes is None else 2 + 2 * window + classes


def temporal_parts(rows: Tensor, window: int) -> dict[str, Tensor]:
    """The columns of rows [n, width] of a temporal table, by name, as views.

    count [n, 1]: presentations; deviations [n, 1]: sum over windows of the standard deviation of p_label; p_label
    [n, window]: a ring. If the table has them: average [n, 1]: moving average over windows; changes [n, window - 1]:
    a ring; log_p [n, classes]: of the last presentation.
    """
    sizes = [1, 1, window]
    if rows.shape[1] > sum(sizes):
        sizes += [1, window - 1, rows.shape[1] - 2 * window - 2]
    names = ("count", "deviations", "p_label", "average", "changes", "log_p")
    return dict(zip(names, rows.split(sizes, 1), strict=False))


HALF_LIFE: Final = 2.0
"""Presentations after which a loss weighs half as much in `recent_loss`."""

DECAY: Final = 0.5 ** (1 / HALF_LIFE)
"""What a loss weighs in `recent_loss` beside that of the next presentation."""

PADDING: Final = -1
"""The index of a row that only fills up a batch, and the owner of one that is nobody's."""

NO_LABEL: Final = -(2**63)
"""The label of an example whose labels are not to be kept nor compared: it has several rows, or none has a class."""

NO_ROW: Final = float("-inf")
"""The loss of a row that counts for nothing, as where its label is ignored, and of an example without a row."""

SKIPPED: Final = ("bad index", "bad label", "not finite", "changed label")
"""Why presentations were left out: positions in the `skipped` counter.

bad index, bad label: outside the dataset or the classes. not finite: the loss is not finite in float32, as where a
logit is NaN or +inf, all are -inf, or that of the label is; or a gradient is not. changed label: the example was
presented with another label before.
"""
