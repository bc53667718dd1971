"""The source of a model, by which an edited one is noticed."""

from __future__ import annotations

import ast
import functools
import hashlib
import linecache
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Final

from .models import MODELS, defining_module

_SIZE: Final = 16  # bytes of a digest
_LIBRARIES: Final = {"site-packages", "dist-packages"}
_INSTALLED: Final = (
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    Path(__file__).resolve().parents[1],  # difficulty_prune, which may be installed to be edited
)


def source_digest(name: str) -> str:
    """A hash of the source that makes the model, so that an edited model is another one.

    Of the module that defines the function, and, where they are not installed, of the module that names it and of all
    modules that these import. 32 hexadecimal digits; where there is no source, of the name alone.
    """
    definer = defining_module(name)
    sources = own_sources(definer) if name in MODELS else own_sources(name.partition(":")[0], definer)
    file = _find_file(definer)
    if file is not None and _is_installed(file):
        sources[definer] = _read(definer, file)
    if len(sources) < 2:
        return hashlib.blake2b(next(iter(sources.values()), b"") or name.encode(), digest_size=_SIZE).hexdigest()
    total = hashlib.blake2b(digest_size=_SIZE)
    for module, source in sorted(sources.items()):
        total.update(f"{module} {len(source)}\n".encode() + source)
    return total.hexdigest()


def own_sources(*roots: str) -> dict[str, bytes]:
    """Name -> source of these modules and of all that they import, as far as they are not installed.

    What is imported is known from the import statements, wherever they stand, and from the modules of what a module
    holds. Nothing is imported to find out. A module that has two names counts once, by the first.
    """
    sources: dict[str, bytes] = {}
    files: set[Path] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop(0)
        file = _find_file(name)
        if file is None or _is_installed(file) or file.resolve() in files:
            continue
        files.add(file.resolve())
        sources[name] = _read(name, file)
        package = name if file.stem == "__init__" else name.rpartition(".")[0]
        waiting += [*_imported(sources[name], package), *_held(sys.modules.get(name))]
    return sources


def _read(name: str, file: Path) -> bytes:
    """What the file of a module holds, also in a ZIP archive; empty if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return "".join(linecache.getlines(str(file), vars(sys.modules[name]) if name in sys.modules else None)).encode()


def _find_file(name: str) -> Path | None:
    """Where a module is, without importing it; None if there is no such module, or it has no file."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
    else:
        spec = _find_spec(name)
        file = spec.origin if spec is not None and spec.has_location else None
    return Path(file) if isinstance(file, str) else None


def _is_installed(file: Path) -> bool:
    """Whether a file belongs to Python, to an installed package, or to this library."""
    whole = file.resolve()
    return not _LIBRARIES.isdisjoint(whole.parts) or any(whole.is_relative_to(folder) for folder in _INSTALLED)


def _find_spec(name: str) -> ModuleSpec | None:
    parent = name.rpartition(".")[0]
    places = None
    if parent in sys.modules:
        places = getattr(sys.modules[parent], "__path__", None)
    elif parent:
        spec = _find_spec(parent)
        places = None if spec is None else spec.submodule_search_locations
    if parent and places is None:
        return None
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return next((spec for finder in finders if (spec := finder.find_spec(name, places)) is not None), None)


@functools.lru_cache(maxsize=1000)
def _imported(source: bytes, package: str) -> tuple[str, ...]:
    """Names of the modules that a source imports, with their packages; some may be no modules but things in one."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # not Python, such as a compiled module
        return ()
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            try:
                module = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # beyond the package
                continue
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(outer for name in names for outer in _with_packages(name)))


def _with_packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


def _held(module: ModuleType | None) -> list[str]:
    """Names of the modules that a module holds, and of those that define the functions and classes that it holds."""
    if module is None:
        return []
    values = list(vars(module).values())
    names = [v.__name__ if isinstance(v, ModuleType) else getattr(v, "__module__", None) for v in values]
    return [name for name in dict.fromkeys(names) if isinstance(name, str)]
