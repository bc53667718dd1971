"""How far single runs agree with the mean of the runs."""

from __future__ import annotations

import numpy as np
import pytest
from noisy_runs import holes, mean_known, noisy, rho, run_set

import difficulty_prune as dp


@pytest.mark.parametrize("score", ["el2n", "aum"])
@pytest.mark.parametrize("matrix", [noisy(5), holes()], ids=["full", "holes"])
def test_run_agreement_is_spearman_with_the_mean_over_what_the_run_knows(score, matrix):
    agreement = dp.consistency.run_agreement(run_set(matrix, score), score)
    np.testing.assert_allclose(agreement, [rho(row, mean_known(matrix)) for row in matrix], rtol=1e-12)


def test_one_run_agrees_with_itself():
    assert dp.consistency.run_agreement(run_set(noisy(1)), "el2n") == pytest.approx([1.0], abs=1e-12)
