"""Turns the benchmarks into one table and, with --benchmark-json, into one file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "studies")]  # the helpers beside the benchmarks

from comparison import Compare, Function, Row, Target, in_turns  # noqa: E402
from machine import machine  # noqa: E402
from report import as_data, table  # noqa: E402

from difficulty_prune.bench.copy_bandwidth import Copy  # noqa: E402

THREADS = 2
ROWS = pytest.StashKey[list[Row]]()
LOAD = pytest.StashKey[float]()
NO_TARGET = Target()


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(THREADS)
    config.stash[ROWS] = []
    config.stash[LOAD] = round(os.getloadavg()[0], 2)


@pytest.fixture(scope="session")
def copy() -> Copy:
    return Copy()


@pytest.fixture
def compare(benchmark: Any, request: pytest.FixtureRequest) -> Compare:
    """Measures two functions in turns and adds a row to the table.

    `moved` and `copy` belong together: the bytes that one call of ours must move, and the copy to compare them with.
    """

    def run(
        work: str,
        against: str,
        ours: Function,
        theirs: Function,
        target: Target = NO_TARGET,
        *,
        rounds: int = 60,
        moved: int | None = None,
        copy: Copy | None = None,
        note: str = "",
    ) -> Row:
        others = [theirs] if copy is None else [theirs, copy]
        times = in_turns(benchmark, ours, others, rounds)
        rates = None if copy is None else copy.moved / times[2]
        row = Row(work, against, target, times[0], times[1], moved, rates, note)
        request.config.stash[ROWS].append(row)
        return row

    return run


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    return machine() | {"threads": torch.get_num_threads(), "load_before": config.stash[LOAD]}


def pytest_benchmark_update_json(config: pytest.Config, output_json: MutableMapping[str, Any]) -> None:
    """Replaces pytest-benchmark's own lists, which do not know the comparisons."""
    facts: Mapping[str, Any] = output_json["machine_info"]
    rows = [as_data(row) for row in config.stash[ROWS]]
    output_json.clear()
    output_json.update(date=time.strftime("%Y-%m-%d", time.gmtime()), machine=facts, rows=rows)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[ROWS]:
        terminalreporter.section("benchmarks")
        terminalreporter.write_line(table(config.stash[ROWS]))
        if config.stash[LOAD] > 0.5:  # threads that wait for each other would measure the scheduler
            terminalreporter.write_line(f"Load before the run: {config.stash[LOAD]}. Other work ran: measure again.")
