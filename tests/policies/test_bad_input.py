"""Bad policies, and bad input to policies and plans, are refused."""

from __future__ import annotations

import math

import pytest
import torch
from refusals import check_refused, refusals

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.uniform import Easiest, Hardest, Random, Window

CASES, _, expect = refusals()

for policy in (Hardest, Easiest, Random, lambda keep: Window(0.0, keep)):
    name = getattr(policy, "__name__", "policy").replace("<lambda>", "Window")
    for value in (0, 0.0, 1.2, -0.5, math.nan, math.inf):
        expect(
            f"{name}, keep {value}",
            ValueError,
            f"keep: got {value}",
            r"\(0, 1\]",
            of=lambda policy=policy, value=value: policy(keep=value),
        )
    for value in (True, "0.5", None):
        expect(
            f"{name}, keep {value!r}",
            TypeError,
            f"keep: got {value!r}",
            r"\(0, 1\]",
            of=lambda policy=policy, value=value: policy(keep=value),
        )
expect("Window too wide", ValueError, "start 0.6", "keep 0.6", "at most 1", of=lambda: Window(start=0.6, keep=0.6))
for value in (-0.1, math.nan, 1.5):
    expect(
        f"Window, start {value}",  # 0 is a good start, and it is no share that is kept
        ValueError,
        f"start: got {value}",
        r"\[0, 1",
        "^((?!is kept).)*$",
        of=lambda value=value: Window(start=value, keep=0.5),
    )
expect("Window, start string", TypeError, "start: got '0.1'", of=lambda: Window(start="0.1", keep=0.5))
expect("PerClass of a share", TypeError, "0.5", "Hardest", of=lambda: PerClass(0.5))
expect("PerClass of a class", TypeError, "Hardest", of=lambda: PerClass(Hardest))
expect("PerClass, quota", ValueError, "quota: got 'same'", "'equal'", of=lambda: PerClass(Hardest(0.5), "same"))
expect("PerClass without labels", ValueError, "PerClass", "no labels", of=lambda: PerClass(Hardest(0.5))(torch.ones(4)))
expect("empty difficulty", ValueError, r"\(0,\)", "N >= 1", of=lambda: Hardest(0.5)(torch.empty(0)))
expect("2-D difficulty", ValueError, r"\(4, 1\)", r"\[N\]", of=lambda: Hardest(0.5)(torch.ones(4, 1)))
expect(
    "NaN difficulty",
    ValueError,
    "2 of 4 examples are NaN",
    "first at 1",
    of=lambda: Hardest(0.5)(torch.tensor([0.0, math.nan, 1.0, math.nan])),
)
expect(
    "plan, labels of the wrong length",
    ValueError,
    "labels",
    r"\(3,\)",
    r"\[4\]",
    of=lambda: Hardest(0.5)(torch.ones(4), labels=[0, 1, 2]),
)
expect("plan, float labels", TypeError, "float64", "whole", of=lambda: Hardest(0.5)(torch.ones(2), labels=[0.0, 1.0]))
expect(
    "plan, labels that are hashes",
    ValueError,
    f"labels: got {2**40}",
    "np.unique",
    of=lambda: Hardest(0.5)(torch.ones(2), labels=[0, 2**40]),
)
expect(
    "plan, negative label", ValueError, "got -1", "0 or more", of=lambda: Hardest(0.5)(torch.ones(2), labels=[0, -1])
)
expect(
    "plan that drops a class",
    ValueError,
    r"Hardest\(keep=0.5\)",
    "class 7",
    "2 examples",
    "PerClass",
    of=lambda: Hardest(0.5)([4.0, 3.0, 2.0, 1.0], labels=[0, 0, 7, 7]),
)
expect("plan of nothing", ValueError, r"\(0,\)", "K >= 1", of=lambda: dp.Plan(torch.empty(0), torch.empty(0), {}))
expect("plan, lengths", ValueError, r"\(1,\)", r"\(2,\)", of=lambda: dp.Plan(torch.tensor([1]), torch.ones(2), {}))
expect("plan, negative position", ValueError, "-3", of=lambda: dp.Plan(torch.tensor([-3]), torch.ones(1), {}))
expect("plan, repeated position", ValueError, r"\b6\b", of=lambda: dp.Plan(torch.tensor([6, 6]), torch.ones(2), {}))
expect("plan, negative weight", ValueError, r"-2\.5", of=lambda: dp.Plan(torch.tensor([1]), torch.tensor([-2.5]), {}))
expect("plan, NaN weight", ValueError, "(?i)nan", of=lambda: dp.Plan(torch.tensor([1]), torch.tensor([math.nan]), {}))
expect(
    "plan, fractional position",
    TypeError,
    "float32",
    of=lambda: dp.Plan(torch.tensor([0.5, 1.7]), torch.ones(2), {}),
)


@pytest.mark.parametrize(("attempt", "exception", "patterns"), CASES)
def test_bad_input_is_refused(tmp_path, attempt, exception, patterns):
    check_refused(attempt, tmp_path, exception, patterns)


def test_labels_that_no_table_of_classes_could_hold_are_refused_by_every_plan():
    labels = torch.tensor([0, 10**11])
    for plan in (
        lambda: Hardest(0.5)([0.1, 0.2], labels),
        lambda: dp.policies.PerClass(Hardest(0.5)).inclusion([0.1, 0.2], labels),
        lambda: dp.Partition.split(2).plan(Hardest(0.5), [0.1, 0.2], labels),
    ):
        with pytest.raises(ValueError, match=r"labels: got 100000000000, expected classes .*np.unique"):
            plan()
