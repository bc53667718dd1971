"""The table of records that the training step fills."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.layout import FIELD


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
