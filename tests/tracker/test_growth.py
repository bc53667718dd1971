"""A tracker that grows gives what one of the right size gives, whatever comes in which order."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import TensorDataset

import difficulty_prune as dp
from difficulty_prune.tracker.growth import room_for

SCORES = ("loss", "el2n", "forgetting", "recent_loss", "tdds", "dual", "vog_loss", "vog")
FACTS: dict[str, Any] = {"architecture": "mlp", "seed": 0}
batches = st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=4), min_size=1, max_size=5)


def tracker_of(size: int | None, **options: Any) -> dp.DifficultyTracker:
    windows = dp.TemporalOptions(window=3)
    return dp.DifficultyTracker(size, scores=SCORES, temporal=windows, mean_probabilities=True, **options)


def step(tracker: dp.DifficultyTracker, index: list[int], seed: int, ahead: list[int] | None = None) -> None:
    """One training step; with `ahead`, another batch is watched before the backward pass of the first."""
    torch.manual_seed(seed)
    x, weight = torch.randn(len(index), 1, 2, 2), torch.randn(4, 3, requires_grad=True)
    places = torch.tensor(index)
    watched = tracker.watch(x, places)
    logits = watched.flatten(1) @ weight
    labels = places % 3
    tracker.update(places, logits, labels, inputs=watched)
    if ahead is not None:
        tracker.watch(torch.zeros(len(ahead), 1, 2, 2), torch.tensor(ahead))
    torch.nn.functional.cross_entropy(logits, labels).backward()


def everything(tracker: dp.DifficultyTracker) -> dict[str, Tensor]:
    more = {"age": tracker.age(), "means": tracker.mean_probabilities(), "suggested": tracker.suggested()}
    return tracker.compute() | more


def assert_same(grown: dp.DifficultyTracker, fixed: dp.DifficultyTracker) -> None:
    assert grown.num_examples == fixed.num_examples
    for name, values in everything(fixed).items():
        torch.testing.assert_close(everything(grown)[name], values, rtol=0, atol=0, equal_nan=True)
    assert grown.presentations == fixed.presentations


@settings(max_examples=15, deadline=None)
@given(batches)
def test_it_gives_what_one_of_the_right_size_gives(of_steps: list[list[int]]) -> None:
    size = max(map(max, of_steps)) + 1
    grown, fixed = tracker_of(None), tracker_of(size)
    for seed, index in enumerate(of_steps):
        for tracker in (grown, fixed):
            step(tracker, index, seed)
    assert_same(grown, fixed)
    assert grown.capacity >= size
    loaded, again = tracker_of(size), tracker_of(None)
    loaded.load_state_dict(grown.state_dict())
    again.load_state_dict(fixed.state_dict())
    for tracker in (fixed, again, loaded, pickle.loads(pickle.dumps(grown))):  # noqa: S301
        step(tracker, [0, size - 1], 99)
    assert_same(loaded, fixed)
    assert_same(again, fixed)


def test_growth_between_watch_and_its_backward_pass() -> None:
    grown, fixed = tracker_of(None), tracker_of(1000)
    for tracker in (grown, fixed):
        step(tracker, [3, 1], 0, ahead=[999])
        step(tracker, [999, 1], 1)
    assert grown.capacity >= 1000
    assert_same(grown, fixed)


def test_room_doubles() -> None:
    tracker, rooms = dp.DifficultyTracker(None, scores=("loss",)), set()
    for i in range(1000):
        tracker.update(torch.tensor([i]), loss=torch.tensor([1.0]))
        rooms.add(tracker.capacity)
        assert tracker.num_examples == i + 1 if i % 97 == 0 else True
    assert rooms == {64, 128, 256, 512, 1024}
    assert room_for(torch.tensor([], dtype=torch.int64), 64) == 64


@pytest.mark.parametrize("mapped", [False, True])
def test_mapped_state_grows(mapped: bool, tmp_path: Path) -> None:
    options = {"gradient": dp.GradientOptions(mmap=tmp_path if mapped else None)}
    grown, fixed = tracker_of(None, **options), tracker_of(200)
    for tracker in (grown, fixed):
        step(tracker, [1, 2], 0)
        step(tracker, [199, 2], 1)
    assert_same(grown, fixed)


def test_merging() -> None:
    for first, second in ((None, None), (None, 300), (300, None)):
        a, b = (dp.DifficultyTracker(size, scores=("loss", "vog_loss", "el2n")) for size in (first, second))
        both = dp.DifficultyTracker(300, scores=("loss", "vog_loss", "el2n"))
        for tracker, others in ((a, (a, both)), (b, (b, both))):
            for one in others:
                torch.manual_seed(0)
                index = torch.tensor([5, 2] if tracker is a else [2, 299])
                logits = one.watch(torch.randn(2, 1, 2, 2), index).flatten(1)
                one.update(index, logits, torch.tensor([1, 0]) if tracker is a else torch.tensor([0, 3]))
                logits.logsumexp(1).mean().backward()
        a.merge(b)
        assert a.num_examples == 300
        for name, values in both.compute().items():
            torch.testing.assert_close(a.compute()[name], values, equal_nan=True)
    small = dp.DifficultyTracker(3, scores=("loss", "vog_loss", "el2n"))
    with pytest.raises(ValueError, match="merge: got a tracker with"):
        small.merge(a)


def test_an_empty_one() -> None:
    tracker = dp.DifficultyTracker(None, scores=("loss",))
    assert tracker.num_examples == 0
    assert tracker.compute()["loss"].shape == (0,)
    assert tracker.age().shape == (0,)
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        tracker.finish(**FACTS)
    tracker.update(torch.tensor([2]), loss=torch.tensor([0.5]))
    assert tracker.compute()["loss"].tolist()[2] == 0.5
    tracker.reset()
    assert tracker.num_examples == 0


def test_a_refused_call_leaves_nothing_behind() -> None:
    tracker = dp.DifficultyTracker(None, scores=("loss",))
    tracker.update(torch.tensor([1]), torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match="labels: got 7"):
        tracker.update(torch.tensor([500]), torch.zeros(1, 2), torch.tensor([7]))
    with pytest.raises(IndexError, match="got -1"):
        tracker.update(torch.tensor([-1]), torch.zeros(1, 2), torch.tensor([0]))
    assert tracker.num_examples == 2


def test_a_run_and_a_sampler() -> None:
    tracker = dp.DifficultyTracker(None, scores=("loss",))
    for i in (3, 0, 1):
        tracker.update(torch.tensor([i]), torch.tensor([[float(i), 0.0]]), torch.tensor([0]))
    run = tracker.finish(**FACTS)
    assert len(run) == 4
    assert run.seen is not None
    assert run.seen.tolist() == [True, True, False, True]
    sampler = dp.PruneSampler(dp.policies.Hardest(keep=0.5, unseen="keep"), tracker.source("loss"))
    assert len(sampler) == 3  # two of three, and the one not seen
    whole = tracker.finish(dataset=TensorDataset(torch.zeros(6), torch.zeros(6, dtype=torch.int64)), **FACTS)
    assert len(whole) == 6
    assert whole.scores["loss"].tolist()[3] == run.scores["loss"].tolist()[3]
    with pytest.raises(ValueError, match="dataset: got 2 examples, expected 6"):
        tracker.finish(dataset=TensorDataset(torch.zeros(2), torch.zeros(2)), **FACTS)


@pytest.mark.filterwarnings("ignore:grand. on this batch the model is no better than chance")
def test_checkpoints_and_corrected_labels() -> None:
    tracker = dp.DifficultyTracker(None, scores=("el2n", "grand"))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    loader = [(torch.randn(2, 1, 2, 2), torch.tensor([0, 1]), torch.tensor([90, 3]))]
    dp.score_checkpoint(model, loader, tracker)
    assert tracker.num_examples == 91
    assert tracker.compute()["grand"].isnan().sum() == 89
    tracker.relabel(torch.tensor([120]), torch.tensor([1]))
    assert tracker.num_examples == 91


def test_what_it_refuses() -> None:
    tracker = dp.DifficultyTracker(None, scores=("loss",))

    def compiled(index: Tensor) -> None:
        tracker.update(index, torch.zeros(1, 2), torch.tensor([0]))

    with pytest.raises(Exception, match="which a compiled step cannot do"):
        torch.compile(compiled, fullgraph=True, backend="eager")(torch.tensor([0]))
    with pytest.raises(ValueError, match=r"index: got one on meta, .*give the index of the loader, on the CPU"):
        tracker.update(torch.zeros(1, dtype=torch.int64, device="meta"), torch.zeros(1, 2), torch.tensor([0]))
    for large in (10**15, 2**63 - 1):
        with pytest.raises(ValueError, match=rf"index: got {large}, but .*an id of a stream has an index from"):
            tracker.update(torch.tensor([large]), torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match="got None with process_group"):
        dp.DifficultyTracker(None, process_group=object())
