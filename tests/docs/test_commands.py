"""The page on commands: every one runs in order, over a folder that changes, and prints what the page says."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from photo_runs import make_photos, make_runs
from places import ROOT

from difficulty_prune.cli import convert, export, plan
from difficulty_prune.cli.main import main

PAGE = (ROOT / "docs" / "commands.md").read_text()
DECISIONS = "id,decision,label,weight\ncat/0.png,drop,,\ncat/2.png,wrong,dog,\ndog/1.png,keep,,0.5\ngone.png,drop,,\n"


def steps() -> list[tuple[str, list[str]]]:
    """Each command with the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def test_commands_print_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_runs(tmp_path / "runs", make_photos(tmp_path / "photos"))
    Path("decisions.csv").write_text(DECISIONS)
    assert len(steps()) == 12
    for command, expected in steps():
        name, *arguments = shlex.split(command)
        if name == "difficulty-prune":
            assert main(arguments) == 0
            said = capsys.readouterr()
            printed = said.err + said.out
        else:
            assert name in ("rm", "cp", "cat")
            printed = subprocess.run([name, *arguments], capture_output=True, text=True, check=True).stdout
        assert printed.splitlines() == expected, command


@pytest.mark.parametrize("command", [plan, export, convert], ids=lambda command: command.__name__.split(".")[-1])
def test_examples_of_help_are_commands_that_exist(command) -> None:
    from difficulty_prune.cli.parser import make_parser

    lines = [line.split("   #")[0].strip() for line in command.EXAMPLES.splitlines() if "difficulty-prune" in line]
    assert len(lines) >= 4
    for line in lines:
        made = make_parser().parse_args(shlex.split(line, comments=True)[1:])
        assert made.command == command.__name__.split(".")[-1]


def test_the_table_of_formats_is_complete() -> None:
    rows = [line for line in PAGE.split("| from | to |")[1].splitlines() if line.startswith("| `")]
    sources, targets = (set(re.findall(r"`([a-z-]+)`", " ".join(row.split("|")[i] for row in rows))) for i in (1, 2))
    assert sources == set(convert.SOURCES)
    assert targets == set(convert.TARGETS)
