"""A DataLoader sampler that visits what a policy keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from .ops import check_index
from .plan import Plan
from .policies import Policy, check_difficulty
from .randomness import generator_from

_PLAN, _ORDER = range(2)  # what a generator is for


class PruneSampler(Sampler[int]):
    """Yields the positions that a policy keeps, in an order that depends on the seed and the epoch alone.

    Args:
        policy: from `dp.policies`.
        difficulty: [N], high = hard, without NaN; N is the length of the whole dataset.
        labels: [N] true classes; with them, a plan that drops a whole class is refused.
        shuffle: a new order in every epoch (call `set_epoch`); otherwise ascending.
        seed: of the plan's ties and of the orders. No global generator is used.
        rank, world_size: this process's share of every epoch. Shares have the same length and do not overlap; the few
            examples left over differ from epoch to epoch.

    Raises:
        TypeError, ValueError: see the policy; or rank and world_size do not fit.

    >>> from difficulty_prune.policies import Hardest
    >>> sampler = PruneSampler(Hardest(keep=0.5), [0.1, 0.9, 0.5, 0.2], seed=0)
    >>> len(sampler), sorted(sampler)
    (2, [1, 2])
    """

    def __init__(
        self,
        policy: Policy,
        difficulty: Any,
        *,
        labels: Any = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if not callable(policy):
            raise TypeError(f"policy: got {policy!r}, expected one of dp.policies, such as Hardest(keep=0.7)")
        if (rank is None) != (world_size is None):
            raise ValueError(f"got rank {rank} and world_size {world_size}, expected both or neither")
        self.rank, self.world_size = (0, 1) if rank is None or world_size is None else (rank, world_size)
        if self.world_size < 1:
            raise ValueError(f"world_size: got {world_size}, expected at least 1 process")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank: got {rank}, expected 0..{self.world_size - 1} for world_size {world_size}")
        values = check_difficulty(difficulty)
        self.plan: Plan = policy(values, labels, generator=generator_from(seed, _PLAN))
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        if len(self) == 0:
            raise ValueError(f"world_size: got {world_size}, but the plan keeps only {len(self.plan)} examples")
        self._weights = torch.zeros(len(values))
        self._weights[self.plan.index] = self.plan.weight
        self._weights_on: dict[torch.device, Tensor] = {}

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration; call it at the start of each epoch, on every rank."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.plan) // self.world_size

    def __iter__(self) -> Iterator[int]:
        index = self.plan.index
        if self.shuffle:
            order = generator_from(self.seed, _ORDER, self.epoch)
            index = index[torch.randperm(len(index), generator=order)]
        share = index[self.rank : len(self) * self.world_size : self.world_size]
        return iter(share.tolist())

    def weight(self, index: Tensor, *, device: torch.device | str | None = None) -> Tensor:
        """The factor of each example's loss, [B] float32 on `device` (default: that of the index); 0 if not kept.

        Does not wait for the device.

        Raises:
            TypeError: an index that is not int64.
            IndexError: a position outside the dataset (looked at on the CPU only).
        """
        check_index(index, None, len(self._weights))
        target = index.device if device is None else torch.device(device)
        if index.device.type == "cpu":
            return self._weights[index].to(target, non_blocking=True)
        if index.device not in self._weights_on:
            self._weights_on[index.device] = self._weights.to(index.device)
        return self._weights_on[index.device][index].to(target, non_blocking=True)
