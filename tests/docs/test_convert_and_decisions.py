"""The blocks of docs/convert.md and docs/decisions.md run in order, and print what they claim."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

import difficulty_prune as dp

IDS = ["cat/1.png", "cat/2.png", "cat/3.png", "dog/1.png", "dog/2.png"]
LABELS = [0, 0, 0, 1, 1]


class Photos:
    """As much of an image folder as is needed."""

    root, classes = "/data/photos", ["cat", "dog"]
    samples = [(f"/data/photos/{name}", label) for name, label in zip(IDS, LABELS, strict=True)]  # noqa: RUF012

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[int, int]:
        return i, self.samples[i][1]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.DOTALL)


def runs() -> dp.RunSet:
    rng = np.random.default_rng(0)
    facts = {"architecture": "mlp", "labels": LABELS, "ids": IDS, "class_names": Photos.classes}
    return dp.RunSet(dp.Run({"el2n": rng.random(5)}, seed=s, **facts) for s in range(2))


def test_converting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    names = {"dp": dp, "runs": runs(), "logits_of_epochs": rng.normal(size=(3, 5, 2)), "labels": LABELS, "names": IDS}
    for block in blocks("convert.md"):
        exec(block, names)
    assert names["run"].ids.tolist() == IDS
    assert [entry.id for entry in names["decisions"]] == ["cat/1.png"]
    assert len(Path("train.txt").read_text().splitlines()) == len(names["plan"]) == 3
    for path in ("scores.csv", "aum_values.csv", "labels.csv", "tasks.json", "weights.csv"):
        assert Path(path).stat().st_size


def test_every_function_is_in_the_table() -> None:
    page = (ROOT / "docs" / "convert.md").read_text()
    for name in dp.convert.__all__:
        assert f"`{name}" in page or f".{name}(" in page, name


@pytest.mark.filterwarnings("ignore:decisions. 3 of 4", "ignore:join. ")
def test_deciding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for run in runs():
        run.save(f"runs/{run.seed}.safetensors")
    names = {
        "dp": dp,
        "np": np,
        "train": dp.IndexedDataset(Photos()),
        "dataset": Photos(),
        "difficulty": np.arange(5.0),
    }
    for block in blocks("decisions.md"):
        exec(block, names)
    printed = capsys.readouterr().out
    for claimed in (
        "4 decisions: 1 keep, 1 wrong (1 with the right label), 2 drop",
        "3 of 4 decisions are of examples of this data (5 examples); 1 is of an id that it lacks: 'dog/7.png'",
        "{'left': 1, 'relabelled': 1, 'weighted': 1, 'missing': 1}",
    ):
        assert claimed in printed
    assert names["train"][0] == (0, 1, 0)
    assert sorted(names["sampler"]) == [3, 4]
    assert names["everything"].index.tolist() == [0, 2, 3, 4]
    assert names["runs"].labels.tolist() == [1, 0, 0, 1, 1]
    assert np.isnan(names["runs"].mean("el2n")).tolist() == [True, False, False, False, False]
    assert len(Path("corrected.csv").read_text().splitlines()) == 5
