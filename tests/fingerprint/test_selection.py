"""Rankings of examples by what a fingerprint might look at."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import World

import difficulty_prune as dp
from difficulty_prune.fingerprint.groups import group_runs
from difficulty_prune.fingerprint.selection import rank_examples

pytestmark = pytest.mark.usefixtures("one_thread")


def test_hardest_follows_the_direction_of_the_score() -> None:
    scores = np.array([0.3, 0.9, 0.1])
    for name, expected in (("el2n", [1, 0, 2]), ("aum", [2, 0, 1])):
        runs = dp.RunSet(dp.Run({name: scores}, architecture=a, seed=s) for a in "ab" for s in range(2))
        assert rank_examples(group_runs(runs, name, 2), "hardest", 0).tolist() == expected


def test_pca_is_the_share_of_variance_in_the_first_components_of_the_svd() -> None:
    groups = group_runs(World(5, examples=50, sensitive=10).runs(each=4), "el2n", 2)
    x = groups.runs.matrix("el2n")
    left, _, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    parts = (left[:, :2].T @ (x - x.mean(0))) ** 2
    share = parts.sum(0) / ((x - x.mean(0)) ** 2).sum(0)
    assert rank_examples(groups, "pca", 0).tolist() == np.argsort(-share).tolist()
    assert set(rank_examples(groups, "pca", 0)[:8]) <= set(range(10))


@pytest.mark.parametrize("select", ["sensitive", "random", "hardest", "pca"])
def test_every_ranking_holds_each_example_that_all_runs_presented_once(select) -> None:
    x = np.random.default_rng(6).normal(size=(6, 30))
    x[2, 4] = x[3, 7] = np.nan
    x[:, 9] = 1.0
    runs = dp.RunSet(dp.Run({"el2n": row}, architecture="ab"[i % 2], seed=i) for i, row in enumerate(x))
    ranked = rank_examples(group_runs(runs, "el2n", 2), select, 0)
    assert ranked.dtype == np.int64
    assert sorted(ranked) == [i for i in range(30) if i not in (4, 7)]
