"""Help: examples of every command, which the real parser takes."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from difficulty_prune.cli import bench, consistency, convert, export, fingerprint, plan
from difficulty_prune.cli.describe import COMMANDS, as_text, describe
from difficulty_prune.cli.main import main
from difficulty_prune.cli.parser import DESCRIBED, EXAMPLES, make_parser
from difficulty_prune.study.options import read_options
from difficulty_prune.study.settings import Settings

WITH_EXAMPLES = {name: module.EXAMPLES for name, module in COMMANDS.items() if hasattr(module, "EXAMPLES")}
OPTIONS: dict[str, Any] = {
    "study": Settings,
    "consistency": consistency.Options,
    "fingerprint": fingerprint.Options,
    "plan": plan.Options,
    "export": export.Options,
    "convert": convert.Options,
    "bench": bench.Options,
}


def lines_of(examples: str) -> list[str]:
    """The commands among the text; a line that ends in a backslash goes on in the next."""
    lines = examples.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("difficulty-prune")]


ALL = [line for text in (EXAMPLES, *WITH_EXAMPLES.values()) for line in lines_of(text)]


@pytest.mark.parametrize("line", ALL)
def test_an_example_is_taken_as_it_stands(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_code.py").write_text("def make_model(shape, classes): ...")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_code", raising=False)
    arguments = shlex.split(line, comments=True)[1:]
    if "--help" in arguments:
        with pytest.raises(SystemExit, match=r"^0$"):
            make_parser().parse_args(arguments)
        return
    parsed = make_parser().parse_args(arguments)
    if parsed.command in OPTIONS:
        read_options(parsed, OPTIONS[parsed.command])  # refuses what argparse lets pass


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_help_shows_the_examples_of_a_command_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert any(line.split()[1] == name for line in lines_of(WITH_EXAMPLES[name]))
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert WITH_EXAMPLES[name].rstrip() in shown
    assert "--json" in shown


def test_the_overview_shows_typical_examples_and_options_show_their_defaults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert EXAMPLES.rstrip() in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    shown = capsys.readouterr().out
    assert "scoring runs per model (default: 4)" in shown
    assert "Score real data over several training runs, average, prune, and show whether\nit paid.\n" in shown, "filled"


def test_a_command_needs_no_examples(capsys: pytest.CaptureFixture[str]) -> None:
    plain: Any = SimpleNamespace(__doc__="Do nothing.", add_arguments=lambda parser: None)
    parser = make_parser(describe({"plain": plain}))
    with pytest.raises(SystemExit):
        parser.parse_args(["plain", "--help"])
    assert "Do nothing." in capsys.readouterr().out
    assert parser.parse_args(["plain", "--json"]).json


def test_the_description_is_that_of_the_commands() -> None:
    message = "python -m difficulty_prune.cli.describe writes it anew"
    assert DESCRIBED.read_text(encoding="utf-8") == as_text(describe()), message


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_not_typed_is_the_default_of_the_field(name: str) -> None:
    """Though it went through JSON, which knows no tuples and no paths."""
    required = {"plan": ["--keep", "0.5", "-o", "x.csv"], "export": ["-o", "x.csv"], "convert": ["-o", "x.csv"]}
    typed = [*([] if name in ("study", "bench") else ["runs"]), *required.get(name, [])]
    read = read_options(make_parser().parse_args([name, *typed]), OPTIONS[name])
    for entry in fields(OPTIONS[name]):
        if entry.default is not MISSING and not entry.metadata["how"].get("required"):
            assert getattr(read, entry.name) == entry.default
            assert type(getattr(read, entry.name)) is type(entry.default)


LIGHT = """
import sys
from difficulty_prune.cli.main import main
try:
    main(sys.argv[1:])
finally:
    heavy = sorted({"torch", "numpy", "rich", "scipy", "sklearn", "matplotlib"} & set(sys.modules))
    print("imported:", *heavy)
"""


@pytest.mark.parametrize(
    "line", ["--help", "--version", *(f"{name} --help" for name in COMMANDS), "prune", "study --runs many", "plan runs"]
)
def test_help_and_slips_are_answered_without_pytorch(line: str) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, *line.split()], capture_output=True, text=True, check=False)
    assert done.returncode == (0 if line.startswith("--") or line.endswith("--help") else 2), done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"
