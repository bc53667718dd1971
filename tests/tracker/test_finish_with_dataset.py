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


def shown(labels: list[int]) -> dp.DifficultyTracker:
    """A tracker that was shown each example with its label, but for those of -100, which are ignored."""
    tracker = dp.DifficultyTracker(len(labels), scores=("el2n",))
    tracker.update(torch.arange(len(labels)), torch.randn(len(labels), 4), torch.tensor(labels))
    return tracker


LABELS = [i % 3 for i in range(70)]  # more than a fingerprint samples
MORE = [(label + 1) % 3 for label in LABELS]
ONE = [*LABELS[:5], 0, *LABELS[6:]]


@pytest.mark.parametrize(("labels", "number"), [(MORE, 70), (ONE, 1)])
def test_labels_that_only_samples_know_are_compared(labels: list[int], number: int) -> None:
    pairs = [(float(i), label) for i, label in enumerate(labels)]
    mappings = [{"x": float(i), "label": torch.tensor(label)} for i, label in enumerate(labels)]
    tracker = shown(LABELS)
    for dataset in (pairs, dp.IndexedDataset(pairs), mappings):
        with pytest.raises(ValueError, match=f"dataset: {number} of 70 examples that were read have other labels"):
            tracker.finish(dataset=dataset, **FACTS)
    run = tracker.finish(dataset=pairs, labels=LABELS, **FACTS)  # as the message says
    assert run.labels is not None
    assert run.labels.tolist() == LABELS
    assert shown(labels).finish(dataset=pairs, **FACTS).dataset_fingerprint == dp.dataset_fingerprint(pairs)


def test_a_target_transform_counts_in_the_samples_that_are_read() -> None:
    class Transformed:
        targets = LABELS
        target_transform = staticmethod(lambda label: (label + 1) % 3)

        def __len__(self) -> int:
            return len(LABELS)

        def __getitem__(self, index: int) -> Any:
            return float(index), self.target_transform(LABELS[index])

    assert shown(MORE).finish(dataset=Transformed(), **FACTS).dataset_fingerprint
    with pytest.raises(ValueError, match="dataset: 64 of 64 examples that were read have other labels"):
        shown(LABELS).finish(dataset=Transformed(), **FACTS)


@pytest.mark.parametrize(
    ("labels", "sample"),
    [
        ([label + 1 for label in LABELS], lambda i: (float(i), LABELS[i])),  # renumbered in the training
        ([int(label == 2) for label in LABELS], lambda i: (float(i), LABELS[i])),  # one class against the others
        (LABELS, lambda i: (float(i), i)),  # its own position, no class
        (LABELS, lambda i: (float(i), 2 - LABELS[i], LABELS[i])),  # nothing says which of several is the label
        (LABELS, lambda i: (float(i), float(LABELS[i]) / 2)),
        (LABELS, lambda i: (float(i), torch.tensor([2 - LABELS[i]] * 2))),
        (LABELS, lambda i: (float(i), -1)),
        ([-100 if i % 2 else label for i, label in enumerate(LABELS)], lambda i: (float(i), i % 3 if i % 2 < 1 else 0)),
    ],
)
def test_what_is_no_other_label_is_not_refused(labels: list[int], sample: Any) -> None:
    dataset = [sample(i) for i in range(len(LABELS))]
    assert shown(labels).finish(dataset=dataset, **FACTS).dataset_fingerprint


def test_corrected_and_mixed_labels_are_not_refused() -> None:
    pairs = [(float(i), label) for i, label in enumerate(LABELS)]
    decisions = dp.Decisions([{"index": 5, "decision": "wrong", "label": 0}])
    assert shown(ONE).finish(dataset=dp.IndexedDataset(pairs, decisions=decisions), **FACTS).dataset_fingerprint
    mixed = dp.DifficultyTracker(len(LABELS), scores=("el2n",))
    soft = torch.nn.functional.one_hot(torch.tensor(MORE), 4).float() * 0.7 + 0.075
    mixed.update(torch.arange(len(LABELS)), torch.randn(len(LABELS), 4), soft)
    assert mixed.finish(dataset=pairs, **FACTS).dataset_fingerprint
