"""The commands `consistency` and `fingerprint`: text printed as it is, options refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import difficulty_prune as dp
from difficulty_prune.cli.describe import COMMANDS
from difficulty_prune.cli.main import main
from difficulty_prune.cli.output import make_console, print_matrix
from difficulty_prune.cli.parser import make_parser

NAMES = ("own:net[small]", "own:net[/large]", "own:smile:")  # markup and an emoji, to rich


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs each of architectures whose names rich would interpret, in a folder of such a name."""
    out = tmp_path_factory.mktemp("study") / "re[bold]sults"
    rng = np.random.default_rng(0)
    shared = rng.normal(size=60)
    for place, name in enumerate(NAMES):
        own = 3.0 * (np.arange(60) % 3 == place)
        for seed in range(4):
            scores = {"el2n": shared + own + 0.3 * rng.normal(size=60), "aum": -shared + rng.normal(size=60)}
            dp.Run(scores, architecture=name, seed=seed).save(out / "runs" / f"{place}-{seed}.safetensors")
    return out


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["consistency", "fingerprint"])
def test_names_of_architectures_are_printed_as_they_are(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, command, folder)
    assert text.splitlines()[0] == f"12 runs of 60 examples: {', '.join(f'4 {name}' for name in NAMES)}"
    for number, name in enumerate(NAMES, start=1):
        assert f"Of {name} alone" in text or command == "fingerprint"
        assert f"\n{number} {name} " in text or command == "fingerprint"


def test_names_of_files_are_printed_as_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder / "runs" / "1-0.safetensors"
    text = said(capsys, "fingerprint", folder, "--identify", run, "--figures", folder / "figures")
    assert f"{run} was made by own:net[/large] (probability" in text
    assert f"Written: {folder / 'figures'}\n" in text


def test_a_matrix_has_its_names_and_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    print_matrix(make_console(width=20), "means[0]", ["a[b]", "[/]"], [[1.0, None], [None, 1.0]])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["means[0]", "1", "2"], ["1", "a[b]", "1.00", "-"], ["2", "[/]", "-", "1.00"]]


@pytest.mark.parametrize("target", ["95", "1", "0", "nan"])
def test_a_target_that_is_no_fraction_is_refused_and_one_is_shown(
    target: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["consistency", str(folder), "--target", target]) == 2
    expected = f"difficulty-prune consistency: target: got {float(target)}, expected a number between 0 and 1"
    assert capsys.readouterr().err == f"{expected}, such as 0.95\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_are_shown_as_they_are_typed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for fact in {
        "study": ["(default: el2n aum forgetting vog_loss)", "(default: 0.7)", "without-wrong, stratified, soft"],
        "consistency": ["(default: 0.95)", "(default: 0.5)"],
        "plan": ["(default: hardest)", "default: the first score of the runs", "dp.Plan.load"],
        "export": ["default: all that every run has", ".parquet, .csv or .npz"],
        "convert": ["label-studio", "default: a table of scores by its suffix"],
        "fingerprint": ["(default: 10)", "(default: permutation)"],
        "audit": ["(default: audit.html)", "(default: 128)"],
        "doctor": ["print the result as JSON"],
        "bench": ["(default: 60)", "{cpu,cuda}"],
    }[command]:
        assert fact in text
    assert "None" not in text
    assert "()" not in text
    assert "False" not in text
