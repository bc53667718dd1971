"""Images in a folder that the `datasets` library of Hugging Face saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from torch.utils.data import Dataset

from ..data import IndexedDataset
from ..support.name_some import name_some
from ..support.optional import optional_module
from .photographs import as_rgb
from .tables import ID

_TEST_SPLITS: Final = ("test", "validation")


class HuggingFaceImages(Dataset[tuple[Any, int]]):
    """Rows with an image and a class; a sample is (PIL image in RGB, label).

    Args:
        rows: of `datasets`, with a column of images.
        image, label: the columns.
        name: what messages call it.
        texts: the classes of the training data, where labels are texts; None for those that the rows have.

    Attributes:
        targets: [N] the number of the class.
        classes: the name of each class.

    Raises:
        ValueError: labels that are neither classes, nor texts, nor whole numbers from 0, or a text that is no
            class of the training data.
    """

    def __init__(
        self, rows: Any, image: str, label: str, name: str, texts: list[str] | tuple[str, ...] | None = None
    ) -> None:
        self._rows, self._image, self._name = rows, image, name
        cells = list(rows[label])
        known = getattr(rows.features[label], "names", None)
        bad = next((i for i, cell in enumerate(cells) if type(cell) is not type(cells[0]) or cell in (None, -1)), None)
        if bad is not None or not isinstance(cells[0], str | int):
            got = cells[bad or 0]
            raise ValueError(f"data: {name}: row {bad or 0} has {got!r} in the column {label!r}, expected a class")
        are_texts = isinstance(cells[0], str)
        self.classes = known or ((texts or sorted(set(cells))) if are_texts else None)
        place_of = {text: i for i, text in enumerate(self.classes or ())}
        unknown = next((i for i, cell in enumerate(cells) if are_texts and cell not in place_of), None)
        if unknown is not None:
            raise ValueError(
                f"test: {name}: row {unknown} has label {cells[unknown]!r}, of which there is no training example"
            )
        self.targets = [place_of[cell] for cell in cells] if are_texts else cells

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self._rows[index][self._image]
        if image is None:
            raise ValueError(f"data: row {index} of {self._name} has no image; leave the row out")
        return as_rgb(image, f"of row {index} of {self._name}"), self.targets[index]


def open_saved(spec: str) -> tuple[Any, Any]:
    """The training data and the test data, or None, in a folder that `save_to_disk` wrote: FOLDER or FOLDER#COLUMN.

    Of several parts, "train" is trained on, and "test", or else "validation", is for the test.

    Args:
        spec: the folder, with the column of the labels if there are several that may be it.

    Raises:
        ImportError: `datasets` is not installed.
        FileNotFoundError: no such folder.
        ValueError: not a folder of `datasets`, or no column of images or of labels.
    """
    folder, _, label = (spec, "", "") if Path(spec).is_dir() else spec.partition("#")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one that save_to_disk of `datasets` wrote")
    datasets = _library()
    try:
        found = datasets.load_from_disk(folder)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"data: {folder} is no folder that save_to_disk of `datasets` wrote ({error})") from error
    except IndexError as error:  # what `datasets` makes of one that it wrote without rows
        raise ValueError(f"data: {folder} has a part without rows, expected images") from error
    if isinstance(found, datasets.DatasetDict):
        if "train" not in found:
            raise ValueError(f"data: {folder} has the parts {name_some(sorted(found))}, expected 'train' among them")
        test = next((found[name] for name in _TEST_SPLITS if name in found), None)
        train = _indexed(found["train"], label, folder)
        return train, None if test is None else _indexed(test, label, folder, _texts(train))
    return _indexed(found, label, folder), None


def _texts(data: Any) -> Any:
    return (data.dataset if isinstance(data, IndexedDataset) else data).classes


def _library() -> Any:
    return optional_module("datasets", "pip install datasets", "--data datasets:DIR")


def _indexed(rows: Any, label: str, folder: str, texts: tuple[str, ...] | None = None) -> Any:
    datasets = _library()
    rows = rows.with_format(None)  # which may hide columns, or make tensors of images
    images = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if len(images) != 1:
        raise ValueError(
            f"data: {folder} has {len(images)} columns of images among {name_some(list(rows.features))}, expected one; "
            "rows of a table can be read with table:FILE, after rows.to_parquet(FILE)"
        )
    labels = [name for name, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)]
    usual = labels if len(labels) == 1 else [name for name in ("label", "labels") if name in rows.features]
    if not label and len(usual) != 1:
        raise ValueError(
            f"label: {folder} has the columns {name_some(list(rows.features))}, expected to be told which holds the "
            "labels: --label COLUMN"
        )
    column = label or usual[0]
    if column not in rows.features:
        raise ValueError(f"label: {folder} has no column {column!r}, expected one of {name_some(list(rows.features))}")
    if not rows.features[images[0]].decode:
        rows = rows.cast_column(images[0], datasets.Image())
    data = HuggingFaceImages(rows, images[0], column, folder, texts)
    ids = np.array(rows[ID][:], dtype=object) if ID in rows.features else None
    return data if ids is None else IndexedDataset(data, ids=ids)
