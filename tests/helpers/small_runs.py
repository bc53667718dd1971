"""Small runs and sets of runs with known contents, and checks that several test files make of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import difficulty_prune as dp

SIZE = 40


def make_run(seed=0, architecture="mlp", size=SIZE, labels=None, fingerprint="f00d", missing=(), **metadata):
    rng = np.random.default_rng(seed)
    scores = {"el2n": rng.random(size, dtype=np.float32), "aum": rng.normal(size=size)}
    for values in scores.values():
        values[list(missing)] = np.nan
    return dp.Run(
        scores, architecture=architecture, seed=seed, labels=labels, dataset_fingerprint=fingerprint, **metadata
    )


def holes(run_count=6, size=SIZE, seed=0):
    """Runs in which examples are missing at random; example 0 in all of them, example 1 in all but the first."""
    rng = np.random.default_rng(seed)
    runs = []
    for i in range(run_count):
        missing = set(np.flatnonzero(rng.random(size) < 0.3)) | {0}
        missing = missing - {1} if i == 0 else missing | {1}
        runs.append(make_run(seed=i, size=size, missing=missing))
    return dp.RunSet(runs)


def some_probabilities(size=SIZE, classes=5):
    return np.random.default_rng(0).dirichlet(np.ones(classes), size).astype(np.float32)


def fail(*_args, **_kwargs):
    raise OSError(28, "No space left on device")


def check_refused(path, *reasons):
    with pytest.raises(ValueError, match=re.escape(str(path))) as refusal:
        dp.Run.load(path)
    assert type(refusal.value) is ValueError
    for reason in reasons:
        assert re.search(reason, str(refusal.value))


GOOD_HEADER = {"metadata": {"architecture": "mlp", "seed": 0}}
score_tables = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 7), st.integers(1, 9)),
    elements=st.one_of(st.just(np.nan), st.integers(-3, 3).map(float), st.floats(-1e6, 1e6)),
)


def runs_of(table, score="aum"):
    return [
        dp.Run({score: row}, architecture="mlp", seed=seed, dataset_fingerprint="f00d")
        for seed, row in enumerate(table)
    ]


GRADIENT = {"channel_dim": 1, "every": 1, "pixels": None, "m2_dtype": "float32"}


def scored(seed, scores=("vog",), architecture="cnn", **metadata):
    rng = np.random.default_rng(seed)
    scores = {name: rng.random(SIZE) for name in scores}
    return dp.Run(scores, architecture=architecture, seed=seed, **{"dataset_fingerprint": "f00d", **metadata})
