"""Tables of examples: a row each, numbers and texts, with the label in one of the columns."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..support.name_some import name_some
from ..support.table_rows import read_rows
from .images import Images

ID: Final = "id"
"""The column that names examples; it is no feature."""

_MOST_TEXTS: Final = 100  # different ones in a column
_MISSING: Final = ("", "?", "inf", "infinity", "n/a", "na", "nan", "none", "null", "unknown")  # in place of a number
_LARGEST: Final = 1e150  # whose square is finite
_FARTHEST: Final = 1e30  # deviations, which float32 holds
_SCIKIT_LEARN: Final = ("breast_cancer", "diabetes", "digits", "iris", "wine")
SCIKIT_LEARN_REGRESSION: Final = ("diabetes",)


@dataclass(frozen=True)
class Table:
    """A table as it was read; a map-style dataset of (features as they are, label).

    Attributes:
        name: what messages call it.
        columns: name -> [N] cells, of the features.
        places: [N] where each row stands.
        targets: [N] the number of the class, int64; or the number to predict, float64.
        classes: the name of each class; none where a number is to be predicted.
        ids: [N] what names each row, or None.
    """

    name: str
    columns: Mapping[str, Sequence[Any]]
    places: Sequence[str]
    targets: NDArray[Any]
    classes: tuple[str, ...]
    ids: NDArray[Any] | None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[list[Any], float]:
        return [cells[index] for cells in self.columns.values()], self.targets[index].item()

    def select(self, positions: NDArray[Any]) -> Table:
        """The rows at these positions."""
        columns = {name: [cells[i] for i in positions] for name, cells in self.columns.items()}
        places = [self.places[i] for i in positions]
        ids = None if self.ids is None else self.ids[positions]
        return Table(self.name, columns, places, self.targets[positions], self.classes, ids)


def read_table(spec: str, classes: tuple[str, ...] | None = None, regression: bool = False) -> Table:
    """The table that FILE#COLUMN names, whose labels are in that column.

    Args:
        classes: those of the training data, which the labels have to be among; None for those that the table has.
        regression: the labels are numbers to predict.

    Raises:
        FileNotFoundError, ImportError, OSError: as for `read_rows`.
        ValueError: no such column, a cell without a value, no features, labels that are fractions, or, for regression,
            no numbers.
    """
    path, _, label = spec.rpartition("#")
    if not path or Path(spec).is_file():
        raise ValueError(f"label: got none for the table {spec}, expected the column of the labels: --label COLUMN")
    rows = list(read_rows(path))
    if not rows:
        raise ValueError(f"{path}: the table has no rows")
    names = list(dict.fromkeys(name for row in rows for name in row.cells))  # a row of JSON may lack some
    if label not in names:
        raise ValueError(f"label: {path} has no column {label!r}, expected one of {name_some(names)}")
    for row in rows:
        for name in names:
            if row.cells.get(name) in (None, "") or row.cells[name] != row.cells[name]:
                raise ValueError(
                    f"{path}: {row.place} has no value in the column {name!r}; fill it in, or leave the row out"
                )
            if isinstance(row.cells[name], list | tuple | dict | bytes):
                raise ValueError(
                    f"{path}: {row.place} has {reprlib.repr(row.cells[name])} in the column {name!r}, expected a "
                    "number or a text; make a column of each number, or leave it out"
                )
    columns = {name: [row.cells[name] for row in rows] for name in names if name not in (label, ID)}
    if not columns:
        raise ValueError(f"{path}: there is no column but {', '.join(names)}, expected features to learn from")
    places = [row.place for row in rows]
    labels = [row.cells[label] for row in rows]
    for name, cells in {**columns, label: labels}.items():
        _check_numbers(cells, name, path, places)
    targets: NDArray[Any]
    known: tuple[str, ...] = ()
    if regression:
        targets = _to_predict(labels, label, path, places)
    else:
        targets, known = _numbered(labels, label, path, places, classes)
    ids = np.array([row.cells[ID] for row in rows], dtype=object) if ID in names else None
    return Table(path, columns, places, targets, known, ids)


def scikit_learn_table(name: str) -> Table:
    """One of the data sets that come with scikit-learn: breast_cancer, diabetes, digits, iris or wine.

    Raises:
        ValueError: another name.

    >>> len(scikit_learn_table("iris")), scikit_learn_table("iris").classes
    (150, ('setosa', 'versicolor', 'virginica'))
    """
    from sklearn import datasets

    if name not in _SCIKIT_LEARN:
        raise ValueError(f"data: got sklearn:{name}, expected one of sklearn:{', sklearn:'.join(_SCIKIT_LEARN)}")
    load: Callable[[], Any] = getattr(datasets, f"load_{name}")
    found = load()
    columns = {str(column): found.data[:, i] for i, column in enumerate(found.feature_names)}
    size, numbers = len(found.target), name in SCIKIT_LEARN_REGRESSION
    classes: tuple[str, ...] = () if numbers else tuple(map(str, found.target_names))
    targets = found.target.astype(np.float64 if numbers else np.int64)
    places = [f"row {i}" for i in range(size)]
    return Table(f"sklearn:{name}", columns, places, targets, classes, np.arange(size))


def _check_numbers(cells: list[Any], column: str, path: str, places: list[str]) -> None:
    """ValueError where numbers are known but for some cells, such as "NA", which would make texts of all of them."""
    others = [i for i, cell in enumerate(cells) if _number(cell) is None]
    if len(others) in (0, len(cells)) or not all(
        str(cells[i]).strip().lstrip("+-").lower() in _MISSING for i in others
    ):
        return
    raise ValueError(
        f"{path}: {places[others[0]]} has {cells[others[0]]!r} in the column {column!r}, whose other cells are "
        "numbers; fill it in, or leave the row out"
    )


def _numbered(
    labels: list[Any], column: str, path: str, places: list[str], classes: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The number of the class of each label, and the name of each class: numbers in their order, texts in theirs."""
    numbers = [_number(label) for label in labels]
    as_numbers = classes is None or all(_number(name) is not None for name in classes)  # as those of the training data
    if as_numbers and all(number is not None for number in numbers):
        fraction = next((i for i, number in enumerate(numbers) if number != round(number or 0)), None)
        if fraction is not None:
            raise ValueError(
                f"label: {path}: {places[fraction]} has {labels[fraction]} in the column {column!r}, expected classes: "
                "texts or whole numbers; to predict the number itself, say --regression"
            )
        names = [str(_whole(label)) for label in labels]
        known = classes or tuple(map(str, sorted({int(name) for name in names})))
    else:
        names = [str(label) for label in labels]
        known = classes or tuple(sorted(set(names)))
    place_of = {name: i for i, name in enumerate(known)}
    unknown = next((i for i, name in enumerate(names) if name not in place_of), None)
    if unknown is not None:
        raise ValueError(
            f"test: {path}: {places[unknown]} has label {labels[unknown]!r}, of which there is no training example"
        )
    return np.array([place_of[name] for name in names], np.int64), known


