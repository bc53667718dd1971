"""Rows of a data set of texts: which are kept, with which weights, and which row each token is of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import difficulty_prune as dp

datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")
datasets.disable_progress_bars()

ROWS = [[5, 6, 7], [8], [9, 10], [11, 12, 13, 14]]


def table(**columns):
    return datasets.Dataset.from_dict({"input_ids": ROWS, **columns})


def plan_of(index, weight=None, **summary):
    weight = torch.ones(len(index)) if weight is None else torch.tensor(weight)
    return dp.Plan(torch.tensor(index), weight, summary)


# What is kept


def test_rows_of_a_table_keep_their_numbers():
    kept = dp.select_rows(table(), plan_of([0, 3]))
    assert kept.column_names == ["input_ids", "index"]
    assert kept[:] == {"input_ids": [ROWS[0], ROWS[3]], "index": [0, 3]}


def test_weights_become_a_column_where_the_plan_has_some():
    kept = dp.select_rows(table(), plan_of([1, 3], [2.0, 0.5]))
    assert kept[:] == {"input_ids": [ROWS[1], ROWS[3]], "index": [1, 3], "weight": [2.0, 0.5]}


@pytest.mark.parametrize("weight", [None, [2.0, 0.5]])
def test_samples_of_other_data_sets_gain_the_same(weight):
    plan = plan_of([0, 2], weight)
    more = ((), ()) if weight is None else ((2.0,), (0.5,))
    pairs = dp.select_rows([("a", 0), ("b", 1), ("c", 2)], plan)
    assert [pairs[i] for i in range(2)] == [("a", 0, 0, *more[0]), ("c", 2, 2, *more[1])]
    lists = dp.select_rows([["a"], ["b"], ["c"]], plan)
    assert [lists[i] for i in range(2)] == [["a", 0, *more[0]], ["c", 2, *more[1]]]
    dicts = dp.select_rows(dp.IndexedDataset([{"text": letter} for letter in "abc"]), plan)
    assert dicts[1] == {"text": "c", "index": 2, **({} if weight is None else {"weight": 0.5})}
    assert len(dicts) == 2


def test_a_policy_makes_the_plan():
    kept = dp.select_rows(table(), dp.policies.Hardest(keep=0.5)(torch.tensor([3.0, 0.0, 1.0, 2.0])))
    assert kept["index"][:] == [0, 3]


def test_an_index_that_is_the_position_is_kept():
    assert dp.select_rows(table(index=[0, 1, 2, 3]), plan_of([2]))["index"][:] == [2]


# What is refused


@pytest.mark.parametrize(
    ("dataset", "plan", "error", "message"),
    [
        (ROWS, [0, 1], TypeError, "plan: got list, expected a dp.Plan"),
        ({"train": ROWS}, plan_of([0]), TypeError, "dataset: got train, expected one of them"),
        (iter(ROWS), plan_of([0]), TypeError, "expected a map-style dataset"),
        (ROWS, plan_of([0], examples=5), ValueError, "one of 5 examples and a data set of 4 rows"),
        (ROWS, plan_of([4]), IndexError, r"got position 4, expected 0\.\.3"),
        (table(index=[0, 1, 2, 4]), plan_of([0]), ValueError, r"column 'index' is not 0\.\.3; a plan tells positions"),
        (table(index=list("abcd")), plan_of([0]), TypeError, "column 'index' of .*string.*expected whole numbers"),
        (table(weight=[1.0] * 4), plan_of([0], [2.0]), ValueError, "has a column 'weight' already"),
    ],
)
def test_what_does_not_fit_is_refused(dataset, plan, error, message):
    with pytest.raises(error, match=message):
        dp.select_rows(dataset, plan)


def test_a_second_selection_is_made_from_the_whole_data_set():
    kept = dp.select_rows(table(), plan_of([1, 3]))
    with pytest.raises(ValueError, match="select from that"):
        dp.select_rows(kept, plan_of([0]))
    pairs = [("a", 0), ("b", 1), ("c", 2)]
    for weight in (None, [2.0, 0.5]):
        with pytest.raises(ValueError, match=r"got 2 rows that were selected before.*select from that"):
            dp.select_rows(dp.select_rows(pairs, plan_of([0, 2], weight)), plan_of([1]))


def test_a_weight_of_a_sample_is_not_written_over():
    with pytest.raises(ValueError, match="has a key 'weight' already"):
        dp.select_rows([{"weight": 1}], plan_of([0], [2.0]))[0]


# Tokens


def test_each_token_says_which_row_it_is_of():
    numbered = dp.index_rows(table())
    assert numbered.column_names == ["input_ids", "owner"]
    assert numbered["owner"][:] == [[0, 0, 0], [1], [2, 2], [3, 3, 3, 3]]


def test_rows_that_were_selected_keep_numbers_and_weights():
    numbered = dp.index_rows(dp.select_rows(table(), plan_of([1, 3], [2.0, 0.5])))
    assert sorted(numbered.column_names) == ["input_ids", "owner", "weight"]
    assert numbered["owner"][:] == [[1], [3] * 4]
    assert numbered["weight"][:] == [[2.0], [0.5] * 4]


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (ROWS, TypeError, "got list, expected a datasets.Dataset"),
        (table(owner=ROWS), ValueError, "has the column 'owner' already"),
        (
            table().rename_column("input_ids", "text"),
            ValueError,
            "got the columns text, expected 'input_ids'.*tokenise",
        ),
        (table(index=[0.5] * 4), TypeError, "column 'index' of .*float64"),
    ],
)
def test_what_cannot_be_numbered_is_refused(dataset, error, message):
    with pytest.raises(error, match=message):
        dp.index_rows(dataset)


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any),
    size=st.integers(2, 9),
    strategy=st.sampled_from(["bfd", "bfd_split", "wrapped"]),
)
def test_owners_survive_packing_as_the_tokens_do(lengths, size, strategy):
    """Tokens are numbered so that each tells its row; whatever TRL's packing does to tokens, it does to owners."""
    trl = pytest.importorskip("trl", reason="trl is not installed: pip install trl")
    rows = [[100 * i + k for k in range(length)] for i, length in enumerate(lengths)]
    packed = trl.pack_dataset(dp.index_rows(datasets.Dataset.from_dict({"input_ids": rows})), size, strategy)
    tokens, owners = np.concatenate(packed["input_ids"][:]), np.concatenate(packed["owner"][:])
    np.testing.assert_array_equal(owners, tokens // 100)
    if strategy != "bfd":  # which drops what is too long
        assert len(tokens) == sum(lengths)


def test_a_number_per_row_does_not_survive_packing():
    """Which is why there is one per token."""
    trl = pytest.importorskip("trl", reason="trl is not installed: pip install trl")
    with pytest.raises(TypeError, match="requires all columns to be lists of lists"):
        trl.pack_dataset(table(index=[0, 1, 2, 3]), 4, "bfd")
