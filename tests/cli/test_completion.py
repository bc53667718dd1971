"""Completion: what a shell offers while a command is typed. Real processes speak argcomplete's protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from difficulty_prune.cli.describe import COMMANDS
from difficulty_prune.scores.catalogue import SCORES, TRACKED, score_names
from difficulty_prune.study.models import MODELS
from difficulty_prune.study.settings import IN_EPOCHS, POLICIES

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX, whose shells ask by file descriptor 8")

# Answers each line in a process of its own, as a shell would start it, without importing PyTorch for each.
ANSWER = r"""
import json, os, sys
from difficulty_prune.cli.main import main

stop = os._exit

def ask(line):
    read, write = os.pipe()
    if not os.fork():
        os.dup2(write, 8)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 9)
        os.environ.update(
            _ARGCOMPLETE="1", _ARGCOMPLETE_SHELL="bash", COMP_LINE=line, COMP_POINT=str(len(line)),
            _ARGCOMPLETE_COMP_WORDBREAKS=" \t\n\"'><=;|&(:",
        )
        os._exit = lambda status: stop(status + 8 * ("torch" in sys.modules))  # which argcomplete calls
        main()
        stop(9)
    os.close(write)
    found = os.fdopen(read).read()
    assert os.wait()[1] == 0, line
    return found.split("\v") if found else []

print(json.dumps({line: ask(line) for line in json.loads(sys.argv[1])}))
"""
# What readline does when Tab is pressed.
PRESS_TAB = r"""
eval "$REGISTER"
ask() {
    COMP_LINE="$1"; COMP_POINT=${#1}; COMP_TYPE=9; COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'; COMPREPLY=()
    _python_argcomplete difficulty-prune
    printf '%s\n' "${COMPREPLY[@]}"
}
complete -p difficulty-prune
ask "$1"
"""
OFFERED: dict[str, set[str]] = {
    "": {*COMMANDS, "--help", "--version"},
    "fi": {"fingerprint "},
    "study --pol": {"--policy "},
    "study --policy ": {"without-wrong", *POLICIES, *IN_EPOCHS},
    "study --policy hardest s": {"stratified", "soft"},
    "study --scores ": {*score_names(*TRACKED), "late_aum"},
    "study --model ": set(MODELS),
    "study --data ": {"datasets:", "digits", "imagefolder:", "sklearn:", "table:", "torchvision:"},
    "study --data imagefolder:": {"photos/", "runs/"},  # the shell has the part before the colon
    "study --data imagefolder:photos/c": {"photos/cat/"},
    "study --data imagefolder:nowhere/": set(),
    "study --epochs ": set(),  # a number is nothing to offer
    "consistency ru": {"runs/"},
    "consistency runs --policy easi": {"easiest "},
    "consistency runs --score vog": {name for name in SCORES if name.startswith("vog")},
    "plan runs --keep 0.5 --policy sof": {"soft "},
    "export runs --data imagefolder:photos/d": {"photos/dog/"},
    "audit runs --data imagefolder:photos/d": {"photos/dog/"},
    "convert runs --to label": {"label-studio "},
    "fingerprint runs --test ": {"permutation", "welch"},
    "fingerprint runs --identify runs/m": {"runs/mlp\\ 0.safetensors "},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, and a run whose name has a space."""
    place = tmp_path_factory.mktemp("typed")
    for name in ("photos/cat", "photos/dog", ".hidden", "runs"):
        (place / name).mkdir(parents=True)
    (place / "runs" / "mlp 0.safetensors").touch()
    return place


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, list[str]]:
    lines = json.dumps([f"difficulty-prune {line}" for line in OFFERED])
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, lines], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("line", OFFERED)
def test_what_fits_is_offered(line: str, answers: dict[str, list[str]]) -> None:
    found = answers[f"difficulty-prune {line}"]
    if line.endswith(" ") and line != "":
        found = [name for name in found if not name.startswith("--")]  # other options may follow as well
    assert set(found) == OFFERED[line]


def test_a_shell_that_ran_the_line_of_the_docs_completes(folder: Path, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    program = tmp_path / "difficulty-prune"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m difficulty_prune.cli "$@"\n')
    program.chmod(0o755)
    register = [sys.executable, "-m", "argcomplete.scripts.register_python_argcomplete", "difficulty-prune"]
    said = subprocess.run(register, capture_output=True, text=True, check=True).stdout
    surroundings = {**os.environ, "REGISTER": said, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    typed = [bash, "-c", PRESS_TAB, "bash", "difficulty-prune study --policy hard"]
    done = subprocess.run(typed, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    registered, *offered = done.stdout.splitlines()
    assert registered.endswith("-F _python_argcomplete difficulty-prune"), done.stderr
    assert offered == ["hardest", "hardest-per-class"], done.stderr
