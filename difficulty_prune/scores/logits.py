"""Logit scores from the table of records that the training step fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from ..ops import FIELD

_Fields = Mapping[str, Tensor]

_FORMULAS: Final[dict[str, Callable[[_Fields], Tensor]]] = {
    "loss": lambda f: f["loss"] / f["count"],
    "el2n": lambda f: f["el2n"] / f["count"],
    "entropy": lambda f: f["entropy"] / f["count"],
    "confidence": lambda f: f["p_label_mean"],
    "max_confidence": lambda f: f["p_max"] / f["count"],
    "variability": lambda f: (f["p_label_m2"].clamp(min=0) / f["count"]).sqrt(),
    "accuracy": lambda f: f["correct"] / f["count"],
    "aum": lambda f: f["logit_margin"] / f["count"],
    "margin": lambda f: f["p_margin"] / f["count"],
    # A never-learned example has nothing to forget; counting T makes it the hardest instead of the easiest.
    "forgetting": lambda f: torch.where(f["first_correct"] == 0, f["count"], f["forgotten"]),
    "learning_time": lambda f: torch.where(f["first_correct"] == 0, f["count"], f["first_correct"] - 1),
    "consistently_learned": lambda f: f["last_wrong"],
}


def logit_scores(table: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Scores of a record table [N, 16] (see `ops.new_table`), each [N] float32; NaN where never presented.

    >>> from difficulty_prune import ops
    >>> table = ops.new_table(2)
    >>> ops.record_stats_(table, torch.tensor([0]), torch.tensor([[4.0, 1.0]]), torch.tensor([0]))
    >>> logit_scores(table, ("aum",))["aum"]
    tensor([3., nan])
    """
    fields = {name: table[:, column] for name, column in FIELD.items()}
    seen = fields["count"] > 0
    return {name: torch.where(seen, _FORMULAS[name](fields), torch.nan) for name in names if name in _FORMULAS}


def merge_records_(table: Tensor, other: Tensor) -> None:
    """Adds to `table` [N, 16] the presentations recorded in `other`, as if they had come afterwards."""
    a = {name: table[:, column].clone() for name, column in FIELD.items()}
    b = {name: other[:, column] for name, column in FIELD.items()}
    total = a["count"] + b["count"]
    share = b["count"] / total.clamp(min=1)
    deviation = b["p_label_mean"] - a["p_label_mean"]
    ends_correct = (a["count"] > 0) & (a["last_wrong"] != a["count"])
    starts_wrong = (b["count"] > 0) & (b["first_correct"] != 1)

    def later(field: str) -> Tensor:
        return torch.where(b[field] > 0, a["count"] + b[field], 0)

    merged = {name: a[name] + b[name] for name in FIELD}  # sums, and the count
    merged["p_label_mean"] = a["p_label_mean"] + deviation * share
    merged["p_label_m2"] = a["p_label_m2"] + b["p_label_m2"] + deviation.square() * share * a["count"]
    merged["forgotten"] = a["forgotten"] + b["forgotten"] + (ends_correct & starts_wrong)
    merged["first_correct"] = torch.where(a["first_correct"] > 0, a["first_correct"], later("first_correct"))
    merged["last_wrong"] = torch.where(b["last_wrong"] > 0, later("last_wrong"), a["last_wrong"])
    merged["label"] = torch.where(b["count"] > 0, b["label"], a["label"])
    for name, column in FIELD.items():
        table[:, column] = merged[name]
