"""Plans as tables of weights, for tools that draw or weigh examples by one."""

from __future__ import annotations

import os

import numpy as np

from ..policies.plan import Plan
from ..support.table_rows import check_suffix, write_rows


def to_weights(plan: Plan, path: str | os.PathLike[str], num_examples: int) -> None:
    """Writes `index` and `weight` of every example, in order; 0 for those that the plan leaves out.

    LeRobot's samples carry the `index` by which its weights of frames are looked up; the tables of 3LC have a column
    `weight` of a row each, with 0 for "not used".

    Args:
        plan: which examples are visited, and how each one's loss is weighted.
        path: `.csv`, or `.parquet` with pyarrow.
        num_examples: N.

    Raises:
        ValueError: another suffix, or a plan with a position outside 0..N-1.
        ImportError: `.parquet` without pyarrow.
        OSError: it cannot be written; the message names the file and says what to do.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_weights(Plan(torch.tensor([1]), torch.tensor([2.0])), Path(folder, "w.csv"), 2)
    ...     Path(folder, "w.csv").read_text()
    'index,weight\\n0,0.0\\n1,2.0\\n'
    """
    check_suffix(path, (".csv", ".parquet"))
    if int(plan.index[-1]) >= num_examples:
        raise ValueError(
            f"plan: got position {int(plan.index[-1])}, expected 0..{num_examples - 1}: is it of other data?"
        )
    weight = np.zeros(num_examples)
    weight[plan.index.numpy()] = plan.weight.numpy()
    write_rows(path, ("index", "weight"), ({"index": i, "weight": w} for i, w in enumerate(weight.tolist())))
