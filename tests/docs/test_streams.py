"""The page on streams: every block runs in order, over a small stream."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from places import ROOT
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import difficulty_prune as dp

PAGE = (ROOT / "docs" / "streams.md").read_text()
SIZE = 64


class Stream(IterableDataset):
    def __iter__(self):
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for i in range(first, SIZE, step):
            yield {"id": f"doc-{i}", "x": torch.full((2,), i / SIZE), "y": i % 2}


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("xxhash", reason="xxhash is not installed")
    monkeypatch.chdir(tmp_path)
    stream, model = Stream(), nn.Linear(2, 2)
    names = {"dp": dp, "torch": torch, "F": F, "DataLoader": DataLoader, "stream": stream, "model": model}
    names["loader"] = DataLoader(stream, batch_size=16)
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, names)
    said = re.search(r"print\(table\)  # (.*)", PAGE)
    assert said is not None
    assert said.group(1) in capsys.readouterr().out
    assert names["run"].ids.tolist() == [f"doc-{i}" for i in range(SIZE)]
    assert names["own"].inclusion(["doc-999", "doc-1000"]).tolist()[:1] == [pytest.approx(0.3)]
    assert len(names["own"]) == 1000
    alone = dp.StreamPruner("keep.table", "id")
    kept = [int(alone.decide(names["run"].ids, epoch)[0].sum()) for epoch in (0, 1)]
    # Epochs 0 and 1 in the call and in the loader, and 1 once more, where two batches are passed over.
    assert names["pruner"].counts == (5 * SIZE, 2 * sum(kept) + kept[1], 0)
    assert names["batch"]["weight"].min() >= 1
    assert names["pruner"].scale == names["table"].share == pytest.approx(0.5, abs=1e-6)


def test_every_policy_is_in_the_table() -> None:
    for name in set(dp.policies.__all__) - {"Policy"}:
        assert f"`{name}" in PAGE or f".{name}`" in PAGE, name
