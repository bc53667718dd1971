"""Results become plain data: what JSON can hold, with the same numbers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from difficulty_prune.support.plain import plain, plain_fields


@dataclass(frozen=True)
class Inner:
    pair: tuple[float, float]


@dataclass(frozen=True)
class Outer:
    name: str
    values: Any
    inner: tuple[Inner, ...]
    missing: None = None


def test_fields_come_by_name_in_their_order_with_extras_last() -> None:
    result = Outer("a", np.array([[1.0, np.nan]]), (Inner((0.5, math.nan)),))
    found = plain_fields(result, leave_out=("missing",), more=np.int64(3), name="b")
    assert found == {"name": "b", "values": [[1.0, None]], "inner": [{"pair": [0.5, None]}], "more": 3}
    assert list(found) == ["name", "values", "inner", "more"]
    assert plain_fields(Inner((1.0, 2.0))) == plain(Inner((1.0, 2.0))) == {"pair": [1.0, 2.0]}


def test_a_field_that_does_not_exist_is_an_extra_and_none_is_left_out_by_accident() -> None:
    assert plain_fields(Inner((1.0, 2.0)), leave_out=["pear"], pear=1) == {"pair": [1.0, 2.0], "pear": 1}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_infinity=False)
    | st.text()
    | hnp.arrays(np.float32, hnp.array_shapes(max_side=3, min_side=0), elements={"allow_infinity": False})
    | hnp.arrays(st.sampled_from([np.int16, bool]), hnp.array_shapes(max_side=3, min_side=0)),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values)
def test_anything_made_of_numbers_can_be_written_as_json(value: Any) -> None:
    found = plain(value)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert plain(found) == found


@pytest.mark.parametrize("scalar", [np.float32(0.5), np.float64(0.5), np.array(0.5)])
def test_numpy_scalars_are_python_numbers(scalar: Any) -> None:
    assert plain(scalar) == 0.5
    assert type(plain(scalar)) is float
    assert plain(np.float32("nan")) is None
    assert plain(np.bool_(True)) is True
