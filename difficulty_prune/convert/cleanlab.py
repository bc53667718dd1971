"""What cleanlab takes, and its table of issues as decisions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..decisions.decisions import Decisions
from ..decisions.entry import whole_cell
from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.counted import counted
from ..support.table_rows import Row, check_suffix, read_rows

_PLACES: Final = ("index", "", "__index_level_0__")  # columns that say which example a row is, as pandas names them


def to_cleanlab(runs: RunSet | Run) -> dict[str, NDArray[Any]]:
    """`labels` [N] int64 and `pred_probs` [N, C] float64, as `cleanlab.filter.find_label_issues(**...)` takes them.

    The probabilities are means over the training of a model that saw the labels, not those of cross-validation: they
    follow wrong labels once these are memorised. Runs of few epochs show more.

    Raises:
        ValueError: the runs do not know the labels, or did not keep mean probabilities; or some examples were never
            presented, which cleanlab cannot take.

    >>> run = Run({"el2n": [0.5]}, architecture="mlp", seed=0, labels=[1], mean_probabilities=[[0.25, 0.75]])
    >>> to_cleanlab(run)["pred_probs"]
    array([[0.25, 0.75]])
    """
    together = RunSet([runs]) if isinstance(runs, Run) else runs
    if together.labels is None:
        raise ValueError("to_cleanlab: no run knows the labels; give labels= to tracker.finish or to the run")
    probabilities = together.mean_probabilities()
    never = np.isnan(probabilities[:, 0])
    if never.any():
        raise ValueError(
            f"to_cleanlab: got {counted(int(never.sum()), 'example')} without probabilities, as never presented, the "
            f"first is {int(never.argmax())}; cleanlab takes data without them"
        )
    return {"labels": together.labels, "pred_probs": probabilities}


def from_cleanlab(issues: Any, *, ids: Any = None, relabel: bool = False) -> Decisions:
    """The label issues that cleanlab found, as decisions: `wrong` where `is_label_issue`; nothing of the others.

    A program found these, not people: look at them before you train on them.

    Args:
        issues: the DataFrame of `Datalab.get_issues("label")` or `CleanLearning.find_label_issues`, or its columns by
            name; a row for each example, in order. Where the DataFrame's index is of whole numbers, these say which
            example a row is, so that it may be a part of the issues, or sorted. Or a file of it, `.csv` or `.parquet`,
            where a column `index`, or the nameless one that pandas writes, says so.
        ids: [N], to name the examples by; default: by index.
        relabel: take the predicted label for the right one. Otherwise the examples leave the plan.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no column `is_label_issue`, another number of ids, a malformed row, or `relabel` without a predicted
            label.

    >>> from_cleanlab({"is_label_issue": [False, True], "predicted_label": [0, 3]}, relabel=True).corrections(2)
    {1: 3}
    """
    is_file = isinstance(issues, str | os.PathLike)
    source = os.fspath(issues) if isinstance(issues, str | os.PathLike) else "issues"
    columns = _of_file(source) if is_file else _of_table(issues)
    own: list[int | None] | None = None if is_file else _index_of(issues)
    for name in ("is_label_issue", *(["predicted_label"] if relabel else [])):
        if name not in columns:
            raise ValueError(f"{source}: got the columns {', '.join(columns) or 'none'}, expected {name!r} among them")
    size = len(columns["is_label_issue"])
    place = next((name for name in _PLACES if is_file and name in columns), None)
    index = own or (list(range(size)) if place is None else [whole_cell(cell) for cell in columns[place]])
    known = None if ids is None else np.asarray(ids, dtype=object).tolist()
    if known is not None and place is None and index == list(range(size)) and len(known) != size:
        raise ValueError(f"ids: got {len(known)}, expected {size}, one for each row of the issues")
    for row, position in enumerate(index):
        if position is None or position < 0 or (known is not None and position >= len(known)):
            of = "a position" if known is None else f"0..{len(known) - 1}"
            came = position if place is None else columns[place][row]
            raise ValueError(f"{source}: row {row}: {place or 'index'}: got {came!r}, expected {of}")
    return Decisions(_rows(columns, index, known, relabel, source), source=source)


def _of_table(issues: Any) -> dict[str, list[Any]]:
    names = [str(name) for name in (issues.columns if hasattr(issues, "columns") else issues)]
    return {name: np.asarray(issues[name]).tolist() for name in names}


def _index_of(table: Any) -> list[int | None] | None:
    """The whole numbers of a DataFrame's index; None for another index, and for a table that has none."""
    index = getattr(table, "index", None) if hasattr(table, "columns") else None
    rows = [] if index is None else np.asarray(index).tolist()
    return rows if all(type(row) is int for row in rows) else None


def _of_file(path: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    check_suffix(path, (".csv", ".parquet"))
    for row in read_rows(path):
        for name, cell in row.cells.items():
            columns.setdefault(name, []).append(cell)
    return columns


def _rows(
    columns: Mapping[str, Any], index: list[Any], ids: list[Any] | None, relabel: bool, source: str
) -> Iterator[Row]:
    quality = next((columns[name] for name in ("label_score", "label_quality") if name in columns), None)
    for row, (wrong, position) in enumerate(zip(columns["is_label_issue"], index, strict=True)):
        if _is_true(wrong, f"{source}: row {row}"):
            cells = {"index": position} if ids is None else {"id": ids[position]}
            cells["decision"] = "wrong"
            if relabel:
                cells["label"] = columns["predicted_label"][row]
            if quality is not None:
                cells["note"] = f"cleanlab: label quality {_number(quality[row], f'{source}: row {row}'):.3g}"
            yield Row(f"row {row}", cells)


def _number(cell: Any, where: str) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: label quality: got {cell!r}, expected a number") from error


def _is_true(cell: Any, where: str) -> bool:
    """A cell of `is_label_issue`, also as text."""
    meant = {"true": True, "1": True, "false": False, "0": False}.get(str(cell).strip().lower())
    if meant is None:
        raise ValueError(f"{where}: is_label_issue: got {cell!r}, expected True or False")
    return meant
