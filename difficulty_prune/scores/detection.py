"""What a score is good for on data that was not trained on: telling foreign examples, and abstaining."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..support.arrays import real_numbers
from ..support.plain import plain_fields


@dataclass(frozen=True)
class Detection:
    """How well a score tells foreign examples (the positive class) from your own.

    Attributes:
        auroc: area under the ROC curve, the probability that a foreign example scores higher than one of your own;
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
        return plain_fields(self)


def ood(own: Any, foreign: Any) -> Detection:
    """Out-of-distribution detection by a score, as in section 6 of the VoG paper (arXiv 2008.11600).

    Args:
        own: [N] scores of examples like those that the model was trained on, such as a test set.
        foreign: [M] scores of examples from elsewhere. A high score counts as foreign, so flip the sign of a score that
            is low for hard examples.

    Raises:
        TypeError: values that are not numbers.
        ValueError: anything but one finite number per example, or no examples.

    >>> print(ood([0.1, 0.2, 0.4], [0.3, 0.9]))
    AUROC 0.833 (chance 0.5), AUPR 0.833 (chance 0.400)
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores = [_numbers(own, "own"), _numbers(foreign, "foreign")]
    for name, values in zip(("own", "foreign"), scores, strict=True):
        if np.isinf(values).any():
            raise ValueError(f"{name}: got {values[np.isinf(values)][0]}, expected finite numbers")
    is_foreign = np.repeat([0, 1], [len(s) for s in scores])
    together = np.concatenate(scores)
    return Detection(
        float(roc_auc_score(is_foreign, together)),
        float(average_precision_score(is_foreign, together)),
        float(is_foreign.mean()),
    )


def selective_accuracy(score: Any, correct: Any, fractions: Any = (0.1, 0.25, 0.5, 0.75, 1.0)) -> NDArray[Any]:
    """Accuracy on the examples with the lowest scores, such as the lowest VoG (arXiv 2008.11600, section 5).

    Args:
        score: [N], low where the prediction is trusted.
        correct: [N] bool, whether the prediction is right.
        fractions: [F] or a single number, how much of the data to answer for, each in (0, 1]; at least one example is
            answered for. Equal scores count in the order of the examples.

    Returns:
        [F] float64, one accuracy per fraction; [1] for a single number.

    Raises:
        TypeError: `correct` is not bool, or values that are not numbers.
        ValueError: different lengths, no examples, a NaN, or a fraction outside (0, 1].

    >>> selective_accuracy([0.1, 0.9, 0.2, 0.8], [True, False, True, True], (0.5, 1.0))
    array([1.  , 0.75])
    """
    values, right = _numbers(score, "score"), np.asarray(correct)
    if right.shape != values.shape:
        raise ValueError(f"got {len(values)} scores and correct {right.shape}, expected one of both per example")
    if right.dtype != np.bool_:
        raise TypeError(f"correct: got {right.dtype}, expected bool: predictions == labels")
    shares = np.atleast_1d(real_numbers(list(fractions) if isinstance(fractions, Iterator) else fractions, "fractions"))
    outside = ~((shares > 0) & (shares <= 1))  # NaN too
    if shares.ndim != 1 or outside.any():
        raise ValueError(f"fractions: got {shares.tolist()}, expected one or several fractions in (0, 1]")
    lowest_first = right[np.argsort(values, kind="stable")]
    return np.array([lowest_first[: max(1, round(share * len(values)))].mean() for share in shares.tolist()])


def _numbers(values: Any, name: str) -> NDArray[Any]:
    array = real_numbers(values, name)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name}: got shape {array.shape}, expected one number per example, at least one")
    if np.isnan(array).any():
        raise ValueError(f"{name}: got {int(np.isnan(array).sum())} NaN: examples that were never shown have no score")
    return array
