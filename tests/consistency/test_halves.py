"""Halves of runs, compared over all examples and in groups of them by sorting once; against a sort for each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from without_compiled import needs_compiled, without_compiled

from difficulty_prune.consistency import halves as compiled
from difficulty_prune.consistency.halves import correlation_of_halves

PLAIN = without_compiled("difficulty_prune.consistency.halves")
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 2.5, np.nan]),
    st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: round(x, 3)),
)


def slow(means, groups):
    """A sort for every set."""
    sets = [np.arange(means.shape[1]), *groups]
    pairs = means.reshape(-1, 2, means.shape[1])
    return np.array([[correlation_of_halves(pair[:, rows]) for rows in sets] for pair in pairs])


@needs_compiled
@settings(deadline=None)
@given(
    means=hnp.arrays(np.float64, st.tuples(st.sampled_from([2, 4]), st.integers(1, 40)), elements=NUMBERS),
    number=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_one_sort_gives_what_a_sort_for_every_set_gives(means, number, seed):
    groups = np.array_split(np.random.default_rng(seed).permutation(means.shape[1]), number)
    np.testing.assert_allclose(compiled.compare_halves(means, groups), slow(means, groups), atol=1e-9)


@pytest.mark.parametrize("module", [pytest.param(compiled, marks=needs_compiled), PLAIN], ids=["compiled", "without"])
@pytest.mark.parametrize("ties", [False, True])
def test_many_examples(module, ties):
    """More than are sorted by comparison."""
    rng = np.random.default_rng(0)
    hard = rng.normal(size=20_000)
    means = hard + rng.normal(size=(4, 20_000))
    means[:, rng.random(20_000) < 0.1] = np.nan
    means = np.round(means, 1) if ties else means
    groups = np.array_split(rng.permutation(20_000), 7)
    found = module.compare_halves(means, groups)
    np.testing.assert_allclose(found, slow(means, groups), atol=1e-12)
    assert found.shape == (2, 8)
    assert (found > 0.3).all()


@needs_compiled
def test_groups_that_are_none_are_refused():
    host = compiled.host
    means = np.zeros((2, 3))
    for group in (np.array([0, 1, 2], np.int32), np.array([0, -1, 0], np.int32)):
        with pytest.raises(ValueError, match=r"expected 0\.\.groups-1"):
            host.compare_halves(means, group, 2)
    with pytest.raises(ValueError, match=r"expected means \[2 x splits, n\]"):
        host.compare_halves(np.zeros((3, 3)), np.zeros(3, np.int32), 1)
    with pytest.raises(ValueError, match=r"expected means \[2 x splits, n\]"):
        host.compare_halves(means, np.zeros(2, np.int32), 1)
