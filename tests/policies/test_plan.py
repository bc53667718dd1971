"""Plans say what they keep and what they drop, and survive a file."""

from __future__ import annotations

import re

import numpy as np
import pytest
import safetensors.numpy
import torch

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.uniform import Hardest, Window
from difficulty_prune.support import files


def make_plan():
    difficulty, labels = torch.arange(10.0), torch.tensor([0, 1] * 5)
    return Window(start=0.1, keep=0.6)(difficulty, labels)


def test_plan_is_plain_data():
    plan = make_plan()
    assert plan.index.tolist() == [3, 4, 5, 6, 7, 8]
    assert plan.index.dtype == torch.int64
    assert plan.weight.tolist() == [1.0] * 6
    assert plan.weight.dtype == torch.float32
    assert len(plan) == 6


def test_summary_counts_per_class():
    summary = make_plan().summary()
    assert dict(summary) == {
        "policy": "Window(start=0.1, keep=0.6)",
        "examples": 10,
        "kept": 6,
        "dropped": 4,
        "kept_share": 0.6,
        "classes": {
            "0": {"examples": 5, "kept": 3, "dropped": 2},
            "1": {"examples": 5, "kept": 3, "dropped": 2},
        },
    }


def test_summary_as_text():
    plan = PerClass(Hardest(0.1))(torch.arange(11_000.0), torch.tensor([0] * 10_000 + [3] * 1_000))
    assert str(plan.summary()).splitlines() == [
        "PerClass(policy=Hardest(keep=0.1), quota='proportional'): keeps 1,100 of 11,000 examples (10.0%)",
        "  class 0: keeps 1,000 of 10,000, drops 9,000",
        "  class 3: keeps 100 of 1,000, drops 900",
    ]


def test_summary_without_labels_speaks_of_no_classes():
    plan = Hardest(0.5)(torch.arange(4.0))
    assert "classes" not in plan.summary()
    assert str(plan.summary()) == "Hardest(keep=0.5): keeps 2 of 4 examples (50.0%)"


def test_plan_orders_positions_together_with_their_weights():
    plan = dp.Plan(torch.tensor([5, 2, 9]), torch.tensor([0.5, 2.0, 0.0]), {})
    assert plan.index.tolist() == [2, 5, 9]
    assert plan.weight.tolist() == [2.0, 0.5, 0.0]


def test_plan_round_trip(tmp_path):
    path = tmp_path / "plan.safetensors"
    for plan in (make_plan(), dp.Plan(torch.tensor([2**40, 1]), torch.tensor([0.1, 3.0]), make_plan().summary())):
        plan.save(path)
        loaded = dp.Plan.load(path)
        assert torch.equal(loaded.index, plan.index)
        assert torch.equal(loaded.weight, plan.weight)
        assert (loaded.index.dtype, loaded.weight.dtype) == (torch.int64, torch.float32)
        assert loaded.summary() == plan.summary()
        assert str(loaded.summary()) == str(plan.summary())
    assert list(tmp_path.iterdir()) == [path]


def check_refused(path, reason=""):
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + reason) as refusal:
        dp.Plan.load(path)
    assert type(refusal.value) is ValueError


@pytest.mark.parametrize("left", [0, 1, 8, 50, -8, -1])
def test_truncated_plan_is_refused_by_name(tmp_path, left):
    path = tmp_path / "plan.safetensors"
    make_plan().save(path)
    path.write_bytes(path.read_bytes()[:left])
    check_refused(path, "cut short")


def test_foreign_files_are_refused_by_name(tmp_path):
    path = tmp_path / "plan.safetensors"
    path.write_bytes(b"index,weight\n1,1.0\n" * 10)
    check_refused(path, "not a safetensors file")
    path.write_bytes(safetensors.numpy.save({"index": np.array([1])}))
    check_refused(path, "not one that difficulty_prune wrote")
    dp.Run({"el2n": [1.0]}, architecture="mlp", seed=0).save(path)
    check_refused(path, "holds a run, expected a plan")
    files.save_vectors(path, "plan", 2, {"index": np.array([1]), "weight": np.ones(1)}, {"summary": {}})
    check_refused(path, "format 2 is newer than 1")


