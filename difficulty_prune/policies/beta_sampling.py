"""Sampling by a Beta density over the mean prediction, which moves to the easy end with the share pruned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from ..support.checks import check_number
from .base import Choice, Keeping, Unseen, equal_weights
from .per_example import PerExample
from .weighted import draw, proportional

_SHARPNESS: Final = 15.0  # of the authors' script: the density is Beta(16 - b, b) with b at most 15
_ANCHORS: Final = 10  # the hardest examples, whose mean confidence is the mode's place where nothing is pruned
_LEAST: Final = 1e-6  # of a confidence and its complement: a density of 0 or infinity tells no two examples apart


@dataclass(frozen=True)
class BetaSampling(Keeping):
    """Draws by difficulty times a Beta density of the confidence: ratio-adaptive sampling for `dual` (Cho et al. 2025).

    The more is pruned, the easier are the examples that a small set needs. So the chance of an example is proportional
    to its difficulty times the density of Beta(16 - b, b) at its confidence, with b = 15 (1 - m) (1 - r^c): r is the
    fraction that is pruned and m the mean confidence of the ten hardest examples. Where nearly nothing is pruned the
    density has its peak at about m; with r it moves to 1, the easy end. Weights are 1, and one plan is drawn.

    The numbers are those of the authors' script (arXiv 2502.06905), which draws one example after another. Here the
    draw is systematic sampling in random order, so that the inclusion probabilities are known: in proportion, and at
    most 1.

    Args:
        keep: the fraction of the whole set to keep, in (0, 1].
        confidence: [N], the mean probability of each example's label, in [0, 1], such as `runs.mean("confidence")`:
            high = easy. It may be NaN where the difficulty is.
        c: above 0, how late the peak moves: the larger, the more has to be pruned until it does. 4 is what the authors
            take for CIFAR-100.

    Raises:
        TypeError, ValueError: an argument is no such number; when called: the difficulty is negative or infinite, as
            `dual` never is, or of another number of examples than the confidence.

    >>> confidence = torch.linspace(0.05, 0.95, 19)
    >>> difficulty = confidence * (1 - confidence)
    >>> for keep in (0.9, 0.1):
    ...     chance = BetaSampling(keep, confidence).inclusion(difficulty)
    ...     print(round(float((chance * confidence).sum() / chance.sum()), 2))
    0.52
    0.8
    """

    keep: float
    confidence: Any
    c: float = 4.0
    unseen: Unseen = field(default="refuse", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = 'the mean probability of each label [N], in [0, 1], such as runs.mean("confidence")'
        given = PerExample(self.confidence, "confidence", expected)
        outside = (given.values < 0) | (given.values > 1)
        if bool(outside.any()):
            first = int(outside.int().argmax())
            raise ValueError(f"confidence: got {float(given.values[first])} at {first}, expected {expected}")
        object.__setattr__(self, "confidence", given)
        check_number(self.c, "c", "(0, inf), how late the peak moves")
        if not 0 < self.c < float("inf"):
            raise ValueError(f"c: got {self.c}, expected a number above 0: how late the peak moves")

    def of(self, positions: Tensor, size: int) -> BetaSampling:
        return BetaSampling(self.keep, self.confidence.of(positions, size), self.c, unseen=self.unseen)

    def choose(self, difficulty: Tensor, kept: int, generator: torch.Generator) -> Choice:
        return equal_weights(draw(self.chances(difficulty, kept), kept, generator))

    def chances(self, difficulty: Tensor, kept: int) -> Tensor:
        size = len(difficulty)
        confidence = self.confidence.check(size)
        self._check(difficulty, confidence)
        if kept == size:
            return torch.ones(size, dtype=torch.float64, device="cpu")
        a, b = self._shape(difficulty, confidence, 1 - kept / size)
        p = confidence.clamp(_LEAST, 1 - _LEAST)
        log_density = (a - 1) * p.log() + (b - 1) * (1 - p).log()  # but for a constant
        highest = float(difficulty.max())
        # An example of difficulty 0 is drawn only where the others do not suffice.
        share = (difficulty / highest).clamp(min=1e-12) if highest > 0 else torch.ones_like(difficulty)
        log_size = log_density + share.log()
        return proportional((log_size - log_size.max()).exp(), kept)

    def _shape(self, difficulty: Tensor, confidence: Tensor, pruned: float) -> tuple[float, float]:
        """Both parameters of the density."""
        border = difficulty.topk(min(_ANCHORS, len(difficulty))).values[-1]
        anchor = float(confidence[difficulty >= border].mean())  # of all ties, so that no order of the data matters
        b = _SHARPNESS * (1 - anchor) * (1 - pruned**self.c)
        return _SHARPNESS + 1 - b, b

    def _check(self, difficulty: Tensor, confidence: Tensor) -> None:
        bad = (difficulty < 0) | difficulty.isinf()
        if bool(bad.any()):
            first = int(bad.int().argmax())
            raise ValueError(
                f"difficulty: got {float(difficulty[first])} at {first}, expected finite numbers, 0 or more: "
                "BetaSampling multiplies by them; take 'dual', or another score that is never negative"
            )
        if bool(confidence.isnan().any()):
            raise ValueError(
                f"confidence: got NaN for {int(confidence.isnan().sum())} examples whose difficulty is known; take "
                "both from the same runs"
            )
