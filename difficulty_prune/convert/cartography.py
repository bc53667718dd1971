"""Training dynamics of allenai/cartography: a file of JSON lines for each epoch."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..runs.run import Run
from ..support.files import atomic_file
from ..support.table_rows import Row, read_rows
from ..tracker.tracker import DifficultyTracker

SCORES: Final = (
    *("loss", "el2n", "entropy", "confidence", "variability", "accuracy", "aum", "margin", "forgetting"),
    "learning_time",
)
_NAME: Final = re.compile(r"dynamics_epoch_(\d+)\.jsonl")
_BATCH: Final = 4096


def from_cartography(
    folder: str | os.PathLike[str],
    *,
    scores: Sequence[str] = SCORES,
    architecture: str = "cartography",
    seed: int = 0,
    **metadata: Any,
) -> Run:
    """The scores of the training that `dynamics_epoch_0.jsonl` and so on recorded, in a folder of such files.

    Each line is `{"guid": ..., "logits_epoch_0": [...], "gold": ...}`. The guids become the run's ids, in order of
    appearance. An example that an epoch lacks was not presented in it; a guid that a file has twice was presented
    twice. The files are read twice, line by line.

    Args:
        folder: of the files.
        scores: of logits, by their names in the catalogue.
        architecture, seed, metadata: of the run.

    Raises:
        FileNotFoundError: no such files there.
        ValueError: a malformed line, with its number; another label for the same guid, or another number of classes.
    """
    files = sorted((int(found[1]), path) for path in Path(folder).iterdir() if (found := _NAME.fullmatch(path.name)))
    if not files:
        raise FileNotFoundError(f"{folder}: no files dynamics_epoch_0.jsonl and so on there")
    gold: dict[str | int, int] = {}
    for epoch, path in files:
        for place, guid, _, label in _lines(path, epoch):
            if gold and type(guid) is not type(first := next(iter(gold))):
                raise ValueError(f"{path}: {place}: got the guid {guid!r} beside {first!r}, expected one kind")
            if gold.setdefault(guid, label) != label:
                raise ValueError(f"{path}: {place}: gold of {guid!r} is {label}, and {gold[guid]} before")
    if not gold:
        raise ValueError(f"{files[0][1]}: there are no lines, expected one for each example")
    position = {guid: number for number, guid in enumerate(gold)}
    labels = np.fromiter(gold.values(), np.int64, len(gold))
    tracker, width = DifficultyTracker(len(gold), scores=scores), 0
    for epoch, path in files:
        lines = _lines(path, epoch)
        while batch := list(itertools.islice(lines, _BATCH)):
            width = width or len(batch[0][2])
            for place, guid, logits, _ in batch:
                if len(logits) != width or labels[position[guid]] >= width:
                    raise ValueError(
                        f"{path}: {place}: got {len(logits)} logits and gold {labels[position[guid]]}, expected "
                        f"{width} logits and gold 0..{width - 1}"
                    )
            index = np.array([position[guid] for _, guid, _, _ in batch])
            values = np.array([logits for _, _, logits, _ in batch], np.float32)
            tracker.update(torch.from_numpy(index), torch.from_numpy(values), torch.from_numpy(labels[index]))
    computed = {name: values.numpy() for name, values in tracker.compute().items()}
    facts: dict[str, Any] = {"labels": labels, "ids": list(gold), "epochs": len(files)}
    return Run(computed, architecture=architecture, seed=seed, **facts, **metadata)


def _lines(path: Path, epoch: int) -> Iterator[tuple[str, str | int, list[float], int]]:
    """Place, guid, logits and gold of each line."""
    name = f"logits_epoch_{epoch}"
    for row in read_rows(path):
        guid, logits, gold = row.cells.get("guid"), row.cells.get(name), row.cells.get("gold")
        if not (isinstance(guid, str) or _is_whole(guid, -(2**63), 2**63)) or guid == "":
            raise ValueError(_malformed(path, row, "guid", "text, or a whole number that int64 holds"))
        if not _is_whole(gold, 0, 2**31):
            raise ValueError(_malformed(path, row, "gold", "the number of a class, 0 or more and below 2^31"))
        if not isinstance(logits, list) or len(logits) < 2 or not all(map(_is_finite, logits)):
            raise ValueError(_malformed(path, row, name, "a list of finite numbers, one for each class"))
        yield row.place, guid, logits, gold  # type: ignore[misc]


def _is_whole(value: Any, least: int, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < limit


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 3e38  # as float32 holds


def _malformed(path: Path, row: Row, name: str, expected: str) -> str:
    there = ", ".join(row.cells)
    got = repr(row.cells[name])[:80] if name in row.cells else f"none (there are {there})"
    return f"{path}: {row.place}: {name}: got {got}, expected {expected}"


def to_cartography(
    logits: Iterable[Any], labels: Any, folder: str | os.PathLike[str], *, ids: Any = None
) -> list[Path]:
    """Writes logits as allenai/cartography reads them, a file for each epoch, and gives their paths.

    Runs hold no logits: give those of each epoch, as a training loop collects them.

    Args:
        logits: [T, N, C], or one [N, C] after another; an example with NaN was not presented in that epoch.
        labels: [N] whole numbers.
        folder: where they go.
        ids: [N] texts or whole numbers; default: the positions.

    Raises:
        ValueError: other shapes, or an infinite logit.
        OSError: they cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = to_cartography([[[0.0, 1.0], [2.0, 0.0]]], [1, 0], folder)
    ...     from_cartography(folder, scores=("aum",)).scores["aum"]
    array([1., 2.], dtype=float32)
    """
    gold = np.asarray(labels)
    if gold.ndim != 1 or gold.dtype.kind not in "iu":
        raise ValueError(f"labels: got {gold.dtype} {gold.shape}, expected whole numbers [N]")
    names = list(range(len(gold))) if ids is None else np.asarray(ids, dtype=object).tolist()
    if len(names) != len(gold):
        raise ValueError(f"ids: got {len(names)}, expected {len(gold)}, one for each label")
    paths = []
    for epoch, given in enumerate(logits):
        values = np.asarray(given, np.float64)
        if values.ndim != 2 or len(values) != len(gold) or np.isinf(values).any():
            got = "an infinite number" if values.shape[:1] == gold.shape else f"shape {values.shape}"
            raise ValueError(f"logits of epoch {epoch}: got {got}, expected finite numbers [{len(gold)}, C], or NaN")
        path = Path(folder, f"dynamics_epoch_{epoch}.jsonl")
        with atomic_file(path) as file:
            for line in _as_lines(epoch, values, names, gold):
                file.write(line.encode())
        paths.append(path)
    return paths


def _as_lines(epoch: int, logits: NDArray[Any], names: list[Any], gold: NDArray[Any]) -> Iterator[str]:
    for name, row, label in zip(names, logits, gold.tolist(), strict=True):
        if not np.isnan(row).any():
            yield json.dumps({"guid": name, f"logits_epoch_{epoch}": row.tolist(), "gold": label}) + "\n"
