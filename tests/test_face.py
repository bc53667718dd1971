"""The package's face: every public name at hand, and none imported before it is asked for."""

from __future__ import annotations

import ast
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import difficulty_prune as dp

PACKAGE = Path(dp.__file__).parent


def declared() -> dict[str, str]:
    """What type checkers read: the public names, and where each stands."""
    (block,) = (node for node in ast.parse(inspect.getsource(dp)).body if isinstance(node, ast.If) and not node.orelse
                and ast.unparse(node.test) == "TYPE_CHECKING")  # fmt: skip
    homes = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            module = f"{node.module or ''}.{alias.name}".lstrip(".")
            stands_alone = (PACKAGE / module.replace(".", "/")).with_suffix(".py").exists() or node.module is None
            homes[alias.name] = module if stands_alone else f"{node.module}:{alias.name}"
    return homes


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_python_and_type_checkers_know_the_same_names_and_homes() -> None:
    assert declared() == vars(dp)["_HOMES"]
    assert sorted([*declared(), "__version__"]) == sorted(dp.__all__)


def test_nothing_heavy_is_imported_before_a_name_is_asked_for() -> None:
    done = run_python(
        "import sys, difficulty_prune as dp; assert not {'torch', 'numpy'} & set(sys.modules); "
        "assert set(dp.__all__) <= set(dir(dp)); assert not hasattr(dp, 'nothing_of_this_name'); "
        "assert not {'torch', 'numpy'} & set(sys.modules); dp.Run; assert 'torch' in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_a_star_brings_every_name_and_the_operators() -> None:
    done = run_python(
        "from difficulty_prune import *; import torch, difficulty_prune as dp; "
        "assert all(globals()[name] is getattr(dp, name) for name in dp.__all__); "
        "torch.ops.difficulty_prune.softmax_stats"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(vars(dp)["_HOMES"]))
def test_no_module_can_take_the_place_of_a_name(name: str) -> None:
    """Python makes an imported submodule an attribute of the package, where `__getattr__` would not be asked."""
    home = vars(dp)["_HOMES"][name]
    is_module = (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()
    assert not is_module or home == name


def test_what_is_asked_for_first_in_compiled_code_is_found_without_a_graph_break() -> None:
    code = """
import torch, difficulty_prune as dp

@torch.compile(fullgraph=True, backend="eager")
def step(loss, owner):
    return dp.reduce_loss(loss, owner, 2)

assert step(torch.ones(4), torch.tensor([0, 0, 1, 1])).shape == (2,)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_public_names_are_pickled_by_where_they_stand() -> None:
    for name in dp.__all__:
        thing = getattr(dp, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert pickle.loads(pickle.dumps(thing)) is thing  # noqa: S301
