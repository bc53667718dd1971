"""What training suggests: in a run, in its file, and over several runs; apart from what the trained model predicts."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.runs import run as run_module
from difficulty_prune.support.files import open_vectors, save_vectors
from difficulty_prune.support.vector_file import VectorFile

N, CLASSES = 6, 3
NAN = float("nan")


def means(seed: int, missing: tuple[int, ...] = (4,)) -> np.ndarray:
    found = np.random.default_rng(seed).dirichlet(np.ones(CLASSES), N).astype(np.float32)
    found[list(missing)] = np.nan
    return found


def make(seed: int = 0, **facts: Any) -> dp.Run:
    return dp.Run(
        {"el2n": np.linspace(0, 1, N) + seed}, architecture="mlp", seed=seed, dataset_fingerprint="f", **facts
    )


def assert_same(a: dp.Run, b: dp.Run) -> None:
    for name in ("suggested", "suggested_probability", "mean_probabilities", "predictions", "probabilities"):
        assert a.has(name) == b.has(name)
        if a.has(name):
            x, y = getattr(a, name), getattr(b, name)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
            np.testing.assert_array_equal(a.read(name, slice(1, 5)), x[1:5])
            np.testing.assert_array_equal(a.read(name, np.array([4, 0])), x[[4, 0]])


def test_labels_follow_from_the_means() -> None:
    given_means = means(0)
    run = make(mean_probabilities=given_means)
    expected = [-1 if np.isnan(row[0]) else int(row.argmax()) for row in given_means]
    assert run.suggested.tolist() == expected
    assert run.suggested.dtype == np.int64
    np.testing.assert_array_equal(run.suggested_probability, [NAN if np.isnan(r[0]) else r.max() for r in given_means])
    assert run.suggested_probability.dtype == run.mean_probabilities.dtype == np.float32
    assert run.predictions is None
    assert run.probabilities is None
    tie = make(mean_probabilities=np.full((N, CLASSES), 1 / 3))
    assert tie.suggested.tolist() == [0] * N


@pytest.mark.parametrize("kept", ["means", "labels alone", "with predictions"])
def test_through_a_file_a_pickle_and_more_scores(kept: str, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"mean_probabilities": means(0)}
    if kept == "labels alone":
        facts = {"suggested": [0, 1, 2, 0, -1, 1], "suggested_probability": [0.5, 1, 0.75, 0.4, NAN, 0.5]}
    if kept == "with predictions":
        facts |= {"probabilities": means(1, ()), "labels": [0, 1, 2] * 2}
    run = make(**facts)
    run.save(tmp_path / "run.safetensors")
    loaded = dp.Run.load(tmp_path / "run.safetensors")
    assert_same(loaded, run)
    assert_same(pickle.loads(pickle.dumps(loaded)), run)  # noqa: S301
    assert_same(loaded.with_scores({"aum": np.zeros(N)}), run)
    loaded.save(tmp_path / "run.safetensors")  # onto itself
    assert_same(loaded, run)


def test_only_a_file_that_holds_it_asks_for_the_newer_format(tmp_path: Path) -> None:
    for name, run, number in (("old", make(), 1), ("new", make(mean_probabilities=means(0)), 2)):
        run.save(tmp_path / name)
        assert f'"format": {number}' in VectorFile(tmp_path / name).metadata["difficulty_prune"]
    assert len(open_vectors(tmp_path / "old", "run", 1)[0]) == 1  # as an older version reads it
    with pytest.raises(ValueError, match="format 2 is newer than 1"):
        open_vectors(tmp_path / "new", "run", 1)


def test_a_file_of_means_alone_suggests_too(tmp_path: Path) -> None:
    arrays = {"el2n": np.zeros(N), "mean_probabilities": means(0).astype(np.float64)}
    save_vectors(tmp_path / "run", "run", 2, arrays, {"metadata": {"architecture": "mlp", "seed": 0}})
    loaded = dp.Run.load(tmp_path / "run")
    assert_same(loaded, make(mean_probabilities=means(0)))


PRESENT = [0.2, 0.3, 0.5]
BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"mean_probabilities": [PRESENT] * (N - 1)},
        r"mean_probabilities: got .* \(5, 3\), expected floating point \[6, C\]",
    ),
    ({"mean_probabilities": [[1]] * N}, "at least 2 classes"),
    ({"mean_probabilities": [PRESENT] * 5 + [[0.2, 0.2, 0.2]]}, "mean_probabilities: those of example 5 sum to 0.6"),
    ({"mean_probabilities": [[NAN] * 3] * 4 + [PRESENT, [1.5, -0.5, 0]]}, "mean_probabilities: those of example 5 sum"),
    ({"mean_probabilities": [PRESENT] * 5 + [[0.5, 0.5, NAN]]}, "mean_probabilities: those of example 5 sum to nan"),
    ({"suggested": [0] * N}, "expected suggested labels and suggested_probability together"),
    ({"suggested_probability": [0.5] * N}, "expected suggested labels and suggested_probability together"),
    ({"suggested": [0.5] * N, "suggested_probability": [0.5] * N}, "suggested: got float64 .* expected whole numbers"),
    ({"suggested": [0] * N, "suggested_probability": [1] * N}, "suggested_probability: got int64"),
    ({"suggested": [0] * 5 + [-2], "suggested_probability": [0.5] * N}, "got -2 with probability 0.5 for example 5"),
    ({"suggested": [0] * 5 + [-1], "suggested_probability": [0.5] * N}, "got -1 with probability 0.5 for example 5"),
    ({"suggested": [0] * N, "suggested_probability": [0.5] * 5 + [NAN]}, "got 0 with probability nan for example 5"),
    ({"suggested": [0] * N, "suggested_probability": [0.5] * 5 + [1.5]}, "got 0 with probability 1.5 for example 5"),
    (
        {"suggested": [2] * 5 + [1], "suggested_probability": [0.5] * 5 + [0.3], "mean_probabilities": [PRESENT] * N},
        "got 1 with probability 0.3 for example 5, expected the class of the largest mean probability",
    ),
    (
        {"suggested": [2] * N, "suggested_probability": [0.5] * 5 + [0.4], "mean_probabilities": [PRESENT] * N},
        "got 2 with probability 0.4 for example 5, expected the class of the largest mean probability",
    ),
    (
        {
            "suggested": [2] * N,
            "suggested_probability": [0.5] * N,
            "mean_probabilities": [PRESENT] * 5 + [[NAN] * 3],
        },
        "got 2 with probability 0.5 for example 5",
    ),
]


@pytest.mark.parametrize(("facts", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_what_cannot_be_is_refused_here_and_in_a_file(facts: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make(**facts)
    arrays = {"el2n": np.zeros(N), **{name: np.array(values) for name, values in facts.items()}}
    save_vectors(tmp_path / "bad.safetensors", "run", 2, arrays, {"metadata": {"architecture": "mlp", "seed": 0}})
    with pytest.raises(ValueError, match=message) as refusal:
        dp.Run.load(tmp_path / "bad.safetensors")
    assert "bad.safetensors" in str(refusal.value)


def test_checks_and_readings_in_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        run_module, "blocks", lambda size, width=1: (slice(i, min(i + 2, size)) for i in range(0, size, 2))
    )
    run = make(mean_probabilities=means(0))
    run.save(tmp_path / "run")
    monkeypatch.undo()
    assert_same(dp.Run.load(tmp_path / "run"), make(mean_probabilities=means(0)))


# Several runs


def test_the_mean_over_the_runs_that_presented_an_example() -> None:
    parts = [means(0, (4,)), means(1, (4, 2)), means(2, (4, 2, 0))]
    runs = dp.RunSet(make(seed, mean_probabilities=p) for seed, p in enumerate(parts))
    expected = np.full((N, CLASSES), np.nan)
    for i in range(N):
        known = [p[i].astype(np.float64) for p in parts if not np.isnan(p[i, 0])]
        if known:
            expected[i] = sum(known) / len(known)
    found = runs.mean_probabilities()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert runs.suggested().tolist() == [-1 if np.isnan(row[0]) else int(row.argmax()) for row in expected]
    assert runs.suggested().dtype == np.int64


votes = st.lists(
    st.lists(st.tuples(st.integers(-1, CLASSES - 1), st.sampled_from([0.25, 0.5, 0.75])), min_size=N, max_size=N),
    min_size=1,
    max_size=4,
)


@given(votes)
def test_runs_without_means_vote(cast: list[list[tuple[int, float]]]) -> None:
    runs = dp.RunSet(
        make(
            seed,
            suggested=[label for label, _ in of_run],
            suggested_probability=[NAN if label < 0 else p for label, p in of_run],
        )
        for seed, of_run in enumerate(cast)
    )
    for i, found in enumerate(runs.suggested().tolist()):
        sums = [sum(p for label, p in (of_run[i] for of_run in cast) if label == c) for c in range(CLASSES)]
        assert found == (-1 if max(sums) == 0 else sums.index(max(sums)))


def test_one_run_without_its_means_makes_all_vote() -> None:
    sure = {"suggested": [1] * N, "suggested_probability": [0.9] * N}
    runs = dp.RunSet([make(0, mean_probabilities=[[0.6, 0.4, 0]] * N), make(1, **sure)])
    assert runs.suggested().tolist() == [1] * N
    with pytest.raises(ValueError, match=r"1 of 2 runs have no mean_probabilities, .*seed=1.*mean_probabilities=True"):
        runs.mean_probabilities()


def test_runs_without_are_refused() -> None:
    runs = dp.RunSet([make(0, mean_probabilities=means(0)), make(1, probabilities=means(1, ()))])
    for method in (runs.mean_probabilities, runs.suggested):
        with pytest.raises(ValueError, match=r"1 of 2 runs have no .*mean_probabilities=True"):
            method()
    other = np.full((N, 2), 0.5)
    with pytest.raises(ValueError, match=r"different numbers of classes, \[2, 3\]"):
        dp.RunSet([make(0, mean_probabilities=means(0)), make(1, mean_probabilities=other)]).mean_probabilities()
