"""A refused call of any kind leaves no trace: the state is what it was before, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import difficulty_prune as dp

N, C = 8, 3
SCORES = ("el2n", "forgetting", "dyn_unc", "dual", "vog", "vog_loss", "grand")


def new_tracker(**options: Any) -> dp.DifficultyTracker:
    return dp.DifficultyTracker(N, SCORES, temporal=dp.TemporalOptions(window=3), **options)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, C))


def step(tracker: dp.DifficultyTracker, index: Tensor) -> None:
    """One training step that records all that a step records."""
    x = tracker.watch(torch.ones(len(index), 1, 2, 2) * index[:, None, None, None], index)
    logits = model()(x)
    tracker.update(index, logits, index % C, inputs=x)
    F.cross_entropy(logits, index % C).backward()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def trained(x: Tensor) -> Tensor:
    return model()(x.requires_grad_())


INDEX, X, Y = torch.arange(4), torch.ones(4, 1, 2, 2), torch.arange(4) % C
REFUSED: dict[str, Callable[[dp.DifficultyTracker], object]] = {
    "index is no tensor": lambda t: t.update([0, 1, 2, 3], trained(X), Y, inputs=X),
    "index is a float": lambda t: t.update(INDEX.float(), trained(X), Y, inputs=X),
    "index too high": lambda t: t.update(INDEX + N, trained(X), Y, inputs=X),
    "index below 0": lambda t: t.update(INDEX - 1, trained(X), Y, inputs=X),
    "index of another length": lambda t: t.update(INDEX[:3], trained(X), Y, inputs=X),
    "labels too high": lambda t: t.update(INDEX, trained(X), Y + C, inputs=X),
    "labels of another length": lambda t: t.update(INDEX, trained(X), Y[:3], inputs=X),
    "no labels": lambda t: t.update(INDEX, trained(X)),
    "logits in float64": lambda t: t.update(INDEX, trained(X).double(), Y, inputs=X),
    "logits of one class": lambda t: t.update(INDEX, trained(X)[:, :1], Y * 0, inputs=X),
    "logits of a sequence": lambda t: t.update(INDEX, trained(X)[..., None], Y, inputs=X),
    "inputs that are not in the graph": lambda t: t.update(INDEX, trained(X), Y, inputs=torch.ones(4, 1, 2, 2)),
    "inputs of another shape": lambda t: t.update(
        INDEX, nn.Linear(9, C)(w := torch.ones(4, 9, requires_grad=True)), Y, inputs=w.view(4, 1, 3, 3)
    ),
    "loss beside logits": lambda t: t.update(INDEX, trained(X), Y, loss=torch.ones(4)),
    "loss for other scores": lambda t: t.update(INDEX, loss=torch.ones(4)),
    "loss beside inputs": lambda t: t.update(INDEX, loss=torch.ones(4), inputs=X),
    "watch: integers": lambda t: t.watch(X.int(), INDEX),
    "watch: index too high": lambda t: t.watch(X, INDEX + N),
    "watch: reduction": lambda t: t.watch(X, INDEX, reduction="average"),
    "watch: weight": lambda t: t.watch(X, INDEX, weight=torch.ones(3)),
    "watch: weighted mean without weight": lambda t: t.watch(X, INDEX, reduction="weighted_mean"),
    "watch: accumulation": lambda t: t.watch(X, INDEX, accumulation_steps=0),
    "watch: accumulation as text": lambda t: t.watch(X, INDEX, accumulation_steps="4"),
    "record: nothing": lambda t: t.record(INDEX),
    "record: norms of another length": lambda t: t.record(INDEX, norms=torch.ones(3)),
    "record: logits are right and norms are not": lambda t: t.record(INDEX, trained(X), Y, norms=torch.ones(4, 2)),
    "record: an unknown gradient": lambda t: t.record(INDEX, trained(X), Y, gradients={"el2n": X}),
    "record: a gradient of another length": lambda t: t.record(INDEX, trained(X), Y, gradients={"vog": X[:3]}),
    "checkpoint: judged predictions": lambda t: dp.score_checkpoint(model(), [(X, Y, INDEX)], t, label="predicted"),
    "checkpoint: label": lambda t: dp.score_checkpoint(model(), [(X, Y, INDEX)], t, label="given"),
    "checkpoint: a score that is not there": lambda t: dp.score_checkpoint(model(), [], t, scores=("aum",)),
    "checkpoint: no index": lambda t: dp.score_checkpoint(model(), [(X, Y)], t),
    "checkpoint: labels too high": lambda t: dp.score_checkpoint(model(), [(X, Y + C, INDEX)], t, scores=("vog",)),
    "checkpoint: index too high": lambda t: dp.score_checkpoint(model(), [(X, Y, INDEX + N)], t, scores=("vog",)),
    "state: none": lambda t: t.load_state_dict({}),
    "state: text": lambda t: t.load_state_dict("state"),
    "merge: itself": lambda t: t.merge(t),
    "merge: other scores": lambda t: t.merge(dp.DifficultyTracker(N, ("el2n",))),
    "source: another score": lambda t: t.source("aum"),
    "compute: another score": lambda t: t.compute(scores=("aum",)),
}


@pytest.mark.parametrize("before", ["new", "trained"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_call_leaves_no_trace(name: str, before: str) -> None:
    tracker = new_tracker()
    if before == "trained":
        step(tracker, torch.tensor([0, 5, 2]))
    state = copy.deepcopy(tracker.state_dict())
    X.requires_grad_(False)
    with pytest.raises((TypeError, ValueError, IndexError)):
        REFUSED[name](tracker)
    assert same(tracker.state_dict(), state)


def test_a_refused_prediction_as_label_does_not_cost_a_later_run_its_labels() -> None:
    tracker = dp.DifficultyTracker(4, ("accuracy",))
    with pytest.raises(ValueError, match="compares the prediction"):
        dp.score_checkpoint(model(), [(X, Y, INDEX)], tracker, label="predicted")
    tracker.update(INDEX, torch.zeros(4, C), Y)
    assert tracker.finish(architecture="mlp", seed=0).labels.tolist() == Y.tolist()


def damaged(state: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    state = copy.deepcopy(state)
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    if value is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return state


PATHS = (
    *((key,) for key in ("num_examples", "scores", "num_classes", "gradient", "temporal", "steps", "table", "skipped")),
    *(("moments",), ("moments", "vog"), ("moments", "vog", "mean"), ("moments", "vog", "size"), ("format",)),
    *(("moments", "vog_loss", "count"), ("moments", "vog", "m2"), ("norms",), ("norms", "mean"), ("norms", "count")),
    *(("temporal_records",), ("temporal_records", "table"), ("temporal_records", "classes"), ("largest_batch",)),
    ("labels_are_predictions",),
)
FINE_WITHOUT = {("norms",), ("largest_batch",), ("format",), ("moments", "vog")}  # as in other good states


@given(path=st.sampled_from(PATHS), kind=st.sampled_from(["gone", "text", "shape", "dtype", "negative", "number"]))
def test_a_damaged_state_is_refused_and_what_was_recorded_stays(path: tuple[str, ...], kind: str) -> None:
    tracker = new_tracker()
    step(tracker, torch.tensor([0, 5, 2]))
    tracker.record(torch.tensor([1]), norms=torch.ones(1))
    good = copy.deepcopy(tracker.state_dict())
    value: Any = good
    for key in path:
        value = value[key]
    is_tensor = isinstance(value, Tensor)
    changed = {
        "gone": KeyError,
        "text": "damaged",
        "shape": value[:-1] if is_tensor else [1, 2, 3],
        "dtype": value.double() if is_tensor else {"a": 1},
        "negative": -value if is_tensor and path[-1] in ("table", "count") else -5,
        "number": 10**6,
    }[kind]
    if (kind == "gone" and path in FINE_WITHOUT) or (path == ("largest_batch",) and kind == "number"):
        return
    if path == ("skipped",) and kind == "shape":
        return  # as of a state from before the last reason was known
    with pytest.raises((ValueError, TypeError)):
        tracker.load_state_dict(damaged(good, path, changed))
    assert same(tracker.state_dict(), good)


def test_a_state_of_a_newer_version_is_refused() -> None:
    tracker = dp.DifficultyTracker(N)
    with pytest.raises(ValueError, match="format 4 is newer than 3"):
        tracker.load_state_dict({**tracker.state_dict(), "format": 4})


@pytest.mark.parametrize("classes", ["3", 2.5, True, 1, 0, -2, [3]])
def test_num_classes_is_a_whole_number_of_at_least_two(classes: object) -> None:
    with pytest.raises((TypeError, ValueError), match="num_classes"):
        dp.DifficultyTracker(N, num_classes=classes)
    assert dp.DifficultyTracker(N, num_classes=np.int64(3)).state_dict()["num_classes"] == 3


def test_a_refused_merge_changes_nothing() -> None:
    """Windows of presentations overlap; records and moments would have gone through before."""
    a, b = new_tracker(), new_tracker()
    step(a, torch.tensor([0, 1]))
    step(b, torch.tensor([1, 2]))
    before = copy.deepcopy(a.state_dict())
    with pytest.raises(ValueError, match="presented to both"):
        a.merge(b)
    assert same(a.state_dict(), before)


def test_a_tracker_on_another_device_is_merged_to_this_one() -> None:
    """Its state may be anywhere: what is read of it is copied first."""
    a, b = dp.DifficultyTracker(N, ("loss",), device="cpu"), dp.DifficultyTracker(N, ("loss",))
    b.update(torch.tensor([1]), torch.zeros(1, C), torch.tensor([0]))
    a.merge(b)
    assert a.presentations == 1
    assert a.state_dict()["table"].device.type == "cpu"
