"""What a study says that it planted, read again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from difficulty_prune.study.plant import read_planted


def test_a_folder_without_a_study_and_one_that_planted_nothing(tmp_path: Path) -> None:
    assert read_planted(tmp_path) is None
    (tmp_path / "summary.json").write_text('{"planted": null}')
    assert read_planted(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", '{"planted": 3}', '{"planted": {"index": [0]}}', "[" * 5000),
        '{"planted": {"index": [0], "true": [1], "given": [%s], "ids": null}}' % ("9" * 30),
        '{"planted": {"index": [[0], 1], "true": [1], "given": [2], "ids": null}}',
    ],
)
def test_a_summary_that_cannot_be_read_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path}: not a summary of a study, or damaged")):
        read_planted(tmp_path)
