"""Reliability: against a loop over all split halves, laws, and what it says in words."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy_runs import SIZE, holes, mean_known, noisy, rho, run_set

import difficulty_prune as dp
from difficulty_prune.consistency.spearman_brown import to_pearson


def gini(values):
    """Mean difference of two different examples."""
    return np.mean([abs(a - b) for a, b in itertools.combinations(values, 2)])


def slow_reliability(matrix):
    """All splits of an even number of runs, one after the other."""
    runs = set(range(len(matrix)))
    halves = []
    for first in itertools.combinations(runs, len(runs) // 2):
        means = np.stack([mean_known(matrix[list(first)]), mean_known(matrix[sorted(runs - set(first))])])
        a, b = means[:, ~np.isnan(means).any(0)]
        pearson = 2 * math.sin(math.pi * rho(a, b) / 6)
        halves.append(pearson * 2 * gini(a) * gini(b) / (gini(a) ** 2 + gini(b) ** 2))
    half = np.mean(halves)
    return 6 / math.pi * math.asin(2 * half / (1 + half) / 2)


@pytest.mark.parametrize(
    "matrix",
    [noisy(2), noisy(4), noisy(4, noise=3.0), holes(4), holes(6, seed=1)],
    ids=["2", "4", "4 noisy", "h4", "h6"],
)
def test_reliability_is_the_mean_of_all_split_halves_stepped_up(matrix):
    assert dp.consistency.reliability(run_set(matrix), "el2n").value == pytest.approx(
        slow_reliability(matrix), abs=1e-10
    )


def test_with_two_runs_of_one_spread_it_is_twice_the_odds_of_their_correlation():
    matrix = scipy.stats.rankdata(noisy(2), axis=1)
    pearson = to_pearson(rho(*matrix))
    found = dp.consistency.reliability(run_set(matrix), "el2n")
    assert to_pearson(found.value) == pytest.approx(2 * pearson / (1 + pearson), abs=1e-12)
    assert found.single_run == pytest.approx(rho(*matrix), abs=1e-12)


@pytest.mark.parametrize("matrix", [noisy(5), holes(5)], ids=["full", "holes"])
def test_single_run_is_the_mean_correlation_of_pairs_of_runs(matrix):
    found = dp.consistency.reliability(run_set(matrix), "el2n").single_run
    pairs = list(itertools.combinations(matrix, 2))
    if np.isnan(
        matrix
    ).any():  # each run is ranked by itself, and pairs count by their common examples: near, not equal
        common = [(~np.isnan(a) & ~np.isnan(b)).sum() for a, b in pairs]
        assert found == pytest.approx(np.average([rho(a, b) for a, b in pairs], weights=common), abs=0.03)
    else:
        assert found == pytest.approx(np.mean([rho(a, b) for a, b in pairs]), abs=1e-12)


def stated(value, interval, runs, architectures=("mlp",)):
    return dp.consistency.Reliability(value, interval, 0.95, value, np.ones(runs), "el2n", runs, architectures)


@pytest.mark.parametrize(
    ("value", "interval", "runs", "text"),
    [
        (0.93, (0.91, 0.95), 4, "0.93 (0.91-0.95); 6 runs (4 to 8) would reach 0.95."),
        (0.96, (0.93, 0.98), 9, "0.96 (0.93-0.98); 8 runs (4 to 13) would reach 0.95, so these 9 may be enough."),
        (0.98, (0.97, 0.99), 9, "0.98 (0.97-0.99); 4 runs (2 to 6) are enough for 0.95."),
        (0.9996, (0.999, 1.0), 2, "1.00 (1.00-1.00); 1 run is enough for 0.95."),
        (
            0.9996,
            (0.0, 1.0),
            2,
            "1.00 (0.00-1.00); how many runs would reach 0.95 is not known (1 or more): train 2 more runs like these "
            "and ask again.",
        ),
        (
            0.9,
            (0.3, 0.99),
            5,
            "0.90 (0.30-0.99); how many runs would reach 0.95 is not known (1 to 230): train 5 more runs like these "
            "and ask again.",
        ),
        (
            0.03,
            (-0.07, 0.05),
            2,
            "0.03 (-0.07 to 0.05); how many runs would reach 0.95 is not known (757 or more): train 2 more runs like "
            "these and ask again.",
        ),
        (
            -0.001,
            (-0.10, 0.02),
            2,
            "0.00 (-0.10 to 0.02); the runs do not agree, so the number needed for 0.95 cannot be estimated.",
        ),
        (
            -0.1,
            (-0.1, 0.9),
            3,
            "-0.10 (-0.10 to 0.90); whether the runs agree is not known, nor how many would reach 0.95: train 3 more "
            "runs like these and ask again.",
        ),
    ],
)
def test_reliability_answers_in_words(value, interval, runs, text):
    found = stated(value, interval, runs)
    assert str(found) == found.describe(0.95) == f"With {runs} runs the ranking by el2n has reliability {text}"
    with pytest.raises(ValueError, match=r"target: got 1\.2, expected a number between 0 and 1"):
        found.describe(1.2)


@given(
    ends=st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(sorted),
    runs=st.integers(2, 50),
    target=st.floats(0.01, 0.999),
    architectures=st.sampled_from([("mlp",), ("a", "b")]),
)
def test_whatever_is_known_the_answer_claims_no_more(ends, runs, target, architectures):
    low, value, high = ends
    found = stated(value, (low, high), runs, architectures)
    few, many = found.runs_needed_interval(target)
    text, facts = found.describe(target), found.to_dict(target)
    assert (few is None) == (high <= 1e-9)
    assert (many is None) == (low <= 1e-9)
    if value > 1e-9:
        needed = found.runs_needed(target)
        assert few <= needed
        assert many is None or needed <= many
        assert many is None or stated(low, (low, low), runs, architectures).at(many) >= target - 1e-6
    if many is None or many > 10 * few or value <= 1e-9:
        assert facts["runs_needed"] is None
        assert "is not known" in text or "the runs do not agree" in text
        assert "enough" not in text
    else:
        assert facts["runs_needed"] == needed
        assert f"{needed:,} run" in text
        assert few == many or f"({few:,} to {many:,})" in text
        assert ("enough for" in text) == (low >= target)
    assert facts["runs_needed_interval"] == [few, many]
    json.dumps(facts, allow_nan=False)


def test_the_interval_of_the_runs_needed_covers_how_many_it_takes():
    """Of normal values whose noise has twice the variance of the truth, r = 1 / 3 in a single run."""
    target, hits = 0.9, []
    needed = dp.consistency.reliability(run_set(wide(50_000, 8)), "el2n").runs_needed(target)
    for seed in range(60):
        few, many = dp.consistency.reliability(run_set(wide(300, 4, seed)), "el2n", splits=5).runs_needed_interval(
            target
        )
        hits.append(few <= needed <= (many or math.inf))
    assert np.mean(hits) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 60)


def wide(size, runs, seed=0):
    rng = np.random.default_rng([seed, size])
    return rng.normal(size=size) + math.sqrt(2) * rng.normal(size=(runs, size))


def test_no_fewer_runs_are_needed_than_there_are_architectures():
    found = stated(0.99, (0.9, 1.0), 8, ("a", "b", "c"))
    assert found.runs_needed(0.5) == 3
    assert found.runs_needed(0.99) == 8
    assert found.runs_needed_interval(0.5) == (3, 3)


def test_describe_speaks_of_any_target():
    found = dp.consistency.reliability(run_set(noisy(4, 1000)), "el2n")

    def number(target):
        few, many = found.runs_needed_interval(target)
        return f"; {found.runs_needed(target):,} runs ({few:,} to {many:,})"

    assert found.describe(0.8).endswith(f"{number(0.8)} are enough for 0.8.")
    assert found.describe(0.999).endswith(f"{number(0.999)} would reach 0.999.")


def test_runs_that_do_not_agree_cannot_tell_how_many_are_needed():
    matrix = np.stack([np.arange(20.0), -np.arange(20.0)])
    found = dp.consistency.reliability(run_set(matrix), "el2n")
    assert found.value == -1
    assert found.single_run == pytest.approx(-1)
    assert found.to_dict()["runs_needed"] is None
    with pytest.raises(ValueError, match="the runs do not agree at all"):
        found.runs_needed(0.9)


def test_runs_that_agree_fully_have_reliability_1():
    found = dp.consistency.reliability(run_set([np.arange(100.0), 2.0 + np.arange(100.0)]), "el2n")
    assert found.value == pytest.approx(1, abs=1e-9)
    assert found.interval == pytest.approx((1, 1), abs=1e-4)
    assert found.runs_needed(0.999) == 1


def test_the_order_of_examples_and_runs_does_not_matter():
    matrix = noisy(5)
    shuffled = matrix[:, np.random.default_rng(1).permutation(SIZE)]
    found, other, turned = (
        dp.consistency.reliability(run_set(m), "el2n") for m in (matrix, shuffled, np.roll(matrix, 2, axis=0))
    )
    assert other.value == pytest.approx(found.value, abs=1e-12)
    assert other.single_run == pytest.approx(found.single_run, abs=1e-12)
    assert turned.value == pytest.approx(found.value, abs=1e-12)
    assert turned.interval == pytest.approx(found.interval, abs=1e-9)
    np.testing.assert_allclose(turned.agreement, np.roll(found.agreement, 2), rtol=1e-12)


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_reliability_depends_on_neither_unit_nor_direction(scale, shift):
    matrix = noisy(4)
    found = dp.consistency.reliability(run_set(matrix), "el2n")
    for changed in (run_set(scale * matrix + shift), run_set(-scale * matrix)):
        other = dp.consistency.reliability(changed, "el2n")
        assert (other.value, *other.interval) == pytest.approx((found.value, *found.interval), abs=1e-9)


def test_the_seed_decides_and_the_level_widens():
    runs = run_set(noisy(12, 300))

    def interval(**options):
        return dp.consistency.reliability(runs, "el2n", splits=5, **options).interval

    assert interval(seed=3) == interval(seed=3) != interval(seed=4)
    (low, high), (lower, higher) = interval(level=0.8), interval(level=0.99)
    assert lower < low < high < higher


def test_a_few_examples_give_a_wide_interval_and_two_or_three_give_none():
    found = dp.consistency.reliability(run_set(noisy(3, size=9)), "el2n")
    assert found.interval[1] - found.interval[0] > 0.7
    assert "is not known (" in str(found)
    found = dp.consistency.reliability(run_set([[1.0, 2.0, 3.0], [1.0, 2.0, 3.1]]), "el2n")
    assert found.interval == pytest.approx((0, 1))
    assert "how many runs would reach 0.95 is not known (1 or more): train 2 more runs like these" in str(found)


def test_runs_of_several_architectures_are_compared_like_with_like():
    rng = np.random.default_rng(0)
    hard, special = rng.normal(size=2000), rng.normal(size=(2, 2000))
    matrix = np.stack([hard + special[k] + 0.5 * rng.normal(size=2000) for k in (0, 0, 1, 1)])
    together = dp.consistency.reliability(run_set(matrix, architectures=["a", "a", "b", "b"]), "el2n")
    ignoring = dp.consistency.reliability(run_set(matrix), "el2n")
    fresh = np.stack([hard + special[k] + 0.5 * rng.normal(size=2000) for k in (0, 0, 1, 1)])
    assert together.value == pytest.approx(rho(matrix.mean(0), fresh.mean(0)), abs=0.01)
    assert ignoring.value < together.value - 0.02
    assert together.architectures == ("a", "b")


def test_runs_that_are_the_same_training_are_warned_of():
    """Another seed in the file name, and none in the training."""
    matrix = noisy(4)
    matrix[2] = matrix[0]
    with pytest.warns(UserWarning, match=r"seed=0.* and .*seed=2.* have the same value for every example"):
        dp.consistency.reliability(run_set(matrix), "el2n")


def test_counts_that_agree_are_no_copies():
    counts = np.tile(np.arange(SIZE) % 5, (4, 1)).astype(float)
    assert dp.consistency.reliability(run_set(counts), "el2n").value == pytest.approx(1)
