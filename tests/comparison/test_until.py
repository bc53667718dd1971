"""What stopping at a narrow interval does to its coverage, as `dp.compare` says it."""

from __future__ import annotations

import numpy as np
import pytest

from difficulty_prune.comparison.verdict import paired


@pytest.mark.parametrize(("first", "least"), [(3, 0.895), (5, 0.915)])
def test_intervals_that_end_the_seeds_hold_a_little_less_often(first, least):
    """For every width that could be asked for, in deviations of one difference; at most 30 seeds."""
    draws, most = 20_000, 30
    differences = np.random.default_rng(first).standard_normal((draws, most))
    found = {seeds: paired(differences[:, :seeds]) for seeds in range(first, most + 1)}
    coverage = []
    for width in (0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 6.0):
        going, covered = np.ones(draws, bool), np.zeros(draws, bool)
        for seeds, (mean, _, half) in found.items():
            ends = going & ((2 * half < width) | (seeds == most))
            covered |= ends & (np.abs(mean) <= half)
            going &= ~ends
        assert not going.any()
        coverage.append(covered.mean())
    assert least < min(coverage) < 0.935  # the price is there, and no larger than said
    assert coverage[-1] == pytest.approx(0.95, abs=0.006)
