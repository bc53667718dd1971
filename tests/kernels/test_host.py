"""The rank statistics of the NumPy module under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from native_programs import FLAGS, NATIVE, SANITIZERS


def test_awkward_vectors_are_ranked_right_and_no_byte_beyond_them_is_touched(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    program = tmp_path / "host"
    command = ["g++", *FLAGS, *SANITIZERS["address"], "-Wno-psabi", NATIVE / "host.cpp", "-o", program, "-pthread"]
    subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
