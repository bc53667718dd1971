"""Samples of a stream get indices as they come, trackers record them, and runs over streams join by ids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from streamed import NAMES, SIZE, Stream
from torch.utils.data import DataLoader

import difficulty_prune as dp

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(max_examples=40)
@given(batches=st.lists(st.lists(st.integers(-9, 9), max_size=6) | st.just([]), max_size=8), text=st.booleans())
def test_each_new_id_gets_the_next_index(batches, text):
    index, places = dp.StreamIndex(), []
    for batch in batches:
        ids = [f"n{name}" for name in batch] if text else batch
        found = index(ids)
        assert found.dtype == torch.int64
        for name, place in zip(ids, found.tolist(), strict=True):
            if name not in places:
                places.append(name)
            assert places.index(name) == place
    assert index.ids.tolist() == places
    assert len(index) == len(places)
    later = dp.StreamIndex()
    later.load_state_dict(index.state_dict())
    assert later.ids.tolist() == places


def test_ids_come_as_loaders_collate_them():
    index = dp.StreamIndex()
    assert index(torch.tensor([7, 9])).tolist() == [0, 1]
    assert index(np.array([9, 8])).tolist() == [1, 2]
    assert index.ids.dtype == np.int64
    assert repr(index) == "StreamIndex(3 ids)"


def test_bad_ids_are_refused_and_change_nothing():
    index = dp.StreamIndex()
    index(["a", "b"])
    for ids, message in [([7], "ids: got 7, but those before are of another kind, such as 'a'"), ("c", "ids: got 'c'")]:
        with pytest.raises(TypeError, match=message):
            index(ids)
    with pytest.raises(ValueError, match="empty text"):
        index(["c", ""])
    assert index.ids.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="1 of 3 occur twice"):
        index.load_state_dict({"ids": ["a", "b", "a"]})
    for state, got in [({}, r"\[\]"), (["a"], "list")]:
        with pytest.raises(ValueError, match=f"load_state_dict: got {got}, expected what StreamIndex.state_dict gives"):
            index.load_state_dict(state)
    assert index.ids.tolist() == ["a", "b"]


class Indexed(torch.utils.data.IterableDataset):
    """Indexes its samples itself, in the worker that reads them."""

    def __init__(self):
        self.index = dp.StreamIndex()

    def __iter__(self):
        yield self.index([f"worker {torch.utils.data.get_worker_info().id}"])


def test_workers_that_index_by_themselves_would_give_one_index_to_two_samples():
    with pytest.raises(RuntimeError, match="StreamIndex: called in a worker of a DataLoader"):
        list(DataLoader(Indexed(), num_workers=1))


def train(step: int, workers: int, seed: int, path) -> dict[str, float]:
    """Two epochs over the stream in another order each; el2n by id, by plain sums. A sample's logits are its own."""
    index, tracker = dp.StreamIndex(), dp.DifficultyTracker(None, scores=("el2n",))
    sums: dict[str, list[float]] = {}
    for epoch in range(2):
        loader = DataLoader(Stream(step=step + 12 * epoch), batch_size=32, num_workers=workers)
        for batch in loader:
            logits = torch.stack([batch["x"] / SIZE + epoch + seed, torch.zeros_like(batch["x"])], 1).float()
            labels = torch.zeros(len(logits), dtype=torch.int64)
            tracker.update(index(batch["id"]), logits, labels)
            el2n = (logits.softmax(1) - F.one_hot(labels, 2)).norm(dim=1)
            for name, value in zip(batch["id"], el2n.tolist(), strict=True):
                sums.setdefault(name, []).append(value)
    tracker.finish(architecture="mlp", seed=seed, ids=index.ids).save(path)
    return {name: sum(values) / len(values) for name, values in sums.items()}


def test_runs_over_streams_in_other_orders_join_by_ids(tmp_path):
    first = train(step=7, workers=2, seed=0, path=tmp_path / "mlp-0.safetensors")
    second = train(step=1, workers=0, seed=1, path=tmp_path / "mlp-1.safetensors")
    assert first.keys() == second.keys() == set(NAMES)
    runs = dp.RunSet.load(str(tmp_path / "*.safetensors"), join="ids")
    assert len(runs) == 2
    ids = runs.ids.tolist()
    assert ids != NAMES
    expected = [(first[name] + second[name]) / 2 for name in ids]
    np.testing.assert_allclose(runs.difficulty("el2n"), expected, rtol=1e-5)


def test_from_scores_of_a_stream_to_a_pruned_one(tmp_path):
    pytest.importorskip("xxhash", reason="xxhash is not installed")
    values = train(step=7, workers=0, seed=0, path=tmp_path / "mlp-0.safetensors")
    run = dp.Run.load(tmp_path / "mlp-0.safetensors")
    policy = dp.policies.Hardest(0.25)
    table = dp.InclusionTable.build(tmp_path / "table", run.ids, policy, run.scores["el2n"])
    kept = {sample["id"] for sample, _ in dp.StreamPruner(table, "id")(Stream(), epoch=0)}
    assert kept == set(sorted(values, key=values.__getitem__)[-SIZE // 4 :])
