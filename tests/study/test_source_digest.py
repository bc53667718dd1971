"""The digest of a model's source: an edited module is another model, wherever the model's module has it from."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from difficulty_prune.study import models
from difficulty_prune.study.source_digest import own_sources, source_digest

NET = "import torch\ndef net(shape, classes): return torch.nn.Linear(64, classes)\n"
VIA = "from helper import net\n"
Edit = Callable[[str, str, dict[str, str]], tuple[str, str]]


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edit:
    """The digests of mine:net, with these files, before and after a file has one more line."""
    monkeypatch.syspath_prepend(tmp_path)

    def digest() -> str:
        before = set(sys.modules)
        found = source_digest("mine:net")
        for name in set(sys.modules) - before:
            del sys.modules[name]
        return found

    def both(mine: str, victim: str, files: dict[str, str]) -> tuple[str, str]:
        for name, text in {"mine.py": mine, **files}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        first = digest()
        assert digest() == first, "the same each time"
        (tmp_path / victim).write_text((tmp_path / victim).read_text() + "\n# edited\n")
        return first, digest()

    return both


@pytest.mark.parametrize(
    ("mine", "files"),
    [
        ("from helper import net\n", {}),
        ("import helper\nnet = helper.net\n", {}),
        ("from helper import *\n", {}),
        ("import helper as h\ndef net(shape, classes): return h.net(shape, classes)\n", {}),
        ("def net(shape, classes):\n    from helper import net as inner\n    return inner(shape, classes)\n", {}),
        ("from functools import partial\nfrom helper import net\nnet = partial(partial(net), (1, 8, 8))\n", {}),
        ("import functools\nimport helper\n@functools.lru_cache\ndef net(*a): return helper.net(*a)\n", {}),
        ("from helper import net as f\nclass Make:\n    def __call__(self, *a): return f(*a)\nnet = Make()\n", {}),
        ("from helper import WIDTH\ndef net(shape, classes): return WIDTH\n", {}),
        ("import importlib\nnet = importlib.import_module('helper').net\n", {}),
        ("import importlib\nlayers = [importlib.import_module('helper')]\nlayer = layers[0]\ndef net(*a): pass\n", {}),
        ("from between import net\n", {"between.py": VIA}),
        ("import own.inner\nnet = own.inner.net\n", {"own/__init__.py": "", "own/inner.py": VIA}),
        ("from own import inner\nnet = inner.net\n", {"own/__init__.py": "", "own/inner.py": VIA}),
        ("from own import net\n", {"own/__init__.py": "from .a import net\n", "own/a.py": "from .b import net\n",
                                   "own/b.py": "import helper\nfrom helper import net\n"}),
    ],
)  # fmt: skip
def test_an_edited_module_that_a_model_is_made_of_makes_another(mine: str, files: dict[str, str], edited: Edit) -> None:
    first, second = edited(mine, "helper.py", {"helper.py": NET + "WIDTH = 3\n", **files})
    assert first != second


@pytest.mark.parametrize("victim", ["own/__init__.py", "own/a.py"])
def test_packages_and_relative_imports_count(victim: str, edited: Edit) -> None:
    files = {"own/__init__.py": "", "own/a.py": "from . import b\n", "own/b.py": "from .a import *\n" + NET}
    first, second = edited("from own.b import net\n", victim, files)
    assert first != second


def test_a_module_that_is_not_imported_does_not_count(edited: Edit) -> None:
    first, second = edited(
        "import helper\n" + NET,
        "other.py",
        {"helper.py": "try:\n    import nowhere.at.all\nexcept ImportError:\n    pass\n", "other.py": ""},
    )
    assert first == second


def test_what_is_installed_counts_only_where_it_defines_the_model(tmp_path: Path, monkeypatch) -> None:
    library = tmp_path / "site-packages"
    library.mkdir()
    monkeypatch.syspath_prepend(library)
    monkeypatch.syspath_prepend(tmp_path)
    (library / "installed_net.py").write_text(NET)
    (tmp_path / "mine_of_installed.py").write_text("import installed_net, json, torch\ndef net(*a): pass\n")
    (tmp_path / "mine_again.py").write_text("from installed_net import net\n")
    assert list(own_sources("mine_of_installed")) == ["mine_of_installed"]
    before = source_digest("mine_of_installed:net"), source_digest("mine_again:net"), source_digest("installed_net:net")
    (library / "installed_net.py").write_text(NET + "# of another version\n")
    after = source_digest("mine_of_installed:net"), source_digest("mine_again:net"), source_digest("installed_net:net")
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]
    for name in ("installed_net", "mine_of_installed", "mine_again"):
        del sys.modules[name]


def test_a_model_of_one_module_is_known_by_its_source_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(models.__file__).read_bytes()
    assert source_digest("mlp") == source_digest("cnn") == hashlib.blake2b(source, digest_size=16).hexdigest()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("one_model", "same_model"):
        (tmp_path / f"{name}.py").write_text(NET)
        assert source_digest(f"{name}:net") == hashlib.blake2b(NET.encode(), digest_size=16).hexdigest()
        del sys.modules[name]


def test_another_process_finds_the_same_digest_and_imports_nothing_for_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import zebra, apple\ndef net(shape, classes):\n    import lazy.inner\n")
    for name in ("zebra", "apple"):
        (tmp_path / f"{name}.py").write_text(NET)
    (tmp_path / "lazy").mkdir()
    (tmp_path / "lazy" / "inner.py").write_text("raise SystemExit('imported')\n")
    code = "from difficulty_prune.study.source_digest import *; "
    code += "print(sorted(own_sources('mine')), source_digest('mine:net'))"
    found = set()
    for more in ("", "import zebra; "):
        done = subprocess.run(
            [sys.executable, "-c", more + code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    (text,) = found
    assert text.startswith("['apple', 'lazy.inner', 'mine', 'zebra'] ")
