"""Tasks for Label Studio, the hardest first, and its annotations as decisions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..decisions.decisions import Decisions
from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.files import atomic_file
from ..support.table_rows import Row, read_rows
from .score_table import ScoreTable, percentile


def to_label_studio(
    runs: RunSet | Run,
    path: str | os.PathLike[str],
    *,
    score: str,
    data: Any,
    examples: Any = None,
    key: str = "image",
    from_name: str = "choice",
    to_name: str = "image",
) -> None:
    """Writes tasks to import into a project of Label Studio with `<Choices>`, the hardest first.

    A task has under `data` the example's `id`, `index`, `label` and difficulty; and one prediction, the suggested label
    with its mean probability as score, or the present label if the runs suggest none.

    Args:
        runs: one or several, with labels; with names of classes choices are names, else texts of numbers.
        path: of the file, `.json`.
        score: by which the tasks are ordered; its percentile of difficulty goes into the data.
        data: [N], what to show of each example: URLs of images, or texts.
        examples: positions [n]; default: all.
        key: name of `data` in the project's configuration, as in `<Image value="$image">`.
        from_name, to_name: of the tags `<Choices>` and `<Image>` in the configuration.

    Raises:
        ValueError: no labels, other numbers of data than of examples, or an unknown score.
        OSError: it cannot be written; the message names the file and says what to do.
    """
    together = RunSet([runs]) if isinstance(runs, Run) else runs
    labels, shown = together.labels, list(data)
    if labels is None:
        raise ValueError("to_label_studio: no run knows the labels, which people are to judge")
    if len(shown) != together.num_examples:
        raise ValueError(f"data: got {len(shown)}, expected {together.num_examples}, one per example")
    table = ScoreTable.of(together, scores=[score])
    hard = percentile(together.difficulty(score))
    chosen = np.arange(len(hard)) if examples is None else np.asarray(examples, np.int64)
    order = chosen[np.argsort(-hard[chosen], kind="stable")].tolist()
    suggested = table["suggested"] if "suggested" in table else np.full(len(hard), -1)
    sure = table["suggested_probability"] if "suggested" in table else np.full(len(hard), np.nan)
    names, ids = together.class_names, None if together.ids is None else together.ids.tolist()
    with atomic_file(path) as file:
        file.write(b"[")
        for number, i in enumerate(order):
            facts: dict[str, Any] = {key: shown[i], "index": i, "label": _name(int(labels[i]), names)}
            if ids is not None:
                facts["id"] = ids[i]
            if hard[i] == hard[i]:
                facts["difficulty"] = round(float(hard[i]), 3)
            choice = _name(int(suggested[i] if suggested[i] >= 0 else labels[i]), names)
            region = {"from_name": from_name, "to_name": to_name, "type": "choices", "value": {"choices": [choice]}}
            prediction: dict[str, Any] = {"model_version": "difficulty_prune", "result": [region]}
            if suggested[i] >= 0:
                prediction["score"] = float(sure[i])
            entry = json.dumps({"data": facts, "predictions": [prediction]}, ensure_ascii=False)
            file.write(f"{',' if number else ''}\n{entry}".encode())
        file.write(b"\n]\n")


def _name(label: int, names: tuple[str, ...] | None) -> str:
    return str(label) if names is None or label >= len(names) else names[label]


def from_label_studio(
    tasks: str | os.PathLike[str] | Iterable[Mapping[str, Any]], *, from_name: str | None = None
) -> Decisions:
    """Annotations as decisions: `keep` where people chose the label that is there, `wrong` with the other one.

    A task that all its annotators skipped, or on which they differ, is `unsure`; one without annotations has no
    decision. A choice named "drop" or "unsure" is that decision.

    Args:
        tasks: the JSON export of a project whose tasks `to_label_studio` wrote, by path or as a list; their data have
            `label`, and `id` or `index`.
        from_name: of `<Choices>`, if annotations have several such tags.

    Raises:
        FileNotFoundError, ValueError: no such file, or a malformed task, with its number.

    >>> def chose(name):
    ...     return {"result": [{"from_name": "choice", "type": "choices", "value": {"choices": [name]}}]}
    >>> tasks = [{"data": {"id": "a", "label": "cat"}, "annotations": [chose("dog")]}]
    >>> [(entry.id, entry.decision, entry.label) for entry in from_label_studio(tasks)]
    [('a', 'wrong', 'dog')]
    """
    if isinstance(tasks, str | os.PathLike):
        source, rows = os.fspath(tasks), read_rows(tasks)
    else:
        source, rows = "tasks", (Row(f"task {number}", task) for number, task in enumerate(tasks, 1))
    return Decisions(_decided(rows, source, from_name), source=source)


def _decided(rows: Iterable[Row], source: str, from_name: str | None) -> Iterator[Row]:
    for row in rows:
        where = f"{source}: {row.place}"
        data, given = row.cells.get("data"), row.cells.get("annotations")
        if not isinstance(data, Mapping) or "label" not in data or not {"id", "index"} & set(data):
            raise ValueError(f"{where}: got data {data!r}, expected an object with label, and id or index")
        if not isinstance(given, list) or not all(isinstance(annotation, Mapping) for annotation in given):
            raise ValueError(f"{where}: got annotations {given!r}, expected a list; export as JSON, not JSON-MIN")
        if not given:
            continue
        chosen = {_choice(a, where, from_name) for a in given if not a.get("was_cancelled")}
        cells = {name: data[name] for name in ("id", "index") if name in data}
        cells |= _decision(chosen, str(data["label"]))
        yield Row(row.place, cells)


def _decision(chosen: set[str], label: str) -> dict[str, Any]:
    if not chosen:
        return {"decision": "unsure", "note": "skipped"}
    if len(chosen) > 1:
        return {"decision": "unsure", "note": f"annotators differ: {', '.join(sorted(chosen))}"}
    (choice,) = chosen
    if choice == label:
        return {"decision": "keep"}
    return {"decision": choice} if choice in ("drop", "unsure") else {"decision": "wrong", "label": choice}


def _choice(annotation: Any, where: str, from_name: str | None) -> str:
    """The one choice of an annotation."""
    try:
        found = [
            choice
            for region in annotation["result"]
            if region.get("type") == "choices" and from_name in (None, region["from_name"])
            for choice in region["value"]["choices"]
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: an annotation is malformed ({error!r})") from error
    if len(found) != 1 or not isinstance(found[0], str):
        raise ValueError(f"{where}: an annotation has the choices {found}, expected one; see from_name=")
    return found[0]
