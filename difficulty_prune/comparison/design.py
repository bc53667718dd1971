"""Which trainings a comparison needs, equal ones once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from ..policies.around import Around
from ..policies.base import Keeping, Policy
from ..policies.per_example import PerExample
from ..sampler import PruneSampler
from ..support.digest import digest_of_array, digest_of_text
from .arms import Arm, SameSize, changes, keeps_as_many_in_each_epoch, make_arms, policy_name
from .counting_sampler import CountingSampler
from .source_of import source_of


class Design:
    """The arms of a comparison, and for each seed what their trainings draw from.

    Args:
        difficulty: [N] float64.
        labels: [N], or None.
        policies: name in words -> policy.
        seed: one of those of the trainings.

    Attributes:
        arms: what is trained.
    """

    def __init__(self, difficulty: torch.Tensor, labels: Any, policies: Mapping[str, Policy], seed: int) -> None:
        self.difficulty = difficulty
        self._labels = labels
        sizes = {
            name: len(PruneSampler(policy, difficulty, labels=labels, seed=seed)) for name, policy in policies.items()
        }
        self.arms = make_arms(policies, sizes, len(difficulty))
        self._jobs: dict[tuple[str, int], tuple[str, int]] = {}
        self._sizes: dict[tuple[str, int], int] = {}

    def sampler(self, arm: Arm, seed: int) -> CountingSampler:
        """What the training of an arm draws from."""
        length = None
        if arm.cut_to is not None:
            length = len(PruneSampler(arm.cut_to, self.difficulty, labels=self._labels, seed=seed))
            length = None if length == len(self.difficulty) else length
        return CountingSampler(arm.policy, self.difficulty, labels=self._labels, seed=seed, fixed_length=length)

    def job(self, arm: Arm, seed: int) -> tuple[str, int]:
        """What names a training: a digest of what its sampler yields, and the seed."""
        key = (arm.name, seed)
        if key not in self._jobs:
            sampler = self.sampler(arm, seed)
            self._sizes[key] = len(sampler.plan)
            what = {"plan": sampler.plan.digest, "length": sampler.fixed_length}
            if changes(arm.policy):
                what |= _later_plans(arm)
            self._jobs[key] = (digest_of_text(json.dumps(what, sort_keys=True)), seed)
        return self._jobs[key]

    def size(self, arm: Arm, seed: int) -> int:
        """How many examples the plan of the first epoch has."""
        self.job(arm, seed)
        return self._sizes[arm.name, seed]


def _later_plans(arm: Arm) -> dict[str, Any]:
    """What the plans after the first one depend on: the settings of a policy of this package, else name and code."""
    policy = arm.policy.policy if isinstance(arm.policy, SameSize) else arm.policy
    if isinstance(arm.policy, SameSize) and keeps_as_many_in_each_epoch(policy):
        return {"policy": "SameSize", "redrawn": arm.policy.redrawn}
    if not isinstance(policy, Keeping | Around):
        return {"policy": [arm.name, source_of(policy)]}
    numbers = [digest_of_array(each.numpy()) for each in _numbers(policy)]
    return {"policy": policy_name(arm.policy), **({"numbers": numbers} if numbers else {})}


def _numbers(policy: Any) -> Iterator[torch.Tensor]:
    """What a policy knows of each example, which its name does not say."""
    if isinstance(policy, torch.Tensor | PerExample):
        yield policy if isinstance(policy, torch.Tensor) else policy.values
    elif is_dataclass(policy):
        for field in fields(policy):
            yield from _numbers(getattr(policy, field.name))
