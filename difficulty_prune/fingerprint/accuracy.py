"""How often answers were right, and how far to trust that share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..support.plain import plain_fields


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers.

    Attributes:
        value: correct / total.
        interval: Wilson's confidence interval.
        correct, total: numbers of right answers and of all.
        level: of the interval.
    """

    value: float
    interval: tuple[float, float]
    correct: int
    total: int
    level: float = 0.95

    @classmethod
    def of(cls, correct: int, total: int, level: float = 0.95) -> Accuracy:
        """From the numbers of answers.

        Raises:
            ValueError: no answers, or more right ones than there are.

        >>> print(Accuracy.of(39, 40))
        39 of 40 (98%, 87% to 100%)
        """
        from scipy.stats import binomtest

        if not 0 <= correct <= total or total < 1:
            raise ValueError(f"accuracy: got {correct} right of {total} answers, expected 0 to {total} of at least 1")
        interval = binomtest(correct, total).proportion_ci(level, method="wilson")
        return cls(correct / total, (float(interval.low), float(interval.high)), correct, total, level)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.correct:,} of {self.total:,} ({self.value:.0%}, {low:.0%} to {high:.0%})"

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, as JSON can hold them."""
        return plain_fields(self)
