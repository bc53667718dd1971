"""Run files, plans, running means, fingerprints and states that version 0.1.0 wrote are read as it read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import difficulty_prune as dp

FOLDER = Path(__file__).parent.parent / "data" / "version-0.1.0"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
SIZE = 12


def load(name: str) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(FOLDER / name, weights_only=True)
    return state


def test_a_run_file() -> None:
    run = dp.Run.load(FOLDER / "run.safetensors")
    assert {name: scores.tolist() for name, scores in run.scores.items()} == EXPECTED["run"]["scores"]
    assert dict(run.metadata) == EXPECTED["run"]["metadata"]
    assert run.labels.tolist() == EXPECTED["run"]["labels"]


def test_run_files_with_all_that_a_run_can_hold() -> None:
    runs = dp.RunSet.load(FOLDER / "cnn-*.safetensors")
    assert len(runs) == 2
    assert runs.mean("el2n").tolist() == EXPECTED["runs"]["el2n"]
    assert runs[0].predictions.tolist() == EXPECTED["runs"]["predictions"]
    assert runs[0].seen.tolist() == EXPECTED["runs"]["seen"]


def test_a_running_mean_which_goes_on() -> None:
    mean = dp.RunningMean.load(FOLDER / "running-mean.safetensors")
    assert mean.mean("aum").tolist() == EXPECTED["running_mean"]
    with pytest.raises(ValueError, match="already"):
        mean.update(dp.Run.load(FOLDER / "cnn-0.safetensors"))


def test_a_fingerprint() -> None:
    fingerprint = dp.ArchitectureFingerprint.load(FOLDER / "fingerprint.safetensors")
    assert fingerprint.examples.tolist() == EXPECTED["fingerprint"]["examples"]
    probabilities = fingerprint.predict_proba(dp.Run.load(FOLDER / "cnn-0.safetensors"))
    assert probabilities == pytest.approx(EXPECTED["fingerprint"]["proba"])


def test_a_plan() -> None:
    plan = dp.Plan.load(FOLDER / "plan.safetensors")
    assert plan.index.tolist() == EXPECTED["plan"]["index"]
    assert plan.weight.tolist() == EXPECTED["plan"]["weight"]
    assert str(plan.summary()) == EXPECTED["plan"]["text"]


def test_a_trackers_state_with_every_kind_of_score() -> None:
    """Format 1 kept `grand` as the gradient of one pixel."""
    tracker = dp.DifficultyTracker(
        SIZE,
        ("el2n", "aum", "forgetting", "variability", "tdds", "dyn_unc", "vog_loss", "grand"),
        temporal=dp.TemporalOptions(window=3),
        gradient=dp.GradientOptions(pixels=3, m2_dtype="bfloat16"),
    )
    tracker.load_state_dict(load("tracker.pt"))
    for name, values in tracker.compute().items():
        np.testing.assert_array_equal(values.numpy(), np.float32(EXPECTED["tracker"][name]))
    assert tracker.presentations == EXPECTED["presentations"]
    x = tracker.watch(torch.ones(1, 1, 2, 2), torch.tensor([0]))
    x.sum().backward()
    tracker.update(torch.tensor([0]), torch.zeros(1, 3), torch.tensor([0]))
    tracker.record(torch.tensor([0]), norms=torch.ones(1))
    assert tracker.presentations == EXPECTED["presentations"] + 1


def test_a_trackers_state_of_losses_and_one_without_any_batch() -> None:
    tracker = dp.DifficultyTracker(SIZE, ("loss",))
    tracker.load_state_dict(load("losses.pt"))
    expected = [np.nan if value is None else value for value in EXPECTED["losses"]["loss"]]
    np.testing.assert_array_equal(tracker.compute()["loss"].numpy(), np.float32(expected))
    tracker = dp.DifficultyTracker(SIZE, ("el2n",))
    tracker.load_state_dict(load("empty.pt"))
    assert tracker.presentations == 0


@pytest.mark.parametrize("policy", ["hardest", "soft"])
def test_a_samplers_state_in_mid_epoch(policy: str) -> None:
    rule = {"hardest": dp.policies.Hardest(0.75), "soft": dp.policies.SoftPrune(0.75)}[policy]
    sampler = dp.PruneSampler(rule, EXPECTED["difficulty"], seed=5)
    sampler.load_state_dict(load(f"sampler-{policy}.pt"))
    assert list(sampler) == EXPECTED[f"sampler-{policy}"]["rest"]
