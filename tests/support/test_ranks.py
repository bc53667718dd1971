"""Rank statistics, compiled and without the compiled module, against SciPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from without_compiled import needs_compiled, without_compiled

from difficulty_prune.support import ranks as compiled

PLAIN = without_compiled("difficulty_prune.support.ranks")
both_builds = pytest.mark.parametrize(
    "ranks", [pytest.param(compiled, marks=needs_compiled), PLAIN], ids=["compiled", "without"]
)

tied_or_not = st.one_of(
    st.integers(-3, 3).map(float), st.floats(allow_nan=False), st.sampled_from([0.0, -0.0, np.inf, -np.inf])
)


def matrices(rows, columns):
    shapes = st.tuples(st.integers(1, rows), st.integers(1, columns))
    return hnp.arrays(np.float64, shapes, elements=tied_or_not)


@both_builds
@settings(deadline=None, max_examples=50)
@given(x=matrices(6, 24))
def test_ranks_are_those_of_scipy(ranks, x):
    np.testing.assert_array_equal(ranks.rank_rows(x), scipy.stats.rankdata(x, axis=1))


@both_builds
@settings(deadline=None, max_examples=50)
@given(x=matrices(3, 24))
def test_spearman_is_that_of_scipy(ranks, x):
    got = ranks.spearman_matrix(x)
    assert got.shape == (len(x), len(x))
    np.testing.assert_array_equal(got, got.T)
    constant = (x == x[:, :1]).all(1)
    assert np.isnan(got[constant]).all()
    known = got[~constant][:, ~constant]
    np.testing.assert_allclose(np.diag(known), 1, rtol=1e-12)
    assert (np.abs(known) <= 1).all()
    for a, b in itertools.combinations(np.flatnonzero(~constant), 2):
        expected = scipy.stats.spearmanr(scipy.stats.rankdata(x[a]), scipy.stats.rankdata(x[b])).statistic
        assert got[a, b] == pytest.approx(expected, abs=1e-12)


@both_builds
@settings(deadline=None, max_examples=30)
@given(x=hnp.arrays(np.float64, (3, 12), elements=st.integers(-3, 3)), missing=hnp.arrays(bool, (3, 12)))
def test_spearman_leaves_out_examples_that_a_row_does_not_know(ranks, x, missing):
    missing[:, 0] = False
    expected = ranks.spearman_matrix(x[:, ~missing.any(0)])
    np.testing.assert_array_equal(ranks.spearman_matrix(np.where(missing, np.nan, x)), expected)


@both_builds
def test_spearman_without_a_common_example_is_not_known(ranks):
    x = np.array([[1.0, 2.0, np.nan, np.nan], [np.nan, np.nan, 1.0, 2.0]])
    assert np.isnan(ranks.spearman_matrix(x)).all()


@both_builds
def test_ranks_of_many_values(ranks):
    x = np.random.default_rng(0).integers(0, 500, size=(7, 20_000)).astype(np.float64)
    np.testing.assert_array_equal(ranks.rank_rows(x), scipy.stats.rankdata(x, axis=1))
    np.testing.assert_allclose(ranks.spearman_matrix(x), scipy.stats.spearmanr(x, axis=1).statistic, atol=1e-12)


@both_builds
def test_ranks_take_any_numeric_layout(ranks):
    x = np.random.default_rng(0).integers(0, 9, size=(20, 6))
    expected = scipy.stats.rankdata(x, axis=0).T
    np.testing.assert_array_equal(ranks.rank_rows(x.T), expected)
    np.testing.assert_array_equal(ranks.rank_rows(x.T.astype(np.float32)), expected)
    np.testing.assert_array_equal(ranks.rank_rows(x[:, ::-1].T), expected[::-1])


@needs_compiled
def test_ranks_of_nan_do_not_depend_on_the_build():
    def outcome(ranks):
        try:
            return repr(ranks.rank_rows(np.array([[1.0, np.nan, 0.0]])))
        except ValueError:
            return "refused"

    assert outcome(compiled) == outcome(PLAIN)
