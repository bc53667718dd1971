"""A DataFrame and issues for Renumics Spotlight."""

from __future__ import annotations

import numpy as np
import pytest

import difficulty_prune as dp


def run() -> dp.Run:
    facts = {"labels": [0, 0, 1, 1], "class_names": ["cat", "dog"]}
    facts |= {"suggested": [0, 1, 0, -1], "suggested_probability": [0.5, 0.75, 0.875, np.nan]}
    return dp.Run({"aum": [0.25, -1.0, 0.5, np.nan]}, architecture="a", seed=0, **facts)


def test_the_frame_and_its_issues() -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("renumics.spotlight")
    frame, issues = dp.convert.to_spotlight(run(), paths=["a", "b", "c", "d"], worst=3)
    assert frame["label_name"].tolist() == ["cat", "cat", "dog", "dog"]
    assert frame["suggested_name"].tolist()[:3] == ["cat", "dog", "cat"]
    assert frame["path"].tolist() == ["a", "b", "c", "d"]
    assert [(issue.title, issue.rows) for issue in issues] == [
        ("Hard by aum", [1, 0, 2]),
        ("Another label suggested", [2, 1]),
    ]
    for issue in issues:
        assert set(issue.columns) <= set(frame.columns)


def test_what_a_missing_library_is_needed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "renumics.spotlight.analysis", None)
    with pytest.raises(ImportError, match="to_spotlight needs renumics: pip install renumics-spotlight"):
        dp.convert.to_spotlight(run())
