"""The code of docs/audit.md runs, and its keys are those of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from photo_runs import make_photos, make_runs
from places import ROOT

import difficulty_prune as dp
from difficulty_prune.audit.render import HERE

ImageFolder = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed").ImageFolder

TEXT = (ROOT / "docs/audit.md").read_text()


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos")
    runs = dp.RunSet.load(make_runs(tmp_path / "runs", tmp_path / "photos"))
    names = {"dp": dp, "runs": runs, "train": dp.IndexedDataset(ImageFolder("photos"))}
    for block in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(block, names)
    assert Path("audit.html").stat().st_size > 10_000


def test_keys_and_views_are_those_of_the_page() -> None:
    views = re.findall(r'title: "(.*)",', (HERE / "views.js").read_text())
    assert views == re.findall(r"^\| ([A-Z][a-z ]+) \|", TEXT, flags=re.MULTILINE)
    keys = set(re.findall(r"^    ([a-z]): ", (HERE / "page.js").read_text(), flags=re.MULTILINE))
    assert keys == set(re.findall(r"`([a-z])`", TEXT.split("## Decide")[1].split("##")[0]))
