"""What the policies are asked for, and what they keep."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from hypothesis import settings
from hypothesis import strategies as st

# Fractions with a power of two below, so that keep * N is exact and a half is a half.
fractions = st.integers(1, 64).map(lambda k: k / 64)
tied = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=50)
distinct = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50, unique=True)
windows = st.integers(1, 64).flatmap(lambda keep: st.tuples(st.integers(0, 64 - keep), st.just(keep)))
seeds = st.integers(0, 2**31 - 1)
fast = settings(deadline=None, max_examples=40)


def half_up(keep, size):
    return math.floor(Fraction(keep) * size + Fraction(1, 2))


def expected_number(keep, size):
    return max(1, half_up(keep, size))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def kept(policy, difficulty, labels=None, seed=0):
    return policy(torch.tensor(difficulty, dtype=torch.float64), labels, seeded(seed)).index.tolist()


def values_at(difficulty, index):
    return sorted(difficulty[i] for i in index)
