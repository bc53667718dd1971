"""What a score is good for on data that was not trained on: telling foreign examples, and abstaining."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detection:
    """How well a score tells foreign (positive) from own examples.

    Attributes:
        auroc: area under the ROC curve: the probability that a foreign example scores higher than an own one;
            0.5 is chance.
        aupr: area under the precision-recall curve (average precision); `foreign_share` is chance.
        foreign_share: fraction of the examples that are foreign.
    """

    auroc: float
    aupr: float
    foreign_share: float

    def __str__(self) -> str:
        return f"AUROC {self.auroc:.3f} (chance 0.5), AUPR {self.aupr:.3f} (chance {self.foreign_share:.3f})"

    def to_dict(self) -> dict[str, float]:
        """The numbers by name."""
        return {"auroc": self.auroc, "aupr": self.aupr, "foreign_share": self.foreign_share}


def ood(own: Any, foreign: Any) -> Detection:
    """Out-of-distribution detection by a score, as in section 6 of the VoG paper (arXiv 2008.11600).

    Args:
        own: [N] scores of examples like those that the model was trained on, such as a test set.
        foreign: [M] scores of examples from elsewhere; high is taken for foreign, so turn the sign of a score that is
            low where an example is hard.

    Raises:
        ValueError: not one number per example, no examples, or a NaN.

    >>> print(ood([0.1, 0.2, 0.4], [0.3, 0.9]))
    AUROC 0.833 (chance 0.5), AUPR 0.833 (chance 0.400)
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores = [_numbers(own, "own"), _numbers(foreign, "foreign")]
    is_foreign = np.repeat([0, 1], [len(s) for s in scores])
    together = np.concatenate(scores)
    return Detection(
        float(roc_auc_score(is_foreign, together)),
        float(average_precision_score(is_foreign, together)),
        float(is_foreign.mean()),
    )


def selective_accuracy(
    score: Any, correct: Any, fractions: Iterable[float] | float = (0.1, 0.25, 0.5, 0.75, 1.0)
) -> NDArray[Any]:
    """Accuracy on the examples with the lowest scores, such as the lowest VoG (arXiv 2008.11600, section 5).

    Args:
        score: [N], low where the prediction is trusted.
        correct: [N] bool, whether the prediction is right.
        fractions: of the examples to answer for, each in (0, 1]; at least one example is taken. Equal scores count
            in the order of the examples.

    Returns:
        [F] float64, one accuracy per fraction.

    Raises:
        TypeError: `correct` is not of bool.
        ValueError: different lengths, no examples, a NaN, or a fraction outside (0, 1].

    >>> selective_accuracy([0.1, 0.9, 0.2, 0.8], [True, False, True, True], (0.5, 1.0))
    array([1.  , 0.75])
    """
    values, right = _numbers(score, "score"), np.asarray(correct)
    if right.shape != values.shape:
        raise ValueError(f"got {len(values)} scores and correct {right.shape}, expected one of both per example")
    if right.dtype != np.bool_:
        raise TypeError(f"correct: got {right.dtype}, expected bool: predictions == labels")
    shares = [fractions] if isinstance(fractions, float) else list(fractions)
    for share in shares:
        if not 0 < share <= 1:
            raise ValueError(f"fractions: got {share!r}, expected a fraction in (0, 1]")
    lowest_first = right[np.argsort(values, kind="stable")]
    return np.array([lowest_first[: max(1, round(share * len(values)))].mean() for share in shares])


def _numbers(values: Any, name: str) -> NDArray[Any]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name}: got shape {array.shape}, expected one number per example, at least one")
    if np.isnan(array).any():
        raise ValueError(f"{name}: got {int(np.isnan(array).sum())} NaN: examples that were never shown have no score")
    return array