@pytest.mark.parametrize(
    ("vectors", "header"),
    [
        ({"index": np.array([1])}, {"summary": {}}),
        ({"weight": np.ones(1)}, {"summary": {}}),
        ({"index": np.array([1]), "weight": np.ones(1)}, {}),
        ({"index": np.array([1]), "weight": np.ones(1)}, {"summary": 3}),
        ({"index": np.array([1]), "weight": np.ones(2)}, {"summary": {}}),
        ({"index": np.array([1, 1]), "weight": np.ones(2)}, {"summary": {}}),
        ({"index": np.array([-1]), "weight": np.ones(1)}, {"summary": {}}),
        ({"index": np.array([1]), "weight": np.array([np.nan])}, {"summary": {}}),
        ({"index": np.array([0.5]), "weight": np.ones(1)}, {"summary": {}}),
        ({"index": np.zeros(0, int), "weight": np.ones(0)}, {"summary": {}}),
    ],
    ids=[
        "no weight",
        "no index",
        "no summary",
        "summary is a number",
        "lengths differ",
        "repeated",
        "negative",
        "weight NaN",
        "fractional index",
        "nothing kept",
    ],
)
def test_invalid_plan_file_is_refused_by_name(tmp_path, vectors, header):
    path = tmp_path / "plan.safetensors"
    files.save_vectors(path, "plan", 1, vectors, header)
    check_refused(path, "not a valid plan file")


def test_missing_plan(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        dp.Plan.load(tmp_path / "none.safetensors")


def test_a_plan_is_a_policy_and_needs_no_summary(tmp_path):
    plan = dp.Plan(torch.tensor([3, 1]), torch.tensor([0.5, 2.0]))
    assert str(plan.summary()) == "a plan: keeps 2"
    plan.save(tmp_path / "plan.safetensors")
    sampler = dp.PruneSampler(dp.Plan.load(tmp_path / "plan.safetensors"), torch.zeros(5))
    assert sampler.weight(torch.tensor([3, 1, 0])).tolist() == [0.5, 2.0, 0.0]
    assert sorted(sampler) == [1, 3]


def test_a_plan_knows_the_ids_of_its_data_from_a_file_too(tmp_path):
    plan = dp.Plan(torch.tensor([2, 0]), torch.ones(2), {"policy": "mine"}).with_ids(["a", "b", "c"])
    plan.save(tmp_path / "plan.safetensors")
    for known in (plan, dp.Plan.load(tmp_path / "plan.safetensors")):
        assert known.summary() == {"policy": "mine", "kept": 2, "examples": 3}
        known.check_data(3)
        known.check_data(3, np.array(["a", "b", "c"], object))
        for others in (["a", "c", "b"], ["a", "b", "x"], [1, 2, 3]):
            with pytest.raises(ValueError, match="its 3 ids are others, or in another order; make it anew"):
                known.check_data(3, others)
        with pytest.raises(ValueError, match="it is of 3 examples, but the data has 4"):
            known.check_data(4)
    with pytest.raises(ValueError, match="ids: got 2, but the plan keeps position 2"):
        plan.with_ids(["a", "b"])


def test_a_plan_without_ids_is_checked_as_far_as_it_knows():
    bare = dp.Plan(torch.tensor([1, 4]), torch.ones(2))
    bare.check_data(5, list("abcde"))
    bare.check_data(9)
    with pytest.raises(ValueError, match="it keeps position 4, but the data has 4"):
        bare.check_data(4)


def test_an_ids_digest_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "plan.safetensors"
    vectors = {"index": np.array([1]), "weight": np.ones(1, np.float32)}
    files.save_vectors(path, "plan", 1, vectors, {"summary": {}, "ids_digest": 3})
    check_refused(path, "not a valid plan file")
