"""Every score once more, in float64 NumPy, one presentation at a time, straight from its definition.

Nothing of the library is used here, so that a misreading of a definition cannot hide in both places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

LOGIT_SCORES = (
    "loss",
    "el2n",
    "entropy",
    "confidence",
    "max_confidence",
    "variability",
    "accuracy",
    "aum",
    "margin",
    "forgetting",
    "learning_time",
    "consistently_learned",
)
ORDER_DEPENDENT = ("forgetting", "learning_time", "consistently_learned")

Presentation = tuple[int, Sequence[float] | np.ndarray, int]


def log_softmax(z: np.ndarray) -> np.ndarray:
    shifted = z - z.max()
    return shifted - math.log(np.exp(shifted).sum())


def prediction(z: np.ndarray) -> int:
    """The class of the largest logit; the lowest class wins a tie."""
    best = 0
    for c in range(1, len(z)):
        if z[c] > z[best]:
            best = c
    return best


def best_other(values: np.ndarray, label: int) -> float:
    return max(float(v) for c, v in enumerate(values) if c != label)


def entropy(p: np.ndarray, log_p: np.ndarray) -> float:
    return -sum(float(a * b) for a, b in zip(p, log_p, strict=True) if a > 0)


def score_of(history: list[tuple[np.ndarray, int]]) -> dict[str, float]:
    """The scores of one example from its presentations (logits, label), in order."""
    presented = len(history)
    log_ps = [log_softmax(z) for z, _ in history]
    ps = [np.exp(log_p) for log_p in log_ps]
    labels = [label for _, label in history]
    p_label = [p[y] for p, y in zip(ps, labels, strict=True)]
    correct = [prediction(z) == y for z, y in history]

    mean_p_label = sum(p_label) / presented
    never_learned = not any(correct)
    forgotten = sum(1 for before, now in pairwise(correct) if before and not now)
    always_correct_from = presented
    while always_correct_from > 0 and correct[always_correct_from - 1]:
        always_correct_from -= 1

    return {
        "loss": sum(-log_p[y] for log_p, y in zip(log_ps, labels, strict=True)) / presented,
        "el2n": sum(np.linalg.norm(p - np.eye(len(p))[y]) for p, y in zip(ps, labels, strict=True)) / presented,
        "entropy": sum(entropy(p, log_p) for p, log_p in zip(ps, log_ps, strict=True)) / presented,
        "confidence": mean_p_label,
        "max_confidence": sum(p.max() for p in ps) / presented,
        "variability": math.sqrt(sum((value - mean_p_label) ** 2 for value in p_label) / presented),
        "accuracy": sum(correct) / presented,
        "aum": sum(z[y] - best_other(z, y) for z, y in history) / presented,
        "margin": sum(p[y] - best_other(p, y) for p, y in zip(ps, labels, strict=True)) / presented,
        "forgetting": presented if never_learned else forgotten,
        "learning_time": presented if never_learned else correct.index(True),
        "consistently_learned": always_correct_from,
    }


def logit_scores(num_examples: int, presentations: Iterable[Presentation]) -> dict[str, np.ndarray]:
    """Every logit score [num_examples] of presentations (index, logits, label); NaN where never presented."""
    histories: dict[int, list[tuple[np.ndarray, int]]] = {}
    for index, logits, label in presentations:
        histories.setdefault(int(index), []).append((np.asarray(logits, dtype=np.float64), int(label)))
    result = {name: np.full(num_examples, np.nan) for name in LOGIT_SCORES}
    for index, history in histories.items():
        for name, value in score_of(history).items():
            result[name][index] = value
    return result


def vog(checkpoints: Sequence[np.ndarray]) -> float:
    """Variance of Gradients of one example from its gradients [C, ...] at several checkpoints."""
    signals = [np.asarray(g, dtype=np.float64).mean(axis=0) for g in checkpoints]
    mean = sum(signals) / len(signals)
    variance = sum((signal - mean) ** 2 for signal in signals) / len(signals)
    return float(np.sqrt(variance).mean())


def vog_scores(num_examples: int, gradients: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
    """VoG [num_examples] of gradients (index, gradient [C, ...]); NaN where none was seen."""
    seen: dict[int, list[np.ndarray]] = {}
    for index, gradient in gradients:
        seen.setdefault(int(index), []).append(gradient)
    result = np.full(num_examples, np.nan)
    for index, checkpoints in seen.items():
        result[index] = vog(checkpoints)
    return result


def temporal_of(history: list[tuple[np.ndarray, int]], window: int, decay: float) -> dict[str, float]:
    """TDDS, dynamic uncertainty and DUAL of one example from its presentations (logits, label), in order."""
    presented = len(history)
    if presented < window:
        return {"tdds": math.nan, "dyn_unc": math.nan, "dual": math.nan}
    log_ps = [log_softmax(z) for z, _ in history]
    p_label = [math.exp(log_p[y]) for log_p, (_, y) in zip(log_ps, history, strict=True)]
    changes = [float(np.sum(np.exp(now) * np.abs(now - before))) for before, now in pairwise(log_ps)]
    tdds, deviations, duals = 0.0, [], []
    for end in range(window, presented + 1):  # presentations end - window + 1 to end, counted from 1
        deviations.append(np.std(p_label[end - window : end], ddof=1))
        duals.append((1 - np.mean(p_label[end - window : end])) * deviations[-1])
        inside = np.array(changes[end - window : end - 1])  # from each of these presentations to the next
        assert len(inside) == window - 1
        tdds += decay * (1 - decay) ** (presented - end) * np.linalg.norm(inside - inside.mean())
    return {"tdds": float(tdds), "dyn_unc": float(np.mean(deviations)), "dual": float(np.mean(duals))}


def temporal_scores(
    num_examples: int, presentations: Iterable[Presentation], window: int, decay: float
) -> dict[str, np.ndarray]:
    """TDDS, dynamic uncertainty and DUAL [num_examples] of presentations (index, logits, label); NaN where too few."""
    histories: dict[int, list[tuple[np.ndarray, int]]] = {example: [] for example in range(num_examples)}
    for index, logits, label in presentations:
        histories[int(index)].append((np.asarray(logits, dtype=np.float64), int(label)))
    scores = [temporal_of(histories[example], window, decay) for example in range(num_examples)]
    return {name: np.array([score[name] for score in scores]) for name in ("tdds", "dyn_unc", "dual")}
