"""What cleanlab takes, and its table of issues as decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..decisions.decisions import Decisions
from ..runs.run import Run
from ..runs.run_set import RunSet
from ..support.table_rows import Row


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
            f"to_cleanlab: {int(never.sum())} examples, the first is {int(never.argmax())}, were never presented and "
            "have no probabilities; cleanlab takes data without them"
        )
    return {"labels": together.labels, "pred_probs": probabilities}


def from_cleanlab(issues: Any, *, ids: Any = None, relabel: bool = False) -> Decisions:
    """The label issues that cleanlab found, as decisions: `wrong` where `is_label_issue`; nothing of the others.

    A program found these, not people: look at them before you train on them.

    Args:
        issues: the DataFrame of `Datalab.get_issues("label")` or `CleanLearning.find_label_issues`, or its columns by
            name; a row for each example, in order.
        ids: [N], to name the examples by; default: by index.
        relabel: take the predicted label for the right one. Otherwise the examples leave the plan.

    Raises:
        ValueError: no column `is_label_issue`, another number of ids, or `relabel` without a predicted label.

    >>> from_cleanlab({"is_label_issue": [False, True], "predicted_label": [0, 3]}, relabel=True).corrections(2)
    {1: 3}
    """
    names = [str(name) for name in (issues.columns if hasattr(issues, "columns") else issues)]
    for name in ("is_label_issue", *(["predicted_label"] if relabel else [])):
        if name not in names:
            raise ValueError(f"issues: got the columns {', '.join(names) or 'none'}, expected {name!r} among them")
    columns = {name: np.asarray(issues[name]).tolist() for name in names}
    size = len(columns["is_label_issue"])
    given = list(range(size)) if ids is None else np.asarray(ids, dtype=object).tolist()
    if len(given) != size:
        raise ValueError(f"ids: got {len(given)}, expected {size}, one for each row of the issues")
    return Decisions(_rows(columns, given, "index" if ids is None else "id", relabel), source="cleanlab")


def _rows(columns: Mapping[str, Any], names: list[Any], key: str, relabel: bool) -> Iterator[Row]:
    quality = next((columns[name] for name in ("label_score", "label_quality") if name in columns), None)
    for row, (wrong, name) in enumerate(zip(columns["is_label_issue"], names, strict=True)):
        if wrong:
            cells = {key: name, "decision": "wrong"}
            if relabel:
                cells["label"] = columns["predicted_label"][row]
            if quality is not None:
                cells["note"] = f"cleanlab: label quality {quality[row]:.3g}"
            yield Row(f"row {row}", cells)
