"""State in files without a name: the room is taken before anything is written there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

import difficulty_prune as dp
from difficulty_prune.support.unnamed_file import zeros_in_file


def test_zeros_may_be_written_to_and_leave_no_file(tmp_path: Path) -> None:
    array = zeros_in_file((3, 2), np.int64, tmp_path)
    assert array.tolist() == [[0, 0]] * 3
    array[1] = 7
    assert array.sum() == 14
    assert list(tmp_path.iterdir()) == []


def full(_descriptor: int, _offset: int, _size: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no posix_fallocate here: room is not taken in advance")
def test_a_full_disk_is_an_error_before_anything_is_written_to_the_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written to, the map would end the process by a signal."""
    pytest.importorskip("xxhash", reason="xxhash is not installed")
    monkeypatch.setattr(os, "posix_fallocate", full)
    path = tmp_path / "table"
    with pytest.raises(OSError, match=f"No space left on device; make room there, .*: '{path}'"):
        dp.InclusionTable.write(path, [([1, 2], [0.5, 1.0])], weighted=True)
    assert list(tmp_path.iterdir()) == []
