"""What rows say about examples, in float64, one example and one row after the other, straight from the definition.

Nothing of the library is used here, so that a misreading of a definition cannot hide in both places.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

STATS = ("loss", "el2n", "entropy", "p_label", "p_max", "logit_margin", "p_margin", "correct")


@dataclass
class Row:
    """A row that counts: of which place in the batch, what it says, how much it weighs, and its class if it has one."""

    place: int
    stats: dict[str, float]
    weight: float = 1.0
    label: int | None = None


# What one row says


def log_softmax(z: np.ndarray) -> np.ndarray:
    shifted = z - z.max()
    return shifted - np.log(np.exp(shifted).sum())


@np.errstate(all="ignore")
def stats_of(z: np.ndarray, q: np.ndarray, own: int) -> dict[str, float]:
    """Of logits z [C] and target probabilities q [C], whose largest is that of the class `own`."""
    z, q = z.astype(np.float64), q.astype(np.float64)
    log_p = log_softmax(z)
    p = np.exp(log_p)
    loss, entropy, squares, p_label = 0.0, 0.0, 0.0, 0.0
    for c in range(len(z)):
        if q[c] != 0:
            loss -= q[c] * log_p[c]
        if p[c] != 0:
            entropy -= p[c] * log_p[c]
        squares += (p[c] - q[c]) ** 2
        p_label += q[c] * p[c]
    others = [c for c in range(len(z)) if c != own]
    top = 0
    for c in others:
        if z[c] > z[top] or (z[c] == z[top] and c < top):
            top = c
    if z[own] > z[top] or (z[own] == z[top] and own < top):
        top = own
    return {
        "loss": loss,
        "el2n": math.sqrt(squares),
        "entropy": entropy,
        "p_label": p_label,
        "p_max": max(p),
        "logit_margin": z[own] - max(z[c] for c in others) if others else 0.0,
        "p_margin": p[own] - max(p[c] for c in others) if others else 0.0,
        "correct": float(top == own),
    }


def stats_of_class(z: np.ndarray, label: int) -> dict[str, float]:
    return stats_of(z, np.eye(len(z))[label], label)


def stats_of_targets(z: np.ndarray, q: np.ndarray) -> dict[str, float]:
    largest = 0
    for c in range(len(q)):
        if q[c] > q[largest]:
            largest = c
    return stats_of(z, q, largest)


def stats_of_label(z: float, label: int) -> dict[str, float]:
    """Of a task of two classes with one logit, that of class 1."""
    return stats_of_class(np.array([0.0, z]), label)


def stats_of_values(loss: float | None, entropy: float | None, correct: float | None) -> dict[str, float]:
    stats = dict.fromkeys(STATS, 0.0)
    if loss is not None:
        stats |= {"loss": loss if loss != -math.inf else math.nan, "p_label": math.exp(-loss)}
    stats |= {} if entropy is None else {"entropy": entropy}
    return stats if correct is None else stats | {"correct": float(correct)}


# The rows of a batch, in every form that a loss takes


def _places(
    shape: tuple[int, ...], owner: np.ndarray | None, weight: np.ndarray | None
) -> Iterator[tuple[tuple[int, ...], int, float]]:
    for at in np.ndindex(shape):
        own = at[: owner.ndim] if owner is not None else ()
        place = at[0] if owner is None else int(owner[own])
        share = 1.0 if weight is None else float(weight[at[: weight.ndim]])
        if place >= 0 and share > 0:
            yield at, place, share


def rows_of_classes(
    logits: np.ndarray,
    labels: np.ndarray,
    owner: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    ignore_index: int = -100,
) -> Iterator[Row]:
    """logits [B, C, ...], labels [B, ...]."""
    for at, place, share in _places(labels.shape, owner, weight):
        if labels[at] != ignore_index:
            label = int(labels[at])
            yield Row(place, stats_of_class(logits[(at[0], slice(None), *at[1:])], label), share, label)


def rows_of_targets(
    logits: np.ndarray, targets: np.ndarray, owner: np.ndarray | None = None, weight: np.ndarray | None = None
) -> Iterator[Row]:
    """logits and targets [B, C, ...]."""
    for at, place, share in _places((logits.shape[0], *logits.shape[2:]), owner, weight):
        row = (at[0], slice(None), *at[1:])
        yield Row(place, stats_of_targets(logits[row], targets[row]), share)


def rows_of_labels(
    logits: np.ndarray,
    labels: np.ndarray,
    owner: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    ignore_index: int = -100,
) -> Iterator[Row]:
    """logits and labels [B, ...] of 0 and 1; a label that is NaN is not known."""
    alone = owner is None and logits.size == len(logits)  # a label of a multi-label example is no class of the example
    for at, place, share in _places(logits.shape, owner, weight):
        if labels[at] == labels[at] and labels[at] != ignore_index:
            label = int(labels[at])
            yield Row(place, stats_of_label(logits[at], label), share, label if alone else None)


def rows_of_values(
    loss: np.ndarray | None = None,
    entropy: np.ndarray | None = None,
    correct: np.ndarray | None = None,
    owner: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> Iterator[Row]:
    """[B], or of any shape with owners."""
    shape = next(values.shape for values in (loss, entropy, correct) if values is not None)
    for at, place, share in _places(shape, owner, weight):
        known = [None if values is None else float(values[at]) for values in (loss, entropy, correct)]
        yield Row(place, stats_of_values(*known), share)


# What examples remember


@dataclass
class Example:
    """Presentations of an example so far, and the label with which it came: None for none yet, -1 for any."""

    history: list[dict[str, float]] = field(default_factory=list)
    label: int | None = None
    last_step: int | None = None


class Oracle:
    """Every example's presentations, and its scores."""

    def __init__(self, examples: int, right_from: float = 1.0, half_life: float = 2.0) -> None:
        self.examples = [Example() for _ in range(examples)]
        self.right_from, self.decay = right_from, 0.5 ** (1 / half_life)
        self.steps = 0
        self.skipped = {"bad index": 0, "bad label": 0, "not finite": 0, "changed label": 0}

    def step(self, index: Sequence[int], rows: Iterator[Row], shows_classes: bool = True) -> None:
        """One step of a training: a presentation of each example of the batch that has a row."""
        self.steps += 1
        of_place: list[list[Row]] = [[] for _ in index]
        for row in rows:
            of_place[row.place].append(row)
        for i, own in zip(index, of_place, strict=True):
            if own:
                self._present(self.examples[int(i)], own, shows_classes)

    def _present(self, example: Example, rows: list[Row], shows_classes: bool) -> None:
        total = sum(row.weight for row in rows)
        with np.errstate(all="ignore"):
            mean = {s: sum(row.weight * row.stats[s] for row in rows) / total for s in STATS}
        label = rows[0].label if len(rows) == 1 and rows[0].label is not None else -1
        if any(not math.isfinite(v) for s, v in mean.items() if not (s == "logit_margin" and v == math.inf)):
            self.skipped["not finite"] += 1
        elif shows_classes and label >= 0 and example.label not in (None, -1, label):
            self.skipped["changed label"] += 1
        else:
            example.history.append(mean)
            example.last_step = self.steps
            if shows_classes:
                example.label = label if example.label != -1 else -1

    def scores(self) -> dict[str, np.ndarray]:
        """By name, [N]; NaN where an example was never presented."""
        found = [self._scores_of(example.history) for example in self.examples]
        names = next((list(scores) for scores in found if scores), [])
        return {name: np.array([scores.get(name, math.nan) for scores in found]) for name in names}

    def _scores_of(self, history: list[dict[str, float]]) -> dict[str, float]:
        if not history:
            return {}
        presented = len(history)
        of = {s: [shown[s] for shown in history] for s in STATS}
        mean = {s: sum(values) / presented for s, values in of.items()}
        margins = [m for m in of["logit_margin"] if m != math.inf]
        right = [fraction >= self.right_from for fraction in of["correct"]]
        always_right_from = presented
        while always_right_from > 0 and right[always_right_from - 1]:
            always_right_from -= 1
        ages = [self.decay**k for k in range(presented)]  # of the newest first
        return {
            "loss": mean["loss"],
            "recent_loss": sum(a * v for a, v in zip(ages, reversed(of["loss"]), strict=True)) / sum(ages),
            "el2n": mean["el2n"],
            "entropy": mean["entropy"],
            "confidence": mean["p_label"],
            "max_confidence": mean["p_max"],
            "variability": math.sqrt(sum((p - mean["p_label"]) ** 2 for p in of["p_label"]) / presented),
            "accuracy": mean["correct"],
            "aum": sum(margins) / len(margins) if margins else math.nan,
            "margin": mean["p_margin"],
            "forgetting": sum(a and not b for a, b in pairwise(right)) if any(right) else presented,
            "learning_time": right.index(True) if any(right) else presented,
            "consistently_learned": always_right_from,
        }

    def age(self) -> np.ndarray:
        """[N], steps since each example was last presented; NaN for never."""
        return np.array([math.nan if e.last_step is None else self.steps - e.last_step for e in self.examples])

    def labels(self) -> list[int]:
        """[N], -1 where not known."""
        return [-1 if e.label is None else e.label for e in self.examples]
