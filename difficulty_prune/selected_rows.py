"""Rows of a data set of texts: those that a plan keeps, and which row each token is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from torch.utils.data import Dataset, Subset

from .data import IndexedDataset
from .policies.plan import Plan

INDEX: Final = "index"
OWNER: Final = "owner"
WEIGHT: Final = "weight"


def select_rows(dataset: Any, plan: Plan) -> Any:
    """The rows that a plan keeps, for a training that packs them: a sampler cannot drop a row out of a pack.

    Select first, then tokenise and pack. Every row that is kept says where it was: a `datasets.Dataset` gains the
    column "index", the position in the whole data set, so that the tracker is still made for all N rows. Where the plan
    has other weights than 1, it also gains the column "weight". Samples of other data sets gain the same: mappings as
    keys, tuples and lists as last elements, first the index and then the weight.

    Args:
        dataset: the whole data set, for which the plan was made: a `datasets.Dataset`, any other map-style one, or a
            list.
        plan: of a policy, such as `dp.policies.Hardest(keep=0.7)(difficulty)`.

    Returns:
        A `datasets.Dataset`, or a `torch.utils.data.Dataset` for all others; nothing is copied.

    Raises:
        TypeError: no map-style data set, or no plan.
        ValueError: a plan of a data set of another length, or rows that were selected before or have a "weight".
        IndexError: the plan keeps a row that the data set does not have.

    >>> import torch
    >>> plan = Plan(torch.tensor([0, 2]), torch.tensor([1.0, 3.0]))
    >>> kept = select_rows([{"text": "a"}, {"text": "b"}, {"text": "c"}], plan)
    >>> [kept[i] for i in range(len(kept))]
    [{'text': 'a', 'index': 0, 'weight': 1.0}, {'text': 'c', 'index': 2, 'weight': 3.0}]
    """
    if not isinstance(plan, Plan):
        raise TypeError(
            f"plan: got {type(plan).__name__}, expected a dp.Plan, such as dp.policies.Hardest(keep=0.7)(difficulty)"
        )
    if isinstance(dataset, Mapping):
        raise TypeError(f"dataset: got {', '.join(map(str, dataset))}, expected one of them, such as dataset['train']")
    _refuse_selected(dataset)
    whole = dataset if isinstance(dataset, IndexedDataset) else IndexedDataset(dataset)
    _check_size(plan, len(whole))
    weighted = bool((plan.weight != 1).any())
    if is_table(dataset):
        return _of_table(dataset, plan, weighted)
    kept: Dataset[Any] = Subset(whole, plan.index.tolist())
    return WeightedRows(kept, plan.weight.tolist()) if weighted else kept


def index_rows(dataset: Any, tokens: str = "input_ids") -> Any:
    """Writes beside each token which row it is of, so that this survives packing.

    A pack holds pieces of many rows, and a number per row is lost in it. The new column "owner" holds a list per row,
    as long as its tokens: for each, the row's position in the data set, or its "index" where the rows have one, as
    those of `select_rows`. A column "weight" becomes a list in the same way. Call it between
    tokenising and packing.

    Args:
        dataset: a `datasets.Dataset` of tokenised rows.
        tokens: the column of lists that holds the tokens.

    Returns:
        A `datasets.Dataset` with the column "owner" in place of "index".

    Raises:
        TypeError: no `datasets.Dataset`, or an index that is no whole number.
        ValueError: no such column of tokens, or an "owner" already, as after packing.

    >>> from datasets import Dataset, disable_progress_bars
    >>> disable_progress_bars()
    >>> index_rows(Dataset.from_dict({"input_ids": [[5, 6, 7], [8]]}))["owner"][:]
    [[0, 0, 0], [1]]
    """
    if not is_table(dataset):
        raise TypeError(f"dataset: got {type(dataset).__name__}, expected a datasets.Dataset")
    columns = dataset.column_names
    if tokens not in columns:
        raise ValueError(
            f"dataset: got the columns {', '.join(columns)}, expected {tokens!r} among them; tokenise first"
        )
    if OWNER in columns:
        raise ValueError(f"dataset: has the column {OWNER!r} already; call index_rows once, before packing")
    if INDEX in columns:
        check_index_column(dataset)
    given = [name for name in (INDEX, WEIGHT) if name in columns]
    return dataset.map(
        _spread,
        with_indices=True,
        batched=True,
        input_columns=[tokens, *given],
        fn_kwargs={"given": given},
        remove_columns=[INDEX] if INDEX in given else None,
        desc="Numbering the rows",
    )


def is_table(dataset: Any) -> bool:
    """Whether this is a `datasets.Dataset`, or looks like one."""
    return all(hasattr(dataset, name) for name in ("column_names", "add_column", "select", "map", "__len__"))


def check_index_column(dataset: Any) -> None:
    """TypeError unless the column "index" of a `datasets.Dataset` holds whole numbers."""
    kind = dataset.features[INDEX]
    if getattr(kind, "dtype", "") not in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"):
        raise TypeError(
            f"dataset: got a column {INDEX!r} of {kind}, expected whole numbers, the positions of the rows in the "
            "whole data set; rename the column if it means something else"
        )


def _spread(tokens: list[Any], *more: Any, given: list[str]) -> dict[str, list[list[Any]]]:
    """A batch's columns in the order of `input_columns`, and at last the positions -> a value per token."""
    *columns, positions = more
    of = dict(zip(given, columns, strict=True))
    spread = {OWNER: [[i] * len(row) for i, row in zip(of.get(INDEX, positions), tokens, strict=True)]}
    if WEIGHT in of:
        spread[WEIGHT] = [[weight] * len(row) for weight, row in zip(of[WEIGHT], tokens, strict=True)]
    return spread


