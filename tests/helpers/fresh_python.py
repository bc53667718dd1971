"""Code in a process of its own, started in the root of the repository."""

from __future__ import annotations

import os
import subprocess
import sys

from places import ROOT


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT, check=False)


def read_setup(variable: str, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Prints what setup.py decides, without building anything."""
    code = f"""
import pathlib, runpy, setuptools
setuptools.setup = lambda **arguments: None
{before}
print(runpy.run_path("setup.py")[{variable!r}])
"""
    return run_python(code, **environment)
