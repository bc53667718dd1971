"""Ids of examples: what is one, and the arrays of a file that hold them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from difficulty_prune.support.ids import (
    check_encoded,
    check_ids,
    decode_ids,
    encode_ids,
    id_of,
    number_of_ids,
    positions_of,
)

texts = st.lists(st.text(st.characters(exclude_categories=()), min_size=1), unique=True)  # with lone surrogates
numbers = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True)


@given(texts | numbers)
def test_what_is_encoded_comes_back(items: list[Any]) -> None:
    ids = check_ids(items)
    assert ids.tolist() == items
    assert ids.dtype in (object, np.int64)
    assert all(type(item) in (str, int) for item in ids.tolist())
    parts = encode_ids(ids)
    check_encoded(parts)
    assert number_of_ids({name: part.shape for name, part in parts.items()}) == len(items)
    back = decode_ids(parts)
    assert back.dtype == ids.dtype
    assert back.tolist() == items
    assert positions_of(back) == {item: position for position, item in enumerate(items)}


def test_text_takes_four_bytes_beside_itself() -> None:
    parts = encode_ids(check_ids(["é", "abc"]))
    assert sum(part.nbytes for part in parts.values()) == len("éabc".encode()) + 2 * 4


@pytest.mark.parametrize(
    "values",
    [[3, 1], (3, 1), np.array([3, 1], np.uint8), torch.tensor([3, 1]), [np.int32(3), 1], np.array([3, 1], object)],
)
def test_numbers_of_any_kind(values: Any) -> None:
    ids = check_ids(values)
    assert ids.dtype == np.int64
    assert ids.tolist() == [3, 1]


@pytest.mark.parametrize("values", [["b", "a"], np.array(["b", "a"]), [np.str_("b"), "a"], iter(["b", "a"])])
def test_texts_of_any_kind(values: Any) -> None:
    ids = check_ids(values)
    assert ids.dtype == object
    assert list(map(type, ids.tolist())) == [str, str]
    assert ids.tolist() == ["b", "a"]


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ("abc", TypeError, "got 'abc'"),
        (5, TypeError, "got 5"),
        ({"a", "b"}, TypeError, "got a set, which has no order"),
        (["a", 1], TypeError, "both texts and numbers, such as 'a' and 1"),
        (["a", None], TypeError, "got None for example 1"),
        ([True, False], TypeError, "got True for example 0"),
        ([1.5], TypeError, "got 1.5 for example 0"),
        (np.array([b"a"]), TypeError, "got b'a' for example 0"),
        (["a", ""], ValueError, "empty text for example 1"),
        ([1, 2**63], ValueError, f"got {2**63}"),
        (np.array([[1]]), ValueError, r"shape \(1, 1\)"),
        (["a", "b", "c", "b"], ValueError, "'b' names both example 1 and example 3, and 0 more"),
        ([4, 4, 5, 5], ValueError, "4 names both example 0 and example 1, and 1 more"),
    ],
)
def test_what_is_no_id_is_refused(values: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        check_ids(values)


@pytest.mark.parametrize("value", [torch.tensor(3), np.array(3), np.int64(3), 3])
def test_one_number(value: Any) -> None:
    assert id_of(value, "key", "example 0") == 3
    assert type(id_of(value, "key", "example 0")) is int


@pytest.mark.parametrize("value", [None, 1.0, b"a", torch.tensor([3, 4]), True, "", 2**63])
def test_what_is_no_single_id(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"key: got .* for example 7"):
        id_of(value, "key", "example 7")


def part(values: Any, dtype: Any) -> np.ndarray:
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"ids.text": part([255], np.uint8), "ids.lengths": part([1], np.uint32)}, "no UTF-8"),
        (
            {"ids.text": part([97], np.uint8), "ids.lengths": part([2], np.uint32)},
            "has 1 characters, the lengths say 2",
        ),
        ({"ids.text": part([97], np.uint8), "ids.lengths": part([2**32 - 1, 2], np.uint32)}, f"say {2**32 + 1}"),
    ],
)
def test_parts_that_do_not_fit(parts: dict[str, np.ndarray], said: str) -> None:
    for read in (check_encoded, decode_ids):
        with pytest.raises(ValueError, match=re.escape(said)):
            read(parts)


@pytest.mark.parametrize("shapes", [{"ids.text": (1,)}, {"ids": (1,), "ids.text": (1,)}, {"ids": (1, 1)}])
def test_parts_that_do_not_belong_together(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="expected numbers"):
        number_of_ids(shapes)


def test_no_parts_are_no_ids() -> None:
    assert number_of_ids({}) is None