def _refuse_selected(dataset: Any) -> None:
    """ValueError for rows that have a number already, and would get that of their place among those selected."""
    if isinstance(dataset, WeightedRows) or (
        isinstance(dataset, Subset) and isinstance(dataset.dataset, IndexedDataset)
    ):
        raise ValueError(
            f"dataset: got {len(dataset)} rows that were selected before, and carry their index; a plan tells "
            "positions in the whole data set, so select from that"
        )


def _check_size(plan: Plan, size: int) -> None:
    examples = plan.summary().get("examples", size)
    if examples != size:
        raise ValueError(
            f"plan: got one of {examples} examples and a data set of {size} rows, expected the whole data set for "
            "which the plan was made"
        )
    if int(plan.index[-1]) >= size:
        raise IndexError(f"plan: got position {int(plan.index[-1])}, expected 0..{size - 1}, the rows of the data set")


def _of_table(dataset: Any, plan: Plan, weighted: bool) -> Any:
    everyone = np.arange(len(dataset), dtype=np.int64)
    if INDEX in dataset.column_names:
        check_index_column(dataset)
        if not np.array_equal(np.asarray(dataset.with_format(None)[INDEX][:]), everyone):
            raise ValueError(
                f"dataset: its column {INDEX!r} is not 0..{len(dataset) - 1}; a plan tells positions in the whole data "
                "set, so select from that, or rename the column if it means something else"
            )
    else:
        dataset = dataset.add_column(INDEX, everyone)
    if weighted:
        if WEIGHT in dataset.column_names:
            raise ValueError(f"dataset: has a column {WEIGHT!r} already, and the plan has weights; remove or rename it")
        weight = np.zeros(len(dataset), np.float32)
        weight[plan.index.numpy()] = plan.weight.numpy()
        dataset = dataset.add_column(WEIGHT, weight)
    return dataset.select(plan.index.tolist())


class WeightedRows(Dataset[Any]):
    """A data set whose samples gain a weight: a mapping the key "weight", a tuple or list a last element."""

    def __init__(self, dataset: Dataset[Any], weight: Iterable[float]) -> None:
        self.dataset: Any = dataset
        self.weight = list(weight)

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, position: int) -> Any:
        sample, weight = self.dataset[position], self.weight[position]
        if isinstance(sample, Mapping):
            if WEIGHT in sample:
                raise ValueError(f"the sample has a key {WEIGHT!r} already, and the plan has weights; rename it")
            return {**sample, WEIGHT: weight}
        return [*sample, weight] if isinstance(sample, list) else (*sample, weight)
