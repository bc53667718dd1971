"""Runs that nothing shows to be of the same data are averaged, with a warning that says what to do."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

import difficulty_prune as dp

KNOWN = {
    "fingerprint": {"dataset_fingerprint": "f00d"},
    "labels": {"labels": [0, 1, 0]},
    "both": {"dataset_fingerprint": "f00d", "labels": [0, 1, 0]},
    "nothing": {},
}
MIXED = [("fingerprint",) * 2, ("labels",) * 3, ("both", "fingerprint"), ("fingerprint", "fingerprint", "both")]
UNPROVEN = [("nothing",) * 2, ("nothing",) * 3, ("labels", "nothing"), ("labels", "labels", "nothing")]


def made(kinds):
    return [
        dp.Run({"el2n": np.random.default_rng(s).random(3)}, architecture="mlp", seed=s, **KNOWN[kind])
        for s, kind in enumerate(kinds)
    ]


def load(runs, folder):
    for run in runs:
        run.save(folder / f"{run.seed}.safetensors")
    return dp.RunSet.load(folder)


@pytest.mark.parametrize("kinds", UNPROVEN, ids="+".join)
def test_a_set_that_may_be_of_different_data_says_so_once(kinds, tmp_path):
    with pytest.warns(UserWarning, match="nothing shows that these") as caught:
        runs = load(made(kinds), tmp_path)
    (warning,) = caught
    text = str(warning.message)
    assert f"these {len(kinds)} runs are of the same data" in text
    assert f"{kinds.count('nothing')} with neither a dataset fingerprint nor labels" in text
    assert f"{kinds.index('nothing')}.safetensors" in text
    assert "tracker.finish dataset_fingerprint=dp.dataset_fingerprint(dataset), or labels=" in text
    assert warning.filename == __file__
    np.testing.assert_allclose(runs.mean("el2n"), np.mean([run.scores["el2n"] for run in made(kinds)], axis=0))


@pytest.mark.parametrize("kinds", [*MIXED, *((kind,) for kind in KNOWN)], ids="+".join)
def test_nothing_is_said_of_runs_that_share_their_data_or_of_one(kinds, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(made(kinds), tmp_path)
        running = dp.RunningMean()
        for run in made(kinds):
            running.update(run)


@pytest.mark.parametrize("order", [*itertools.permutations(("labels", "labels", "nothing")), ("nothing",) * 3])
def test_a_running_mean_says_so_too_and_goes_on(order, tmp_path):
    running, warned = dp.RunningMean(), 0
    for run in made(order):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            running.update(run)
        warned += len(caught)
        running.save(tmp_path / "mean.safetensors")
        running = dp.RunningMean.load(tmp_path / "mean.safetensors")
    assert warned >= 1
    assert len(running) == 3
