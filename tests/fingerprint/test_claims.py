"""What fingerprints claim in words is no more than the tests and the held-out runs show."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import World

import difficulty_prune as dp
from difficulty_prune.fingerprint.accuracy import Accuracy
from difficulty_prune.fingerprint.architecture_fingerprint import ArchitectureFingerprint
from difficulty_prune.fingerprint.compare_selectors import compare_selectors
from difficulty_prune.fingerprint.sensitive_examples import sensitive_examples

pytestmark = pytest.mark.usefixtures("one_thread")


def both(runs: dp.RunSet, examples: int = 10):
    return sensitive_examples(runs, "el2n"), ArchitectureFingerprint.fit(runs, "el2n", examples)


def test_examples_of_which_none_is_significant_merely_have_the_smallest_p_values() -> None:
    sensitive, fingerprint = both(World(0, examples=1437, sensitive=40, effect=4.0).runs(each=4, architectures=2))
    assert str(sensitive).startswith("0 of 1,437 examples tell cnn and mlp apart")
    accuracy = fingerprint.accuracy
    assert accuracy.interval[0] > 0.5
    assert fingerprint.describe(sensitive) == (
        f"Together, 10 examples tell cnn and mlp apart by el2n: {accuracy.correct} of 8 held-out runs recognised "
        f"({accuracy.value:.0%}, {accuracy.interval[0]:.0%} to {accuracy.interval[1]:.0%}). None of them is "
        "significant on its own: they merely have the smallest p-values, and chance may explain each."
    )
    single = ArchitectureFingerprint.fit(World(0, 1437, 40, 4.0).runs(4, 2), "el2n", 1)
    assert single.describe(sensitive).endswith(
        ". It is not significant: it merely has the smallest p-value, and chance may explain it."
    )


def test_examples_that_are_all_significant_need_no_excuse() -> None:
    sensitive, fingerprint = both(World(1, examples=300, sensitive=60, effect=3.0).runs(each=8))
    assert set(fingerprint.examples) <= set(sensitive.significant())
    assert fingerprint.describe(sensitive) == fingerprint.describe() == str(fingerprint)
    assert str(fingerprint).startswith("10 examples tell cnn, mlp and vit apart by el2n: ")


def test_examples_of_which_some_are_significant_are_counted() -> None:
    sensitive, fingerprint = both(World(2, examples=300, sensitive=4, effect=5.0).runs(each=8), examples=30)
    found = np.isin(fingerprint.examples, sensitive.significant()).sum()
    assert 0 < found < 30
    assert fingerprint.describe(sensitive).endswith(
        f". {found} of them are significant; the others merely have the next smallest p-values."
    )


@pytest.mark.parametrize("numbers", [(6, 6), (9, 3)])
def test_architectures_that_do_not_differ_are_not_said_to_be_told_apart(numbers: tuple[int, int]) -> None:
    claims = 0
    for seed in range(20):
        world = World(seed, examples=60, sensitive=0)
        runs = dp.RunSet(world.run(n, s) for n, each in zip(("cnn", "mlp"), numbers, strict=True) for s in range(each))
        fingerprint = ArchitectureFingerprint.fit(runs, "el2n", 5)
        assert fingerprint.chance == max(numbers) / 12
        said = str(fingerprint)
        claimed = said.startswith("5 examples tell")
        assert claimed or said.startswith("Nothing shows that 5 examples tell cnn and mlp apart by el2n: ")
        assert claimed == (fingerprint.accuracy.interval[0] > fingerprint.chance)
        assert claimed or said.endswith(f", where guessing gives {fingerprint.chance:.0%}.")
        claims += claimed
    assert claims <= 5, "of 20; 10 % each, see ArchitectureFingerprint.accuracy"


def test_a_loaded_fingerprint_compares_with_guessing_too(tmp_path) -> None:
    fingerprint = ArchitectureFingerprint.fit(World(3, 60, 0).runs(each=4), "el2n", 5)
    fingerprint.save(tmp_path / "a.safetensors")
    loaded = ArchitectureFingerprint.load(tmp_path / "a.safetensors")
    assert loaded.chance is None
    assert str(loaded) == str(fingerprint)


def test_the_best_choice_of_examples_is_compared_with_chance() -> None:
    row = dp.fingerprint.Row("random", 1, 0.6, Accuracy.of(6, 10).interval, 0.6)
    found = dp.fingerprint.Comparison((row,), "el2n", "held-out runs", ("cnn", "mlp"), 10, 0.5)
    assert str(found).splitlines()[0] == (
        "Nothing shows that examples tell cnn and mlp apart, at best 1 random example: 60% of 10 answers right, "
        "chance 50% (el2n, held-out runs)."
    )
    told = compare_selectors(World(4, 100, 30, 4.0).runs(each=5), "el2n", examples=[10], select=["sensitive"])
    assert str(told).startswith("cnn, mlp and vit are told apart best by 10 sensitive examples: 100% of 15 answers")
