"""Finding run files by what people name: files, patterns, folders, or the folder of a study."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..support.remote import Url, find_remote, path_or_url

EXPECTED: Final = "run files, a folder of them, a pattern such as 'runs/*.safetensors', or the --out folder of a study"


def find_run_files(named: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path | Url]:
    """The run files that are meant, each once.

    Args:
        named: one or several of: a file, whatever its suffix; a folder, which stands for its `.safetensors` files, or
            for those of its `runs` folder if it has one, as the folder of a study does; or a glob pattern of these.
            What exists is taken literally, even if its name could be a pattern, and so is each folder of a pattern.
            Any of these may be a URL that fsspec knows, such as s3://bucket/runs/*.safetensors.

    Returns:
        In the order of the names; sorted within each.

    Raises:
        TypeError: not a path.
        FileNotFoundError: a name that stands for no file; the message quotes it.
        ImportError, ValueError, OSError: a URL that cannot be reached, or of a protocol that fsspec does not know.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as study:
    ...     runs = Path(study, "runs")
    ...     runs.mkdir()
    ...     for name in ("mlp-1.safetensors", "mlp-0.safetensors"):
    ...         (runs / name).touch()
    ...     [path.name for path in find_run_files([study, runs / "mlp-*"])]
    ['mlp-0.safetensors', 'mlp-1.safetensors']
    """
    found = [path for name in _each(named) for path in _files_of(name)]
    once: dict[str, Path | Url] = {}
    for path in found:
        once.setdefault(str(path) if isinstance(path, Url) else os.path.realpath(path), path)
    return list(once.values())


def _each(named: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    if isinstance(named, (str, os.PathLike)):
        named = [named]
    elif not isinstance(named, Iterable) or isinstance(named, bytes):
        raise TypeError(f"got {named!r}, expected {EXPECTED}")
    names = [os.fspath(name) if isinstance(name, os.PathLike) else name for name in named]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"got {name!r} among the paths, expected {EXPECTED}")
    return names


def _files_of(name: str) -> list[Path | Url]:
    place = path_or_url(name)
    files: list[Path | Url] = []
    if isinstance(place, Url):
        files += find_remote(place)
    else:
        files += [path for match in sorted(_matches(name.removeprefix("file://"))) for path in _files_in(Path(match))]
    if not files:
        raise FileNotFoundError(f"{name}: no run files there; expected {EXPECTED}")
    return files


def _matches(pattern: str) -> list[str]:
    """As glob.glob, but a part of the path that exists as it is written is no pattern (`seed=[0,1]/*.safetensors`)."""
    if os.path.exists(pattern):
        return [pattern]
    parent, last = os.path.split(pattern)
    matches = []
    for folder in _matches(parent) if parent else [""]:
        path = os.path.join(folder, last)
        matches += [path] if os.path.exists(path) else glob.glob(os.path.join(glob.escape(folder), last))
    return matches


def _files_in(path: Path) -> list[Path]:
    """The path itself unless it is a folder."""
    if not path.is_dir():
        return [path]
    folder = path / "runs" if (path / "runs").is_dir() else path
    return sorted(folder.glob("*.safetensors"))
