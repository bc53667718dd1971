"""Logit scores from the table of records that the training step fills."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..ops.layout import DECAY, FIELD
from ..ops.operators import new_skipped, new_table, record_stats_
from .catalogue import check_scores
from .temporal import TEMPORAL, TemporalOptions, dual, dyn_unc, tdds

_Fields = Mapping[str, Tensor]

_FORMULAS: Final[dict[str, Callable[[_Fields], Tensor]]] = {
    "loss": lambda f: f["loss"] / f["count"],
    "recent_loss": lambda f: f["recent_loss"] / f["weight"],
    "el2n": lambda f: f["el2n"] / f["count"],
    "entropy": lambda f: f["entropy"] / f["count"],
    "confidence": lambda f: f["p_label_mean"],
    "max_confidence": lambda f: f["p_max"] / f["count"],
    "variability": lambda f: (f["p_label_m2"].clamp(min=0) / f["count"]).sqrt(),
    "accuracy": lambda f: f["correct"] / f["count"],
    "aum": lambda f: f["logit_margin"] / (f["count"] - f["unrivalled"]),
    "margin": lambda f: f["p_margin"] / f["count"],
    # A never-learned example has nothing to forget; counting T makes it the hardest instead of the easiest.
    "forgetting": lambda f: torch.where(f["first_correct"] == 0, f["count"], f["forgotten"]),
    "learning_time": lambda f: torch.where(f["first_correct"] == 0, f["count"], f["first_correct"] - 1),
    "consistently_learned": lambda f: f["last_wrong"],
}


def logit_scores(table: Tensor, names: Iterable[str], decay: float = DECAY) -> dict[str, Tensor]:
    """Scores of a record table [N, 16] (see `ops.new_table`), each [N] float32; NaN where never presented.

    `decay` is that with which `recent_loss` was recorded. A presentation in which all other classes were masked has no
    logit margin: `aum` is the mean over the rest, and NaN where there is no other.

    >>> from difficulty_prune import ops
    >>> table = ops.new_table(2)
    >>> ops.record_stats_(table, torch.tensor([0]), torch.tensor([[4.0, 1.0]]), torch.tensor([0]))
    >>> logit_scores(table, ("aum",))["aum"]
    tensor([3., nan])
    """
    fields = {name: table[:, column] for name, column in FIELD.items()}
    # Of all presentations in the decayed sum, which knows the decay in float32.
    fields["weight"] = -(fields["count"] * math.log(max(float(np.float32(decay)), 1e-45))).expm1()
    seen = fields["count"] > 0
    return {name: torch.where(seen, _FORMULAS[name](fields), torch.nan) for name in names if name in _FORMULAS}


def trajectory_scores(
    logits: Tensor, labels: Tensor, names: Iterable[str] | None = None, temporal: TemporalOptions | None = None
) -> dict[str, Tensor]:
    """Every score of the logits, of trajectories that are in memory: what a tracker computes while training.

    Args:
        logits: [T, N, C] float32, bfloat16 or float16, T presentations of N examples in order; -inf masks a class.
        labels: [N] int64.
        names: default: all scores that need no more than logits.
        temporal: options of `tdds`, `dyn_unc` and `dual`.

    Returns:
        By name, each [N] float32.

    Raises:
        TypeError, ValueError: wrong type, dtype or shape, a score that needs more than logits, or a presentation
            whose loss is not finite.

    >>> logits = torch.tensor([[[4.0, 1.0]], [[0.0, 1.0]]])
    >>> trajectory_scores(logits, torch.tensor([0]), ("aum", "forgetting"))
    {'aum': tensor([1.]), 'forgetting': tensor([1.])}
    """
    chosen = check_scores((*_FORMULAS, *TEMPORAL) if names is None else names)
    for name in chosen:
        if name not in _FORMULAS and name not in TEMPORAL:
            raise ValueError(f"names: {name!r} needs more than logits; see dp.SCORES[{name!r}].needs")
    if not isinstance(logits, Tensor) or logits.dim() != 3 or not isinstance(labels, Tensor):
        got = f"{tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"got logits {got} and labels {type(labels).__name__}, expected tensors [T, N, C] and [N]")
    if len(logits) == 0 or logits.shape[2] < 2:
        raise ValueError(f"logits: got {tuple(logits.shape)}, expected at least one presentation and two classes")
    options = temporal if temporal is not None else TemporalOptions()
    if not isinstance(options, TemporalOptions):
        raise TypeError(f"temporal: got {type(temporal).__name__}, expected dp.TemporalOptions(...)")
    table, index = new_table(logits.shape[1], logits.device), torch.arange(logits.shape[1], device=logits.device)
    skipped = new_skipped(logits.device)
    for step in logits:
        record_stats_(table, index, step, labels, skipped)
    if skipped.any():
        raise ValueError(
            f"logits: the losses of {int(skipped.sum())} of {logits.shape[0] * logits.shape[1]} presentations are not "
            "finite; did training diverge, or is the class of a label masked?"
        )
    scores = logit_scores(table, chosen)
    if "tdds" in chosen:
        scores["tdds"] = tdds(logits.float(), options.window, options.decay)
    of_p_label = {name: formula for name, formula in (("dyn_unc", dyn_unc), ("dual", dual)) if name in chosen}
    if of_p_label:
        p_label = logits.float().softmax(2).gather(2, labels.expand(len(logits), -1)[:, :, None])[:, :, 0]
        scores |= {name: formula(p_label, options.window) for name, formula in of_p_label.items()}
    return {name: scores[name] for name in chosen}
