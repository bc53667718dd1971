"""Labels that training disbelieves: against a loop over examples, on a real training, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import difficulty_prune as dp


def run_of(margin: Any, seed: int = 0, **facts: Any) -> dp.Run:
    return dp.Run({"margin": margin}, architecture="mlp", seed=seed, **facts)


def slow_index(margins: Any, labels: Any, suggested: Any) -> list[int]:
    """The rule in plain words, an example at a time; margins [R, N]."""
    mean = [np.mean([m for m in column if not np.isnan(m)] or [np.nan]) for column in margins.T]
    found = []
    for i, margin in enumerate(mean):
        of_class = [abs(m) for m, label in zip(mean, labels, strict=True) if label == labels[i] and not np.isnan(m)]
        if not np.isnan(margin) and -margin > 0.25 * np.mean(of_class) and suggested[i] != labels[i]:
            found.append(i)
    return sorted(found, key=lambda i: (mean[i], i))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_it_is_what_a_loop_over_examples_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.uniform(-0.6, 0.9, 40)
    margins = np.stack([base, base + rng.normal(0, 0.01, 40)])
    margins[:, rng.integers(40)] = np.nan
    labels, suggested = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    known = {"labels": labels, "suggested": suggested, "suggested_probability": np.full(40, 0.5)}
    missing = np.isnan(margins[0])
    known["suggested"][missing] = -1
    known["suggested_probability"][missing] = np.nan
    issues = dp.audit.label_issues(dp.RunSet(run_of(m, seed=s, **known) for s, m in enumerate(margins)))
    assert issues.index.tolist() == slow_index(margins, labels, suggested)
    assert issues.number == len(issues.index)
    assert issues.suggested.tolist() == suggested[issues.index].tolist()
    assert issues.examples == 39
    assert issues.caveat is None


def test_without_suggestions_and_labels_margins_decide_alone() -> None:
    issues = dp.audit.label_issues(run_of([0.9, -0.8, -0.1, 0.7]))
    assert issues.index.tolist() == [1]  # -0.1 is within a quarter of the mean, 0.625
    assert issues.suggested.tolist() == [-1]


def test_a_class_has_a_threshold_of_its_own() -> None:
    margin, labels = [0.9, 0.9, -0.1, 0.1, 0.1, -0.1], [0, 0, 0, 1, 1, 1]
    assert dp.audit.label_issues(run_of(margin), labels).index.tolist() == [5]
    assert dp.audit.label_issues(run_of(margin, labels=labels)).index.tolist() == [5]
    assert dp.audit.label_issues(run_of(margin), torch.tensor(labels)).index.tolist() == [5]


def test_aum_serves_where_there_is_no_margin() -> None:
    run = dp.Run({"aum": [9.0, -8.0, 7.0], "el2n": [0.1, 0.9, 0.2]}, architecture="mlp", seed=0)
    assert dp.audit.label_issues(run).index.tolist() == [1]


def test_planted_wrong_labels_are_found_with_their_right_class() -> None:
    """Digits, of which a tenth have a wrong label, and a training of a few seconds."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, right = torch.from_numpy(digits.data).float() / 16, torch.from_numpy(digits.target).long()
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(right), generator=generator) < 0.1
    labels = torch.where(wrong, (right + torch.randint(1, 10, right.shape, generator=generator)) % 10, right)
    tracker = dp.DifficultyTracker(len(x), scores=("margin",), mean_probabilities=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(15):
        for index in torch.randperm(len(x), generator=generator).split(64):
            logits = model(x[index])
            tracker.update(index, logits, labels[index])
            optimizer.zero_grad()
            F.cross_entropy(logits, labels[index]).backward()
            optimizer.step()
    issues = dp.audit.label_issues(tracker.finish(architecture="mlp", seed=0))
    hits = wrong[issues.index]
    assert hits.double().mean() > 0.9
    assert hits.sum() > 0.9 * wrong.sum()
    agree = torch.from_numpy(issues.suggested) == right[issues.index]
    assert agree[hits].double().mean() > 0.9
    assert wrong[issues.index[:50]].all()


# When the numbers say little


def test_runs_that_do_not_agree_are_told() -> None:
    rng = np.random.default_rng(0)
    runs = dp.RunSet(run_of(rng.normal(0.5, 0.5, 200), seed=s) for s in range(3))
    with pytest.warns(UserWarning, match="the runs do not agree on margin"):
        issues = dp.audit.label_issues(runs)
    assert "do not agree" in str(issues)


def test_a_training_that_disbelieves_most_labels_is_told() -> None:
    with pytest.warns(UserWarning, match="it learned little"):
        issues = dp.audit.label_issues(run_of([-0.5, -0.6, 0.1, -0.7]))
    assert str(issues) == (
        "3 of 4 labels are likely wrong (75.0%), most likely first; the training disbelieves 3 of 4 labels: it learned "
        "little, or most labels are wrong"
    )


@pytest.mark.parametrize("margin", [[0.5, 0.5, 0.5], [np.nan, np.nan, np.nan]])
def test_runs_that_rank_nothing_are_refused(margin: list[float]) -> None:
    with pytest.raises(ValueError, match="margin"):
        dp.audit.label_issues(run_of(margin))


def test_it_becomes_json() -> None:
    issues = dp.audit.label_issues(run_of([0.9, -0.8, 0.7]))
    facts = json.loads(json.dumps(issues.to_dict()))
    assert facts == {"index": [1], "number": 1, "suggested": [-1], "examples": 3, "caveat": None}


# Bad input


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 1], ValueError, r"labels: got the shape \(2,\), expected \(3,\)"),
        ([0.5, 1.0, 0.0], TypeError, "labels: got float64"),
        (["a", "b", "c"], TypeError, "labels"),
        ([0, 1, 0], ValueError, "labels: 1 of 3 are others than the runs were trained on, the first at 2"),
    ],
)
def test_bad_labels_are_refused(labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dp.audit.label_issues(run_of([0.9, -0.8, 0.7], labels=[0, 1, 1]), labels)


def test_bad_runs_are_refused() -> None:
    with pytest.raises(TypeError, match="expected a RunSet"):
        dp.audit.label_issues("runs")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="all have el2n, expected margin or aum"):
        dp.audit.label_issues(dp.Run({"el2n": [0.1, 0.2]}, architecture="mlp", seed=0))
