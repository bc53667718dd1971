"""Principal components of normal scores against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from noisy_runs import noisy, rho, run_set, two_scores
from sklearn.decomposition import PCA

import difficulty_prune as dp


def test_components_are_those_of_scikit_learn_on_normal_scores():
    runs = two_scores(4, 200, ["a", "b", "a", "b"])
    variables = [
        scipy.stats.norm.ppf((scipy.stats.rankdata(runs.where(architecture=a).difficulty(s)) - 0.5) / 200)
        for s in ("el2n", "confidence")
        for a in ("a", "b")
    ]
    oracle = PCA().fit(np.transpose(variables))
    found = dp.consistency.pca(runs)
    assert found.names == ("el2n, a", "el2n, b", "confidence, a", "confidence, b")
    np.testing.assert_allclose(found.explained, oracle.explained_variance_ratio_, rtol=1e-9)
    np.testing.assert_allclose(np.abs(found.loadings), np.abs(oracle.components_), atol=1e-9)
    expected = oracle.transform(np.transpose(variables))[:, 0]
    np.testing.assert_allclose(found.component, expected * np.sign(expected @ found.component), atol=1e-9)
    assert (found.loadings[0] > 0).all(), "all say what is hard"
    assert "of the variance of 4 pairs of score and architecture: " in str(found)
    assert rho(found.component, runs.difficulty("el2n")) > 0.5


@settings(deadline=None, max_examples=30)
@given(hnp.arrays(np.float64, (3, 15), elements=st.floats(-5, 5)))
def test_components_share_the_variance_and_are_orthogonal(matrix):
    if (matrix == matrix[:, :1]).all():
        return
    runs = dp.RunSet([dp.Run(dict(zip(("el2n", "loss", "aum"), matrix, strict=True)), architecture="mlp", seed=0)])
    found = dp.consistency.pca(runs)
    assert found.explained.sum() == pytest.approx(1)
    assert (np.diff(found.explained) <= 1e-12).all()
    np.testing.assert_allclose(found.loadings @ found.loadings.T, np.eye(3), atol=1e-9)
    assert (found.loadings[np.arange(3), np.abs(found.loadings).argmax(1)] > 0).all()


def test_one_score_is_its_own_component_and_unknown_examples_stay_unknown():
    matrix = noisy(3)
    matrix[:, 5] = np.nan
    found = dp.consistency.pca(run_set(matrix))
    assert found.explained.tolist() == [1.0]
    assert found.loadings.tolist() == [[1.0]]
    assert np.flatnonzero(np.isnan(found.component)).tolist() == [5]
    assert rho(found.component, matrix.mean(0)) == pytest.approx(1)
    assert str(found).endswith("of 1 score: with only one there is nothing to compare.")


@pytest.mark.parametrize(
    ("share", "words"), [(0.82, "one notion of difficulty explains most"), (0.6, "more than half"), (0.4, "several")]
)
def test_the_words_follow_the_share_that_the_first_component_explains(share, words):
    found = dp.consistency.PCA(("a", "b", "c"), np.array([share, 1 - share, 0]), np.eye(3), np.zeros(4))
    assert str(found).startswith(
        f"The first component explains {share:.0%}".replace("%", " % of the variance of 3 scores")
    )
    assert words in str(found)
