"""Rows of tables: any text comes back from any format, and files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difficulty_prune.support.spool import Spool
from difficulty_prune.support.table_rows import read_rows, write_rows


@settings(max_examples=80)
@given(
    rows=st.lists(st.fixed_dictionaries({"a": st.text(min_size=1), "b": st.text()}), max_size=5),
    suffix=st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet"]),
)
def test_any_text_comes_back(tmp_path_factory, rows, suffix) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    rows = [row for row in rows if row["a"].strip() or suffix not in ("csv", "tsv")]  # blank lines are passed over
    path = tmp_path_factory.mktemp("t") / f"t.{suffix}"
    write_rows(path, ("a", "b"), rows)
    found = list(read_rows(path))
    assert [dict(row.cells) for row in found] == rows
    assert len({row.place for row in found}) == len(rows)


def test_places_are_lines_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_rows(path, ("a", "b"), [{"a": "x\ny", "b": 1}, {"a": "z", "b": None}])
    assert [(row.place, row.cells["b"]) for row in read_rows(path)] == [("line 2", "1"), ("line 4", "")]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n")

    def rows():
        yield {"a": 2}
        raise RuntimeError("the disk of the rows is gone")

    with pytest.raises(RuntimeError, match="is gone"):
        write_rows(path, ("a",), rows())
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
    assert path.read_text() == "a\n1\n"


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4), min_size=1, max_size=4), st.data())
def test_a_spool_gives_back_any_part(parts, data) -> None:
    import numpy as np

    spool, whole = Spool(), [x for part in parts for x in part]
    for part in parts:
        spool.append("x", np.array(part, np.int64))
    start, stop = (data.draw(st.integers(0, len(whole) + 1)) for _ in range(2))
    assert spool.read("x", slice(start, stop)).tolist() == whole[start:stop]
    assert spool.read("x").tolist() == whole
    assert (spool.length("x"), list(spool), "y" in spool) == (len(whole), ["x"], False)
