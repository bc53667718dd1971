"""Errors of reading and writing name the file and say what to do."""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import make_run

import difficulty_prune as dp
from difficulty_prune.runs.tables import open_table
from difficulty_prune.support.file_errors import errors_name
from difficulty_prune.support.files import write_atomically

NUMBERS = [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EISDIR, errno.EIO, errno.EMFILE, errno.EBUSY]


@pytest.mark.parametrize("number", NUMBERS, ids=[errno.errorcode[number] for number in NUMBERS])
def test_an_error_keeps_its_kind_and_gains_a_remedy(number: int) -> None:
    original = OSError(number, os.strerror(number), "some temporary name")
    with pytest.raises(OSError, match=r"; \w+.*: 'runs/a'$") as refusal, errors_name("runs/a"):
        raise original
    assert type(refusal.value) is type(original)
    assert (refusal.value.errno, refusal.value.filename) == (number, "runs/a")
    assert "temporary" not in str(refusal.value)


def test_an_error_without_a_number_is_named_too() -> None:
    with pytest.raises(OSError, match=r"no such device here; .*: 'runs/a'"), errors_name(Path("runs/a")):
        raise OSError("no such device here")


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), errors_name("runs/a"):
        raise KeyError("x")


def saves(folder: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    run = make_run(size=1000)
    mean = dp.RunningMean()
    mean.update(run)
    runs = dp.RunSet(make_run(seed=seed, architecture=name, size=1000) for name in "ab" for seed in range(3))
    yield "run", run.save
    yield "running mean", mean.save
    yield "plan", dp.Plan(torch.arange(1000), torch.ones(1000)).save
    yield "fingerprint", dp.ArchitectureFingerprint.fit(runs, "el2n", examples=500).save


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """As a limit on the size of files, which the system enforces at the same place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, save in saves(tmp_path):
        path = tmp_path / name
        path.write_text("old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
        try:
            with pytest.raises(OSError, match=rf"File too large; choose .*: '{re.escape(str(path))}'"):
                save(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.read_text() == "old"
        assert [entry.name for entry in tmp_path.iterdir()] == [name]
        path.unlink()


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    for name, save in saves(tmp_path):
        (tmp_path / name).mkdir()
        with pytest.raises(IsADirectoryError, match=rf"; name a file in that folder.*: '{re.escape(str(tmp_path))}"):
            save(tmp_path / name)
        assert list((tmp_path / name).iterdir()) == []
    assert len(list(tmp_path.iterdir())) == 4


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    for name, save in saves(tmp_path):
        with pytest.raises(OSError, match="; choose a shorter name: '"):
            save(tmp_path / (name + "x" * 250))
    for load in (dp.Run.load, dp.RunningMean.load, dp.Plan.load, dp.ArchitectureFingerprint.load):
        with pytest.raises(OSError, match=f"{re.escape(str(tmp_path))}/x"):
            load(tmp_path / ("x" * 300))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_permissions(tmp_path: Path) -> None:
    make_run().save(tmp_path / "run")
    (tmp_path / "run").chmod(0)
    with pytest.raises(PermissionError, match=r"; change the permissions .*/run'"):
        dp.Run.load(tmp_path / "run")
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"; change the permissions .*/other'"):
        make_run().save(tmp_path / "other")


def test_a_table_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.npz"
    np.savez(path, c_score=np.zeros(3))

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError, match=f"; change the permissions .*{re.escape(str(path))}"), open_table(path):
        pass


def test_a_text_is_written_as_it_is(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "text", "größer\n")
    assert (tmp_path / "new" / "text").read_bytes() == "größer\n".encode()
