"""The audit page: one HTML file in which people look at suspicious examples and decide."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..data import IndexedDataset
from ..policies.plan import Plan
from ..runs.run import Run
from ..runs.run_set import RunSet
from ..scores.catalogue import SCORES
from ..support.checks import whole_number
from ..support.files import write_atomically
from .choose import Shown, choose
from .content import Content, read_content
from .known import Known, collect
from .pictures import Embedded, Sheets, remove_old_sheets
from .render import packed, render
from .report import AuditReport

EMBEDDED: Final = 5_000
"""So many examples have their images in the page itself; of more, they are in files beside it."""

_SAMPLED: Final = 500
_PAIRS: Final = 20_000  # cells of the confusion matrix that the page knows, the fullest ones


def write(
    runs: RunSet | Run,
    dataset: Any,
    path: str | os.PathLike[str],
    *,
    score: str | None = None,
    plan: Plan | None = None,
    most: int = EMBEDDED,
    sampled: int | None = None,
    side: int = 128,
    seed: int = 0,
    title: str | None = None,
    report: Callable[[int], Any] | None = None,
) -> AuditReport:
    """Writes one HTML file that needs no network, whole or not at all.

    The page shows likely wrong labels, the hardest of each class, what a plan drops, where architectures disagree, a
    confusion matrix, a data map and a random stratum. What people decide in it is exported as a table that
    `dp.Decisions.load` reads.

    Only the examples that the page shows are read from the dataset. One that cannot be read is a card that says so.

    Args:
        runs: of this dataset. Where runs and dataset know ids, versions may differ: examples are matched by them, and
            what vanished, is new or moved to another class is counted.
        dataset: an `IndexedDataset`, or a map-style dataset that it may wrap. Samples are images (PIL, [H, W],
            [C, H, W] or [H, W, C]), texts, or rows of numbers; of a tuple the first element is shown, of a mapping its
            image, else its texts, else its numbers.
        path: of the page, such as "audit.html".
        score: by which examples are sorted; default: the one of the runs that finds wrong labels best, see
            `docs/audit.md`.
        plan: of this dataset; the page then shows what it drops.
        most: how many examples are shown at most: the random stratum, and of each view the first ones in turn. Up to
            5,000 images are in the page; more are in a folder beside it, of which a browser loads what it shows.
        sampled: how many examples are drawn at random, whatever their scores; default: 500, or a fifth of all if that
            is fewer. The page mixes them in, and tells from the decisions on them how many wrong labels are left.
        side: pixels of the larger side of an image, at most.
        seed: of the random stratum.
        title: of the page; default: its file name.
        report: called with the number of examples read, now and then.

    Returns:
        What was written and found; it prints as a sentence.

    Raises:
        TypeError: runs that are none, or a dataset without positions or length.
        ValueError: runs or a plan of another dataset; a score that the runs lack; no sample that can be shown; or
            numbers below 1.
        OSError: it cannot be written; the message names the file and says what to do.

    >>> import tempfile
    >>> texts = [("a text", 0), ("another", 1), ("a third", 0)]
    >>> run = Run({"el2n": [0.5, 1.2, 0.1]}, architecture="mlp", seed=0, labels=[0, 1, 0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = write(run, texts, Path(folder, "audit.html"))
    >>> found.shown, found.index.tolist()
    (3, [1, 0, 2])
    """
    together = RunSet([runs]) if isinstance(runs, Run) else runs
    if not isinstance(together, RunSet):
        raise TypeError(f"runs: got {type(runs).__name__}, expected a dp.Run or a dp.RunSet")
    for name, value in (("most", most), ("sampled", 1 if sampled is None else sampled), ("side", side)):
        if whole_number(value, name) < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    if plan is not None and not isinstance(plan, Plan):
        raise TypeError(f"plan: got {type(plan).__name__}, expected a dp.Plan, such as dp.Plan.load(path)")
    target = Path(path)
    indexed = dataset if isinstance(dataset, IndexedDataset) else IndexedDataset(dataset)
    known = collect(together, indexed, score, plan)
    drawn = min(_SAMPLED, max(1, len(known) // 5)) if sampled is None else sampled
    shown = choose(known, most, drawn, seed)
    sheets = Sheets(target) if len(shown.rows) > EMBEDDED else None
    try:
        return _write(together, indexed, target, known, shown, sheets, side, title or target.name, report)
    except BaseException:
        if sheets is not None:
            sheets.discard()
        raise


def _write(
    runs: RunSet,
    dataset: IndexedDataset,
    path: Path,
    known: Known,
    shown: Shown,
    sheets: Sheets | None,
    side: int,
    title: str,
    report: Callable[[int], Any] | None,
) -> AuditReport:
    pictures = Embedded() if sheets is None else sheets
    contents, unreadable = [], dict[int, str]()
    for number, row in enumerate(shown.rows.tolist()):
        content = read_content(dataset, int(known.index[row]), side)
        if content.kind == "unreadable":
            unreadable[row] = content.text
        contents.append(pictures.add(content) if content.kind == "image" else _as_data(content))
        if report is not None and number % 50 == 49:
            report(50)
    first = next((f"{_name(known, row)!r}: {why}" for row, why in unreadable.items()), "")
    if len(unreadable) == len(contents):
        raise ValueError(f"dataset: none of {len(contents)} samples can be shown; the first is {first}")
    listed = pictures.close()
    data = page_data(runs, known, shown) | {"title": title, "sheets": listed}
    html = render(title, data, contents, beside=bool(listed)).encode("utf-8", "backslashreplace")
    if sheets is not None:
        sheets.publish(listed)
    write_atomically(path, html)
    remove_old_sheets(path, listed)
    other = None
    if known.suggested is not None:
        other = int(((known.suggested >= 0) & (known.label >= 0) & (known.suggested != known.label)).sum())
    return AuditReport(
        path=path,
        shown=len(shown.rows),
        examples=len(known),
        runs=len(runs),
        score=known.score,
        other_label=other,
        unreadable=len(unreadable),
        first_unreadable=first,
        matched=known.matched,
        sheets=len(listed),
        bytes=len(html),
        index=known.index[shown.rows],
        sampled=known.index[shown.sampled],
    )


def _name(known: Known, row: int) -> str | int:
    return int(known.index[row]) if known.ids is None else known.ids.tolist()[row]


def _as_data(content: Content) -> list[Any]:
    """What the page says of a content that is no image."""
    return ["row", [list(pair) for pair in content.row]] if content.kind == "row" else [content.kind, content.text]


def page_data(runs: RunSet, known: Known, shown: Shown) -> dict[str, Any]:
    """What the scripts of the page read, but for the contents of its cards."""
    rows = shown.rows
    return {
        "digest": _digest(known),
        "examples": len(known),
        "runs": len(runs),
        "score": known.score,
        "classes": None if known.class_names is None else list(known.class_names),
        "numClasses": known.num_classes,
        "suggestedFrom": known.suggested_from,
        "ids": None if known.ids is None else known.ids[rows].tolist(),
        "index": packed(known.index[rows].astype(np.int32)),
        "place": packed(rows.astype(np.int32)),
        "label": packed(known.label[rows].astype(np.int32)),
        "suggested": None if known.suggested is None else packed(known.suggested[rows].astype(np.int32)),
        "probability": packed(known.probability[rows].astype(np.float32)),
        "agreed": packed(known.agreed[rows].astype(np.int32)),
        "asked": packed(known.asked[rows].astype(np.int32)),
        "dropped": None if known.dropped is None else packed(known.dropped[rows].astype(np.uint8)),
        "scores": [
            {
                "name": column.name,
                "summary": SCORES[column.name].summary,
                "harder": SCORES[column.name].higher_is_harder,
                "mean": packed(column.mean[rows].astype(np.float32)),
                "error": packed(column.error[rows].astype(np.float32)),
                "percentile": packed(column.percentile[rows].astype(np.float32)),
            }
            for column in known.scores
        ],
        "architectures": [
            {"name": name, "percentile": packed(values[rows].astype(np.float32))}
            for name, values in known.by_architecture.items()
        ],
        "difficulty": packed(known.difficulty.astype(np.float64)),
        "sampled": packed(shown.sampled.astype(np.int32)),
        "confusion": _confusion(known),
    }


def _confusion(known: Known) -> list[list[int]] | None:
    """[given, suggested, number] of all examples, the fullest cells; None without suggestions or labels."""
    if known.suggested is None:
        return None
    both = (known.suggested >= 0) & (known.label >= 0)
    if not both.any():
        return None
    cell = known.label[both] * known.num_classes + known.suggested[both]
    cells, counts = np.unique(cell, return_counts=True)
    fullest = np.argsort(-counts, kind="stable")[:_PAIRS]
    pairs: NDArray[np.int64] = np.stack(
        [cells[fullest] // known.num_classes, cells[fullest] % known.num_classes, counts[fullest]], axis=1
    )
    return [list(map(int, pair)) for pair in pairs]


def _digest(known: Known) -> str:
    """Of what decisions are about: which examples there are, and their labels; the same for more runs of them."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(known.index.astype("<i8").tobytes())
    digest.update(known.label.astype("<i8").tobytes())
    if known.ids is not None:
        digest.update("\n".join(map(str, known.ids.tolist())).encode("utf-8", "surrogatepass"))
    digest.update("\n".join(known.class_names or ()).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
