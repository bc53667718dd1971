"""The middle of a training, for scores of its second half."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..scores.catalogue import LATE
from ..tracker.tracker import DifficultyTracker


class Halfway:
    """The tracker's snapshot when the first half of the epochs, rounded down, is over; a part of checkpoints.

    Attributes:
        snapshot: None until then.
    """

    def __init__(self, tracker: DifficultyTracker, epochs: int) -> None:
        self.snapshot: Tensor | None = None
        self._tracker, self._half = tracker, epochs // 2

    def finished(self, epochs: int) -> None:
        """After each epoch: so many are over."""
        if epochs == self._half:
            self.snapshot = self._tracker.snapshot()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"snapshot": self.snapshot}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with what `state_dict` returned."""
        self.snapshot = state["snapshot"]


def needs_halves(scores: Iterable[str], epochs: int) -> bool:
    """Whether one of the scores is of the second half of the training.

    Raises:
        ValueError: one is, and there are no two halves.
    """
    late = [name for name in scores if name in LATE]
    if late and epochs < 2:
        raise ValueError(f"epochs: got {epochs}, expected at least 2: {late[0]} is of the second half of them")
    return bool(late)
