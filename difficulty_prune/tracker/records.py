"""What the logit scores need of each example: the table of records that the training step fills."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..ops.layout import FIELD, HALF_LIFE, NO_ROW, STAT
from ..ops.operators import (
    new_steps,
    new_table,
    record_given_stats_,
    record_stats_,
    softmax_stats,
)
from ..scores.logit_scores import logit_scores
from .growth import resized


class Records:
    """A record of 64 bytes for each example.

    Args:
        num_examples: N.
        device: where the logits will be.
        half_life: presentations after which a loss weighs half as much in `recent_loss`.
        right_from: the fraction of its rows from which an example is right.

    Attributes:
        table: [N, 16] float32, see `ops.new_table`.
        steps: [N + 1] int32, see `ops.new_steps`.

    >>> records = Records(2, torch.device("cpu"))
    >>> records.record(torch.tensor([1]), torch.tensor([[4.0, 1.0]]), torch.tensor([0]))
    >>> records.scores(("aum",)), records.labels()
    ({'aum': tensor([nan, 3.])}, tensor([-1,  0]))
    """

    def __init__(
        self,
        num_examples: int,
        device: torch.device | str | None = None,
        half_life: float = HALF_LIFE,
        right_from: float = 1.0,
    ) -> None:
        self.table = new_table(num_examples, device)
        self.steps = new_steps(num_examples, device)
        self.decay = 0.5 ** (1 / half_life)
        self.right_from = right_from

    def record(
        self,
        index: Tensor,
        logits: Tensor,
        labels: Tensor,
        skipped: Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Adds a presentation of the examples `index` [B]; see `ops.record_stats_`."""
        if logits.stride(1) == 1 or len(logits) == 0:
            record_stats_(self.table, index, logits, labels, skipped, ignore_index, self.decay, self.steps)
        else:  # read in place, which recording at once cannot
            stats = softmax_stats(logits, labels, ignore_index)
            kept = torch.where(stats[:, STAT["loss"]] == NO_ROW, 0, labels)  # one that is ignored is not looked at
            self.record_given(index, stats, kept, logits.shape[1], skipped)

    def record_given(
        self, index: Tensor, stats: Tensor, labels: Tensor, classes: int, skipped: Tensor | None = None
    ) -> None:
        """The same from the statistics of the examples; see `ops.record_given_stats_`."""
        record_given_stats_(self.table, index, stats, labels, classes, skipped, self.right_from, self.decay, self.steps)

    def resize(self, size: int) -> None:
        """From now on for so many examples; see `resized`."""
        self.table = resized(self.table, size)
        self.steps = torch.cat([resized(self.steps[:-1], size), self.steps[-1:]])

    def age(self) -> Tensor:
        """[N] float64, steps since each example was last presented: 0 in the last step, NaN for never."""
        now, seen = self.steps[-1], self.steps[:-1]
        wide = torch.float32 if now.device.type == "mps" else torch.float64
        return torch.where(seen > 0, (now - seen).to(wide), torch.nan)

    def relabel(self, index: Tensor, labels: Tensor) -> None:
        """From now on the examples `index` [B] have other labels [B]; those that are not compared stay so.

        Their recent losses start anew.
        """
        table = self.table[index]
        known = table[:, FIELD["label"]]
        table[:, FIELD["label"]] = torch.where(known < 0, -1.0, labels.to(table.dtype))
        table[:, FIELD["recent_loss"]].masked_fill_(table[:, FIELD["count"]] > 0, torch.nan)
        self.table[index] = table

    @property
    def count(self) -> Tensor:
        """[N] float32, presentations of each example."""
        return self.table[:, FIELD["count"]]

    def labels(self, index: Tensor | None = None) -> Tensor:
        """The label that each example is shown with; -1 where none was, or labels are not kept.

        [N] int64, or [B] of the examples `index` [B].
        """
        table = self.table if index is None else self.table[index]
        shown = table[:, FIELD["p_max"]] > 0  # which a loss alone leaves at 0
        return torch.where(shown, table[:, FIELD["label"]], -1).long()

    def forget_labels(self, index: Tensor | None = None) -> None:
        """From now on keeps and compares no labels of the examples `index` [B], by default of all.

        For labels that are predictions, which may change. An index that does not exist is passed over.
        """
        labels = self.table[:, FIELD["label"]]
        if index is None:
            labels.fill_(-1)
            return
        last = len(self.table) - 1
        forgotten = torch.where((index < 0) | (index > last), torch.inf, torch.full_like(index, -1, dtype=labels.dtype))
        labels.scatter_reduce_(0, index.clamp(0, last), forgotten, "amin")

    def agree(self, index: Tensor, labels: Tensor) -> Tensor:
        """[B] bool: whether a row of a batch that was just recorded came with the label that its example has.

        The others were left out, as presentations of another example. What else is recorded of the batch can so leave
        out the same rows. A row whose example has no label, or does not exist, agrees.

        >>> records = Records(2)
        >>> index, labels = torch.tensor([1, 1]), torch.tensor([0, 1])
        >>> records.record(index, torch.zeros(2, 2), labels)
        >>> records.agree(index, labels)
        tensor([ True, False])
        """
        last = len(self.table) - 1
        known = self.labels(index.clamp(0, last))
        return (known < 0) | (known == labels) | (index < 0) | (index > last)

    def scores(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Those of the names that a record holds, each [N] float32; NaN where never presented."""
        return logit_scores(self.table, names, self.decay)

    def take(self, other: Records, here: Tensor, there: Tensor) -> None:
        """Takes over the records [k] at the places `there` of another process, which made as many steps or fewer."""
        later = (other.steps[-1].to(self.steps.device) - self.steps[-1]).clamp(min=0)
        self.steps += torch.where(self.steps > 0, later, 0)
        self.steps[-1] = torch.maximum(self.steps[-1], other.steps[-1].to(self.steps.device))
        copy_rows(self, other, ("table",), here, there)
        seen = other.steps[:-1][there.to(other.steps.device)].to(self.steps.device)
        earlier = self.steps[-1] - other.steps[-1].to(self.steps.device)
        self.steps[:-1][here.to(self.steps.device)] = torch.where(seen > 0, seen + earlier, 0)

    def check_merge(self, other: Records) -> None:
        """ValueError if `other` knows another label of an example: its examples are others, or in another order."""
        theirs, own = other.labels().to(self.table.device), self.labels()
        changed = ((theirs >= 0) & (own >= 0) & (theirs != own)).nonzero()[:, 0]
        if len(changed):
            first = int(changed[0])
            raise ValueError(
                f"merge: {len(changed)} of {len(own)} examples were presented with other labels there than here; that "
                f"of example {first} is {int(theirs[first])}, expected {int(own[first])}. Merge trackers of one "
                "dataset, in one order"
            )

    def merge(self, other: Records) -> None:
        """Adds the presentations that `other` recorded, as if they had come afterwards.

        Raises:
            ValueError: see `check_merge`.
        """
        self.check_merge(other)
        now, theirs = self.steps[-1].clone(), other.steps.to(self.steps.device)
        self.steps[-1] += theirs[-1]
        seen = theirs[:-1] > 0
        self.steps[:-1][seen] = now + theirs[:-1][seen]
        a = {name: self.table[:, column].clone() for name, column in FIELD.items()}
        b = {name: column.clone() for name, column in zip(FIELD, other.table.to(self.table.device).T, strict=False)}
        for name, merged in _merged(a, b, self.decay).items():
            self.table[:, FIELD[name]] = merged


def copy_rows(target: Any, source: Any, names: Iterable[str], here: Tensor, there: Tensor) -> None:
    """Copies the rows `there` [k] of tensors of the source to the rows `here` of those of the target."""
    for name in names:
        own, others = getattr(target, name), getattr(source, name)
        own[here.to(own.device)] = others[there.to(others.device)].to(own.device)


def _merged(a: dict[str, Tensor], b: dict[str, Tensor], decay: float) -> dict[str, Tensor]:
    """The fields of records in which the presentations of `b` follow those of `a`."""
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
    anew = a["recent_loss"].isnan() & (b["count"] > 0)  # what came before is to be forgotten
    mean_of_b = b["recent_loss"] / (1 - decay ** b["count"].clamp(min=1))
    both = a["recent_loss"] * decay ** b["count"] + b["recent_loss"]
    merged["recent_loss"] = torch.where(anew, mean_of_b * (1 - decay**total), both)
    merged["label"] = torch.where(b["p_max"] > 0, b["label"], a["label"])
    merged["label"] = torch.where((a["label"] < 0) | (b["label"] < 0), -1, merged["label"])
    return merged
