"""The state of one process, put together from what other processes saved, however many they were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..support.checks import whole_number
from .partition import Partition
from .state import TrackerState
from .wanted import Wanted


def saved_partition(partition: Partition) -> dict[str, Any]:
    """What a saved state says of the examples that it is of."""
    return {"words": partition.words, "size": partition.size, "rank": partition.rank, "processes": partition.world_size}


def check_partition(state: Any, partition: Partition | None) -> None:
    """ValueError unless a saved state is of just these examples; states that are none are left to other checks."""
    if not isinstance(state, Mapping):
        return
    if partition is None:
        if state.get("partition") is not None:
            raise ValueError(
                "load_state_dict: the state is of a part of the examples, that of one process; load it into a tracker "
                "that is made with partition=, or all parts with load_parts"
            )
        return
    words = words_of(state)
    if not torch.equal(words, partition.words):
        raise ValueError(
            f"load_state_dict: the state is of {len(words)} examples that were another process's, or in another order; "
            "for another number of processes give the states of all of them to load_parts"
        )


def words_of(state: Mapping[str, Any]) -> Tensor:
    """What names the examples that a saved state is of, [m] int64; ValueError if it does not say."""
    saved = state.get("partition")
    words = saved.get("words") if isinstance(saved, Mapping) else None
    if not isinstance(words, Tensor) or words.dtype != torch.int64 or words.dim() != 1 or len(words) == 0:
        raise ValueError(
            "load_state_dict: the state does not say which examples it is of: it was not saved by a tracker with "
            "partition=, or is damaged"
        )
    return words


class Places:
    """Finds examples of other processes among those of this one, and notes which were found.

    Args:
        words: [n] int64, what names each example here.
    """

    def __init__(self, words: Tensor) -> None:
        self._ordered, self._order = words.sort()
        self._found = torch.zeros(len(words), dtype=torch.int32, device="cpu")

    def __call__(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Of examples elsewhere [m]: the places here of those that are here, and their places there, [k] each."""
        place = torch.searchsorted(self._ordered, words).clamp_(max=len(self._ordered) - 1)
        there = (self._ordered[place] == words).nonzero()[:, 0]
        here = self._order[place[there]]
        self._found.index_add_(0, here, torch.ones_like(here, dtype=torch.int32))
        return here, there

    @property
    def twice(self) -> int:
        """How many were found more than once."""
        return int((self._found > 1).sum())

    def check(self) -> None:
        """ValueError unless each example was found once."""
        missing = int((self._found == 0).sum())
        if missing or self.twice:
            raise ValueError(
                f"load_parts: of {len(self._found)} examples of this process {missing} are in no state, {self.twice} "
                "in several; give the states that all processes saved at one time, each once"
            )


def put_together(states: Iterable[Mapping[str, Any]], wanted: Wanted, partition: Partition) -> TrackerState:
    """What `partition` has of the saved states, which are read one after the other.

    Counts of what was left out go to one process each, so that they add up to what they were.

    Raises:
        ValueError: a state that does not fit, or an example that is in none, or in several.
    """
    whole, places = TrackerState(wanted), Places(partition.words)
    for state in states:
        words = words_of(state)
        rank = whole_number(state["partition"].get("rank"), "load_parts: rank")
        partition.check_size(state["partition"].get("size"))
        here, there = places(words)
        counts = rank % partition.world_size == partition.rank
        if len(here) or counts:  # of others no more is read than whose they are
            part = TrackerState.from_state_dict(state, replace(wanted, num_examples=len(words)))
            whole.take(part, here, there, counts)
    places.check()
    return whole
