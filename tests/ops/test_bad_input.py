"""Bad gradients are refused before the operator runs."""

from __future__ import annotations

import pytest
import torch
from refusals import check_refused, refusals

import difficulty_prune as dp

CASES, _, expect = refusals()
vog = dp.ops.gradient_variance
expect(
    "vog, unknown statistic", ValueError, "got 'max'", "'std' or 'variance'", of=lambda: vog(torch.ones(2, 1, 1), "max")
)
expect("vog, 1-D", ValueError, r"\(3,\)", r"\[K, B, C, ...\]", of=lambda: vog(torch.ones(3)))
expect("vog, integers", TypeError, "int64", "floating-point", of=lambda: vog(torch.ones(2, 1, 1).long()))
expect("vog, no checkpoints", ValueError, r"\(0, 2, 1\)", "K >= 1", of=lambda: vog(torch.ones(0, 2, 1)))


@pytest.mark.parametrize(("attempt", "exception", "patterns"), CASES)
def test_bad_input_is_refused(tmp_path, attempt, exception, patterns):
    check_refused(attempt, tmp_path, exception, patterns)
