"""Scores for FiftyOne by file path, and its tags as decisions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..decisions.decisions import Decisions
from ..decisions.entry import DECISIONS
from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.files import atomic_file
from ..support.json_text import read_json
from ..support.table_rows import Row, check_suffix, read_rows, write_rows
from .score_table import ScoreTable

_NOT_FIELDS = ("id", "path", "index")  # FiftyOne has an id of its own


def to_fiftyone(
    runs: RunSet | Run | ScoreTable,
    path: str | os.PathLike[str],
    *,
    paths: Any = None,
    root: str | os.PathLike[str] = "",
    scores: Iterable[str] | None = None,
) -> None:
    """Writes scores by file path: `.csv` for `fo.types.CSVDataset`, `.json` for `FiftyOneImageClassificationDataset`.

    The CSV has a column `filepath` and one for each field. In the JSON the scores are attributes of the label; with
    names of classes the labels are names, else texts of their numbers.

    Args:
        runs: one or several, or a table.
        path: of the file, `.csv` or `.json`.
        paths: [N] of the files; default: those of the table, else the ids, if they are texts.
        root: what goes before each path.
        scores: see `ScoreTable.of`.

    Raises:
        ValueError: no paths, another suffix, or a `.json` of runs that do not know the labels.
        OSError: it cannot be written; the message names the file and says what to do.
    """
    suffix = check_suffix(path, (".csv", ".json"))
    table = runs if isinstance(runs, ScoreTable) else ScoreTable.of(runs, scores=scores, paths=paths)
    rows = _rows(table, root)
    if suffix == ".csv":
        fields = [name for name in table.columns if name not in _NOT_FIELDS]
        write_rows(path, ("filepath", "index_in_run", *fields), rows)
        return
    if "label" not in table:
        raise ValueError(f"{path}: no run knows the labels, which labels.json is made of; write .csv")
    with atomic_file(path) as file:
        names = json.dumps(None if table.class_names is None else list(table.class_names), ensure_ascii=False)
        file.write(f'{{"classes": {names}, "labels": {{'.encode())
        for number, row in enumerate(rows):
            place, label = row.pop("filepath"), row.pop("label")
            attributes = {name: value for name, value in row.items() if value is not None}
            entry = json.dumps({"label": label, "attributes": attributes}, ensure_ascii=False)
            file.write(f"{',' if number else ''}\n{json.dumps(place, ensure_ascii=False)}: {entry}".encode())
        file.write(b"\n}}\n")


def _rows(table: ScoreTable, root: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Fields by name, None where there is no value."""
    key = "path" if "path" in table else "id"
    if key not in table or not isinstance(table.read(key, slice(0, 1)).tolist()[0], str):
        raise ValueError("paths: got none, and no ids that could be paths; give paths=, [N] of the files")
    for block in table.blocks():
        lists = {name: values.tolist() for name, values in block.items()}
        for i, place in enumerate(lists[key]):
            row = {"filepath": os.fspath(Path(root, place)), "index_in_run": lists["index"][i]}
            for name, values in lists.items():
                if name not in _NOT_FIELDS:
                    row[name] = _value(name, values[i], table.class_names)
            yield row


def _value(name: str, value: Any, class_names: tuple[str, ...] | None) -> Any:
    if name in ("label", "suggested"):
        if value < 0:
            return None
        return str(value) if class_names is None or value >= len(class_names) else class_names[value]
    return None if isinstance(value, float) and value != value else value


