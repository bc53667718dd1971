"""Modules as they are where the compiled module `_host` was not built."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

import difficulty_prune

needs_compiled = pytest.mark.skipif(
    importlib.util.find_spec("difficulty_prune._host") is None, reason="built without the compiled module"
)


def without_compiled(name: str) -> ModuleType:
    """The module of this name, loaded once more for the caller alone."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(difficulty_prune, "_host", raising=False)
        patch.setitem(sys.modules, "difficulty_prune._host", None)
        spec.loader.exec_module(module)
    assert not any(getattr(value, "__name__", "") == "difficulty_prune._host" for value in vars(module).values())
    return module
