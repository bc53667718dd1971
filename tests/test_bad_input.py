"""Bad datasets, and bad input to the sampler and the functions beside it, are refused."""

from __future__ import annotations

import math

import pytest
import torch
from refusals import check_refused, refusals

import difficulty_prune as dp
from difficulty_prune.policies.uniform import Hardest

CASES, case, expect = refusals()


def sampler(policy=None, difficulty=(0.1, 0.9, 0.5, 0.2), **more):
    return dp.PruneSampler(policy or Hardest(keep=0.5), torch.tensor(difficulty), **more)


# Positions

expect("position outside the dataset", IndexError, "got 2", r"0\.\.1", of=lambda: dp.IndexedDataset(["a", "b"])[2])
expect("position not whole", TypeError, "0.7", of=lambda: dp.IndexedDataset(["a", "b"])[0.7])
expect("weight of a float index", TypeError, "float32", "int64", of=lambda: sampler().weight(torch.tensor([0.0])))
expect("weight of a list", TypeError, "list", "int64", of=lambda: sampler().weight([0]))
expect("weight of an index out of range", IndexError, "4", of=lambda: sampler().weight(torch.tensor([4])))
expect("weight of a negative index", IndexError, "-1", of=lambda: sampler().weight(torch.tensor([-1])))


# The sampler

expect("sampler, rank alone", ValueError, "rank 0", "world_size None", "both", of=lambda: sampler(rank=0))
expect("sampler, world_size alone", ValueError, "rank None", "world_size 2", "both", of=lambda: sampler(world_size=2))
expect("sampler, rank too large", ValueError, "rank: got 2", r"0\.\.1", of=lambda: sampler(rank=2, world_size=2))
expect("sampler, rank negative", ValueError, "rank: got -1", r"0\.\.1", of=lambda: sampler(rank=-1, world_size=2))
expect("sampler, world_size 0", ValueError, "world_size: got 0", "at least 1", of=lambda: sampler(rank=0, world_size=0))
expect(
    "sampler, more processes than examples",
    ValueError,
    "world_size: got 3",
    "only 2 examples",
    of=lambda: sampler(rank=0, world_size=3),
)
expect("sampler, a share as policy", TypeError, "0.5", r"Hardest\(keep=", of=lambda: sampler(0.5))
expect("sampler, NaN difficulty", ValueError, "1 of 2", "first at 1", of=lambda: sampler(difficulty=(0.0, math.nan)))
expect("sampler, labels", ValueError, r"\(3,\)", r"\[4\]", of=lambda: sampler(labels=[0, 1, 0]))
expect("sampler that drops a class", ValueError, "class 1", "PerClass", of=lambda: sampler(labels=[0, 0, 0, 1]))


# Datasets

expect("empty dataset", ValueError, "list is empty", of=lambda: dp.IndexedDataset([]))
expect("empty dataset, fingerprint", ValueError, "list is empty", of=lambda: dp.dataset_fingerprint([]))
expect("generator as dataset", TypeError, "generator", "map-style", of=lambda: dp.IndexedDataset(x for x in "ab"))
expect(
    "fingerprint, labels of the wrong length",
    ValueError,
    r"\(1,\)",
    r"\[2\]",
    of=lambda: dp.dataset_fingerprint([(0.0, 1), (1.0, 0)], labels=[1]),
)


# Helpers

expect(
    "losses, shapes",
    ValueError,
    r"\(3,\)",
    r"\(2,\)",
    of=lambda: dp.reduce_loss(torch.ones(3), torch.tensor([0, 1])),
)
expect("losses, owner", TypeError, "float32", "int64", of=lambda: dp.reduce_loss(torch.ones(1), torch.zeros(1)))


@case("checkpoint, loader without index", ValueError, "list", "IndexedDataset")
def _(folder):
    loader = [[torch.ones(1, 3), torch.tensor([0])]]
    dp.score_checkpoint(torch.nn.Linear(3, 2), loader, dp.DifficultyTracker(4, ("el2n",)))


@pytest.mark.parametrize(("attempt", "exception", "patterns"), CASES)
def test_bad_input_is_refused(tmp_path, attempt, exception, patterns):
    check_refused(attempt, tmp_path, exception, patterns)
