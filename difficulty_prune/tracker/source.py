"""Difficulty that is still being measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor

from ..scores.catalogue import SCORES


class Computes(Protocol):
    """What is used of a tracker."""

    @property
    def process_group(self) -> Any:
        """Of the processes that see the batches together; None for this one alone."""

    def compute(self, *, scores: Iterable[str] | None = None, allow_skipped: bool = False) -> dict[str, Tensor]:
        """The scores so far."""


class ScoreSource:
    """A live view of one score of a tracker, turned so that high = hard.

    Calling it gives the difficulty of this moment; a sampler does so once for every epoch. Pickled or copied it holds
    the values of that moment, and no tracker.

    >>> import torch, difficulty_prune as dp
    >>> tracker = dp.DifficultyTracker(2, scores=("confidence",))
    >>> source = tracker.source("confidence")
    >>> tracker.update(torch.tensor([1]), torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
    >>> source()
    tensor([    nan, -0.5000], dtype=torch.float64)
    """

    def __init__(self, tracker: Computes, score: str, allow_skipped: bool) -> None:
        self.tracker: Computes | None = tracker
        self.score = score
        self._allow_skipped = allow_skipped
        self._values: Tensor | None = None

    def __call__(self) -> Tensor:
        """Difficulty [N] float64 on the CPU, NaN where an example was not yet presented (waits for the device).

        Raises:
            ValueError: presentations were left out, see `DifficultyTracker.compute`.
        """
        if self.tracker is None:
            assert self._values is not None
            return self._values
        found = self.tracker.compute(scores=(self.score,), allow_skipped=self._allow_skipped)
        values = found[self.score].cpu().double()
        return values if SCORES[self.score].higher_is_harder else -values

    def __repr__(self) -> str:
        return f"ScoreSource({self.score!r}, {'copied values' if self.tracker is None else 'live'})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "tracker": None, "_values": self()}
