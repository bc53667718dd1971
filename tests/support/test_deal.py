"""Dealing by cost: everybody gets as many, of every round one, and at no time much more than others."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from difficulty_prune.support.deal import deal

costs = st.lists(st.integers(0, 50), max_size=60)
ranks = st.integers(1, 6)


def slowly(cost, ranks):
    """Round by round: who has got the least takes the most expensive, the first of equals where there are several."""
    so_far, order = [0] * ranks, []
    for first in range(0, len(cost) - len(cost) % ranks, ranks):
        items = sorted(range(first, first + ranks), key=lambda i: (cost[i], i))
        takers = sorted(range(ranks), key=lambda r: (-so_far[r], r))
        round_of = dict(zip(takers, items, strict=True))
        order += [round_of[r] for r in range(ranks)]
        for r, i in round_of.items():
            so_far[r] += cost[i]
    return order + list(range(len(order), len(cost)))


@settings(max_examples=100)
@given(cost=costs, ranks=ranks)
def test_it_is_what_a_slow_loop_gives(cost, ranks):
    assert deal(np.array(cost, float), ranks).tolist() == slowly(cost, ranks)


@settings(max_examples=100)
@given(cost=costs, ranks=ranks)
def test_nobody_is_ever_further_behind_than_items_of_a_round_differ(cost, ranks):
    order = deal(np.array(cost, float), ranks)
    rounds = len(cost) // ranks
    assert sorted(order.tolist()) == list(range(len(cost)))
    dealt = np.array(cost, float)[order[: rounds * ranks]].reshape(rounds, ranks)
    given_rounds = np.array(cost, float)[: rounds * ranks].reshape(rounds, ranks)
    assert (np.sort(dealt, 1) == np.sort(given_rounds, 1)).all()  # the rounds stay what they were
    so_far = dealt.cumsum(0)
    if rounds:
        assert np.ptp(so_far, 1).max() <= np.ptp(given_rounds, 1).max()


@given(size=st.integers(0, 40), ranks=ranks)
def test_equal_costs_change_nothing(size, ranks):
    assert deal(np.full(size, 7.0), ranks).tolist() == list(range(size))
