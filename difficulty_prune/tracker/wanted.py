"""What a tracker was asked to record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..ops.layout import HALF_LIFE
from ..scores.catalogue import SCORES, Score
from ..scores.temporal import TemporalOptions
from .group import Group
from .options import GradientOptions, ProbabilityOptions


@dataclass(frozen=True)
class Wanted:
    """What a tracker was asked to record; its arguments, see `DifficultyTracker`.

    One that grows has room for `num_examples`, of which the last may not have been presented.
    """

    num_examples: int
    scores: tuple[str, ...]
    num_classes: int | None
    gradient: GradientOptions
    temporal: TemporalOptions
    group: Group | None
    device: torch.device | None
    target: str = "classes"
    right_from: float = 1.0
    half_life: float = HALF_LIFE
    probabilities: ProbabilityOptions | None = None
    grows: bool = False

    def names(self, **features: Any) -> tuple[str, ...]:
        """The scores whose catalogue entry has these values, or for a tuple one of them."""

        def fits(score: Score) -> bool:
            return all(
                getattr(score, name) in (values if isinstance(values, tuple) else (values,))
                for name, values in features.items()
            )

        return tuple(name for name in self.scores if fits(SCORES[name]))

    @property
    def definition(self) -> dict[str, Any]:
        """What a state must have been recorded with."""
        return {
            "num_examples": self.num_examples,
            "scores": list(self.scores),
            "gradient": self.gradient.definition,
            "temporal": self.temporal.definition,
            "target": self.target,
            "right_from": self.right_from,
            "half_life": self.half_life,
            "mean_probabilities": None if self.probabilities is None else self.probabilities.dtype,
        }
