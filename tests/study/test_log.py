"""The log file of a study: a line when something is finished, and from time to time one that says how far it is."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from difficulty_prune.study import progress
from difficulty_prune.study.progress import report_on

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def test_the_log_says_what_is_trained_how_far_and_how_long_it_still_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log, said = tmp_path / "study.log", io.StringIO()
    log.write_text("earlier\n")
    with report_on(Console(file=said), "scoring", steps=200, pieces=2, what="run", log=log) as report:
        for seconds, done in ((30, 20), (61, 40), (90, 60), (122, 80)):
            now[0] = 1000 + seconds
            report.update(done, ["cnn [a], seed 0", "mlp, seed 0"])
        assert len(log.read_text().splitlines()) == 3, "written at once"
        report.finished("cnn [a], seed 0", 122.0)
    lines = log.read_text().splitlines()
    assert lines[0] == "earlier"
    running = re.escape("(cnn [a], seed 0; mlp, seed 0)")
    for line, expected in zip(
        lines[1:],
        (
            rf"scoring run: 20% done {running}; about 4 min left",
            rf"scoring run: 40% done {running}; about 3 min left",
            r"scoring run 1 of 2 \(cnn \[a\], seed 0\) finished after 2 min; about 3 min left",
        ),
        strict=True,
    ):
        assert re.fullmatch(TIME + expected, line), line
    assert said.getvalue().splitlines() == [lines[-1][20:]]


def test_what_is_trained_and_still_evaluated_has_no_time_left_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = tmp_path / "study.log"
    with report_on(Console(file=io.StringIO()), "scoring", steps=20, pieces=1, what="run", log=log) as report:
        now[0] += 61
        report.update(20, ["cnn, seed 0"])
    assert log.read_text()[20:] == "scoring run: 100% done (cnn, seed 0); almost done\n"
