"""What the CUDA kernels read and write in global memory, counted by the emulator (see native/traffic.cpp).

A kernel that is bound by memory takes as long as its bytes; so these tests bound the bytes, and the loads per row.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

import pytest
from native_programs import COUNTED, CSRC, KERNELS, NATIVE, Run, Workshop
from traffic_calls import FEW, MANY, Kernel, counted_calls, growing_calls, kernels_of

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="not Linux: no ucontext.h and link.h"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.slow,
]

WHOLE, SAMPLED = Run(0, 232448), Run(0, 232448, 64)
RECORDERS = ("record_stats", "record_given_stats", "record_temporal", "record_gradients")
CALLS = list(counted_calls())
NAMES = [str(c.call) for c in CALLS]
GROWING = [(launcher, kind) for launcher in RECORDERS for kind in ("distinct", "repeated")]


class Counts:
    """Everything is counted in the background, as one program each."""

    def __init__(self, workshop: Workshop) -> None:
        objects = [workshop.compile(NATIVE / name, ()) for name in ("emulator.cpp", "calls.cpp", "traffic.cpp")]
        objects += [workshop.compile(CSRC / "cuda" / name, COUNTED) for name in KERNELS]
        program = workshop.link((), objects)

        self.once = workshop.make_calls(program, workshop.batch(c.call for c in CALLS), WHOLE)
        self.growing = {
            (*what, rows): workshop.make_calls(program, workshop.batch([growing_calls(*what, rows)]), SAMPLED)
            for what in GROWING
            for rows in (FEW, MANY)
        }

    def kernels(self, number: int) -> list[Kernel]:
        outcome = self.once.result()
        assert outcome.status == 0, outcome.report
        return kernels_of(outcome.printed)[number]

    def loads_per_row(self, launcher: str, kind: str, rows: int) -> float:
        outcome = self.growing[launcher, kind, rows].result()
        assert outcome.status == 0, outcome.report
        (kernels,) = kernels_of(outcome.printed)
        return sum(kernel.loads for kernel in kernels) / rows


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counts]:
    workshop = Workshop(tmp_path_factory.mktemp("traffic"))
    yield Counts(workshop)
    workshop.pool.shutdown(cancel_futures=True)
    shutil.rmtree(workshop.folder)


@pytest.mark.parametrize("number", range(len(CALLS)), ids=NAMES)
def test_no_kernel_moves_more_than_it_must(counts: Counts, number: int) -> None:
    what, kernels = CALLS[number], counts.kernels(number)
    moved = sum(kernel.moved for kernel in kernels)
    assert what.must <= moved <= 1.05 * (what.must + what.chains)
    if what.must > 400 * what.rows:  # rows so long that chains do not show
        assert moved <= 1.05 * what.must
    assert sum(kernel.wide for kernel in kernels) >= what.wide * moved


@pytest.mark.parametrize(("launcher", "kind"), GROWING)
def test_a_row_of_a_large_batch_costs_what_one_of_a_small_batch_costs(counts: Counts, launcher: str, kind: str) -> None:
    few, many = (counts.loads_per_row(launcher, kind, rows) for rows in (FEW, MANY))
    assert few > 1
    assert many <= 1.5 * few
