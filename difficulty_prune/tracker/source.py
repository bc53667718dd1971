"""Difficulty that is still being measured."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor

from ..scores.catalogue import SCORES
from .partition import Partition


class Computes(Protocol):
    """What is used of a tracker."""

    @property
    def process_group(self) -> Any:
        """Of the processes that see the batches together; None for this one alone."""

    @property
    def partition(self) -> Partition | None:
        """Which examples are this process's own; None where it has all."""

    @property
    def presentations(self) -> int:
        """Presentations recorded, over all examples."""

    def compute(self, *, scores: Iterable[str] | None = None, allow_skipped: bool = False) -> dict[str, Tensor]:
        """The scores so far."""


class ScoreSource:
    """A live view of one score of a tracker, turned so that high = hard.

    Calling it gives the difficulty of this moment; a sampler does so once for every epoch. It goes with its tracker:
    what is pickled or copied together, such as (tracker, sampler), stays together and live. A copy that was made
    without the tracker that the training step updates has one of its own, which learns nothing more; it warns when it
    is asked again.

    >>> import torch, difficulty_prune as dp
    >>> tracker = dp.DifficultyTracker(2, scores=("confidence",))
    >>> source = tracker.source("confidence")
    >>> tracker.update(torch.tensor([1]), torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
    >>> source()
    tensor([    nan, -0.5000], dtype=torch.float64)
    """

    def __init__(self, tracker: Computes, score: str, allow_skipped: bool) -> None:
        self.tracker = tracker
        self.score = score
        self._allow_skipped = allow_skipped
        self._copied = False
        self._presentations: int | None = None  # when it was last asked, of a copy

    def __call__(self) -> Tensor:
        """Difficulty [N] float64 on the CPU, NaN where an example was not yet presented (waits for the device).

        Raises:
            ValueError: presentations were left out, see `DifficultyTracker.compute`.
        """
        if self._copied:
            self._warn_if_left_behind()
        found = self.tracker.compute(scores=(self.score,), allow_skipped=self._allow_skipped)
        values = found[self.score].cpu().double()
        return values if SCORES[self.score].higher_is_harder else -values

    def _warn_if_left_behind(self) -> None:
        before, self._presentations = self._presentations, self.tracker.presentations
        if before == self._presentations:
            warnings.warn(
                f"this copy of the source of {self.score!r} has a copy of the tracker, which has recorded nothing "
                "since it was last asked: the plan stays as it was. Copy or send tracker and sampler together, as one "
                "tuple, and let the training step update that tracker",
                stacklevel=3,
            )

    def __repr__(self) -> str:
        return f"ScoreSource({self.score!r}, {'a copy' if self._copied else 'live'})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copied": True, "_presentations": None}
