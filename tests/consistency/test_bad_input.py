"""Names of scores that are not known are refused."""

from __future__ import annotations

import pytest
from refusals import check_refused, refusals

import difficulty_prune as dp

CASES, _, expect = refusals()


def runs():
    return dp.RunSet(dp.Run({"el2n": [0.1, 0.2, 0.3]}, architecture="mlp", seed=seed) for seed in range(2))


expect("agreement, unknown score", ValueError, "'vmax'", of=lambda: dp.consistency.run_agreement(runs(), "vmax"))
expect("correlation, unknown", ValueError, "'vmax'", of=lambda: dp.consistency.correlation(runs(), ["vmax"]))
expect(
    "correlation, score as string",
    TypeError,
    "string 'el2n'",
    of=lambda: dp.consistency.correlation(runs(), "el2n"),
)
expect("correlation, no scores", ValueError, "got none", of=lambda: dp.consistency.correlation(runs(), ()))


@pytest.mark.parametrize(("attempt", "exception", "patterns"), CASES)
def test_bad_input_is_refused(tmp_path, attempt, exception, patterns):
    check_refused(attempt, tmp_path, exception, patterns)
