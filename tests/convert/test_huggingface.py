"""Columns of a Hugging Face dataset, joined by id."""

from __future__ import annotations

import numpy as np
import pytest

import difficulty_prune as dp


def run(ids=None) -> dp.Run:
    return dp.Run({"el2n": [0.25, np.nan, 1.0]}, architecture="a", seed=0, labels=[0, 1, 1], ids=ids)


@pytest.mark.parametrize("ids", [["a", "b", "c"], [10, 20, 30]])
def test_rows_are_joined_by_id(ids) -> None:
    datasets = pytest.importorskip("datasets")
    new = "new" if ids[0] == "a" else 99
    data = datasets.Dataset.from_dict({"key": [ids[2], new, ids[0]], "label": [1, 0, 0]})
    found = dp.convert.to_huggingface(run(ids), data, id_column="key")
    assert found["key"][:] == data["key"][:]
    assert found["el2n"][:] == [1.0, None, 0.25]
    assert found["el2n_runs"][:] == [1, None, 1]
    assert found.column_names == ["key", "label", "el2n", "el2n_percentile", "el2n_standard_error", "el2n_runs"]
    assert data.column_names == ["key", "label"]


def test_rows_in_order() -> None:
    datasets = pytest.importorskip("datasets")
    found = dp.convert.to_huggingface(run(), datasets.Dataset.from_dict({"label": [0, 1, 1]}), scores=["el2n"])
    np.testing.assert_array_equal(found["el2n"][:], [0.25, np.nan, 1.0])


def test_what_does_not_fit_is_refused() -> None:
    datasets = pytest.importorskip("datasets")
    two = datasets.Dataset.from_dict({"key": ["x", "y"]})
    with pytest.raises(ValueError, match="got 2 rows for 3 examples; id_column="):
        dp.convert.to_huggingface(run(), two)
    with pytest.raises(ValueError, match="got 'id', expected one of key"):
        dp.convert.to_huggingface(run(["a", "b", "c"]), two, id_column="id")
    with pytest.raises(ValueError, match="the runs have no ids"):
        dp.convert.to_huggingface(run(), two, id_column="key")
    with pytest.raises(ValueError, match="none of the 2 ids in 'key' is one of the runs'"):
        dp.convert.to_huggingface(run(["a", "b", "c"]), two, id_column="key")
    with pytest.raises(ValueError, match="has a column 'el2n' already"):
        dp.convert.to_huggingface(run(), datasets.Dataset.from_dict({"el2n": [1, 2, 3]}))