def _to_predict(labels: list[Any], column: str, path: str, places: list[str]) -> NDArray[np.float64]:
    numbers = [_number(label) for label in labels]
    bad = next((i for i, number in enumerate(numbers) if number is None), None)
    if bad is not None:
        raise ValueError(
            f"label: {path}: {places[bad]} has {labels[bad]!r} in the column {column!r}, expected a number to predict; "
            "for classes, leave --regression out"
        )
    return np.array(numbers, np.float64)


def _number(cell: Any) -> float | None:
    if isinstance(cell, str) and "_" in cell:  # a name, though Python reads "1_2" as 12
        return None
    try:
        number = float(cell)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(cell: Any) -> int:
    """The whole number that a cell holds, also beyond 2^53."""
    try:
        return int(cell)
    except ValueError:  # "1.0"
        return round(float(cell))


def encoded(train: Table, test: Table) -> tuple[Images, Images]:
    """Rows as "images" of 1 x F pixels: numbers with mean 0 and deviation 1 in training, and 0 or 1 for each text.

    A label that is a number to predict is scaled in the same way.

    A text that no row of the training data has is 0 everywhere.

    Raises:
        ValueError: a column with more than 100 different texts, or test data that lack a column, or have texts where
            there are numbers in the training data.
    """
    missing = sorted(set(train.columns) - set(test.columns))
    if missing:
        raise ValueError(f"test: {test.name} has no column {name_some(missing)}, which the training data have")
    parts: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])
    for name, cells in train.columns.items():
        numbers = _numbers(cells)
        if numbers is not None:
            mean, deviation = _scale(numbers, name, train)
            for part, table in zip(parts, (train, test), strict=True):
                part.append(_scaled(_column(table, name), mean, deviation, name, table)[:, None])
            continue
        texts = sorted({str(cell) for cell in cells})
        if len(texts) > _MOST_TEXTS:
            raise ValueError(
                f"{train.name}: the column {name!r} has {len(texts):,} different texts, expected numbers, or at most "
                f"{_MOST_TEXTS} texts; leave it out, or name it {ID!r} if it names the rows"
            )
        for part, table in zip(parts, (train, test), strict=True):
            own = np.array([str(cell) for cell in table.columns[name]], dtype=object)
            part.append((own[:, None] == np.array(texts, dtype=object)[None]).astype(np.float64))
    mean, deviation = _scale_of_targets(train)
    first, second = (
        _images(table, np.concatenate(part, 1), mean, deviation)
        for table, part in zip((train, test), parts, strict=True)
    )
    return first, second


