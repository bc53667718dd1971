"""The examples run as they stand, and print what they claim."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from places import EXAMPLES


def numbers_by_row(name: str) -> dict[str, list[float]]:
    """The numbers that an example prints, by the first word of the line."""
    result = subprocess.run([sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    rows = (line.split(maxsplit=1) for line in result.stdout.splitlines())
    return {first: [float(number) for number in re.findall(r"\d\.\d+", rest)] for first, rest in rows}


def test_vog_tells_digits_that_were_never_trained_on() -> None:
    rows = numbers_by_row("ood_detection")
    for name, least in (("vog", 0.75), ("vog_probability", 0.8), ("vog_loss", 0.8), ("entropy", 0.8)):
        auroc, _, aupr, foreign_share = rows[name]
        assert auroc > least, name
        assert aupr > foreign_share + 0.2, name


def test_accuracy_is_higher_where_vog_is_low() -> None:
    rows = numbers_by_row("selective_prediction")
    for name in ("vog", "vog_probability", "vog_loss"):
        accuracy = rows[name]
        assert accuracy == sorted(accuracy, reverse=True), name
        assert accuracy[0] > accuracy[-1] + 0.05, name


def test_garbled_text_has_a_high_vog() -> None:
    pytest.importorskip("transformers")
    rows = numbers_by_row("text_vog")
    for name, least in (("vog_loss", 0.62), ("loss", 0.8)):
        auroc, _, aupr, garbled_share = rows[name]
        assert auroc > least, name
        assert aupr > garbled_share + 0.04, name
