"""Difficulty that changes between epochs, and samplers that follow it."""

from __future__ import annotations

import io

import torch

import difficulty_prune as dp
from difficulty_prune.policies.uniform import Hardest

NAN = float("nan")
SIZE = 40
FIRST, SECOND = torch.rand(2, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(SIZE) % 2
ALL = torch.arange(SIZE)


class Live:
    """Scores that may change at any time; counts how often they are asked for."""

    def __init__(self, values):
        self.values = values
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.values


def make(policy=None, difficulty=None, *, epoch=0, **options):
    """A sampler of live scores, by default."""
    options = {"outside": "zero", **options}  # weights of all examples are looked at after visits too
    sampler = dp.PruneSampler(policy or Hardest(keep=0.5), Live(FIRST) if difficulty is None else difficulty, **options)
    sampler.set_epoch(epoch)
    return sampler


def hardest(difficulty, number=20):
    return sorted(difficulty.argsort(descending=True)[:number].tolist())


def above_a_half(difficulty, labels=None, generator=None):
    """A policy of which the number kept depends on the scores."""
    index = (difficulty > 0.5).nonzero()[:, 0]
    return dp.Plan(index, torch.full((len(index),), 2.0), {"policy": "above a half"})


def visits(sampler):
    """What is visited, in order, with weights."""
    order = list(sampler)
    return order, sampler.weight(torch.tensor(order, dtype=torch.int64)).tolist()


def through_a_file(state):
    """What a checkpoint makes of a state."""
    file = io.BytesIO()
    torch.save({"sampler": state}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["sampler"]


def some(iterator, number):
    return [next(iterator) for _ in range(number)]


def in_turns(shares):
    """The epoch of which each process visited its share."""
    return [i for turn in zip(*shares, strict=True) for i in turn]


def tracked():
    """A tracker that has seen all examples, example i with a loss that rises with i."""
    tracker = dp.DifficultyTracker(SIZE, scores=("loss", "confidence"))
    present(tracker, ALL)
    return tracker


def present(tracker, hardness):
    logits = torch.stack([-hardness.float() / 10, torch.zeros(SIZE)], dim=1)
    tracker.update(ALL, logits, torch.zeros(SIZE, dtype=torch.int64))
