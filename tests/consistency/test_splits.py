"""Splits into halves: of equal size, of the same architectures, each once where they are few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy_runs import holes, noisy, run_set

from difficulty_prune.consistency import splits as splits_module
from difficulty_prune.consistency.pairs import pairs_of_runs
from difficulty_prune.consistency.splits import split_halves


@pytest.mark.parametrize("matrix", [noisy(5), holes(5)], ids=["full", "holes"])
def test_leaving_out_a_run_gives_what_the_other_runs_give(matrix):
    without = pairs_of_runs(run_set(matrix), "el2n").without
    others = [pairs_of_runs(run_set(np.delete(matrix, run, axis=0)), "el2n").pearson for run in range(len(matrix))]
    np.testing.assert_allclose(without, others, rtol=1e-9)


@given(
    names=st.lists(st.sampled_from("abc"), min_size=2, max_size=15),
    number=st.integers(1, 40),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_halves_are_of_equal_size_and_of_the_same_architectures_as_far_as_possible(names, number, seed):
    found = split_halves(names, number, np.random.default_rng(seed))
    assert 1 <= len(found) <= number
    odd = sum(names.count(name) % 2 for name in set(names))
    for first, second in found:
        assert len(first) == len(second) == len(names) // 2
        assert len({*first, *second}) == 2 * len(first)
        unlike = sum(abs(sum(names[r] == n for r in first) - sum(names[r] == n for r in second)) for n in set(names))
        assert unlike == 2 * (odd // 2), "each architecture with an odd number is one run short in a half"


def test_all_splits_are_taken_once_where_they_are_few():
    def count(names, number=1000):
        found = split_halves(names, number, np.random.default_rng(0))
        assert len({frozenset(map(frozenset, split)) for split in found}) == len(found)
        return len(found)

    assert [count(["a"] * runs) for runs in (2, 3, 4, 5, 8)] == [1, 3, 3, 15, 35]
    assert count(["a", "a", "b", "b"]) == 2, "one of each in each half"
    assert count(["a"] * splits_module._LISTED, 100) == 100
