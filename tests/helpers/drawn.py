"""What the drawing policies are asked for, and whether draws are as frequent as they should be."""

from __future__ import annotations

import math
from fractions import Fraction

import scipy.stats
import torch
from hypothesis import strategies as st

from difficulty_prune.policies.weighted import Importance, SoftPrune

NAN, INF = float("nan"), float("inf")
fractions = st.integers(1, 64).map(lambda k: k / 64)
difficulties = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)
distinct = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40, unique=True)
skewed = st.lists(st.floats(-6, 6).map(lambda x: 10.0**x), min_size=1, max_size=30)
seeds = st.integers(0, 2**31 - 1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


def number_kept(keep, size):
    return max(1, math.floor(Fraction(keep) * size + Fraction(1, 2)))


def weighted_policies(keep):
    return [SoftPrune(keep), SoftPrune(keep, easy_keep=keep / 4), Importance(0.5, keep), Importance(INF, keep)]


def check_counts(counts, trials, probability):
    """Each count is binomial: refused where less likely than 5 standard deviations of a normal distribution are."""
    for count, p in zip(counts.tolist(), probability.tolist(), strict=True):
        p = min(p, 1.0)
        assert scipy.stats.binom.cdf(count, trials, p) > 2.9e-7, (count, trials * p)
        assert scipy.stats.binom.sf(count - 1, trials, p) > 2.9e-7, (count, trials * p)


def oracle_proportional(sizes, kept):
    """Rescale to the number wanted; whoever comes to 1 or more is certain; repeat with the others."""
    sizes = [Fraction(size) for size in sizes]
    certain = set()
    while len(certain) < len(sizes):
        others = [i for i in range(len(sizes)) if i not in certain]
        scale = (kept - len(certain)) / sum(sizes[i] for i in others)
        too_large = {i for i in others if sizes[i] * scale >= 1}
        if not too_large:
            return [1.0 if i in certain else float(sizes[i] * scale) for i in range(len(sizes))]
        certain |= too_large
    return [1.0] * len(sizes)
