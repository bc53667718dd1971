"""The notebooks run from top to bottom as they stand, and find what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from places import EXAMPLES, ROOT

NOTEBOOK = EXAMPLES / "find_wrong_labels.ipynb"
EXECUTE = """
import sys
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": "."}}).execute()
nbformat.write(notebook, "executed.ipynb")
"""


def printed(path: Path) -> str:
    """All that the cells print."""
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", [])) for output in outputs)


def numbers(path: Path) -> dict[str, int]:
    """How many planted labels were found, of how many decided, and how many came back right."""
    found = re.search(r"(\d+) of 40 planted labels were among the (\d+) decided\n(\d+) of these", printed(path))
    assert found
    return dict(zip(("found", "decided", "right"), map(int, found.groups()), strict=True))


def test_the_notebook_finds_most_of_the_wrong_labels(tmp_path: Path) -> None:
    for name in ("nbclient", "nbformat", "ipykernel"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    here = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]), "OMP_NUM_THREADS": "1"}
    here |= {name: str(tmp_path) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    command = [sys.executable, "-c", EXECUTE, NOTEBOOK]
    ran = subprocess.run(command, cwd=tmp_path, env=os.environ | here, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    counts = numbers(tmp_path / "executed.ipynb")
    assert counts["found"] >= 28
    assert counts["right"] >= 0.9 * counts["found"]
    assert counts["found"] >= 0.7 * counts["decided"]
    assert (tmp_path / "decisions.csv").exists()


def test_what_is_kept_was_run() -> None:
    """The outputs that people see before they run it: a figure, no error, and numbers like those of the test."""
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {kind for cell in cells for output in cell["outputs"] for kind in output.get("data", {})}
    assert "image/png" in kinds
    assert numbers(NOTEBOOK)["found"] >= 28
    assert not re.search(r"Traceback|Warning|/tmp/|/home/|/root/", NOTEBOOK.read_text())
