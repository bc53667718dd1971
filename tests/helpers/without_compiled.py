"""Modules as they are where the compiled module was not built."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from difficulty_prune.support import native

needs_compiled = pytest.mark.skipif(native.host is None, reason="built without the compiled module")


def without_compiled(name: str) -> ModuleType:
    """The module of this name, loaded once more for the caller alone."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "host", None)
        spec.loader.exec_module(module)
    assert vars(module)["host"] is None
    return module
