"""How often an example is kept when the runs are resampled."""

from __future__ import annotations

import math

import numpy as np
import pytest
from noisy_runs import SIZE, noisy, run_set

import difficulty_prune as dp


def test_the_frequency_is_the_share_of_resampled_sets_whose_plan_holds_the_example():
    # of two runs 1/4 of the sets hold the first alone, 1/4 the second alone; example 0 is hard in all, 1 in the first
    # and in the mean, 2 in the second
    runs = run_set([[9.0, 8.0, 1.0, 0.0], [9.0, 2.0, 3.0, 0.0]])
    found = dp.consistency.stable_subset(runs, "el2n", dp.policies.Hardest(0.5), resamples=1000)
    assert found.frequency[[0, 3]].tolist() == [1.0, 0.0]
    assert found.frequency[1] == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 1000))
    assert found.frequency.sum() == pytest.approx(2)
    assert (found.index.tolist(), found.index.dtype) == ([0], np.int64)
    wider = dp.consistency.stable_subset(runs, "el2n", dp.policies.Hardest(0.5), share=0.5, resamples=1000)
    assert wider.index.tolist() == [0, 1]
    assert (wider.kept, wider.kept_and_stable) == (2, 2)


def test_low_scores_are_hard_where_the_score_says_so():
    matrix = np.stack([np.arange(10.0), np.arange(10.0) + 0.1])
    for score, expected in (("el2n", [8, 9]), ("aum", [0, 1])):
        found = dp.consistency.stable_subset(run_set(matrix, score), score, dp.policies.Hardest(0.2), resamples=5)
        assert found.index.tolist() == expected


def test_sets_are_resampled_within_architectures():
    matrix, names = np.zeros((3, 20)), ["a", "b", "b"]
    matrix[0, :5] = 1000.0  # the only run of its architecture, so that it is in every set once
    matrix[1:] = noisy(2, 20)
    found = dp.consistency.stable_subset(run_set(matrix, architectures=names), "el2n", dp.policies.Hardest(0.25))
    assert found.index.tolist() == [0, 1, 2, 3, 4]
    assert found.frequency[:5].tolist() == [1.0] * 5


@pytest.mark.filterwarnings("ignore:difficulty. all .* examples have the same value")
def test_ties_and_random_policies_vary_between_sets():
    runs = run_set(np.stack([np.zeros(200), np.ones(200)]))
    for policy in (dp.policies.Hardest(0.5), dp.policies.Random(0.5)):
        found = dp.consistency.stable_subset(runs, "el2n", policy)
        assert found.frequency.mean() == pytest.approx(0.5)
        assert found.frequency.std() == pytest.approx(0.05, rel=0.3)
        assert len(found.index) == 0
    again = dp.consistency.stable_subset(runs, "el2n", dp.policies.Random(0.5))
    other = dp.consistency.stable_subset(runs, "el2n", dp.policies.Random(0.5), seed=1)
    np.testing.assert_array_equal(found.frequency, again.frequency)
    assert (found.frequency != other.frequency).any()


def test_the_labels_of_the_runs_reach_the_policy():
    labels = np.arange(SIZE) % 3
    runs = dp.RunSet(dp.Run({"el2n": row}, architecture="mlp", seed=s, labels=labels) for s, row in enumerate(noisy(3)))
    found = dp.consistency.stable_subset(runs, "el2n", dp.policies.PerClass(dp.policies.Hardest(0.5)), resamples=20)
    np.testing.assert_allclose([found.frequency[labels == c].sum() for c in range(3)], 10)


def test_a_stable_subset_answers_in_words():
    found = dp.consistency.StableSubset(
        np.arange(3412), np.zeros(8000), 0.9, 4000, 3412, 100, repr(dp.policies.Hardest(keep=0.5))
    )
    assert str(found) == (
        "Of the 4,000 examples that Hardest(keep=0.5) keeps, 3,412 (85 %) are kept by at least 90 % of 100 resampled "
        "sets of runs."
    )


def test_unknown_difficulty_is_refused_saying_of_which_set_unless_the_policy_keeps_it():
    matrix = noisy(2)
    matrix[0, :3] = np.nan
    runs = run_set(matrix)
    with pytest.raises(
        ValueError, match=r"resampled set \d+ of the runs, none of which presented 3 of the examples: difficulty: 3"
    ):
        dp.consistency.stable_subset(runs, "el2n", dp.policies.Hardest(0.5))
    found = dp.consistency.stable_subset(runs, "el2n", dp.policies.Hardest(0.5, unseen="keep"))
    assert found.kept == 30
