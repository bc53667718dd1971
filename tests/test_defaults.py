"""The library's tensors have dtypes and devices of their own, whatever the defaults of the program are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune import ops, policies

N, C = 24, 3
CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 1, 4, 4, generator=GENERATOR)
LOGITS = torch.randn(N, C, generator=GENERATOR)
DIFFICULTY = torch.rand(N, generator=GENERATOR, dtype=torch.float64)
Y, INDEX = torch.arange(N) % C, torch.arange(N)
torch.manual_seed(1)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, C))


def tracked() -> dict[str, Tensor]:
    tracker = dp.DifficultyTracker(
        N,
        ("el2n", "forgetting", "tdds", "dyn_unc", "vog", "vog_loss"),
        temporal=dp.TemporalOptions(window=3),
        gradient=dp.GradientOptions(pixels=5, m2_dtype="bfloat16"),
    )
    weight = torch.linspace(0.5, 2, N, dtype=torch.float32, device="cpu")
    for step in range(4):
        x = tracker.watch(X * (1 + step), INDEX, weight=weight, reduction="weighted_mean", accumulation_steps=2)
        logits = MODEL(x)
        tracker.update(INDEX, logits, Y, inputs=x)
        loss = F.cross_entropy(logits, Y, reduction="none")
        ((loss * weight).sum() / weight.sum() / 2).backward()
    return tracker.compute()


def losses() -> dict[str, Tensor]:
    tracker = dp.DifficultyTracker(N, ("loss",))
    tracker.update(INDEX, loss=F.cross_entropy(LOGITS, Y, reduction="none"))
    return tracker.compute(scores=("loss",))


def nothing_yet() -> dict[str, Tensor]:
    return dp.DifficultyTracker(N, ("el2n", "vog")).compute()


def merged() -> dict[str, Tensor]:
    a, b = dp.DifficultyTracker(N, ("el2n", "aum")), dp.DifficultyTracker(N, ("el2n", "aum"))
    a.update(INDEX, LOGITS, Y)
    b.update(INDEX, -LOGITS, Y)
    a.merge(b)
    again = dp.DifficultyTracker(N, ("el2n", "aum"))
    again.load_state_dict(a.state_dict())
    return again.compute(class_normalized=True)


def frozen() -> dict[str, Tensor]:
    tracker = dp.DifficultyTracker(N, ("el2n", "vog_probability", "grand"))
    for scale in (1, 2):
        dp.score_checkpoint(MODEL, [(X * scale, Y, INDEX)], tracker)
    return tracker.compute()


def features() -> dict[str, Tensor]:
    known = dp.score_features(MODEL, [(X, Y, INDEX)])
    return known.scores(("prototype_distance", "self_prototype_distance", "prediction_depth"), k=5)


def visits(policy: Any) -> Callable[[], dict[str, Any]]:
    def run() -> dict[str, Any]:
        sampler = dp.PruneSampler(policy, DIFFICULTY, labels=Y, seed=0)
        weights = sampler.weight(INDEX)
        sampler.set_epoch(1)
        return {"order": list(sampler), "weights": weights, "steps": sampler.total_steps(5, 3)}

    return run


def part_of_an_epoch() -> dict[str, Any]:
    sampler = dp.PruneSampler(policies.Random(1.0), DIFFICULTY, shuffle=False, fixed_length=17)
    first = list(sampler)
    sampler.load_state_dict(sampler.state_dict(consumed=5))
    return {"first": first, "rest": list(sampler)}


def runs() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    several = dp.RunSet(
        dp.Run(
            {"el2n": DIFFICULTY.numpy() + rng.normal(0, 0.1, N) + (name == "mlp") * np.eye(N)[3]},
            architecture=name,
            seed=s,
        )
        for name in ("cnn", "mlp")
        for s in range(4)
    )
    fingerprint = dp.ArchitectureFingerprint.fit(several, examples=3)
    return {
        "reliability": dp.consistency.reliability(several, "el2n").value,
        "stable": dp.consistency.stable_subset(several, "el2n", policies.Stratified(0.5)).frequency,
        "sensitive": dp.fingerprint.sensitive_examples(several, "el2n", permutations=50).p_value,
        "examples": fingerprint.examples,
        "compared": str(dp.fingerprint.compare_selectors(several, "el2n", examples=(2,))),
    }


def operators() -> dict[str, Tensor]:
    table, skipped = ops.new_table(N), ops.new_skipped()
    ops.record_stats_(table, INDEX, LOGITS, Y, skipped)
    ops.record_given_stats_(table, INDEX, ops.softmax_stats(LOGITS, Y), Y, C, skipped)
    reference = ops.new_table(N)
    ops.reference.record_stats_(reference, INDEX, LOGITS, Y, ops.new_skipped())
    other = ops.new_table(N)
    ops.record_losses_(other, INDEX, LOGITS[:, 0].abs())
    return {
        "table": table,
        "losses": other,
        "reference": reference,
        "vog": ops.gradient_variance(X[None].expand(3, -1, -1, -1, -1)),
    }


def trajectories() -> dict[str, Tensor]:
    steps = torch.stack([LOGITS * scale for scale in (1, 2, 3, 4)])
    return dp.scores.trajectory_scores(steps, Y, temporal=dp.TemporalOptions(window=3))


def data() -> dict[str, Any]:
    train = dp.IndexedDataset(TensorDataset(X, Y))
    loss = dp.reduce_loss(LOGITS[:, 0], INDEX // 2, 12)
    return {"fingerprint": dp.dataset_fingerprint(train), "loss": loss, "normal": dp.class_normalize(DIFFICULTY, Y)}


def decided() -> dict[str, Any]:
    named = dp.IndexedDataset([{"name": str(i), "label": i % C} for i in range(N)], key="name")
    named.collect_ids()
    decisions = dp.Decisions([{"id": "0", "decision": "drop"}, {"id": "3", "decision": "keep", "weight": 0.5}])
    plan = decisions.plan(named)
    sampler = dp.PruneSampler(policies.Hardest(0.5), DIFFICULTY, dataset=named, decisions=decisions, shuffle=False)
    both = policies.within(plan, policies.Hardest(0.5)(DIFFICULTY), DIFFICULTY)
    return {"index": plan.index, "weight": plan.weight, "both": both.weight, "visits": list(sampler)}


ENTRIES: dict[str, Callable[[], dict[str, Any]]] = {
    **{f.__name__: f for f in (tracked, losses, nothing_yet, merged, frozen, features, part_of_an_epoch, runs)},
    **{f.__name__: f for f in (operators, trajectories, data, decided)},
    **{
        repr(policy): visits(policy)
        for policy in (
            *(policies.Hardest(0.5), policies.Easiest(0.5), policies.Window(0.1, 0.5), policies.Random(0.5)),
            *(policies.Stratified(0.5, 0.1, 4), policies.SoftPrune(0.5, anneal=0.5, epochs=3)),
            *(policies.Importance(keep=0.5), policies.PerClass(policies.SoftPrune(0.5))),
        )
    },
}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


DEFAULTS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "meta": lambda: torch.device("meta"),
}


@pytest.mark.filterwarnings("ignore:grand. on this batch the model is no better than chance:UserWarning")
@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("name", ENTRIES)
def test_results_do_not_depend_on_the_defaults(name: str, default: str) -> None:
    expected = ENTRIES[name]()
    with DEFAULTS[default]():
        got = ENTRIES[name]()
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, Tensor):
            assert (got[key].dtype, got[key].device) == (value.dtype, value.device), key
            torch.testing.assert_close(got[key], value, equal_nan=True)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(got[key], value)
        else:
            assert got[key] == value, key


@pytest.mark.parametrize("default", DEFAULTS)
def test_files_do_not_depend_on_the_defaults(default: str, tmp_path: Path) -> None:
    with DEFAULTS[default]():
        plan = policies.SoftPrune(0.5)(DIFFICULTY, Y)
        plan.save(tmp_path / "plan.safetensors")
        again = dp.Plan.load(tmp_path / "plan.safetensors")
    assert torch.equal(again.index, plan.index)
    assert (again.weight.dtype, again.weight.device) == (torch.float32, CPU)


def test_a_loader_of_the_sampler_under_another_default_dtype() -> None:
    train = dp.IndexedDataset(TensorDataset(X, Y))
    with default_dtype(torch.float64):
        sampler = dp.PruneSampler(policies.SoftPrune(0.5), DIFFICULTY, seed=0)
        for _, _, index in DataLoader(train, batch_size=5, sampler=sampler):
            assert index.dtype == torch.int64
            assert sampler.weight(index).dtype == torch.float32
