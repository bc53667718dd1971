"""What people name as run files: files, patterns, folders, or the folder of a study."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from small_runs import make_run

import difficulty_prune as dp
from difficulty_prune.runs.run_files import find_run_files


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a study, in which one works."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "trainings").mkdir()
    for name in ("runs/mlp-1", "runs/mlp-0", "runs/cnn-0", "fingerprint"):
        (tmp_path / f"{name}.safetensors").touch()
    for name in ("summary.json", "runs/notes.txt", "trainings/full-0.json"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


CNN, MLP0, MLP1 = (f"runs/{name}.safetensors" for name in ("cnn-0", "mlp-0", "mlp-1"))


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (".", [CNN, MLP0, MLP1]),
        ("runs", [CNN, MLP0, MLP1]),
        (Path("runs"), [CNN, MLP0, MLP1]),
        ("runs/", [CNN, MLP0, MLP1]),
        ("runs/mlp-*.safetensors", [MLP0, MLP1]),
        ("run?/mlp-[1-9]*", [MLP1]),
        ("run*", [CNN, MLP0, MLP1]),
        (MLP1, [MLP1]),
        ([MLP1, "runs/cnn*"], [MLP1, CNN]),
        ([MLP1, ".", "runs"], [MLP1, CNN, MLP0]),
        ((name for name in (MLP0, MLP0)), [MLP0]),
        (["runs/notes.txt"], ["runs/notes.txt"]),
        ([], []),
    ],
)
def test_what_a_name_stands_for(study: Path, named: Any, expected: list[str]) -> None:
    assert [path.as_posix() for path in find_run_files(named)] == expected


def test_absolute_names_and_paths_are_as_good(study: Path) -> None:
    expected = [study / name for name in (CNN, MLP0, MLP1)]
    for named in (study, str(study), study / "runs" / "*.safetensors", [str(study / "runs")]):
        assert find_run_files(named) == expected


def test_a_file_under_two_names_is_one(study: Path) -> None:
    (study / "again").symlink_to(study / "runs")
    (study / "link.safetensors").symlink_to(study / MLP0)
    found = find_run_files(["again/mlp-0.safetensors", MLP0, "link.safetensors", "./runs/../runs/mlp-0.safetensors"])
    assert [path.as_posix() for path in found] == ["again/mlp-0.safetensors"]
    assert len(find_run_files([".", "again", str(study)])) == 3


def test_what_exists_is_not_read_as_a_pattern(tmp_path: Path) -> None:
    odd, plain = tmp_path / "mlp[0].safetensors", tmp_path / "mlp0.safetensors"
    odd.touch()
    plain.touch()
    assert find_run_files(odd) == [odd]
    odd.unlink()
    assert find_run_files(odd) == [plain]
    folder = tmp_path / "width[64]*"
    folder.mkdir()
    (folder / "a.safetensors").touch()
    assert find_run_files(folder) == [folder / "a.safetensors"]


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(
    "pattern", ["{0}/*.safetensors", "{0}/runs/mlp-[01]*", "sw??p/{0}/runs", "{0}/r?ns/*0.safetensors"]
)
@pytest.mark.parametrize("folder", ["lr=0.1,seed=[0,1]", "[a]", "what?", "*", "[!0]", "[[]"])
def test_folders_that_exist_are_not_read_as_patterns(
    folder: str, pattern: str, absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for parent in (folder, f"sweep/{folder}", "a", "1", "sweep/a", "whats"):
        for file in ("mlp-0.safetensors", "runs/mlp-0.safetensors"):
            path = tmp_path / parent / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    named = pattern.format(folder)
    meant = named.replace(folder, "FOLDER", 1).replace("sw??p", "sweep")
    file = "mlp-0.safetensors" if meant == "FOLDER/*.safetensors" else "runs/mlp-0.safetensors"
    expected = [tmp_path / meant.split("FOLDER")[0] / folder / file]
    found = find_run_files(str(tmp_path / named) if absolute else named)
    assert [path.absolute() for path in found] == expected


@pytest.mark.parametrize("pattern", ["[ab]/*.safetensors", "?/*", "*/[m]lp-0.*", "a/../?/*"])
def test_patterns_of_folders_match_as_glob_does(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlp-0.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    assert find_run_files(pattern) == [Path(name) for name in sorted(glob.glob(pattern))]
    assert find_run_files(pattern)


def test_a_link_to_nothing_is_found_so_that_loading_names_it(study: Path) -> None:
    (study / "runs" / "gone.safetensors").symlink_to(study / "nothing")
    assert study / "runs" / "gone.safetensors" in find_run_files(study)


@pytest.mark.parametrize("name", ["none", "none/*.safetensors", "none.safetensors", "trainings", "", "runs/[9]*"])
@pytest.mark.parametrize("beside", [[], ["runs"]])
def test_a_name_that_stands_for_nothing_is_told_and_what_would_do(study: Path, name: str, beside: list[str]) -> None:
    message = rf"^{re.escape(name)}: no run files there; expected run files, a folder of them, a pattern"
    with pytest.raises(FileNotFoundError, match=message):
        find_run_files([*beside, name])


@pytest.mark.parametrize("named", [3, None, b"runs", [3], ["runs", None], [b"runs"]])
def test_what_is_no_path_is_refused(study: Path, named: Any) -> None:
    got = named if not isinstance(named, list) else named[-1]
    with pytest.raises(TypeError, match=rf"got {re.escape(repr(got))}.*expected run files"):
        find_run_files(named)


def test_a_run_set_loads_the_folder_of_a_study(tmp_path: Path) -> None:
    for seed in (1, 0):
        make_run(seed=seed).save(tmp_path / "runs" / f"mlp-{seed}.safetensors")
    (tmp_path / "fingerprint.safetensors").touch()

    def seeds(named: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[int]:
        return [run.seed for run in dp.RunSet.load(named)]

    assert seeds(tmp_path) == seeds([tmp_path, tmp_path / "runs"]) == [0, 1]
    assert seeds([tmp_path / "runs" / "mlp-1.safetensors", tmp_path]) == [1, 0]
    with pytest.raises(FileNotFoundError, match="got no paths; expected run files"):
        dp.RunSet.load([])
