"""The site is built without a warning and without the network, and has a place for every public name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from pages import DOCS
from places import ROOT

import difficulty_prune as dp

NEEDED = ("sphinx", "myst_parser", "furo")
ROOMS = (dp.policies, dp.consistency, dp.fingerprint, dp.scores, dp.plots, dp.convert, dp.audit, dp.ops)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    for name in NEEDED:
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", folder / "trees"]
    offline = {"DIFFICULTY_PRUNE_DOCS_OFFLINE": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    built = subprocess.run(
        [*command, DOCS, folder / "html"], env=os.environ | offline, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return folder / "html"


def documented(site: Path) -> set[str]:
    """Every name of Python that has an entry in the index."""
    return set(re.findall(r'id="(difficulty_prune[\w.]*)"', "".join(p.read_text() for p in site.glob("api/*.html"))))


def public_names() -> set[str]:
    """Each once: what the package itself names needs no second entry in a room."""
    own = {name: getattr(dp, name) for name in dp.__all__}
    names = {f"difficulty_prune.{name}" for name, value in own.items() if not isinstance(value, ModuleType)}
    for room in ROOMS:
        for name in room.__all__:
            value = getattr(room, name)
            if isinstance(value, ModuleType):
                names.add(value.__name__)
            elif own.get(name) is not value:
                names.add(f"{room.__name__}.{name}")
    return names


def test_every_public_name_has_an_entry(site: Path) -> None:
    found = documented(site)
    rooms = {f"module-{room.__name__}" for room in (*ROOMS, dp.reference)}
    text = "".join(page.read_text() for page in site.glob("api/*.html"))
    assert not public_names() - found - {dp.reference.__name__}
    assert {room for room in rooms if f'id="{room}"' in text} == rooms


def test_every_page_is_in_the_table_of_contents(site: Path) -> None:
    contents = (site / "index.html").read_text()
    for page in DOCS.glob("*.md"):
        assert page.stem == "index" or f'href="{page.stem}.html"' in contents, page.name
        assert (site / f"{page.stem}.html").exists(), page.name


def test_tables_of_docstrings_are_tables(site: Path) -> None:
    page = (site / "api" / "tracker.html").read_text()
    entry = page.split('id="difficulty_prune.DifficultyTracker.update"')[1].split("</dd>")[0]
    assert "<table" in entry
    assert "|---" not in page
