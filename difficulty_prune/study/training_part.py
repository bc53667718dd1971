"""The part of some data that a study trained on, where it set the rest aside for testing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset

from ..data import IndexedDataset, dataset_fingerprint, dataset_labels
from ..policies.plan import Plan
from ..runs.run_set import RunSet
from ..runs.set_aside import set_aside
from ..support.ids import digest_of_ids, encode_ids
from .study_data import TEST_SHARE, is_regression, split_positions
from .tables import Table, encoded


def training_part(runs: RunSet, data: IndexedDataset, spec: str) -> IndexedDataset:
    """Today's data without what the study of these runs set aside for testing; all of it where they are of no study.

    Runs know what was set aside by id, also where the data changed since. Without ids, and of an earlier version, it is
    split again, as long as the part has as many examples, and the ids or labels, that the runs have.

    Args:
        data: what `open_data` gives for `spec`.

    Raises:
        ValueError: all of it was set aside.
    """
    aside = set_aside(runs)
    if isinstance(aside, frozenset) and data.ids is not None:
        scored = set() if runs.ids is None else set(runs.ids.tolist())
        kept = np.array([name not in aside or name in scored for name in data.ids.tolist()])
        if not kept.any():
            raise ValueError(f"data: all of {spec} was set aside for testing by the study; give what it trained on")
        return _part(data, np.flatnonzero(kept))
    of_study = aside != 0 and any("test_digest" in run.metadata for run in runs)
    split = _split(data, spec, runs.num_examples) if of_study else None
    return data if split is None or not _is_of(runs, data, split) else _part(data, split)


def check_rows(runs: RunSet, data: IndexedDataset) -> None:
    """ValueError where a table without ids has other features than the one that a study of these runs trained on.

    Args:
        data: what `training_part` gave. Of what is no table nothing is checked.
    """
    rows = data.dataset
    if isinstance(rows, Subset) and isinstance(rows.dataset, Table):
        rows = rows.dataset.select(np.asarray(rows.indices))
    expected = next((run.dataset_fingerprint for run in runs if "test_digest" in run.metadata), None)
    if not isinstance(rows, Table) or rows.ids is not None or expected is None or len(rows) != runs.num_examples:
        return
    examples = encoded(rows, rows)[0]
    if runs.labels is not None:
        examples = examples.with_labels(torch.from_numpy(runs.labels.astype(np.int64)))  # some may be wrong on purpose
    if dataset_fingerprint(examples) != expected:
        raise ValueError(
            f"data: the rows of {rows.name} are others than those that the study trained on: it is other data, or was "
            "changed since; score it anew, or name its rows in a column 'id'"
        )


def part_of_plan(plan: Plan, data: IndexedDataset, spec: str) -> IndexedDataset:
    """The training part of the data, as a study splits it, if the plan is of that by its ids; else the data."""
    size = plan.summary().get("examples")
    if plan.ids_digest is None or data.ids is None or not isinstance(size, int):
        return data
    split = _split(data, spec, size)
    if split is None or digest_of_ids(encode_ids(data.ids[split])) != plan.ids_digest:
        return data
    return _part(data, split)


def _split(data: IndexedDataset, spec: str, size: int) -> NDArray[Any] | None:
    """Positions of the examples that a study trains on, if it sets a part of the data aside and so many are left."""
    if len(data) - math.ceil(TEST_SHARE * len(data)) != size:
        return None
    regression = is_regression(spec)
    try:
        return split_positions(np.zeros(len(data)) if regression else dataset_labels(data), regression)[0]
    except (TypeError, ValueError):  # no classes, or too few of one: no study splits this
        return None


def _is_of(runs: RunSet, data: IndexedDataset, split: NDArray[Any]) -> bool:
    """Whether the runs are of this part, as far as ids tell, or else labels."""
    if runs.ids is not None and data.ids is not None:
        return np.array_equal(runs.ids, data.ids[split])
    labels = data.labels
    return labels is None or runs.labels is None or np.array_equal(labels[split], runs.labels)


def _part(data: IndexedDataset, positions: NDArray[Any]) -> IndexedDataset:
    if len(positions) == len(data):
        return data
    return IndexedDataset(
        Subset(data.dataset, positions.tolist()),
        data.key,
        ids=None if data.ids is None else data.ids[positions],
        index_key=data.index_key,
        decisions=data.decisions,
    )
