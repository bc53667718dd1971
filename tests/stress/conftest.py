"""Tests at full size, which `make stress` runs: what they tried and what came of it is a table, and a file.

STRESS_OUT=benchmarks/results/stress.json make stress
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from _pytest.terminal import TerminalReporter

Tell = Callable[[str, str, str], None]


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Says what was tried, how often, and what came of it, for the table at the end."""
    return lambda what, tried, outcome: record_property("tried", [what, tried, outcome])


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    if hasattr(terminalreporter.config, "workerinput"):
        return  # a process of pytest-xdist, which knows its own share alone
    rows, seconds = [], 0.0
    for reports in terminalreporter.stats.values():
        for report in reports:
            if not isinstance(report, pytest.TestReport) or "stress" not in report.keywords:
                continue
            seconds += report.duration
            if report.when == "call":
                end = "" if report.passed else "FAILED: "
                told = [value for name, value in report.user_properties if name == "tried"]
                told = told or ([] if report.passed else [[report.nodeid, "", ""]])
                rows += [[what, tried, end + outcome, round(report.duration, 1)] for what, tried, outcome in told]
    if not rows:
        return
    terminalreporter.section("what was tried")
    for what, tried, outcome, took in rows:
        terminalreporter.line(f"{what}: {tried}; {outcome} ({took} s)")
    if path := os.environ.get("STRESS_OUT"):
        about = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
        keys = ("what", "tried", "outcome", "seconds")
        table = {**about, "seconds": round(seconds), "rows": [dict(zip(keys, row, strict=True)) for row in rows]}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(table, indent=1) + "\n")
