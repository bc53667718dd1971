"""What killed writers leave behind is removed by the next writer; what living writers use is not."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from difficulty_prune.support import temporary
from difficulty_prune.support.files import write_atomically
from difficulty_prune.support.temporary import create_beside, remove_abandoned

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")

WRITER = """
import os, signal, sys
from difficulty_prune.support.files import write_atomically

target, content = sys.argv[1], sys.argv[2].encode() * 500_000
print("ready", flush=True)
for _ in sys.stdin:  # each line asks for a process that writes again and again until it is killed
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        while True:
            write_atomically(target, content)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@contextmanager
def writer(target: Path, letter: str) -> Iterator[subprocess.Popen[str]]:
    """A process that starts others, which write the target until they are killed."""
    command = [sys.executable, "-c", WRITER, str(target), letter]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def start(process: subprocess.Popen[str]) -> int:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return int(line(process))


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_what_killed_writers_leave_is_swept_and_living_writers_are_not_disturbed(tmp_path: Path) -> None:
    target = tmp_path / "run.safetensors"
    with writer(target, "a") as one, writer(target, "b") as other:
        assert (line(one), line(other)) == ("ready", "ready")
        living = start(one)
        try:
            for kill in range(20):
                victim = start(other)
                time.sleep(0.0005 * kill)
                os.kill(victim, signal.SIGKILL)
                assert line(other) == "ended"
                if target.exists():
                    assert target.read_bytes() in (b"a" * 500_000, b"b" * 500_000)
            os.kill(living, 0)  # it has met no error
        finally:
            os.kill(living, signal.SIGKILL)
        assert line(one) == "ended"
        while not hidden(tmp_path):  # until one was killed in the middle of a file, with nobody there to sweep it
            victim = start(other)
            time.sleep(0.01)
            os.kill(victim, signal.SIGKILL)
            assert line(other) == "ended"
    write_atomically(target, "new")
    assert (target.read_text(), hidden(tmp_path)) == ("new", [])


def abandoned(target: Path) -> Path:
    path, file = create_beside(target)
    file.write(b"half")
    file.close()
    return path


def test_the_next_writer_of_the_same_file_removes_it(tmp_path: Path) -> None:
    target, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    abandoned(target)
    kept = abandoned(other)
    write_atomically(target, "new")
    assert hidden(tmp_path) == [kept.name]
    write_atomically(other, "new")
    assert hidden(tmp_path) == []


def test_a_writer_of_another_thread_is_not_disturbed(tmp_path: Path) -> None:
    path, file = create_beside(tmp_path / "a")
    with file:
        write_atomically(tmp_path / "a", "new")
        assert path.exists()
    write_atomically(tmp_path / "a", "newer")
    assert not path.exists()


@pytest.mark.parametrize("target", ["a", "a.b", "a[1]*", "ä\n", "-"])
def test_only_files_with_such_a_name_are_removed(tmp_path: Path, target: str) -> None:
    names = [f".{target}.settings", f".{target}.0123abcd", f".{target}.0123abcd.tmp.old", f"x.{target}.0123abcd.tmp"]
    names += [f".{target}.0123ABCD.tmp", f".{target}.0123abcde.tmp", f".{target}.x.0123abcd.tmp", ".b.0123abcd.tmp"]
    for name in names:
        (tmp_path / name).touch()
    folder, link = tmp_path / f".{target}.00000000.tmp", tmp_path / f".{target}.00000001.tmp"
    folder.mkdir()
    link.symlink_to(tmp_path / names[0])
    write_atomically(tmp_path / target, "new")
    assert {path.name for path in tmp_path.iterdir()} == {*names, folder.name, link.name, target}


def test_a_name_that_is_taken_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = iter(["00000000", "00000000", "00000001"])
    monkeypatch.setattr(temporary.secrets, "token_hex", lambda _: next(digits))
    _, first = create_beside(tmp_path / "a")
    path, second = create_beside(tmp_path / "a")
    with first, second:
        assert path.name == ".a.00000001.tmp"


def test_a_file_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, removed = temporary._lock, []

    def sweep_first(descriptor: int) -> bool | None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            monkeypatch.setattr(temporary, "_lock", lock)
            remove_abandoned(tmp_path / "a")
        return lock(descriptor)

    monkeypatch.setattr(temporary, "_lock", sweep_first)
    path, file = create_beside(tmp_path / "a")
    with file:
        assert len(removed) == 1
        assert not removed[0].exists()
        assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_a_sweeper_has_locked_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, answers = temporary._lock, iter([False])
    monkeypatch.setattr(temporary, "_lock", lambda descriptor: next(answers, lock(descriptor)))
    path, file = create_beside(tmp_path / "a")
    with file:
        assert len(list(tmp_path.iterdir())) == 2, "the sweeper would remove the other"
        assert path.exists()


def test_where_there_are_no_locks_nothing_is_swept_and_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = abandoned(tmp_path / "a")

    def no_locks(*_args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(temporary.fcntl, "flock", no_locks)
    write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert left.exists()


def test_what_cannot_be_removed_stops_no_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned(tmp_path / "a")

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    for owner, name in ((Path, "unlink"), (os, "open"), (os, "scandir")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, refuse)
            write_atomically(tmp_path / "a", name)
        assert (tmp_path / "a").read_text() == name
