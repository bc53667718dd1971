"""Plans as tables of weights and as lists of paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import difficulty_prune as dp

PLAN = dp.Plan(torch.tensor([0, 3]), torch.tensor([2.0, 0.1]))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_weights_of_every_example(tmp_path: Path, suffix: str) -> None:
    pandas = pytest.importorskip("pandas")
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    dp.convert.to_weights(PLAN, tmp_path / f"w.{suffix}", 5)
    read = pandas.read_csv if suffix == "csv" else pandas.read_parquet
    frame = read(tmp_path / f"w.{suffix}")
    assert frame["index"].tolist() == [0, 1, 2, 3, 4]
    assert frame["weight"].astype(np.float32).tolist() == np.float32([2, 0, 0, 0.1, 0]).tolist()


def test_a_list_of_paths(tmp_path: Path) -> None:
    plan = dp.Plan(torch.tensor([2, 0]), torch.ones(2))
    dp.convert.to_paths(plan, ["a b.png", "b.png", "c/d.png"], tmp_path / "train.txt", root="/data")
    assert (tmp_path / "train.txt").read_text() == "/data/a b.png\n/data/c/d.png\n"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    ones = dp.Plan(torch.tensor([0, 3]), torch.ones(2))
    for attempt, message in (
        (lambda: dp.convert.to_weights(PLAN, tmp_path / "w.csv", 3), r"plan: got position 3, expected 0\.\.2"),
        (lambda: dp.convert.to_weights(PLAN, tmp_path / "w.txt", 5), r"kind '\.txt', expected one of \.csv, \.parquet"),
        (lambda: dp.convert.to_paths(PLAN, list("abcde"), tmp_path / "t"), "plan: got the weight 2.*see to_weights"),
        (lambda: dp.convert.to_paths(ones, list("abc"), tmp_path / "t"), r"plan: got position 3, expected 0\.\.2"),
        (lambda: dp.convert.to_paths(ones, [*"abc", "x\ny"], tmp_path / "t"), "with a line break"),
        (lambda: dp.convert.to_paths(ones, [*"abc", "x\n"], tmp_path / "t"), "with a line break"),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()
    assert not list(tmp_path.iterdir())
