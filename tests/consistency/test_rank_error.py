"""Rank error against a loop over all sets of runs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from noisy_runs import holes, mean_known, noisy, run_set

import difficulty_prune as dp


def slow_error(matrix, size):
    """Over all sets of so many runs."""
    of_all = mean_known(matrix)
    errors = []
    for chosen in itertools.combinations(range(len(matrix)), size):
        mean = mean_known(matrix[list(chosen)])
        known = ~np.isnan(mean)
        ranks = [scipy.stats.rankdata(values[known]) for values in (mean, of_all)]
        errors.append(np.mean(np.abs(ranks[0] - ranks[1])) / known.sum())
    return np.mean(errors), np.percentile(errors, 5), np.percentile(errors, 95)


@pytest.mark.parametrize("matrix", [noisy(2), noisy(5), holes(5), np.round(noisy(4))], ids=["2", "5", "holes", "ties"])
def test_rank_error_is_the_mean_over_all_sets_of_runs(matrix):
    found = dp.consistency.rank_error(run_set(matrix), "el2n")
    assert found.runs.tolist() == list(range(1, len(matrix) + 1))
    expected = [slow_error(matrix, size) for size in found.runs]
    np.testing.assert_allclose(np.stack([found.error, found.low, found.high], 1), expected, atol=1e-12)
    assert found.error[-1] == 0


def test_sets_are_drawn_where_there_are_too_many():
    matrix = noisy(30, noise=3.0)
    found = dp.consistency.rank_error(run_set(matrix), "el2n", resamples=40)
    assert len(found.runs) <= 12
    assert (found.runs[0], found.runs[-1]) == (1, 30)
    assert (np.diff(found.error) < 0).all()
    expected = np.mean([slow_error(matrix[[r, *range(30)]], 1)[0] for r in range(3)])  # a mean of 31 is near that of 30
    assert found.error[0] == pytest.approx(expected, rel=0.2)
    again = dp.consistency.rank_error(run_set(matrix), "el2n", resamples=40)
    other = dp.consistency.rank_error(run_set(matrix), "el2n", resamples=40, seed=1)
    np.testing.assert_array_equal(found.error, again.error)
    assert (found.error[2:-1] != other.error[2:-1]).any()


def test_rank_error_answers_in_words():
    found = dp.consistency.RankError(np.arange(1, 9), np.linspace(0.081, 0, 8), np.zeros(8), np.ones(8), "el2n")
    assert str(found) == "One run misplaces an example by 8.1 % of the ranks on average, the mean of 4 runs by 4.6 %."
    of_two = dp.consistency.rank_error(run_set([[1.0, 2.0, 3.0], [1.0, 3.0, 2.5]]), "el2n")
    assert str(of_two).endswith("of the ranks on average, against the mean of 2 runs.")
