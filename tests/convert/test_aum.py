"""Tables of the `aum` package, made by the package where it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import difficulty_prune as dp


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of aum, with pandas 3
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("names", [["b", "a", "c"], [7, 3, 5]])
def test_the_packages_own_files_hold_what_the_tracker_finds(tmp_path: Path, compressed: bool, names) -> None:
    aum = pytest.importorskip("aum")
    calculator = aum.AUMCalculator(str(tmp_path), compressed=compressed)
    tracker = dp.DifficultyTracker(3, scores=("aum",))
    labels = torch.tensor([0, 2, 1])
    for seed in range(3):
        logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))
        calculator.update(logits, labels, names)
        tracker.update(torch.arange(3), logits, labels)
    calculator.finalize()
    expected = dict(zip(names, tracker.compute()["aum"].tolist(), strict=True))
    files = ["aum_values.csv"] if compressed else ["aum_values.csv", "full_aum_records.csv"]
    for name in files:
        run = dp.convert.from_aum(tmp_path / name)
        found = dict(zip(run.ids.tolist(), run.scores["aum"].tolist(), strict=True))
        assert found == pytest.approx(expected, rel=1e-5)
        if name.startswith("full"):
            assert dict(zip(run.ids.tolist(), run.labels.tolist(), strict=True)) == dict(
                zip(names, [0, 2, 1], strict=True)
            )


@pytest.mark.parametrize("ids", [None, ["x,1", "y", "z", "w"]])
def test_what_goes_out_comes_back(tmp_path: Path, ids) -> None:
    run = dp.Run({"aum": [0.1, 5, np.nan, -2]}, architecture="a", seed=0, ids=ids)
    dp.convert.to_aum(run, tmp_path / "aum_values.csv")
    found = dp.convert.read(tmp_path / "aum_values.csv", "aum")
    names = list(range(4)) if ids is None else ids
    assert found.ids.tolist() == [names[1], names[0], names[3]]
    assert found.scores["aum"].tolist() == [5, 0.1, -2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample_id,aum\na,1\na,2\n", "line 3: sample 'a' is there twice"),
        ("sample_id,aum\na,1\nb,\n", "line 3: aum: got '', expected a finite number"),
        ("sample_id,aum\n,1\n", "line 2: got"),
        ("sample,aum\na,1\n", "line 2: got .*expected the columns sample_id and aum"),
        ("sample_id,aum\n", "got no rows"),
        (f"sample_id,aum,num_measurements\na,1,{'9' * 400}\n", "line 2: target_logit: got None"),
        (f"sample_id,aum\na,1{'0' * 400}\n", "line 2: aum: got '1000"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, text, message) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.csv: {message}"):
        dp.convert.from_aum(tmp_path / "a.csv")
