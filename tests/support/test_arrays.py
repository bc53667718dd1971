"""Rows by position, as NumPy would take them; blocks that cover all of them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from difficulty_prune.support import blocks as blocks_module
from difficulty_prune.support.arrays import as_tensor, check_rows, read_only, real_numbers
from difficulty_prune.support.blocks import BLOCK, blocks

SIZE = 6
bounds = st.none() | st.integers(-9, 9)
good_rows = st.one_of(
    st.builds(slice, bounds, bounds, st.none() | st.integers(-3, 3).filter(bool)),
    st.lists(st.integers(-SIZE, SIZE - 1)),
    st.lists(st.integers(0, SIZE - 1)).map(lambda rows: np.array(rows, np.uint8)),
    st.lists(st.booleans(), min_size=SIZE, max_size=SIZE).map(np.array),
)


@given(good_rows)
def test_rows_are_those_that_numpy_takes(rows: Any) -> None:
    values = np.arange(10.0, 10.0 + SIZE)
    found = check_rows(rows, SIZE, "examples")
    expected = rows if isinstance(rows, slice) or len(rows) else slice(0, 0)
    np.testing.assert_array_equal(values[found], values[expected])
    if isinstance(found, np.ndarray):
        assert found.dtype == np.int64
        assert ((found >= 0) & (found < SIZE)).all()


def test_rows_of_a_tensor() -> None:
    assert check_rows(torch.tensor([2, -1]), SIZE, "examples").tolist() == [2, 5]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (3, TypeError, "examples: got 3, expected a slice"),
        (None, TypeError, "got None"),
        ("ab", TypeError, "got 'ab'"),
        ([0.5], TypeError, "got float64 (1,)"),
        ([[1]], TypeError, "got int64 (1, 1)"),
        ([6], IndexError, "got position 6, expected -6 to 5"),
        ([0, -7], IndexError, "got position -7"),
        (np.array([2**63], np.uint64), IndexError, f"got position {2**63}"),
        ([True], IndexError, "got a mask of 1, expected 6"),
    ],
)
def test_other_rows_are_refused(rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        check_rows(rows, SIZE, "examples")


@pytest.mark.parametrize("values", [[1, 2.5], np.array([1, 2], np.uint8), [True, False], 3, torch.tensor([1.0]), []])
def test_numbers_come_as_float64(values: Any) -> None:
    found = real_numbers(values, "score")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.asarray(values))


@pytest.mark.parametrize("values", ["1", ["1", "2"], None, [None, 1.0], 1j, [b"1"]])
def test_what_only_looks_like_a_number_is_refused(values: Any) -> None:
    with pytest.raises(TypeError, match=r"^score: got .*, expected numbers$"):
        real_numbers(values, "score")


def test_read_only_is_the_same_array() -> None:
    values = np.zeros(3)
    assert read_only(values) is values
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1


@given(st.integers(0, 50), st.integers(0, 30), st.integers(1, 20))
def test_blocks_cover_all_rows_once_and_hold_no_more_than_they_may(size: int, width: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "BLOCK", block)
        found = list(blocks(size, width))
    rows = [row for part in found for row in range(size)[part]]
    assert rows == list(range(size))
    for part in found:
        assert 0 < part.stop - part.start <= max(1, block // max(1, width))


def test_a_block_is_as_large_as_it_may_be() -> None:
    assert list(blocks(BLOCK + 1)) == [slice(0, BLOCK), slice(BLOCK, BLOCK + 1)]
    assert list(blocks(3, width=10 * BLOCK)) == [slice(0, 1), slice(1, 2), slice(2, 3)]


@pytest.mark.parametrize("take", [lambda v: real_numbers(v, "score"), lambda v: as_tensor(v, "score")])
def test_hidden_values_of_a_masked_array_are_not_handed_out(take: Any) -> None:
    values = np.ma.masked_array([1.0, 2.0, 9.0], mask=[False, False, True])
    with pytest.raises(ValueError, match="score: got a masked array with 1 hidden values"):
        take(values)
    assert list(take(values[:2])) == [1.0, 2.0]


whole = st.integers(0, 2**63 - 1)


@given(st.lists(whole, min_size=1), st.sampled_from(["uint16", "uint32", "uint64"]), st.booleans())
def test_unsigned_numbers_stay_what_they_are(values: list[int], dtype: str, as_torch: bool) -> None:
    array = np.array(values).astype(dtype)
    found = as_tensor(torch.from_numpy(array) if as_torch else array, "labels")
    assert (found.dtype, found.tolist()) == (torch.int64, array.tolist())


@pytest.mark.parametrize("make", [lambda array: array, torch.from_numpy, lambda array: array.tolist()])
def test_whole_numbers_beyond_int64_are_refused(make: Any) -> None:
    """They would come back negative, and so at the other end of a ranking."""
    with pytest.raises(ValueError, match=f"difficulty: got {2**64 - 1}, expected whole numbers up to {2**63 - 1}"):
        as_tensor(make(np.array([2**64 - 1, 2**63], np.uint64)), "difficulty")


def test_what_numpy_has_no_numbers_for_is_refused() -> None:
    with pytest.raises(TypeError, match=r"difficulty: got a tensor of torch.complex64, expected numbers \[N\]"):
        as_tensor(torch.zeros(2, dtype=torch.complex64), "difficulty")
    for take in (as_tensor, real_numbers):
        with pytest.raises(ValueError, match="cost: got a list of unequal parts, expected numbers"):
            take([[1, 2], [3]], "cost")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool, torch.uint16])
def test_a_tensor_of_any_dtype_is_numbers_of_its_own(dtype: torch.dtype) -> None:
    given = torch.tensor([0, 1], dtype=dtype).requires_grad_(dtype.is_floating_point)
    found = real_numbers(given, "cost")
    assert (found.dtype, found.tolist()) == (np.float64, [0, 1])
    found[0] = 9
    assert given.tolist() == [0, 1]