def from_fiftyone(
    samples: str | os.PathLike[str] | Iterable[Any],
    *,
    root: str | os.PathLike[str] | None = None,
    tags: Mapping[str, str] | None = None,
    label_field: str | None = None,
) -> Decisions:
    """Tags of samples, as decisions: a sample tagged "wrong", "drop", "unsure" or "keep" has that decision.

    Samples without such a tag have no decision.

    Args:
        samples: a FiftyOne dataset or view (anything that gives samples with `filepath` and `tags`); a `.csv` that it
            exported with these two fields; or the `samples.json` of `FiftyOneDataset`.
        root: ids are paths below it; default: the whole paths.
        tags: tag -> decision, such as {"mislabeled": "wrong"}, in place of the four.
        label_field: where a sample that is wrong has its corrected label, if anywhere; a classification or text.

    Raises:
        FileNotFoundError, ValueError: no such file, or a malformed line; a path outside the root; a sample with tags of
            several decisions.

    >>> decisions = from_fiftyone([{"filepath": "/data/cat/1.png", "tags": ["drop", "night"]}], root="/data")
    >>> [(entry.id, entry.decision) for entry in decisions]
    [('cat/1.png', 'drop')]
    """
    meaning = {word: word for word in DECISIONS} if tags is None else dict(tags)
    unknown = [word for word in meaning.values() if word not in DECISIONS]
    if unknown:
        raise ValueError(f"tags: got the decision {unknown[0]!r}, expected one of {', '.join(DECISIONS)}")
    is_file = isinstance(samples, str | os.PathLike)
    source = os.fspath(samples) if isinstance(samples, str | os.PathLike) else "samples"
    rows = _of_file(source) if is_file else _of_samples(samples)  # type: ignore[arg-type]
    return Decisions(_decided(rows, source, root, meaning, label_field), source=source)


def _of_file(path: str) -> Iterator[Row]:
    if check_suffix(path, (".csv", ".json")) == ".csv":
        yield from read_rows(path)
        return
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        entries = read_json(path)
        samples = entries["samples"] if isinstance(entries, dict) else entries
        rows = [Row(f"sample {number}", dict(entry)) for number, entry in enumerate(samples, 1)]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the samples.json of a FiftyOneDataset ({error!r})") from error
    yield from rows


def _of_samples(samples: Iterable[Any]) -> Iterator[Row]:
    for number, sample in enumerate(samples, 1):
        if isinstance(sample, Mapping):
            yield Row(f"sample {number}", sample)
        else:
            yield Row(f"sample {number}", _Fields(sample))


class _Fields(dict[str, Any]):
    """The fields of a FiftyOne sample, read when asked for."""

    def __init__(self, sample: Any) -> None:
        super().__init__(filepath=sample.filepath, tags=sample.tags)
        self._sample = sample

    def __missing__(self, name: str) -> Any:
        return self._sample[name]


def _decided(
    rows: Iterable[Row], source: str, root: str | os.PathLike[str] | None, meaning: Mapping[str, str], field: str | None
) -> Iterator[Row]:
    for row in rows:
        place, given = row.cells.get("filepath"), row.cells.get("tags")
        if not isinstance(place, str) or not place or not isinstance(given, str | list | tuple | None):
            raise ValueError(
                f"{source}: {row.place}: got filepath {place!r} and tags {given!r}, expected a path and tags"
            )
        words = given.split(",") if isinstance(given, str) else list(given or ())
        found = {meaning[word.strip()] for word in words if word.strip() in meaning}
        if len(found) > 1:
            raise ValueError(
                f"{source}: {row.place}: {place!r} has tags of several decisions: {', '.join(sorted(found))}"
            )
        if found:
            cells: dict[str, Any] = {"id": _below(place, root, f"{source}: {row.place}"), "decision": found.pop()}
            if field is not None and cells["decision"] == "wrong":
                cells["label"] = _label(row, field, source)
            yield Row(row.place, cells)


def _below(place: str, root: str | os.PathLike[str] | None, where: str) -> str:
    if root is None:
        return place
    try:
        return Path(place).relative_to(root).as_posix()
    except ValueError as error:
        raise ValueError(f"{where}: {place!r} is not below the root {os.fspath(root)!r}") from error


def _label(row: Row, field: str, source: str) -> Any:
    """The name of the class that the field holds, a text or a classification; None if it is empty."""
    try:
        value = row.cells[field]
    except (AttributeError, KeyError) as error:
        raise ValueError(f"{source}: {row.place}: it has no field {field!r}, where its label was said to be") from error
    if isinstance(value, Mapping):
        return value.get("label")
    return value if value is None or isinstance(value, str | int) else getattr(value, "label", None)
