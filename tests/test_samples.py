"""Samples and batches of every kind that a DataLoader hands on: named tuples, mappings that are no dict, either name of
the label."""

from __future__ import annotations

import pickle
from collections import UserDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import difficulty_prune as dp

N, C = 6, 3
X, Y = torch.arange(4.0 * N).view(N, 4), torch.arange(N) % C


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


class Pairs:
    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Pair:
        return Pair(X[index], Y[index])


class Mappings:
    """Samples as tokenisers give them: a mapping, but no dict."""

    def __init__(self, label: str) -> None:
        self.label = label

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> UserDict[str, Tensor]:
        return UserDict({"input": X[index], self.label: Y[index]})


def as_user_dicts(label: str) -> Iterator[UserDict[str, Tensor]]:
    for batch in torch.arange(N).split(4):
        yield UserDict({"input": X[batch], label: Y[batch], "index": batch})


@pytest.mark.parametrize("workers", [0, 1])
def test_a_named_tuple_stays_one_and_gains_a_field(workers: int) -> None:
    """Also on its way from a worker, though the wider class is in no module."""
    seen: list[int] = []
    for batch in DataLoader(dp.IndexedDataset(Pairs()), batch_size=4, num_workers=workers):
        assert type(batch).__name__ == "Pair"
        assert batch._fields == ("x", "y", "index")
        assert torch.equal(batch.x, X[batch.index])
        assert torch.equal(batch.y, Y[batch.index])
        seen += batch.index.tolist()
    assert seen == list(range(N))


def test_an_indexed_named_tuple_is_pickled_by_value() -> None:
    sample = dp.IndexedDataset(Pairs(), index_key="position")[2]
    again = pickle.loads(pickle.dumps(sample))  # noqa: S301 - of this very test
    assert again._fields == ("x", "y", "position")
    assert again.position == 2
    assert type(again) is type(sample)


def test_a_field_that_is_taken_is_refused() -> None:
    with pytest.raises(ValueError, match="has a key 'y' already"):
        dp.IndexedDataset(Pairs(), index_key="y")[0]


@pytest.mark.parametrize("label", ["label", "labels"])
def test_a_mapping_that_is_no_dict_is_indexed(label: str) -> None:
    sample = dp.IndexedDataset(Mappings(label))[1]
    assert sample["index"] == 1
    assert sample[label] == Y[1]
    batch = next(iter(DataLoader(dp.IndexedDataset(Mappings(label)), batch_size=N)))
    assert batch["index"].tolist() == list(range(N))


def test_a_batch_encoding_of_transformers_is_a_mapping_too() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    encoded = [transformers.BatchEncoding({"input": X[i], "labels": Y[i]}) for i in range(N)]
    assert dp.IndexedDataset(encoded)[3]["index"] == 3
    batch = transformers.BatchEncoding({"input": X, "labels": Y, "index": torch.arange(N)})
    tracker = dp.DifficultyTracker(N, ("el2n",))
    dp.score_checkpoint(nn.Linear(4, C), [batch], tracker)
    assert tracker.presentations == N


@pytest.mark.parametrize("label", ["label", "labels"])
def test_passes_of_a_frozen_model_take_mappings(label: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, C)
    expected, got = (dp.DifficultyTracker(N, ("el2n", "vog")) for _ in range(2))
    dp.score_checkpoint(model, [(X, Y, torch.arange(N))], expected)
    dp.score_checkpoint(model, as_user_dicts(label), got)
    assert torch.equal(got.compute()["el2n"], expected.compute()["el2n"])
    assert dp.score_features(model, as_user_dicts(label)).labels.tolist() == Y.tolist()


KINDS: dict[str, Any] = {
    "text": ["cat", "dog"] * 3,
    "ragged": [[1, 2], [3], [], [4, 5, 6], [7], [8]],
    "several numbers": torch.eye(6),
    "dictionaries": [{"boxes": torch.ones(i, 4), "labels": [i]} for i in range(6)],
    "arrays": [np.arange(i + 1) for i in range(6)],
    "mixed": [1, "two", None, 4.0, (5,), b"six"],
}


class Labelled:
    """Images with `targets` of any kind."""

    def __init__(self, targets: Any, pairs: bool = True) -> None:
        self.targets = targets
        self.pairs = pairs

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return (X[index], index) if self.pairs else {"input_ids": X[index]}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_any_kind_identify_a_dataset(kind: str) -> None:
    targets = KINDS[kind]
    known = dp.dataset_fingerprint(Labelled(targets))
    assert known == dp.dataset_fingerprint(dp.IndexedDataset(Labelled(targets)))
    assert known == dp.dataset_fingerprint(Labelled(None), labels=targets)
    turned = targets.flip(0) if isinstance(targets, Tensor) else targets[::-1]
    assert known != dp.dataset_fingerprint(Labelled(turned))


def test_targets_of_none_are_none() -> None:
    """The samples show the label then; and where they do not, the data is identified without."""
    assert dp.dataset_fingerprint(Labelled(None)) == dp.dataset_fingerprint(Labelled(list(range(N))))
    assert len(dp.dataset_fingerprint(Labelled(None, pairs=False))) == 32


def test_what_cannot_be_hashed_is_named() -> None:
    with pytest.raises(TypeError, match="holds object, which cannot be hashed"):
        dp.dataset_fingerprint([(object(), 0)] * 3)


def test_a_summary_that_is_changed_changes_no_plan() -> None:
    given = {"policy": "mine", "classes": {"0": {"examples": 4, "kept": 2, "dropped": 2}}}
    plan = dp.Plan(torch.tensor([0, 2]), torch.ones(2), given)
    summary = plan.summary()
    summary["classes"]["0"]["kept"] = 99
    given["policy"] = "another"
    assert plan.summary()["classes"]["0"]["kept"] == 2
    assert plan.summary()["policy"] == "mine"
