"""Planning an epoch and iterating over it, for a dataset as large as ImageNet."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from comparison import Compare, Target
from torch.utils.data import BatchSampler, RandomSampler

import difficulty_prune as dp
from difficulty_prune.policies.base import Policy
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.stratified import Stratified
from difficulty_prune.policies.uniform import Easiest, Hardest, Random, Window
from difficulty_prune.policies.weighted import Importance, SoftPrune

SIZE, CLASSES = 1_280_000, 1000
POLICIES: dict[str, Policy] = {
    "Hardest": Hardest(0.7),
    "Easiest": Easiest(0.7),
    "Window": Window(0.1, 0.7),
    "Random": Random(0.7),
    "Stratified": Stratified(0.7, drop_hardest=0.1),
    "Importance": Importance(keep=0.7),
    "SoftPrune": SoftPrune(0.7),
    "PerClass(Hardest)": PerClass(Hardest(0.7)),
    "PerClass(Stratified)": PerClass(Stratified(0.7, drop_hardest=0.1)),
    "PerClass(Importance)": PerClass(Importance(keep=0.7)),
    "PerClass(SoftPrune, equal)": PerClass(SoftPrune(0.7), quota="equal"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_plan(compare: Compare, name: str) -> None:
    generator = np.random.default_rng(0)
    difficulty = torch.from_numpy(generator.random(SIZE))
    labels = torch.from_numpy(generator.integers(CLASSES, size=SIZE))
    policy = POLICIES[name]
    compare(
        f"plan of {name}, N 1,280,000, with labels",
        "argsort of the difficulty",
        lambda: policy(difficulty, labels),
        lambda: difficulty.argsort(),
        Target(seconds=1.0),
        rounds=5,
    )


def walk(positions: Iterable[object]) -> None:
    collections.deque(positions, maxlen=0)


def samplers() -> tuple[dp.PruneSampler, RandomSampler]:
    every = dp.PruneSampler(Random(1.0), np.zeros(SIZE))
    return every, RandomSampler(range(SIZE), generator=torch.Generator().manual_seed(0))


def test_iteration(compare: Compare) -> None:
    ours, theirs = samplers()
    compare(
        "epoch of PruneSampler, N 1,280,000",
        "RandomSampler",
        lambda: walk(ours),
        lambda: walk(theirs),
        Target(slower=1.2),
        rounds=15,
    )


def test_batches(compare: Compare) -> None:
    ours, theirs = (BatchSampler(sampler, 256, drop_last=False) for sampler in samplers())
    compare(
        "its BatchSampler, batches of 256",
        "RandomSampler's",
        lambda: walk(ours),
        lambda: walk(theirs),
        Target(slower=1.2),
        rounds=15,
    )
