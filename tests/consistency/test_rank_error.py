"""Rank error: against a loop over all sets of runs, and against simulations whose truth is known."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy_runs import holes, mean_known, noisy, run_set

import difficulty_prune as dp

rank_error = dp.consistency.rank_error


def distance(a, b):
    known = ~np.isnan(a) & ~np.isnan(b)
    ranks = [scipy.stats.rankdata(values[known]) for values in (a, b)]
    return np.abs(ranks[0] - ranks[1]).mean() / known.sum()


def correlation_of(found):
    """Of normal values whose ranks are so far apart on average."""
    return 2 * math.sin(math.pi * (0.5 - found)) - 1


def to_truth(noise):
    return 0.5 - math.asin((1 + 1 / math.sqrt(1 + noise)) / 2) / math.pi


def slow_error(matrix, size):
    """Of the mean of so many runs, from all sets of them, each against all other runs."""
    runs = range(len(matrix))

    def apart(m):
        sets = itertools.combinations(runs, m)
        means = [[mean_known(matrix[[r for r in runs if (r in s) == own]]) for own in (True, False)] for s in sets]
        return correlation_of(np.mean([distance(*pair) for pair in means]))

    half, rest = len(matrix) // 2, len(matrix) - len(matrix) // 2
    splits = list(itertools.combinations(runs, 2 * half))
    pairs = [(s, first) for s in splits for first in itertools.combinations(s, half)]
    halves = [[mean_known(matrix[list(f)]), mean_known(matrix[[r for r in s if r not in f]])] for s, f in pairs]
    noise = half * (1 / correlation_of(np.mean([distance(*pair) for pair in halves])) - 1)
    assert rest >= half
    if size == len(matrix):
        return to_truth(noise / size)
    return to_truth(1 / (apart(size) ** 2 * (1 + noise / (len(matrix) - size))) - 1)


@pytest.mark.parametrize(
    "matrix",
    [noisy(2), noisy(3), noisy(4), noisy(6), holes(5, 200), np.round(noisy(4))],
    ids=["2", "3", "4", "6", "holes", "ties"],
)
def test_rank_error_is_the_mean_over_all_sets_of_runs_without_the_noise_of_the_others(matrix):
    found = rank_error(run_set(matrix), "el2n")
    assert found.runs.tolist() == [*range(1, len(matrix) // 2 + 1), len(matrix)]
    np.testing.assert_allclose(found.error, [slow_error(matrix, size) for size in found.runs], atol=1e-9)


def test_sets_are_drawn_where_there_are_too_many():
    matrix = noisy(30, size=300, noise=3.0)
    found = rank_error(run_set(matrix), "el2n", resamples=40)
    assert len(found.runs) <= 12
    assert (found.runs[0], found.runs[-2], found.runs[-1]) == (1, 15, 30)
    assert (np.diff(found.error) < 0).all()
    again = rank_error(run_set(matrix), "el2n", resamples=40)
    other = rank_error(run_set(matrix), "el2n", resamples=40, seed=1)
    np.testing.assert_array_equal(found.error, again.error)
    assert (found.error[2:] != other.error[2:]).any()


# Simulations: examples, and k fresh runs of them


def normal(rng, size):
    hard = rng.normal(size=size)
    return hard, lambda k: hard + 0.5 * rng.normal(size=(k, size))


def hard_are_noisy(rng, size):
    hard = rng.normal(size=size)
    return hard, lambda k: hard + np.exp(0.5 * hard) * rng.normal(size=(k, size))


def skewed(rng, size):
    hard = rng.normal(size=size)
    return hard, lambda k: np.exp(hard + 0.7 * rng.normal(size=(k, size)))


def heavy_tails(rng, size):
    hard = rng.normal(size=size)
    return hard, lambda k: hard + 0.5 * rng.laplace(size=(k, size))


def counts(rng, size):
    rate = np.exp(rng.normal(size=size))
    return rate, lambda k: rng.poisson(rate, size=(k, size)) * 1.0


def mostly_zero(rng, size):
    """As forgetting counts are: two in three examples are 0 in a run."""
    share = 1 / (1 + np.exp(2 - 2 * rng.normal(size=size)))
    return share, lambda k: rng.binomial(5, share, size=(k, size)) * 1.0


def noise_only(rng, size):
    return rng.normal(size=size), lambda k: rng.normal(size=(k, size))


def expected(draw, sizes, size=20_000):
    hard, fresh = draw(np.random.default_rng(99), size)
    return np.array([np.mean([distance(fresh(m).mean(0), hard) for _ in range(3)]) for m in sizes])


@pytest.mark.parametrize("draw", [normal, hard_are_noisy, skewed, heavy_tails, counts], ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("runs", [4, 7])
def test_the_error_is_that_of_fresh_runs_against_the_truth(draw, runs):
    hard, fresh = draw(np.random.default_rng(runs), 4000)
    found = rank_error(run_set(fresh(runs)), "el2n")
    true = [np.mean([distance(fresh(m).mean(0), hard) for _ in range(10)]) for m in found.runs]
    np.testing.assert_allclose(found.error, true, rtol=0.12)
    assert (found.error > 0.02).all()


@pytest.mark.parametrize(
    ("draw", "runs"),
    [
        (normal, 2),
        (normal, 4),
        (hard_are_noisy, 3),
        (skewed, 4),
        (counts, 2),
        (mostly_zero, 2),
        (mostly_zero, 5),
        (noise_only, 4),
    ],
)
def test_the_interval_covers_the_error_of_fresh_runs(draw, runs):
    repeats, size = 40, 300
    covered = []
    true = np.full(2, 1 / 3) if draw is noise_only else expected(draw, (1, runs))
    for seed in range(repeats):
        _, fresh = draw(np.random.default_rng([seed, runs]), size)
        found = rank_error(run_set(fresh(runs)), "el2n", resamples=10, seed=seed)
        covered.append([found.low[i] <= true[i] <= found.high[i] + 1e-9 for i in (0, -1)])
    assert (np.mean(covered, 0) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repeats)).all()


def test_the_interval_is_no_wider_than_it_takes():
    found = [rank_error(run_set(normal(np.random.default_rng(s), 400)[1](4)), "el2n", resamples=10) for s in range(30)]
    for place in (0, -1):
        spread = np.std([one.error[place] for one in found])
        assert np.mean([one.high[place] - one.low[place] for one in found]) < 2 * 2 * 1.96 * spread


@pytest.mark.parametrize("numbers", [(2, 2), (5, 5), (3, 2), (6, 2), (3, 3, 3)])
def test_the_truth_of_several_architectures_is_their_mean_in_their_proportion(numbers):
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(len(numbers)), numbers)
    hard, special = rng.normal(size=3000), 0.8 * rng.normal(size=(len(numbers), 3000))

    def fresh():
        return hard + special[kinds] + 0.5 * rng.normal(size=(len(kinds), 3000))

    truth = hard + special[kinds].mean(0)
    found = rank_error(run_set(fresh(), architectures=[f"net{k}" for k in kinds]), "el2n")
    assert found.error[0] == pytest.approx(np.mean([distance(run, truth) for run in fresh()]), rel=0.06)
    assert found.error[-1] == pytest.approx(np.mean([distance(fresh().mean(0), truth) for _ in range(5)]), rel=0.06)


def test_architectures_with_a_run_each_count_as_of_one_kind():
    matrix = noisy(4, 500)
    np.testing.assert_allclose(
        rank_error(run_set(matrix, architectures=list("abcd")), "el2n").error,
        rank_error(run_set(matrix), "el2n").error,
        rtol=1e-12,
    )


# Laws


@settings(deadline=None, max_examples=40)
@given(
    runs=st.integers(2, 7),
    size=st.integers(2, 60),
    noise=st.floats(0.01, 30),
    digits=st.integers(0, 3),
    level=st.floats(0.5, 0.999),
    seed=st.integers(0, 99),
)
def test_any_runs_have_an_error_within_its_interval_and_more_runs_have_less(runs, size, noise, digits, level, seed):
    matrix = np.round(noisy(runs, size, noise, seed), digits)
    if any(np.ptp(row) == 0 for row in matrix):
        return
    found = rank_error(run_set(matrix), "el2n", resamples=5, level=level, seed=seed)
    assert (found.low >= 0).all()
    assert (found.low <= found.error).all()
    assert (found.error <= found.high).all()
    assert (found.high <= 1 / 3 + 1e-12).all()
    assert found.error[-1] <= found.error.min() + 1e-12
    assert str(found).endswith(".")


def test_the_error_depends_on_neither_unit_nor_direction_nor_order():
    matrix = noisy(4, 300)
    found = rank_error(run_set(matrix), "el2n")
    order = np.random.default_rng(0).permutation(300)
    for changed in (3 * matrix + 5, -matrix, matrix[::-1], matrix[:, order]):
        other = rank_error(run_set(changed), "el2n")
        np.testing.assert_allclose(other.error, found.error, rtol=1e-9)


def test_ties_that_may_hide_an_order_raise_the_upper_end():
    rng = np.random.default_rng(0)
    zero = np.where(rng.random(2000) < 0.7, 0.0, 3 + rng.normal(size=2000))
    some = run_set(np.where(zero == 0, 0.0, zero + 0.3 * rng.normal(size=(2, 2000))))
    none = run_set(zero + 0.3 * rng.normal(size=(2, 2000)))
    found, apart = rank_error(some, "el2n"), rank_error(none, "el2n")
    assert found.error[0] < 0.5 * apart.error[0]
    assert found.low[0] <= found.error[0] < apart.error[0] < found.high[0] * 1.1


def test_the_level_widens_the_interval():
    runs = run_set(noisy(4, 300))
    narrow, wide = (rank_error(runs, "el2n", level=level) for level in (0.8, 0.99))
    assert (wide.low < narrow.low).all()
    assert (narrow.high < wide.high).all()
    assert (wide.level, narrow.level) == (0.99, 0.8)
    with pytest.raises(ValueError, match="level: got 95"):
        rank_error(runs, "el2n", level=95)


def test_runs_that_rank_nothing_are_refused():
    with pytest.raises(ValueError, match="el2n: the runs rank nothing"):
        rank_error(run_set([[0.0] * 5, [1.0] * 5]), "el2n")
    nowhere = noisy(3, 30)
    nowhere[0] = np.nan
    with pytest.raises(ValueError, match="el2n: "):
        rank_error(run_set(nowhere[:2]), "el2n")


# Words


def test_rank_error_answers_in_words():
    ends = np.array([0.081, 0.06, 0.03])
    found = dp.consistency.RankError(np.array([1, 2, 5]), ends, ends - 0.01, ends + 0.02, "el2n")
    assert str(found) == (
        "One run misplaces an example by 8.1 % of the ranks on average (7.1 to 10.1 %), the mean of 5 runs by 3.0 % "
        "(2.0 to 5.0 %), compared with the ranking by very many runs."
    )


def test_what_is_not_known_is_said_with_what_to_do():
    found = rank_error(run_set(noisy(2, 8)), "el2n")
    assert str(found) == (
        f"How far one run misplaces an example is not known ({100 * found.low[0]:.1f} to {100 * found.high[0]:.1f} % "
        "of the ranks on average), compared with the ranking by very many runs; train 2 more runs and ask again."
    )


def test_no_number_is_0_because_runs_were_compared_with_themselves():
    found = rank_error(run_set(noisy(5, 400)), "el2n")
    facts = json.loads(json.dumps(found.to_dict()))
    for name in ("error", "low", "high"):
        assert min(facts[name]) > 0.02
    assert f"by {100 * found.error[-1]:.1f} %" in str(found)
    ax = dp.plots.rank_error_curve(found)
    assert min(y for line in ax.get_lines() for y in line.get_ydata()) == pytest.approx(100 * found.error[-1])
    assert "extrapolated" in ax.get_legend_handles_labels()[1]
