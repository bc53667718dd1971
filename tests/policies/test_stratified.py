"""Coverage-centric selection, against the algorithm of the paper written out in exact arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.stratified import Stratified
from difficulty_prune.policies.uniform import Easiest

pytestmark = pytest.mark.filterwarnings("ignore:difficulty. all .* examples have the same value")

NAN, INF = float("nan"), float("inf")
seeds = st.integers(0, 2**31 - 1)
sixty_fourths = st.integers(1, 64).flatmap(lambda keep: st.tuples(st.just(keep), st.integers(0, min(63, 64 - keep))))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def half_up(x):
    return math.floor(x + Fraction(1, 2))


def kept(policy, difficulty, labels=None, seed=0):
    return policy(torch.as_tensor(difficulty, dtype=torch.float64), labels, seeded(seed)).index.tolist()


# The oracle: Zheng et al., ICLR 2023, algorithm 1


def oracle_strata(values, strata):
    """The stratum of each value; all of the same width between the smallest and the largest."""
    low, high = Fraction(min(values)), Fraction(max(values))
    if low == high:
        return [0] * len(values)
    return [min(strata - 1, math.floor((Fraction(v) - low) / (high - low) * strata)) for v in values]


def oracle_budgets(sizes, budget):
    """While there are strata: the smallest of them gives its part of what is left of the budget, or all it has."""
    left, budgets = dict(enumerate(sizes)), {}
    while left:
        smallest = min(left, key=left.__getitem__)
        budgets[smallest] = min(left[smallest], budget // len(left))
        budget -= budgets[smallest]
        del left[smallest]
    return [budgets[s] for s in range(len(sizes))]


def check_against_oracle(difficulty, index, keep, drop_hardest, strata):
    size = len(difficulty)
    number = max(1, half_up(keep * size))
    dropped = min(half_up(drop_hardest * size), size - number)
    ranked = sorted(difficulty)
    left = ranked[: size - dropped]
    assert len(index) == len(set(index)) == number
    values = sorted(difficulty[i] for i in index)
    assert not Counter(values) - Counter(left)  # with ties at the edge it does not matter which of them are dropped

    stratum_of = dict(zip(left, oracle_strata(left, strata), strict=True))
    sizes = Counter(stratum_of[value] for value in left)
    sizes = [sizes[s] for s in range(strata)]
    given_by = Counter(stratum_of[value] for value in values)
    budgets = oracle_budgets(sizes, number)
    # The paper does not say which of two strata of one size is the smaller one.
    got = sorted((sizes[s], given_by[s]) for s in range(strata))
    assert got == sorted(zip(sizes, budgets, strict=True))


@settings(max_examples=150)
@given(
    size=st.integers(1, 60),
    parts=sixty_fourths,
    strata=st.integers(1, 70),
    power=st.sampled_from([1, 3, 8]),
    seed=seeds,
)
@example(size=60, parts=(32, 32), strata=50, power=1, seed=0)
@example(size=60, parts=(1, 63), strata=3, power=1, seed=0)
@example(size=1, parts=(1, 63), strata=50, power=1, seed=0)
def test_every_stratum_gives_what_the_algorithm_says(size, parts, strata, power, seed):
    keep, drop_hardest = parts[0] / 64, parts[1] / 64
    difficulty = torch.rand(size, dtype=torch.float64, generator=seeded(seed)) ** power
    index = kept(Stratified(keep, drop_hardest, strata), difficulty, seed=seed)
    check_against_oracle(difficulty.tolist(), index, Fraction(keep), Fraction(drop_hardest), strata)


@given(
    sixteenths=st.lists(st.integers(0, 16), max_size=50),
    keep=st.integers(1, 64).map(lambda k: k / 64),
    strata=st.integers(0, 6).map(lambda k: 2**k),
    seed=seeds,
)
def test_ties_and_values_at_the_edge_of_a_stratum_are_where_the_algorithm_puts_them(sixteenths, keep, strata, seed):
    difficulty = [0.0, 1.0, *(k / 16 for k in sixteenths)]
    index = kept(Stratified(keep, strata=strata), difficulty, seed=seed)
    check_against_oracle(difficulty, index, Fraction(keep), Fraction(0), strata)


def test_the_oracle_by_hand():
    assert oracle_strata([0, 1, 4, 5, 9, 10], 2) == [0, 0, 0, 1, 1, 1]
    assert oracle_budgets([10, 1, 10], 9) == [4, 1, 4]
    assert oracle_budgets([0, 2, 10, 0], 9) == [0, 2, 7, 0]


# In numbers


def counts_between(index, difficulty, edges):
    return torch.histogram(torch.as_tensor(difficulty)[index].double(), torch.tensor(edges).double()).hist.tolist()


def test_strata_give_the_same_number_whatever_their_size():
    difficulty = torch.cat([torch.linspace(0, 0.99, 900), torch.linspace(9.01, 10, 100)]).double()
    for seed in range(5):
        index = kept(Stratified(keep=0.1, strata=2), difficulty, seed=seed)
        assert counts_between(index, difficulty, [0.0, 5, 10]) == [50, 50]
        index = kept(Stratified(keep=0.5, strata=2), difficulty, seed=seed)
        assert counts_between(index, difficulty, [0.0, 5, 10]) == [400, 100]


def test_what_a_small_stratum_cannot_give_is_shared_by_all_that_are_larger():
    difficulty = torch.tensor([0.0] + [1.5] * 5 + [2.5] * 40 + [3.5] * 50 + [4.0] * 4)
    index = kept(Stratified(keep=0.5, strata=4), difficulty)
    assert counts_between(index, difficulty, [0.0, 1, 2, 3, 4]) == [1, 5, 22, 22]


@pytest.mark.parametrize(("keep", "drop_hardest"), [(0.3, 0.2), (0.1, 0.9), (0.7, 0.29), (0.5, 0.0)])
def test_the_fraction_dropped_is_of_the_whole_set(keep, drop_hardest):
    """Not of what is kept, and not of what is left."""
    difficulty = torch.rand(100, generator=seeded(0), dtype=torch.float64)
    hardest = difficulty.argsort(descending=True)[: round(100 * drop_hardest)].tolist()
    visited = set()
    for seed in range(60):
        index = kept(Stratified(keep, drop_hardest, strata=5), difficulty, seed=seed)
        assert len(index) == round(100 * keep)
        visited |= set(index)
    assert not visited & set(hardest)
    assert len(visited) > 0.9 * (100 - len(hardest))


@pytest.mark.parametrize("strata", [1, 2, 50, 1000])
def test_when_nothing_but_the_hardest_is_dropped_there_is_no_choice(strata):
    difficulty = torch.rand(50, generator=seeded(1), dtype=torch.float64)
    for keep in (0.02, 0.3, 0.5, 0.98):
        policy = Stratified(keep=keep, drop_hardest=1 - keep, strata=strata)
        assert kept(policy, difficulty) == kept(Easiest(keep), difficulty)
    assert kept(Stratified(1.0, strata=strata), difficulty) == [*range(50)]


def test_strata_are_cut_after_the_hardest_are_gone():
    """An outlier that is dropped must not squeeze all others into the first stratum."""
    difficulty = torch.tensor([0.0] * 80 + [1.0] * 10 + [1e9] * 10)
    assert counts_between(kept(Stratified(0.2, 0.1, 2), difficulty), difficulty, [0.0, 0.5, 1.0]) == [10, 10]
    assert counts_between(kept(Stratified(0.2, 0.0, 2), difficulty), difficulty, [0.0, 2.0, 1e9]) == [10, 10]


def test_within_a_stratum_all_are_drawn_alike():
    difficulty, counts = torch.cat([torch.rand(12, generator=seeded(2)), torch.full((4,), 10.0)]), torch.zeros(16)
    for seed in range(400):
        counts[kept(Stratified(0.5, strata=2), difficulty, seed=seed)] += 1
    assert counts[12:].tolist() == [400] * 4
    assert ((counts[:12] - 400 / 3).abs() < 5 * (400 * 2 / 9) ** 0.5).all()


def test_ties_at_the_edge_of_the_dropped_are_drawn_alike():
    counts = torch.zeros(10)
    for seed in range(400):
        counts[kept(Stratified(keep=0.5, drop_hardest=0.5), [1.0] * 10, seed=seed)] += 1
    assert ((counts - 200).abs() < 50).all()  # 5 standard deviations


def test_one_stratum_is_a_random_choice_of_those_not_dropped():
    seen = {tuple(kept(Stratified(0.25, 0.5, strata=1), range(8), seed=seed)) for seed in range(200)}
    assert seen == {(a, b) for a in range(4) for b in range(a + 1, 4)}


def test_more_strata_than_values():
    difficulty = torch.tensor([0.0] * 60 + [1.0] * 30 + [2.0] * 10)
    for strata in (3, 50, 999, 10_000):
        index = kept(Stratified(0.3, strata=strata), difficulty)
        assert counts_between(index, difficulty, [0.0, 0.5, 1.5, 2.5]) == [10, 10, 10]
        index = kept(Stratified(0.6, strata=strata), difficulty)
        assert counts_between(index, difficulty, [0.0, 0.5, 1.5, 2.5]) == [25, 25, 10]


@pytest.mark.parametrize("value", [0.0, 0.1, -1e308, 1e-320])
@pytest.mark.parametrize("strata", [1, 7, 100])
def test_constant_difficulty_is_one_stratum(value, strata):
    seen = set()
    for seed in range(20):
        index = kept(Stratified(0.3, 0.1, strata), [value] * 10, seed=seed)
        assert len(index) == 3
        seen |= set(index)
    assert seen == set(range(10))


def test_a_range_beyond_the_largest_number_is_cut_all_the_same():
    difficulty = [-1.7e308] * 6 + [1.7e308] * 2
    assert kept(Stratified(0.5, strata=3), difficulty)[-2:] == [6, 7]


@pytest.mark.parametrize("bad", [INF, -INF])
def test_infinite_difficulty_is_refused(bad):
    with pytest.raises(ValueError, match=r"2 of 4 examples are infinite, but Stratified .*clamp"):
        Stratified(0.5, drop_hardest=0.5)([0.0, bad, 1.0, bad])


def test_unseen_examples_are_kept_or_refused():
    difficulty = [NAN, 0.0, 1.0, NAN, 2.0, 3.0]
    with pytest.raises(ValueError, match="2 of 6 examples are NaN, the first at 0"):
        Stratified(0.5)(difficulty)
    for seed in range(10):
        index = kept(Stratified(0.5, 0.25, unseen="keep"), difficulty, seed=seed)
        assert len(index) == 4  # half of the four others
        assert {0, 3} < set(index)
        assert 5 not in index


def test_every_weight_is_one_and_no_epoch_draws_anew():
    sampler = dp.PruneSampler(Stratified(0.5), torch.rand(40, generator=seeded(0)))
    plan = sampler.plan
    assert plan.weight.tolist() == [1.0] * 20
    sampler.set_epoch(1)
    assert torch.equal(sampler.plan.index, plan.index)
    others = {tuple(kept(Stratified(0.5, strata=5), torch.arange(40.0), seed=seed)) for seed in range(10)}
    assert len(others) == 10


# Within classes

LABELS = torch.tensor([0] * 900 + [1] * 100)[torch.randperm(1000, generator=seeded(3))]
DIFFICULTY = torch.rand(1000, generator=seeded(4), dtype=torch.float64) + 10 * LABELS  # the rare class is the hard one


@pytest.mark.parametrize(
    ("keep", "quota", "numbers"),
    [
        (0.5, "proportional", (450, 50)),
        (0.5, "equal", (400, 100)),
        (0.1, "proportional", (90, 10)),
        (0.1, "equal", (50, 50)),
    ],
)
@pytest.mark.parametrize("drop_hardest", [0.0, 0.1])
def test_within_classes_of_900_and_100(keep, quota, numbers, drop_hardest):
    policy = PerClass(Stratified(keep, drop_hardest, strata=5), quota)
    index = torch.tensor(kept(policy, DIFFICULTY, LABELS))
    assert tuple(LABELS[index].bincount().tolist()) == numbers
    for c in range(2):
        own = DIFFICULTY[LABELS.eq(c)]
        mine = DIFFICULTY[index[LABELS[index] == c]]
        share = len(mine) / len(own)
        check_against_oracle(
            own.tolist(), [own.tolist().index(v) for v in mine.tolist()], Fraction(share), Fraction(drop_hardest), 5
        )


def test_without_per_class_the_hard_class_is_dropped_and_that_is_refused():
    with pytest.raises(ValueError, match=r"would drop class 1 entirely \(100 examples\)"):
        Stratified(keep=0.5, drop_hardest=0.1)(DIFFICULTY, LABELS)


# Refused at once


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"keep": 0.0}, ValueError, "keep: got 0.0"),
        ({"keep": 0.5, "drop_hardest": 0.6}, ValueError, "drop_hardest: got drop_hardest 0.6 and keep 0.5"),
        ({"keep": 0.5, "drop_hardest": 1.0}, ValueError, "drop_hardest: got 1.0"),
        ({"keep": 0.5, "drop_hardest": -0.1}, ValueError, "drop_hardest: got -0.1"),
        ({"keep": 0.5, "drop_hardest": NAN}, ValueError, "drop_hardest: got nan"),
        ({"keep": 0.5, "drop_hardest": "0.1"}, TypeError, "drop_hardest: got '0.1'"),
        ({"keep": 0.5, "strata": 0}, ValueError, "strata: got 0"),
        ({"keep": 0.5, "strata": 2.0}, TypeError, "strata: got 2.0"),
        ({"keep": 0.5, "strata": True}, TypeError, "strata: got True"),
        ({"keep": 0.5, "unseen": "drop"}, ValueError, "unseen: got 'drop'"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Stratified(**options)


def test_parts_that_add_up_to_one_are_accepted_in_decimal():
    for tenths in range(1, 10):
        assert Stratified(keep=tenths / 10, drop_hardest=1 - tenths / 10).keep == tenths / 10
    assert Stratified(keep=0.9, drop_hardest=0.1).drop_hardest == 0.1


# Strata that hold few examples or few values


def test_strata_of_equal_size_are_treated_alike():
    """40 strata of one example each and room for 20: not always the hardest 20 of all."""
    counts = torch.zeros(40)
    for seed in range(200):
        counts[kept(Stratified(keep=0.5, strata=40), torch.arange(40.0), seed=seed)] += 1
    assert ((counts - 100).abs() < 36).all()  # 5 standard deviations


def test_whole_numbers_lie_in_their_own_strata():
    """Counts such as forgetting events, 0..100, in 100 strata: each has its own, but for 99 and 100."""
    difficulty = torch.arange(101.0).repeat_interleave(10)
    index = kept(Stratified(keep=200 / 1010, strata=100), difficulty)
    counts = counts_between(index, difficulty, [float(edge) for edge in range(101)])
    assert counts == [2.0] * 100
