"""Digests tell arrays apart that differ in a bit, a value, an order, a dtype or a shape."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difficulty_prune.support.digest import DIGEST_BLOCK, Digest, Digests, digest_of_array, digest_of_text
from difficulty_prune.support.safetensors_header import ArrayKind

WORDS = DIGEST_BLOCK // 8
KIND = ArrayKind(np.dtype("u1"), (3,))
ONE_BLOCK_AND_MORE = np.random.default_rng(0).integers(0, 2**63, WORDS + 3000)
SMALL_NUMBERS = np.random.default_rng(1).integers(0, 3, WORDS + 3000)  # many of which are equal


def slow_digest(content: bytes, kind: ArrayKind) -> str:
    """As the docstring says it, a word at a time."""
    total = hashlib.blake2b(f"{kind.dtype.str} {list(kind.shape)}".encode(), digest_size=16)
    for start in range(0, len(content), DIGEST_BLOCK):
        block = content[start : start + DIGEST_BLOCK]
        rows, columns = [0] * (len(block) // 8168), [0] * 1021
        for i in range(len(rows) * 1021):
            word = int.from_bytes(block[8 * i : 8 * i + 8], "little")
            rows[i // 1021] += word
            columns[i % 1021] += word
        for sums in (columns, rows) if rows else ():
            total.update(b"".join((value % 2**64).to_bytes(8, "little") for value in sums))
        total.update(block[len(rows) * 8168 :])
    return total.hexdigest()


@pytest.mark.parametrize("size", [0, 1, 8167, 8168, 20_000, DIGEST_BLOCK - 1, DIGEST_BLOCK, DIGEST_BLOCK + 8169])
def test_the_digest_is_what_its_docstring_says(size: int) -> None:
    content = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    digest = Digest(KIND)
    digest.update(content)
    assert digest.value() == slow_digest(content.tobytes(), KIND)


def test_digests_in_files_of_today_stay_right() -> None:
    assert digest_of_array(np.arange(5, dtype="<i4")) == "312175ec125460c501accdb29b1e27d5"
    assert digest_of_array(np.arange(300_000, dtype="<f4")) == "aa46ebafc318c9f6ba5991533ffa573e"
    assert digest_of_text("größer") == "5b8d1df0ff55d3572980fe61c922ee5f"


@given(st.lists(st.integers(0, DIGEST_BLOCK + 50_000), max_size=5))
def test_the_parts_make_no_difference(cuts: list[int]) -> None:
    content = ONE_BLOCK_AND_MORE.view(np.uint8)
    digest = Digest(ArrayKind(ONE_BLOCK_AND_MORE.dtype, ONE_BLOCK_AND_MORE.shape))
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(content)], strict=True):
        digest.update(content[begin:end])
        digest.value()  # of what there is so far, which changes nothing
    assert digest.value() == digest_of_array(ONE_BLOCK_AND_MORE)


places = st.integers(0, WORDS + 2999)


@given(
    st.sampled_from([ONE_BLOCK_AND_MORE, SMALL_NUMBERS]),
    st.dictionaries(places, st.integers(1, 2**63 - 1), min_size=1, max_size=3),
)
def test_changes_of_up_to_three_words_are_noticed(array: np.ndarray, changes: dict[int, int]) -> None:
    other = array.copy()
    for place, change in changes.items():
        other[place] ^= change
    assert digest_of_array(other) != digest_of_array(array)


@given(places, st.integers(0, 63), st.lists(places, min_size=1, max_size=2), st.data())
def test_flips_of_the_same_bit_in_several_words_are_noticed(
    first: int, bit: int, others: list[int], data: st.DataObject
) -> None:
    """Also where they cancel out in a sum: a bit up and a bit down, or the highest bit twice."""
    rows = data.draw(st.lists(st.integers(-100, 100), min_size=len(others), max_size=len(others)))
    in_column = [(first + 1021 * row) % WORDS for row in rows]
    for places in ({first, *others}, {first, *in_column}):
        other = ONE_BLOCK_AND_MORE.view(np.uint64).copy()
        other[list(places)] ^= np.uint64(1 << bit)
        assert digest_of_array(other.view(np.int64)) != digest_of_array(ONE_BLOCK_AND_MORE)


@given(st.data(), st.sampled_from([1, 8, 64, 512]))
def test_exchanged_words_sectors_and_pages_are_noticed(data: st.DataObject, words: int) -> None:
    a, b = data.draw(st.lists(st.integers(0, (WORDS + 3000) // words - 1), min_size=2, max_size=2, unique=True))
    for array in (ONE_BLOCK_AND_MORE, SMALL_NUMBERS):
        other = array.copy()
        other[a * words : (a + 1) * words] = array[b * words : (b + 1) * words]
        other[b * words : (b + 1) * words] = array[a * words : (a + 1) * words]
        if not np.array_equal(other, array):
            assert digest_of_array(other) != digest_of_array(array)


def test_another_dtype_shape_or_length_is_noticed() -> None:
    array = np.arange(12, dtype="<i4")
    others = [array.view("<f4"), array.reshape(3, 4), array.reshape(4, 3), array[:11], np.append(array, np.int32(0))]
    found = {digest_of_array(other) for other in [array, *others]}
    assert len(found) == 6


def test_the_digests_of_a_file_come_back_from_their_text() -> None:
    digests = Digests.of({"größe": np.zeros(3), "b": np.ones(2)}, {"text": "x"})
    assert Digests.parse(str(digests)) == digests


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{}",
        '{"arrays": {}}',
        '{"arrays": {}, "metadata": {}, "more": {}}',
        '{"arrays": [], "metadata": {}}',
        '{"arrays": {"a": 3}, "metadata": {}}',
        '{"arrays": {"a": "1", "a": "2"}, "metadata": {}}',
        "[" * 10_000,
    ],
)
def test_what_is_no_list_of_digests_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Digests.parse(text)
