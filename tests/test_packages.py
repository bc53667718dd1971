"""What is published: a source distribution that holds what a build needs and no more, and wheels that hold the package.

Compiling is left out here: `.ci/matrix` makes wheels from the source distribution, and runs the tests against them.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from fresh_python import run_python
from places import ROOT

import difficulty_prune as dp

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
METADATA = {"PKG-INFO", "SOURCES.txt", "dependency_links.txt", "entry_points.txt", "requires.txt", "top_level.txt"}
COMPILES_NOTHING = """
import os, runpy, sys, torch.utils.cpp_extension
def fails(self, ext): raise RuntimeError("not here")
torch.utils.cpp_extension.BuildExtension.build_extension = fails
os.chdir({folder!r})
sys.argv = ["setup.py", {command!r}, "--dist-dir", {out!r}]
runpy.run_path("setup.py", run_name="__main__")
"""


def files_below(folder: Path) -> set[str]:
    """Paths relative to the repository, but for what Python and compilers leave."""
    files = {path.relative_to(folder.parent) for path in folder.rglob("*") if path.is_file()}
    return {path.as_posix() for path in files if path.suffix not in (".pyc", ".so")}


def setup(command: str, folder: Path, out: Path) -> Path:
    result = run_python(
        COMPILES_NOTHING.format(folder=str(folder), command=command, out=str(out)), DIFFICULTY_PRUNE_CUDA="0"
    )
    assert result.returncode == 0, result.stderr
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of a copy of the repository, unpacked."""
    folder = tmp_path_factory.mktemp("packages")
    copy = folder / "copy"
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "build", "dist", "*.egg-info", ".*", "results", "data")
    shutil.copytree(ROOT, copy, ignore=ignored)
    with tarfile.open(setup("sdist", copy, folder / "sdist")) as archive:
        archive.extractall(folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    assert unpacked.name == f"difficulty_prune-{dp.__version__}"
    return unpacked


def test_the_source_distribution_holds_what_a_build_needs_and_nothing_else(sdist: Path) -> None:
    found = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    top = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}
    egg = {f"difficulty_prune.egg-info/{name}" for name in METADATA}
    assert found == top | egg | files_below(ROOT / "difficulty_prune") | files_below(ROOT / "csrc")


def test_a_wheel_made_from_it_holds_the_package_with_page_stubs_and_types(sdist: Path, tmp_path: Path) -> None:
    made = setup("bdist_wheel", sdist, tmp_path / "wheel")
    with zipfile.ZipFile(made) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = wheel.read(metadata).decode()
        commands = wheel.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    about_files = {name for name in names if name.startswith(f"difficulty_prune-{dp.__version__}.dist-info/")}
    assert names - about_files == files_below(ROOT / "difficulty_prune")
    for needed in ("py.typed", "_C.pyi", "_host.pyi", "audit/page/page.html", "audit/page/page.js"):
        assert f"difficulty_prune/{needed}" in names
    assert any(name.endswith("licenses/LICENSE") for name in about_files)
    assert f"\nVersion: {dp.__version__}\n" in about
    assert "difficulty-prune = difficulty_prune.cli.main:main" in commands


def test_the_changelog_has_the_version_with_its_date_and_says_nothing_twice() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert len(set(headings)) == len(headings)
    pattern = rf"\[{re.escape(dp.__version__)}\] - 20\d\d-\d\d-\d\d"
    assert any(re.fullmatch(pattern, heading) for heading in headings), headings


def test_the_recipe_of_conda_forge_asks_for_what_the_project_asks_for() -> None:
    recipe = (ROOT / "packaging" / "conda-forge" / "recipe.yaml").read_text()
    names = {"torch": "pytorch", "matplotlib": "matplotlib-base", "Jinja2": "jinja2"}
    wanted = [re.split("(?=>=)", requirement) for requirement in PROJECT["project"]["dependencies"]]
    (listed,) = re.findall(r"\n  run:\n    - python\n((?:    - .*\n)+)", recipe)
    assert listed.splitlines() == [f"    - {names.get(name, name)} {version}" for name, version in wanted]
    assert f'version: "{dp.__version__}"' in recipe


def test_wheels_are_built_for_every_python_that_the_project_names() -> None:
    named = [text.rsplit(" ", 1)[1] for text in PROJECT["project"]["classifiers"] if "Python :: 3." in text]
    assert PROJECT["tool"]["cibuildwheel"]["build"].split() == [f"cp{name.replace('.', '')}-*" for name in named]
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"
