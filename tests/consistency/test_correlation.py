"""Correlation between scores and between architectures, of means and of pairs of runs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from noisy_runs import holes, noisy, rho, run_set, two_scores

import difficulty_prune as dp


def test_correlation_between_scores_is_that_of_means_and_of_pairs_of_different_runs():
    runs = two_scores()
    difficulties = {"el2n": runs.matrix("el2n"), "confidence": -runs.matrix("confidence")}
    found = dp.consistency.correlation(runs)
    assert found.names == ("el2n", "confidence")
    for (i, a), (j, b) in itertools.product(enumerate(difficulties.values()), repeat=2):
        assert found.of_means[i, j] == pytest.approx(rho(a.mean(0), b.mean(0)), abs=1e-12)
        pairs = [rho(a[p], b[q]) for p, q in itertools.permutations(range(len(runs)), 2)]
        assert found.of_runs[i, j] == pytest.approx(np.mean(pairs), abs=1e-12)
    chosen = dp.consistency.correlation(runs, ["confidence", "el2n"])
    np.testing.assert_allclose(chosen.of_means, found.of_means[::-1, ::-1], rtol=1e-12)
    np.testing.assert_allclose(chosen.of_runs, found.of_runs[::-1, ::-1], rtol=1e-12)


def test_correlation_between_architectures_is_that_of_means_and_of_pairs_of_different_runs():
    matrix, names = noisy(6), ["a", "b", "a", "c", "b", "a"]
    found = dp.consistency.correlation(run_set(matrix, "aum", names), "aum", between="architectures")
    rows = {name: [r for r, other in enumerate(names) if other == name] for name in "abc"}
    assert found.names == ("a", "b", "c")
    for (i, a), (j, b) in itertools.product(enumerate("abc"), repeat=2):
        assert found.of_means[i, j] == pytest.approx(rho(matrix[rows[a]].mean(0), matrix[rows[b]].mean(0)), abs=1e-12)
        pairs = [rho(matrix[p], matrix[q]) for p, q in itertools.product(rows[a], rows[b]) if p != q]
        if pairs:
            assert found.of_runs[i, j] == pytest.approx(np.mean(pairs), abs=1e-12)
        else:
            assert (a, b) == ("c", "c")
            assert np.isnan(found.of_runs[i, j])
    assert found.to_dict()["of_runs"][2][2] is None


@pytest.mark.parametrize("between", ["scores", "architectures"])
def test_a_correlation_of_pairs_leaves_out_what_one_of_the_runs_does_not_know(between):
    matrix = holes(4, 3000)
    found = dp.consistency.correlation(
        run_set(matrix), "el2n" if between == "architectures" else ["el2n"], between=between
    )
    pairs = [rho(a, b) for a, b in itertools.combinations(matrix, 2)]
    assert found.of_runs[0, 0] == pytest.approx(np.mean(pairs), abs=0.005), "not less for what is missing"


def test_single_runs_are_not_compared_where_there_is_one_or_a_table(tmp_path):
    runs = two_scores()
    np.savez(tmp_path / "table.npz", scores=runs.difficulty("el2n"))
    runs = runs.with_table(tmp_path / "table.npz", "memorization", column="scores")
    with_table = dp.consistency.correlation(runs, ["el2n", "memorization"])
    assert with_table.of_runs is None
    assert with_table.of_means[0, 1] == pytest.approx(1)
    assert str(with_table) == "el2n and memorization correlate at 1.00."
    one = dp.consistency.correlation(two_scores(1))
    assert one.of_runs is None
    assert one.of_means.shape == (2, 2)
    alone = dp.consistency.correlation(two_scores(1), "el2n", between="architectures")
    assert alone.of_runs is None
    assert str(alone) == "There is nothing to compare among the architectures mlp."


def test_correlation_answers_in_words():
    means = np.array([[1.0, 0.9, 0.2], [0.9, 1.0, -0.1], [0.2, -0.1, 1.0]])
    found = dp.consistency.Correlation(("el2n", "loss", "vog"), "scores", means, means * [[0.7], [0.6], [0.5]])
    assert str(found) == (
        "Of 3 scores, el2n and loss correlate most (0.90), loss and vog least (-0.10); "
        "two runs by the same score correlate at 0.50 to 0.70."
    )
