"""Hashes are those of xxhash, numbers never share one, and draws look random in every way that counts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from difficulty_prune.support.hashing import hash_ids, hash_words, pack_signed, pack_unsigned, seed_of, uniform
from difficulty_prune.support.ids import id_array

xxhash = pytest.importorskip("xxhash", reason="xxhash is not installed")


FIXED_NUMBERS = [14374147212387527897, 3439722301264460078, 7602370513495869217]
FIXED_TEXTS = [16629034431890738719, 6971109639078617677]
FIXED_SEED = 5836529245451711556


@settings(max_examples=100)
@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), seed=st.integers(0, 2**64 - 1))
def test_of_numbers_it_is_what_xxhash_says(numbers, seed):
    expected = [xxhash.xxh3_64_intdigest(pack_signed(number), seed) for number in numbers]
    assert hash_words(np.array(numbers, np.int64), seed).tolist() == expected
    again = [xxhash.xxh3_64_intdigest(pack_unsigned(word), seed) for word in expected]
    assert hash_words(np.array(expected, np.uint64), seed).tolist() == again


def test_of_many_numbers_too():
    numbers = np.arange(-70_000, 70_000)
    found = hash_words(numbers, 3)
    for place in (0, 65_535, 65_536, 139_999):
        assert int(found[place]) == xxhash.xxh3_64_intdigest(pack_signed(int(numbers[place])), 3)
    assert len(np.unique(found)) == len(numbers)


@settings(max_examples=50)
@given(texts=st.lists(st.text(min_size=1), min_size=1, max_size=10), salt=st.integers(0, 9))
def test_of_texts_it_is_what_xxhash_says(texts, salt):
    texts = [*texts, "\udcff.png"]  # the name of a file that is no UTF-8
    expected = [xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), salt) for text in texts]
    assert hash_ids(id_array(texts), salt).tolist() == expected


def test_hashes_stay_what_they_are():
    """Tables of today are read by versions to come."""
    assert hash_ids(id_array([0, 1, -5])).tolist() == FIXED_NUMBERS
    assert hash_ids(id_array(["a", "cat/1.png"])).tolist() == FIXED_TEXTS
    assert seed_of(0, 1) == FIXED_SEED


def draws(epochs, numbers=20_000, seed=0):
    hashes = hash_ids(np.arange(numbers))
    return np.stack([uniform(hashes, seed_of(seed, epoch)) for epoch in epochs])


def test_draws_are_uniform_and_those_of_epochs_seeds_and_neighbours_are_independent():
    """Chi-squared tests of 8 bins, or of pairs in 8 x 8, each with 1 chance in 100,000 to fail without reason."""
    drawn = draws(range(4))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    bins = (drawn * 8).astype(int)
    other_seed = (draws(range(1), seed=1) * 8).astype(int)[0]
    for row in bins:
        assert scipy.stats.chisquare(np.bincount(row, minlength=8)).pvalue > 1e-5
    pairs = [*itertools.combinations(bins, 2), (bins[0], other_seed), (bins[0][:-1], bins[0][1:])]
    for first, second in pairs:
        assert scipy.stats.chisquare(np.bincount(first * 8 + second, minlength=64)).pvalue > 1e-5


def test_low_bits_of_draws_are_random_too():
    low = (draws(range(1))[0] * 2**53).astype(np.int64) % 8
    assert scipy.stats.chisquare(np.bincount(low, minlength=8)).pvalue > 1e-5
