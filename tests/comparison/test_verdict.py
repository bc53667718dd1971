"""Verdicts: intervals that cover, words that follow from them, and nothing said that cannot be known."""

from __future__ import annotations

import itertools
import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from difficulty_prune.comparison.verdict import paired, verdict, visible

SHARES = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=10)


def slow(results: list[float], others: list[float], cells: int, level: float) -> tuple[float, float, float]:
    """The same by the book: mean, and the ends of the interval."""
    differences = [a - b for a, b in zip(results, others, strict=True)]
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    low, high = stats.t.interval(1 - (1 - level) / cells, len(differences) - 1, loc=mean, scale=error)
    return mean, low, high


def pairs(data: st.DataObject) -> tuple[np.ndarray, np.ndarray]:
    results = np.array(data.draw(SHARES))
    others = np.array(data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(results), max_size=len(results))))
    assume(np.ptp(results - others) > 1e-6)
    return results, others


@given(data=st.data(), cells=st.integers(1, 20), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_it_is_the_interval_of_the_book(data, cells, level):
    results, others = pairs(data)
    found = verdict(results, others, cells=cells, level=level)
    mean, low, high = slow(results.tolist(), others.tolist(), cells, level)
    assert found.difference == pytest.approx(mean)
    assert found.interval == pytest.approx((max(low, -1), min(high, 1)))
    t_test = stats.ttest_rel(results, others)
    assert (found.word == "no difference seen") == (t_test.pvalue * cells >= 1 - level)


@given(data=st.data(), lower=st.booleans())
def test_exchanged_the_two_give_the_opposite(data, lower):
    results, others = pairs(data)
    there = verdict(results, others, lower_is_better=lower)
    back = verdict(others, results, lower_is_better=lower)
    turned = verdict(results, others, lower_is_better=not lower)
    assert back.difference == turned.difference == -there.difference
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
    assert {there.word, back.word} in ({"better", "worse"}, {"no difference seen"})
    assert back.smallest_visible == pytest.approx(there.smallest_visible)


@given(data=st.data(), shift=st.floats(-0.5, 0.5))
def test_a_shift_of_one_shifts_the_interval_and_one_of_both_does_nothing(data, shift):
    results, others = pairs(data)
    one = verdict(results + shift, others, points=False)
    both = verdict(results + shift, others + shift, points=False)
    found = verdict(results, others, points=False)
    assert one.difference == pytest.approx(found.difference + shift, abs=1e-12)
    assert one.interval == pytest.approx((found.interval[0] + shift, found.interval[1] + shift), abs=1e-9)
    assert both.interval == pytest.approx(found.interval, abs=1e-9)


@given(data=st.data())
def test_the_order_of_the_seeds_does_not_matter(data):
    results, others = pairs(data)
    order = data.draw(st.permutations(range(len(results))))
    there, back = verdict(results, others), verdict(results[order], others[order])
    assert back.difference == pytest.approx(there.difference)
    assert back.interval == pytest.approx(there.interval)
    assert sorted(back.differences) == sorted(there.differences)


@given(data=st.data(), cells=st.integers(1, 10))
def test_more_cells_widen_it(data, cells):
    results, others = pairs(data)
    one, more = (verdict(results, others, cells=number, points=False) for number in (cells, cells + 1))
    assert more.width > one.width
    assert more.smallest_visible > one.smallest_visible
    assert one.word == more.word or more.word == "no difference seen"


@given(data=st.data(), cells=st.integers(1, 12))
def test_it_can_always_be_said_and_written(data, cells):
    results, others = pairs(data)
    found = verdict(results, others, cells=cells, than="chance")
    assert "nan" not in f"{found} {found.short}"
    assert found.word in str(found) or found.word == "no difference seen"
    kept = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert kept["word"] == found.word
    assert kept["in_words"] == str(found)
    assert len(kept["differences"]) == found.seeds == len(results)


COVERAGE = [(3, 1), (3, 4), (5, 1), (5, 3), (5, 12), (10, 4)]


@pytest.mark.parametrize("equal", [True, False], ids=["equal variances", "unequal variances"])
@pytest.mark.parametrize(("seeds", "cells"), COVERAGE)
def test_the_intervals_of_all_cells_cover_together(seeds, cells, equal):
    """Cells that share their random arm, as those of a comparison do, and seeds that move all arms together."""
    draws, rng = 20_000, np.random.default_rng([seeds, cells, equal])
    spread = np.full(cells, 0.01) if equal else 0.02 * np.geomspace(1, 0.05, cells)
    together = 0.02 * rng.standard_normal((draws, 1, seeds))
    arms = together + spread[:, None] * rng.standard_normal((draws, cells, seeds))
    chance = together + (0.01 if equal else 0.002) * rng.standard_normal((draws, 1, seeds))
    true = np.linspace(-0.02, 0.02, cells)[:, None]
    found = paired(arms + true - chance, cells=cells)
    missed = np.abs(found.mean - true[:, 0]) > found.half
    error = 3 * math.sqrt(0.05 * 0.95 / draws)
    assert missed.any(1).mean() < 0.05 + error
    assert missed.mean() == pytest.approx(0.05 / cells, abs=3 * math.sqrt(0.05 / cells / draws))
    assert missed.any(1).mean() > (0.02 if seeds > 3 or cells == 1 else 0.005)  # and not by being too wide


@pytest.mark.parametrize(("seeds", "cells"), [(3, 1), (5, 3), (10, 12)])
def test_the_smallest_visible_difference_is_seen_four_times_of_five(seeds, cells):
    draws, rng = 20_000, np.random.default_rng([seeds, cells])
    true = visible(seeds, cells=cells) / math.sqrt(seeds)
    found = paired(true + rng.standard_normal((draws, seeds)), cells=cells)
    assert (found.mean - found.half > 0).mean() == pytest.approx(0.8, abs=0.01)


def test_one_seed_tells_nothing():
    found = verdict([0.9], [0.8], than="chance")
    assert (found.word, found.interval, found.smallest_visible) == ("not known", None, None)
    assert found.difference == pytest.approx(0.1)
    assert found.width == math.inf
    assert str(found) == ("not known whether it differs from chance (10.0 points better, one seed: train 3 or more)")
    assert verdict([0.8], [0.8]).word == "not known"


def test_differences_that_do_not_vary_have_no_spread_to_measure():
    found = verdict([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], than="chance")
    assert (found.word, found.interval, found.smallest_visible) == ("not known", None, None)
    assert "the same for every seed" in str(found)
    same = verdict([0.9, 0.8], [0.9, 0.8], than="all data")
    assert (same.word, same.interval, same.width) == ("no difference seen", None, math.inf)
    assert str(same) == "no difference to all data seen (the same results for every seed)"


def test_shares_do_not_differ_by_more_than_all_points():
    found = verdict([0.9, 0.1], [0.2, 0.8])
    assert found.interval == (-1.0, 1.0)
    assert found.smallest_visible > 1
    assert "none could have been" in str(found)


def test_what_it_says():
    better = verdict([0.826, 0.825, 0.8255], [0.8175, 0.8178, 0.8177], than="chance")
    assert str(better) == "0.8 points better than chance (0.7 to 0.9)" or better.word == "better"
    worse = verdict([0.33, 0.34, 0.335], [0.54, 0.542, 0.541], than="chance")
    assert worse.word == "worse"
    assert str(worse).startswith("20.6 points worse than chance (")
    assert worse.short == "20.6 worse than chance"
    loss = verdict([0.30, 0.31, 0.29], [0.50, 0.52, 0.51], than="all data", lower_is_better=True)
    assert loss.word == "better"
    assert str(loss).startswith("0.210 better than all data (")
    assert not verdict([80, 81, 82], [70, 72, 71]).points  # already in points


@pytest.mark.parametrize(
    ("results", "others", "options", "error", "says"),
    [
        ([0.5, math.nan], [0.5, 0.5], {}, ValueError, "results: got nan"),
        ([0.5, 0.4], [0.5, math.inf], {}, ValueError, "others: got inf"),
        ([0.5, 1e300], [0.5, 0.5], {}, ValueError, r"results: got 1e\+300"),  # whose square is infinite
        ([0.5, 0.4], [0.5], {}, ValueError, r"results \[2\] and others \[1\]"),
        ([], [], {}, ValueError, r"results \[0\]"),
        (["a"], ["b"], {}, TypeError, "results"),
        ([0.5, 0.4], [0.5, 0.1], {"level": 1.0}, ValueError, "level: got 1.0"),
        ([0.5, 0.4], [0.5, 0.1], {"cells": 0}, ValueError, "cells: got 0"),
    ],
)
def test_bad_input_is_refused(results, others, options, error, says):
    with pytest.raises(error, match=says):
        verdict(results, others, **options)


def test_four_points_apart_need_few_seeds_and_half_a_point_many():
    assert [round(visible(seeds), 1) for seeds in (3, 5, 10)] == [5.7, 3.8, 3.1]
    for few, many in itertools.pairwise((2, 3, 5, 10, 30)):
        assert visible(few, cells=6) > visible(many, cells=6)
