"""What `finish(dataset=)` fills in, and what it checks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

ImageFolder = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed").ImageFolder
v2 = pytest.importorskip("torchvision.transforms.v2", reason="torchvision is not installed")

FILES = ["cat/a.png", "cat/b.png", "dog/a.png"]
FACTS: dict[str, Any] = {"architecture": "mlp", "seed": 0}
PLAIN = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32)])


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for shade, name in enumerate(FILES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2), (shade, 0, 0)).save(tmp_path / name)
    return os.fspath(tmp_path)


def trained(train: dp.IndexedDataset) -> dp.DifficultyTracker:
    tracker = dp.DifficultyTracker(len(train), scores=("el2n",))
    for _, y, index in DataLoader(train, batch_size=2):
        tracker.update(index, torch.randn(len(y), 2), y)
    return tracker


def test_everything_that_a_folder_knows(folder: str) -> None:
    train = dp.IndexedDataset(ImageFolder(folder, PLAIN))
    tracker = trained(train)
    for dataset in (train, train.dataset):
        run = tracker.finish(dataset=dataset, **FACTS)
        assert run.ids is not None
        assert run.ids.tolist() == FILES
        assert run.labels is not None
        assert run.labels.tolist() == [0, 0, 1]
        assert run.class_names == ("cat", "dog")
        assert run.dataset_fingerprint == dp.dataset_fingerprint(train)
    given = {"ids": [7, 8, 9], "class_names": ["a", "b"], "dataset_fingerprint": "f"}
    run = tracker.finish(dataset=train, **given, **FACTS)
    assert run.ids is not None
    assert run.ids.tolist() == [7, 8, 9]
    assert (run.class_names, run.dataset_fingerprint) == (("a", "b"), "f")


def test_random_augmentation_leaves_the_fingerprint_out(folder: str) -> None:
    noisy = v2.Compose([PLAIN, v2.Lambda(lambda x: x + torch.rand(()))])
    train = dp.IndexedDataset(ImageFolder(folder, noisy))
    run = trained(train).finish(dataset=train, **FACTS)
    assert run.dataset_fingerprint is None
    assert run.ids is not None


def test_a_dataset_that_shows_nothing_is_told_of() -> None:
    class Noise:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return torch.rand(()), index % 2

    train = dp.IndexedDataset(Noise())
    tracker = trained(train)
    with pytest.warns(UserWarning, match="no dataset fingerprint, ids or labels: dataset: example 0 differs") as caught:
        run = tracker.finish(dataset=train, **FACTS)
    assert caught[0].filename == __file__
    assert run.labels is not None  # as they were shown


def test_ids_spare_the_reading_of_all_examples() -> None:
    read: list[int] = []

    class Slow:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return torch.zeros(()), index

    train = dp.IndexedDataset(Slow(), ids=["a", "b"])
    tracker = trained(train)
    read.clear()
    run = tracker.finish(dataset=train, **FACTS)
    assert not read
    assert run.dataset_fingerprint is None
    assert run.labels is not None
    assert run.labels.tolist() == [0, 1]


def test_another_length_and_other_labels_are_refused(folder: str) -> None:
    train = dp.IndexedDataset(ImageFolder(folder, PLAIN))
    tracker = trained(train)
    with pytest.raises(ValueError, match="dataset: got 2 examples, expected 3"):
        tracker.finish(dataset=TensorDataset(torch.zeros(2), torch.tensor([0, 1])), **FACTS)
    with pytest.raises(ValueError, match="labels: 1 of 3 examples were shown with other labels"):
        tracker.finish(dataset=TensorDataset(torch.zeros(3), torch.tensor([0, 1, 1])), **FACTS)


def test_examples_without_a_class() -> None:
    tracker = dp.DifficultyTracker(2, scores=("loss",))
    tracker.update(torch.tensor([0, 1]), loss=torch.tensor([1.0, 2.0]))
    run = tracker.finish(dataset=TensorDataset(torch.zeros(2), torch.tensor([-1, 0])), **FACTS)
    assert run.labels is None
