"""A run says what it has, where its file is, and gives any examples of any of its arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import GOOD_HEADER, SIZE, make_run, some_probabilities

import difficulty_prune as dp
from difficulty_prune.support import files

EVERYTHING = ("el2n", "aum", "labels", "seen", "probabilities", "predictions")
bounds = st.none() | st.integers(-SIZE - 2, SIZE + 2)
some_examples = st.one_of(
    st.none(),
    st.builds(slice, bounds, bounds, st.none() | st.integers(-3, 3).filter(bool)),
    st.lists(st.integers(-SIZE, SIZE - 1), min_size=1).map(np.array),
    st.lists(st.booleans(), min_size=SIZE, max_size=SIZE).map(np.array),
)


def full_run() -> dp.Run:
    return make_run(labels=np.arange(SIZE) % 5, seen=np.arange(SIZE) > 3, probabilities=some_probabilities())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dp.Run]:
    """The same in memory, in a file, and in a file whose predictions only follow from the probabilities."""
    folder = tmp_path_factory.mktemp("runs")
    run = full_run()
    run.save(folder / "whole")
    vectors, header = files.load_vectors(folder / "whole", "run", 1)
    files.save_vectors(folder / "less", "run", 1, {k: v for k, v in vectors.items() if k != "predictions"}, header)
    return [run, dp.Run.load(folder / "whole"), dp.Run.load(folder / "less")]


@given(st.sampled_from(EVERYTHING), some_examples)
def test_examples_are_those_of_the_whole(runs: list[dp.Run], name: str, examples: slice | np.ndarray | None) -> None:
    whole = runs[0].scores[name] if name in runs[0].scores else getattr(runs[0], name)
    for run in runs:
        found = run.read(name, examples)
        np.testing.assert_array_equal(found, whole if examples is None else whole[examples])
        assert found.dtype == whole.dtype
        assert not found.flags.writeable


def test_what_a_run_has(runs: list[dp.Run]) -> None:
    for run in runs:
        assert all(run.has(name) for name in EVERYTHING)
        assert not run.has("loss")
        assert not run.has("architecture")
    assert not make_run().has("predictions")
    with pytest.raises(KeyError, match=r"Run\('mlp'.* has no 'probabilities'"):
        make_run().read("probabilities")


def test_the_path_is_that_of_the_file(runs: list[dp.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs[0].path is None
    assert runs[1].path is not None
    assert (runs[1].path.name, runs[1].path.is_absolute()) == ("whole", True)
    monkeypatch.chdir(tmp_path)
    full_run().save("here")
    assert dp.Run.load("here").path == tmp_path / "here"
    assert dp.Run.load("here").with_scores({"loss": np.zeros(SIZE)}).path is None


@pytest.mark.parametrize("examples", [3, "ab", [0.5], [SIZE], [True]])
def test_other_examples_are_refused_alike_in_memory_and_in_a_file(runs: list[dp.Run], examples: object) -> None:
    messages = set()
    for run in runs:
        with pytest.raises((TypeError, IndexError), match=r"^examples: got") as refusal:
            run.read("el2n", examples)  # type: ignore[arg-type]
        messages.add((refusal.type, str(refusal.value)))
    assert len(messages) == 1


def test_predictions_of_many_classes_are_read_in_blocks(tmp_path: Path) -> None:
    size, classes = 3000, 1000
    chosen = np.random.default_rng(0).integers(0, classes, size)
    p = np.zeros((size, classes), np.float32)
    p[np.arange(size), chosen] = 1
    files.save_vectors(tmp_path / "file", "run", 1, {"el2n": np.zeros(size), "probabilities": p}, GOOD_HEADER)
    run = dp.Run.load(tmp_path / "file")
    np.testing.assert_array_equal(run.predictions, chosen)
    order = np.random.default_rng(1).permutation(size)
    np.testing.assert_array_equal(run.read("predictions", order), chosen[order])
