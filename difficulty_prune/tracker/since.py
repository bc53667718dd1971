"""Scores of a part of training: what was recorded after a snapshot.

Most of a record are sums over presentations, so a part of training is a difference, and needs no second tracker.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import torch
from torch import Tensor

from ..ops.layout import FIELD, RECORD_WIDTH
from ..ops.operators import new_table
from ..scores.catalogue import LATE
from .records import Records
from .state import TrackerState

OF_A_PART: Final = (
    "loss",
    "el2n",
    "entropy",
    "confidence",
    "max_confidence",
    "variability",
    "accuracy",
    "aum",
    "margin",
    "consistently_learned",
)
"""Scores that records tell of a part of training. Others look at what came before it, or keep no sums."""

_SUMS: Final = ("loss", "el2n", "entropy", "p_max", "logit_margin", "p_margin", "correct", "unrivalled")


def take_snapshot(state: TrackerState) -> Tensor:
    """A copy of the table of records, [N, 16] float32 on the state's device.

    Raises:
        ValueError: no score of the tracker can be told of a part of training.
    """
    check_of_a_part(state.wanted.scores, ())
    if state.records is None:
        return new_table(state.wanted.num_examples, state.wanted.device)
    return state.records.table.clone()


def check_of_a_part(scores: tuple[str, ...], asked: tuple[str, ...]) -> tuple[str, ...]:
    """The scores of a part of training: those asked for, or all of the tracker's that have any.

    Raises:
        ValueError: one that was asked for has none, or there is none.
    """
    possible = tuple(name for name in scores if name in OF_A_PART)
    refused = [name for name in asked if name not in OF_A_PART]
    if refused or not possible:
        raise ValueError(
            f"since: {(refused or list(scores))[0]!r} is not known of a part of training, expected one of "
            f"{', '.join(OF_A_PART)}; for others, make a second tracker when the part begins"
        )
    return asked or possible


def check_late(scores: tuple[str, ...], since: Any) -> None:
    """ValueError unless a tracker of these scores can also tell those of the second half of the whole training."""
    if since is not None:
        raise ValueError(
            "late: got it together with since, whose run is of a part of the training alone; give since=early for all "
            f"scores of what came after it, or late=early for those of the whole training and {', '.join(LATE)}"
        )
    if not any(name in scores for name in LATE.values()):
        raise ValueError(
            f"late: this tracker records {', '.join(scores)}, expected {' or '.join(LATE.values())} among them, of "
            f"which {', '.join(LATE)} is made"
        )


def late_scores(state: TrackerState, snapshot: Any) -> dict[str, Tensor]:
    """Those of the second half of the training, which began with the snapshot; errors as of `part_since`."""
    named = {late: name for late, name in LATE.items() if name in state.wanted.scores}
    found = part_since(state, snapshot, "late").scores(tuple(named.values()))
    return {late: found[name] for late, name in named.items()}


def part_since(state: TrackerState, snapshot: Any, argument: str = "since") -> TrackerState:
    """What was recorded after the snapshot, of the scores that are known of a part of training.

    Args:
        argument: what the snapshot was given as.

    Raises:
        TypeError, ValueError: this is no snapshot of the tracker's, or the tracker was reset since.
    """
    found = copy.copy(state)
    found.moments, found.windows, found.norms = {}, None, None
    found.records = None
    if state.records is not None:
        found.records = copy.copy(state.records)
        found.records.table = _difference(state.records, _checked(snapshot, state.records, argument))
    else:
        _checked(snapshot, Records(state.wanted.num_examples), argument)
    return found


def presentations_before(state: TrackerState, snapshot: Tensor) -> int:
    """How often each example was presented before the snapshot, on average and rounded."""
    seen = max(1, int((state.records.count > 0).sum())) if state.records is not None else 1
    return round(float(snapshot[:, FIELD["count"]].cpu().double().sum()) / seen)


def _checked(snapshot: Any, records: Records, argument: str) -> Tensor:
    """The snapshot [N, 16] on the device of the records; a tracker that grew since has more examples."""
    if not isinstance(snapshot, Tensor):
        raise TypeError(f"{argument}: got {type(snapshot).__name__}, expected what tracker.snapshot() returned")
    size = len(records.table)
    if snapshot.dtype != torch.float32 or snapshot.dim() != 2 or snapshot.shape[1] != RECORD_WIDTH:
        raise ValueError(
            f"{argument}: got {snapshot.dtype} of shape {list(snapshot.shape)}, expected what tracker.snapshot() "
            f"returned, float32 [{size}, {RECORD_WIDTH}]"
        )
    if len(snapshot) > size:
        raise ValueError(f"{argument}: got a snapshot of {len(snapshot)} examples, but the tracker has {size}")
    known = new_table(size, records.table.device)
    known[: len(snapshot)] = snapshot.to(records.table.device)
    fewer = int((known[:, FIELD["count"]] > records.count).sum())
    if fewer:
        raise ValueError(
            f"{argument}: {fewer} examples had been presented more often when the snapshot was taken than they are "
            "now; it is of another tracker, or of this one before a reset"
        )
    return known


def _difference(records: Records, snapshot: Tensor) -> Tensor:
    """The record of what came after the snapshot, so that merging both gives the whole; events are left at 0."""
    wide = torch.float32 if snapshot.device.type == "mps" else torch.float64
    whole = {name: records.table[:, column].to(wide) for name, column in FIELD.items()}
    before = {name: snapshot[:, column].to(wide) for name, column in FIELD.items()}
    count = whole["count"] - before["count"]
    number = count.clamp(min=1)
    part = {name: whole[name] - before[name] for name in _SUMS}
    total = whole["p_label_mean"] * whole["count"] - before["p_label_mean"] * before["count"]
    part["p_label_mean"] = (total / number).clamp(0, 1)
    deviation = part["p_label_mean"] - before["p_label_mean"]
    between = deviation.square() * before["count"] * count / whole["count"].clamp(min=1)
    part["p_label_m2"] = (whole["p_label_m2"] - before["p_label_m2"] - between).clamp(min=0)
    part["last_wrong"] = (whole["last_wrong"] - before["count"]).clamp(min=0)
    for name in ("el2n", "entropy", "p_max"):
        part[name] = part[name].clamp(min=0)
    table = torch.zeros_like(records.table)
    for name, values in part.items():
        table[:, FIELD[name]] = torch.where(count > 0, values, 0).float()
    table[:, FIELD["count"]] = count.float()
    table[:, FIELD["label"]] = torch.where(count > 0, whole["label"], 0).float()
    return table
