"""Folders that the `datasets` library saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difficulty_prune.study.photographs import Photographs
from difficulty_prune.study.settings import Settings
from difficulty_prune.study.study_data import load_data, open_data

datasets = pytest.importorskip("datasets")

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 120, 110, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def quietly() -> None:
    datasets.disable_progress_bars()


def rows(labels: Any, kind: Any, size: int = 20, **more: Any) -> Any:
    columns = {"photo": list(PIXELS[:size]), "animal": labels, **more}
    features = {"photo": datasets.Image(), "animal": kind, **{name: datasets.Value("string") for name in more}}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


CLASSES = [0, 1] * 10


def test_images_labels_names_and_ids_are_those_of_the_folder(tmp_path: Path) -> None:
    kind = datasets.ClassLabel(names=["cat", "dog"])
    rows(CLASSES, kind, id=[f"r{i}" for i in range(20)]).save_to_disk(tmp_path / "a")
    data = load_data(f"datasets:{tmp_path / 'a'}", f"datasets:{tmp_path / 'a'}").train
    assert data.labels.tolist() == CLASSES
    assert data.class_names == ("cat", "dog")
    assert data.ids.tolist() == [f"r{i}" for i in range(20)]
    assert np.array_equal(data.images.numpy().transpose(0, 2, 3, 1), PIXELS)
    opened = open_data(f"datasets:{tmp_path / 'a'}")
    assert (opened.labels.tolist(), opened.class_names) == (CLASSES, ("cat", "dog"))


def test_photographs_of_a_folder_are_read_by_workers(tmp_path: Path) -> None:
    parts = {"train": rows(CLASSES, datasets.Value("int64")), "validation": rows([1, 0], datasets.Value("int64"), 2)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "a")
    settings = Settings(data=f"datasets:{tmp_path / 'a'}", label="animal", size=100)
    data = load_data(*settings.data_specs, settings.size)
    assert isinstance(data.train, Photographs)
    assert (len(data.train), len(data.test), data.shape) == (20, 2, (3, 100, 100))
    data.train.read_all()
    assert data.test.labels.tolist() == [1, 0]


def test_labels_that_are_texts_become_classes(tmp_path: Path) -> None:
    rows(["dog", "cat"] * 10, datasets.Value("string")).save_to_disk(tmp_path / "a")
    data = load_data(f"datasets:{tmp_path / 'a'}#animal")
    assert data.names_of_classes == ("cat", "dog")
    assert sorted(data.train.labels.tolist()) == [0] * 8 + [1] * 8


@pytest.mark.parametrize("format_type", ["torch", "numpy"])
@pytest.mark.parametrize("decode", [True, False])
def test_the_format_that_was_saved_changes_nothing(format_type: str, decode: bool, tmp_path: Path) -> None:
    made = rows(CLASSES, datasets.Value("int64")).cast_column("photo", datasets.Image(decode=decode))
    made.with_format(format_type, columns=["animal"]).save_to_disk(tmp_path / "a")
    data = load_data(f"datasets:{tmp_path / 'a'}#animal", f"datasets:{tmp_path / 'a'}#animal").train
    assert data.labels.tolist() == CLASSES
    assert np.array_equal(data.images.numpy().transpose(0, 2, 3, 1), PIXELS)


@pytest.mark.parametrize("ids", [{}, {"id": [f"r{i}" for i in range(20)]}])
def test_classes_that_are_texts_are_those_of_the_training_part(ids: dict[str, Any], tmp_path: Path) -> None:
    """The test part has no cat, and a dog is still the third class."""
    text = datasets.Value("string")
    train = rows(["dog", "cat", "cow", "cow"] * 5, text, **ids)
    for name, animals in (("a", ["dog", "cow"]), ("b", ["dog", "yak"])):
        test = rows(animals, text, 2, **{name: cells[:2] for name, cells in ids.items()})
        datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / name)
    data = load_data(f"datasets:{tmp_path / 'a'}#animal")
    assert data.train.labels.tolist() == [2, 0, 1, 1] * 5
    assert data.test.labels.tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"row 1 has label 'yak', of which there is no training example"):
        load_data(f"datasets:{tmp_path / 'b'}#animal")


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    rows(CLASSES, datasets.Value("int64")).save_to_disk(tmp_path / "a")
    rows([0.5] * 20, datasets.Value("float64")).save_to_disk(tmp_path / "b")
    datasets.Dataset.from_dict({"x": [1], "label": [0]}).save_to_disk(tmp_path / "c")
    datasets.DatasetDict({"other": rows(CLASSES, datasets.Value("int64"))}).save_to_disk(tmp_path / "d")
    (tmp_path / "e").mkdir()
    rows([], datasets.Value("int64"), 0).save_to_disk(tmp_path / "g")
    rows([0, 2**40] * 10, datasets.Value("int64")).save_to_disk(tmp_path / "h")
    for spec, error, message in (
        ("a", ValueError, r"label: .*'photo', 'animal'.* --label COLUMN"),
        ("a#no", ValueError, "has no column 'no'"),
        ("b#animal", ValueError, r"row 0 has 0\.5 in the column 'animal', expected a class"),
        ("c", ValueError, r"0 columns of images among 'x', 'label', expected one; .*table:FILE"),
        ("d", ValueError, "has the parts 'other', expected 'train'"),
        ("e", ValueError, "is no folder that save_to_disk"),
        ("f", FileNotFoundError, "no such folder"),
        ("g#animal", ValueError, "has a part without rows"),
        ("h#animal", ValueError, f"got label {2**40}, expected classes numbered from 0"),
    ):
        with pytest.raises(error, match=message):
            load_data(f"datasets:{tmp_path / spec}")


def test_a_row_without_an_image_is_refused_by_its_number(tmp_path: Path) -> None:
    made = rows(CLASSES, datasets.ClassLabel(names=["cat", "dog"]))
    columns = {"photo": [*PIXELS[:19], None], "animal": CLASSES}
    datasets.Dataset.from_dict(columns, features=made.features).save_to_disk(tmp_path / "a")
    with pytest.raises(ValueError, match=r"data: row 19 of .* has no image"):
        load_data(f"datasets:{tmp_path / 'a'}")
