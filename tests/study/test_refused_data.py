"""Data that a study cannot use, refused when it is read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

import difficulty_prune as dp
from difficulty_prune.study.study_data import StudyData, load_data
from difficulty_prune.study.tasks import DataSource

Load = Callable[..., StudyData]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads what functions return: `load(train, test)`, without `test` a fifth is set aside."""
    (tmp_path / "made.py").write_text(
        "found = []\ndef train():\n    return found[0]\ndef test():\n    return found[1]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made", raising=False)

    def read(train: object, test: object = None) -> StudyData:
        import made

        made.found[:] = [train, test]
        return load_data.__wrapped__("made:train", None if test is None else "made:test")

    yield read
    sys.modules.pop("made", None)


def images(labels: list[float], *shape: int) -> TensorDataset:
    return TensorDataset(torch.rand(len(labels), *(shape or (1, 8, 8))), torch.tensor(labels))


GOOD = [0, 1] * 10


def test_good_data_is_read(load: Load) -> None:
    load(images(GOOD))
    load(images(GOOD), images([1]))
    load((images(GOOD), images([1])))
    load([(np.zeros((8, 8)), label) for label in GOOD])
    load([(np.zeros((8, 8, 3)), torch.tensor(label), "more") for label in GOOD])


def test_test_images_of_another_shape_are_refused(load: Load) -> None:
    with pytest.raises(ValueError, match=r"test: got images of shape \[3, 8, 8\], expected \[1, 8, 8\]"):
        load(images(GOOD), images(GOOD, 3, 8, 8))


def test_test_images_of_a_class_that_is_not_trained_are_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="test: got class 2, 7, of which there is no training example"):
        load(images(GOOD), images([0, 7, 2, 2]))


def test_image_folders_whose_classes_have_other_names_are_refused(tmp_path: Path) -> None:
    """Their classes have the same numbers, so nothing else would notice."""
    for part, names in (("train", ("cat", "dog")), ("same", ("cat", "dog")), ("other", ("bird", "dog"))):
        for name in names:
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(5):
                Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / part / name / f"{i}.png")
    train = f"imagefolder:{tmp_path / 'train'}"
    assert load_data(train, f"imagefolder:{tmp_path / 'same'}").num_classes == 2
    with pytest.raises(ValueError, match=r"test: got 2 classes, expected the 2 of .*; 'bird', 'cat' not in both"):
        load_data(train, f"imagefolder:{tmp_path / 'other'}")


def test_a_folder_that_is_there_twice_by_a_link_is_refused(tmp_path: Path) -> None:
    """Its images would be twice in the data, of two classes, or in the training and in the test."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    (tmp_path / "dog").rename(elsewhere)
    (tmp_path / "dog").symlink_to(elsewhere)  # once is well
    assert load_data.__wrapped__(f"imagefolder:{tmp_path}").num_classes == 2
    for link, to in (("owl", "cat"), ("cat/loop", "cat")):
        (tmp_path / link).symlink_to(tmp_path / to)
        with pytest.raises(ValueError, match=rf"data: .*{link}.* is .*cat once more.*remove the link"):
            load_data.__wrapped__(f"imagefolder:{tmp_path}")
        (tmp_path / link).unlink()


def test_the_training_data_are_no_test_data(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    with pytest.raises(
        ValueError, match=r"test: imagefolder:.*/ has the 10 training examples themselves.*leave --test"
    ):
        DataSource.of(f"imagefolder:{tmp_path}", f"imagefolder:{tmp_path}/")
    with pytest.raises(ValueError, match="test: sklearn:iris has the 150 training examples"):
        DataSource.of("sklearn:iris", "sklearn:iris")


def test_the_test_part_of_data_that_have_one_is_taken_for_the_test(load: Load) -> None:
    part = load(images(GOOD), (images(GOOD, 1, 9, 9), images(GOOD)))
    assert (len(part.train), len(part.test)) == (20, 20)


class Names(TensorDataset):
    """Images of classes that have names, as those of torchvision."""

    def __init__(self, *classes: str) -> None:
        super().__init__(torch.rand(20, 1, 8, 8), torch.arange(20) % 2)
        self.classes = list(classes)


class Wrapper(Dataset[Any]):
    """Of a kind that nothing is known of."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


def test_names_of_classes_are_found_in_parts_and_wrappers(load: Load) -> None:
    train = Names("cat", "dog")
    load(train, Subset(Names("cat", "dog"), [0, 1]))
    other = Names("bird", "cat")
    for test in (
        Subset(other, [0, 1]),
        Subset(Subset(other, [0, 1, 2]), [1]),
        ConcatDataset([other, Subset(other, [3])]),
        dp.IndexedDataset(other),
        Wrapper(other),
    ):
        for pair in ((train, test), (ConcatDataset([train, train]), test)):
            with pytest.raises(ValueError, match=r"test: got 2 classes, .*; 'bird', 'dog' not in both"):
                load(*pair)
    load(train, ConcatDataset([train, other]))  # whose names are not those of all


@pytest.mark.parametrize("label", [-1, 0.5, float("nan"), "cat", [0, 1], None])
def test_labels_that_are_no_classes_are_refused(label: object, load: Load) -> None:
    with pytest.raises(ValueError, match=r"example 1 has label .*, expected the number of a class: 0, 1, "):
        load([(np.zeros((8, 8)), value) for value in (0, label, 1)])


def test_a_single_class_is_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="data: got examples of class 3 only, expected two classes or more"):
        load(images([3] * 10))


def test_a_class_too_small_to_set_a_fifth_aside_is_refused(load: Load) -> None:
    with pytest.raises(ValueError, match=r"a fifth of each class cannot be set aside for testing: .* name test data"):
        load(images([0, 0, 0, 0, 0, 1]))


@pytest.mark.parametrize(
    ("shape", "got"), [((64,), r"\(64,\)"), ((8, 8), r"\(8, 8\)"), ((1, 1, 8, 8), r"\(1, 1, 8, 8\)")]
)
def test_tensors_that_are_no_images_are_refused(shape: tuple[int, ...], got: str, load: Load) -> None:
    with pytest.raises(ValueError, match=rf"data: image 0 has shape {got}, expected a tensor \[C, H, W\]"):
        load(images(GOOD, *shape))


@pytest.mark.parametrize("pixel", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_refused(pixel: float, load: Load) -> None:
    data = images(GOOD)
    data.tensors[0][7, 0, 3, 3] = pixel
    with pytest.raises(ValueError, match="data: image 7 has pixels that are infinite or NaN"):
        load(data)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "made:train returned a NoneType, expected a map-style dataset"),
        (iter([]), "returned a list_iterator"),
        ((images(GOOD), images(GOOD), images(GOOD)), r"a tuple of \(TensorDataset, TensorDataset, TensorDataset\)"),
        ([{"image": 0, "label": 1}], r"example 0 is a dict, expected \(image, label\)"),
        ([(1,)], r"example 0 is a tuple, expected \(image, label\)"),
    ],
)
def test_what_is_no_data_set_of_images_and_labels_is_refused(returned: object, message: str, load: Load) -> None:
    with pytest.raises(TypeError, match=message):
        load(returned)
