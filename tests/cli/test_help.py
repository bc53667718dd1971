"""Help: examples of every command, which the real parser takes."""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from difficulty_prune.cli import consistency, convert, export, fingerprint, plan
from difficulty_prune.study.options import read_options
from difficulty_prune.study.settings import Settings

main = importlib.import_module("difficulty_prune.cli.main")  # the room's face has the function of this name
WITH_EXAMPLES = {name: module.EXAMPLES for name, module in main.COMMANDS.items() if hasattr(module, "EXAMPLES")}
OPTIONS: dict[str, Any] = {
    "study": Settings,
    "consistency": consistency.Options,
    "fingerprint": fingerprint.Options,
    "plan": plan.Options,
    "export": export.Options,
    "convert": convert.Options,
}


def lines_of(examples: str) -> list[str]:
    """The commands among the text; a line that ends in a backslash goes on in the next."""
    lines = examples.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("difficulty-prune")]


ALL = [line for text in (main.EXAMPLES, *WITH_EXAMPLES.values()) for line in lines_of(text)]


@pytest.mark.parametrize("line", ALL)
def test_an_example_is_taken_as_it_stands(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_code.py").write_text("def make_model(shape, classes): ...")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_code", raising=False)
    arguments = shlex.split(line, comments=True)[1:]
    if "--help" in arguments:
        with pytest.raises(SystemExit, match=r"^0$"):
            main.make_parser().parse_args(arguments)
        return
    parsed = main.make_parser().parse_args(arguments)
    if parsed.command in OPTIONS:
        read_options(parsed, OPTIONS[parsed.command])  # refuses what argparse lets pass


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_help_shows_the_examples_of_a_command_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert any(line.split()[1] == name for line in lines_of(WITH_EXAMPLES[name]))
    with pytest.raises(SystemExit):
        main.main([name, "--help"])
    shown = capsys.readouterr().out
    assert WITH_EXAMPLES[name].rstrip() in shown
    assert "--json" in shown


def test_the_overview_shows_typical_examples_and_options_show_their_defaults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main.main(["--help"])
    assert main.EXAMPLES.rstrip() in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main.main(["study", "--help"])
    shown = capsys.readouterr().out
    assert "scoring runs per model (default: 4)" in shown
    assert "Score real data over several training runs, average, prune, and show whether\nit paid.\n" in shown, "filled"


def test_a_command_needs_no_examples(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plain: Any = SimpleNamespace(__doc__="Do nothing.", add_arguments=lambda parser: None, run=lambda options: 0)
    commands: dict[str, ModuleType] = {"plain": plain}
    monkeypatch.setattr(main, "COMMANDS", commands)
    with pytest.raises(SystemExit):
        main.main(["plain", "--help"])
    assert "Do nothing." in capsys.readouterr().out
    assert main.main(["plain"]) == 0
