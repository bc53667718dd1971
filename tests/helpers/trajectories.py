"""Presentations of examples in order, and what the oracle makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import oracle
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from difficulty_prune.scores.temporal import TemporalOptions
from difficulty_prune.tracker.windows import TemporalRecords

# Log-probabilities of up to 40 are kept in float32, so that a change is off by some 1e-6 whatever its own size.
close = partial(torch.testing.assert_close, rtol=3e-5, atol=3e-5, equal_nan=True, check_dtype=False)
identical = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)

ALL = ("tdds", "dyn_unc", "dual")
CPU = torch.device("cpu")
LOGIT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass
class Trajectory:
    """Presentations in the order of training, and where one batch ends and the next begins."""

    num_examples: int
    index: Tensor
    logits: Tensor
    labels: Tensor
    cuts: list[int]
    options: TemporalOptions

    def part(self, chosen: slice | Tensor) -> Trajectory:
        """Some of the presentations, in one batch."""
        return replace(self, index=self.index[chosen], logits=self.logits[chosen], labels=self.labels[chosen], cuts=[])

    def record(self, names: tuple[str, ...] = ALL) -> TemporalRecords:
        records = TemporalRecords(self.num_examples, self.logits.shape[1], names, CPU, self.options)
        ends = [*self.cuts, len(self.index)]
        for begin, end in zip([0, *ends], ends, strict=False):
            records.record(self.index[begin:end], self.logits[begin:end], self.labels[begin:end])
        return records

    def expected(self) -> dict[str, np.ndarray]:
        presentations = zip(self.index.tolist(), self.logits.double().numpy(), self.labels.tolist(), strict=True)
        return oracle.temporal_scores(self.num_examples, presentations, self.options.window, self.options.decay)


@st.composite
def trajectories(draw) -> Trajectory:
    """Examples presented unequally often, many of them less often than a window; duplicates within batches; ties."""
    num_examples = draw(st.integers(1, 4))
    classes = draw(st.sampled_from((1, 2, 3, 8, 10, 17)))  # around the 8 lanes of the kernel
    rows = draw(st.integers(0, 40))
    index = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, num_examples - 1)))
    # hypothesis's fill value makes whole rows constant
    values = st.one_of(st.sampled_from((-1.0, 0.0, 0.5, 1.0)), st.floats(-20, 20, width=32))
    logits = draw(hnp.arrays(np.float32, (rows, classes), elements=values))
    labels = draw(hnp.arrays(np.int64, num_examples, elements=st.integers(0, classes - 1)))[index]
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=4)))
    options = TemporalOptions(draw(st.sampled_from((3, 4, 7, 10))), draw(st.sampled_from((0.9, 0.3, 1.0))))
    return Trajectory(num_examples, *map(torch.from_numpy, (index, logits, labels)), cuts, options)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_trajectory(
    rows: int = 200, classes: int = 10, dtype: torch.dtype = torch.float32, num_examples: int = 12, **options: Any
) -> Trajectory:
    """Of the last example there is nothing, of the one before it a single presentation."""
    index = torch.randint(num_examples - 2, (rows,), generator=seeded(0))
    index[rows // 2] = num_examples - 2
    logits = (4 * torch.randn(rows, classes, generator=seeded(1))).to(dtype)
    labels = torch.randint(classes, (num_examples,), generator=seeded(2))[index]
    cuts = list(range(0, rows, 32))
    return Trajectory(num_examples, index, logits, labels, cuts, TemporalOptions(**options))


def assert_scores(got: dict[str, Tensor], expected: dict[str, Any], compare: Callable[..., None] = close) -> None:
    assert got.keys() == expected.keys()
    for name, score in got.items():
        compare(score, torch.as_tensor(expected[name]), msg=lambda text, name=name: f"{name}: {text}")