def _scale_of_targets(train: Table) -> tuple[float, float]:
    if train.classes:
        return 0.0, 1.0
    if not np.ptp(train.targets) > 0:
        raise ValueError(
            f"label: {train.name}: all numbers to predict are {train.targets[0]:g}, expected different ones"
        )
    return _scale(train.targets, "of the labels", train)


def _scale(numbers: NDArray[np.float64], column: str, table: Table) -> tuple[float, float]:
    """Mean and deviation; 1 for that of a column whose numbers are all the same, but for what their mean rounds."""
    largest = int(np.abs(numbers).argmax())
    if abs(numbers[largest]) > _LARGEST:
        raise ValueError(
            f"{table.name}: {table.places[largest]} has {numbers[largest]:g} in the column {column!r}, too large a "
            "number; does it stand for a missing one? Fill it in, or leave the row out"
        )
    return float(numbers.mean()), float(numbers.std()) if np.ptp(numbers) > 0 else 1.0


def _scaled(
    numbers: NDArray[np.float64], mean: float, deviation: float, column: str, table: Table
) -> NDArray[np.float64]:
    found = (numbers - mean) / deviation
    far = np.flatnonzero(~(np.abs(found) < _FARTHEST))
    if len(far):
        raise ValueError(
            f"{table.name}: {table.places[far[0]]} has {numbers[far[0]]:g} in the column {column!r}, too far from the "
            f"numbers of the training data, whose mean is {mean:g}"
        )
    return found


def _images(table: Table, features: NDArray[Any], mean: float, deviation: float) -> Images:
    rows = torch.from_numpy(features.astype(np.float32))[:, None, None]
    if table.classes:
        return Images(rows, torch.from_numpy(table.targets), table.classes, table.ids)
    scaled = _scaled(table.targets, mean, deviation, "of the labels", table)
    return Images(rows, torch.from_numpy(scaled).float(), None, table.ids)


def _numbers(cells: Sequence[Any]) -> NDArray[np.float64] | None:
    """[N], or None if a cell is no finite number."""
    found = [_number(cell) for cell in cells]
    return None if None in found else np.array(found, np.float64)


def _column(table: Table, name: str) -> NDArray[np.float64]:
    numbers = _numbers(table.columns[name])
    if numbers is None:
        cells = table.columns[name]
        bad = next(i for i, cell in enumerate(cells) if _number(cell) is None)
        raise ValueError(
            f"test: {table.name}: {table.places[bad]} has {cells[bad]!r} in the column {name!r}, expected a number as "
            "in the training data"
        )
    return numbers
