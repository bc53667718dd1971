"""Decisions applied to an image folder: a corrected list of its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from .data import IndexedDataset
from .decisions.decisions import Decisions, expect_decisions
from .support.table_rows import check_suffix, write_rows


def apply(decisions: Decisions, dataset: Any, path: str | os.PathLike[str]) -> int:
    """Writes the list of files to train on, with corrected labels. No file is moved, changed or deleted.

    Args:
        decisions: by the paths of the files below the root (the ids of `dp.IndexedDataset`), or by index.
        dataset: torchvision's `ImageFolder`, or another that has `samples`, (path, label) of each, and `root`.
        path: of the list: `.csv`, `.json` or `.jsonl` with `path`, `label` (the number), `class_name` where the dataset
            knows `classes`, and `weight` if any is not 1. Paths are those of the dataset.

    Returns:
        The number of files in the list: all but those that are to be dropped, or wrong without the right label.

    Raises:
        TypeError: what are no decisions, or a dataset that does not know its files.
        ValueError: as for `Decisions.apply_to_plan`, or another suffix.
        OSError: it cannot be written; the message names the file and says what to do.
    """
    expect_decisions(decisions)
    check_suffix(path, (".csv", ".json", ".jsonl"))
    indexed = dataset if isinstance(dataset, IndexedDataset) else IndexedDataset(dataset)
    samples = getattr(indexed.dataset, "samples", None)
    if not isinstance(samples, list | tuple) or not all(len(sample) == 2 for sample in samples[:1]):
        raise TypeError(
            f"dataset: got {type(dataset).__name__}, expected one that knows its files (.samples), as ImageFolder does"
        )
    names = indexed.class_names
    plan = decisions.plan(indexed)
    labels = decisions.relabel([label for _, label in samples], indexed)

    def rows() -> Iterator[dict[str, Any]]:
        for i, weight in zip(plan.index.tolist(), plan.weight.tolist(), strict=True):
            label = int(labels[i])
            name = None if names is None else names[label]
            yield {"path": os.fspath(samples[i][0]), "label": label, "class_name": name, "weight": weight}

    columns = ["path", "label"]
    columns += ["class_name"] if names is not None else []
    columns += ["weight"] if bool((plan.weight != 1).any()) else []
    write_rows(path, tuple(columns), ({name: row[name] for name in columns} for row in rows()))
    return len(plan)
