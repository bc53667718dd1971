"""No page is forgotten: its code is run here, or by a test of its own that names it; its commands are understood.

A block of text after a block of Python is what that prints. Numbers may differ, since other machines round otherwise.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, blocks, code_and_output, fenced, read
from places import ROOT

from difficulty_prune.cli.parser import make_parser

ONE_AFTER_THE_OTHER = ("start.md", "prune.md", "how_many_runs.md", "which_architecture.md")
"""Pages that go on from the first."""

PAGES = sorted(page.name for page in DOCS.glob("*.md"))
WITH_CODE = [page for page in PAGES if blocks(page)]


def commands(block: str) -> list[str]:
    """The lines of a block that are typed: those after a $ where there is one, else all that begin like a command.

    What a command says of itself begins with its name and a colon.
    """
    lines = block.replace("\\\n", " ").splitlines()
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")] or lines
    return [line for line in typed if re.match(r"difficulty-prune [\w-]+(?!\S*:)", line)]


COMMANDS = [
    command
    for page in (*PAGES, "../README.md")
    for language in ("console", "")
    for block in blocks(page, language)
    for command in commands(block)
]


def named_by_a_test_that_runs_code() -> set[str]:
    """Pages that have a test of their own: it names them, and it has exec or subprocess."""
    named = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text()
        if path != Path(__file__) and ("exec(" in text or "subprocess" in text):
            values = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
            texts = [value for value in values if isinstance(value, str)]
            named |= {page for page in PAGES if any(value.endswith(page) for value in texts)}
    return named


ALONE = [page for page in WITH_CODE if page not in {*ONE_AFTER_THE_OTHER, *named_by_a_test_that_runs_code()}]


def run(page: str, names: dict[str, Any]) -> None:
    """Runs the blocks of a page in order, and compares what they print with what the page says."""
    for code, said in code_and_output(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"docs/{page}", "exec"), names)
        if said is not None:
            differing = first_difference(said, printed.getvalue())
            assert differing is None, f"docs/{page}: {differing}"


def first_difference(said: str, printed: str) -> str | None:
    """The first line that differs in more than its numbers; a line of three dots stands for all the rest."""
    for expected, line in zip_longest(said.splitlines(), printed.splitlines()):
        if expected == "...":
            return None
        if expected is None or line is None or without_numbers(expected) != without_numbers(line):
            return f"printed {line!r}, expected {expected!r}"
    return None


def without_numbers(line: str) -> str:
    """The line with # for each number; an interval and the words of one run or many count as numbers too."""
    line = re.sub(r"(\d+) runs? (?:\(\d+ to \d+\) )?(?:would reach|is enough for|are enough for)", "0 runs reach", line)
    return re.sub(r"\s+", " ", re.sub(r"\d[\d,]*(\.\d+)?", "#", line)).replace("[ ", "[").strip()


def test_pages_that_go_on_from_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for page in ONE_AFTER_THE_OTHER:
        run(page, names)
    assert names["fingerprint"].predict(names["stranger"]) == "cnn"


@pytest.mark.parametrize("page", ALONE)
def test_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page, {})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str) -> None:
    make_parser().parse_args(shlex.split(command, comments=True)[1:])


def test_what_a_page_says_is_compared_with_what_is_printed() -> None:
    assert first_difference("4 of 10 kept\n", "5 of 1,200 kept\n") is None
    assert first_difference("a\n...\n", "a\nb\nc\n") is None
    assert first_difference("4 kept\n", "4 dropped\n") == "printed '4 dropped', expected '4 kept'"
    assert first_difference("a\nb\n", "a\n") == "printed None, expected 'b'"
    assert first_difference("a\n", "a\nb\n") == "printed 'b', expected None"


def test_every_block_has_a_language_that_is_known() -> None:
    """Code in a block of another name would be run by nobody."""
    for page in PAGES:
        assert {language for language, _ in fenced(read(page))} <= {"python", "console", "text", "", "{toctree}"}, page
