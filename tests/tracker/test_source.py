"""A live view of a score: what the tracker knows at the moment, turned so that high = hard."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import difficulty_prune as dp

SIZE, CLASSES = 12, 3
LABELS = torch.arange(SIZE) % CLASSES


def record(tracker, part, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(part), 1, 4, generator=generator)
    x = tracker.watch(x, part) if "vog_loss" in tracker.scores else x
    torch.manual_seed(seed)
    logits = nn.Linear(4, CLASSES)(x.squeeze(1))
    tracker.update(part, logits, LABELS[part])
    nn.functional.cross_entropy(logits, LABELS[part]).backward()


@pytest.mark.parametrize("score", ["loss", "el2n", "confidence", "aum", "accuracy", "forgetting", "vog_loss"])
def test_a_source_is_the_score_turned_to_difficulty_at_any_moment(score):
    tracker = dp.DifficultyTracker(
        SIZE, scores=("loss", "el2n", "confidence", "aum", "accuracy", "forgetting", "vog_loss")
    )
    source = tracker.source(score)
    assert source().isnan().all()
    sign = 1 if dp.SCORES[score].higher_is_harder else -1
    for seed in range(4):
        record(tracker, torch.arange(8), seed)
        difficulty = source()
        assert (difficulty.dtype, difficulty.shape) == (torch.float64, (SIZE,))
        expected = sign * tracker.compute()[score].double()
        torch.testing.assert_close(difficulty, expected, rtol=0, atol=0, equal_nan=True)
        assert difficulty[8:].isnan().all()
        assert not difficulty[:8].isnan().any()


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["copy", "pickle"])  # noqa: S301
def test_a_copy_alone_knows_its_moment_and_says_when_it_is_left_behind(twin):
    tracker = dp.DifficultyTracker(SIZE, scores=("loss",))
    record(tracker, torch.arange(SIZE))
    source = tracker.source("loss")
    left, before = twin(source), source()
    record(tracker, torch.arange(SIZE), seed=1)
    assert torch.equal(left(), before)
    assert not torch.equal(source(), before)
    assert (repr(source), repr(left)) == ("ScoreSource('loss', live)", "ScoreSource('loss', a copy)")
    with pytest.warns(UserWarning, match="has recorded nothing since it was last asked"):
        assert torch.equal(left(), before)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["copy", "pickle"])  # noqa: S301
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_copied_together_stays_together_and_live(twin, turned):
    """In either order, as a checkpoint or an arm of an experiment copies them."""
    tracker = dp.DifficultyTracker(SIZE, scores=("loss",))
    record(tracker, torch.arange(SIZE))
    sampler = dp.PruneSampler(dp.policies.Hardest(0.5), tracker.source("loss"))
    pair = twin((sampler, tracker) if turned else (tracker, sampler))
    other, own = pair if turned else pair[::-1]
    for epoch in range(1, 4):
        record(own, torch.arange(SIZE), seed=epoch)
        other.set_epoch(epoch)
        hardest = own.compute()["loss"].topk(SIZE // 2).indices.sort().values
        assert torch.equal(other.plan.index, hardest)
    assert tracker.presentations == SIZE  # the copy's training is its own
    assert sampler.epoch == 0


def test_rows_that_were_left_out_are_reported_when_an_epoch_is_planned():
    tracker = dp.DifficultyTracker(SIZE, scores=("loss",))
    sampler = dp.PruneSampler(dp.policies.SoftPrune(keep=0.5), tracker.source("loss"))
    tolerant = dp.PruneSampler(dp.policies.SoftPrune(keep=0.5), tracker.source("loss", allow_skipped=True))
    logits = torch.eye(SIZE, CLASSES)
    logits[3] = torch.nan
    tracker.update(torch.arange(SIZE), logits, LABELS)
    with pytest.raises(ValueError, match="1 x not finite"):
        sampler.set_epoch(1)
    assert sampler.epoch == 0
    tolerant.set_epoch(1)
    assert 3 in tolerant.plan.index


def test_a_score_that_is_not_recorded_is_refused():
    with pytest.raises(ValueError, match=r"source: got 'aum', expected one of this tracker's scores, \('loss',\)"):
        dp.DifficultyTracker(SIZE, scores=("loss",)).source("aum")


def test_state_goes_to_the_device_that_the_tracker_was_given():
    """As after torch.load(map_location="cpu"), for a training on an accelerator."""
    tracker = dp.DifficultyTracker(SIZE, scores=("loss", "vog_loss"))
    record(tracker, torch.arange(SIZE))
    elsewhere = dp.DifficultyTracker(SIZE, scores=("loss", "vog_loss"), device="meta")
    elsewhere.load_state_dict(tracker.state_dict())
    state = elsewhere.state_dict()
    assert state["table"].device.type == state["moments"]["vog_loss"]["mean"].device.type == "meta"
    with pytest.raises(ValueError, match="or make the tracker with device='cpu'"):
        elsewhere.update(torch.arange(SIZE), torch.zeros(SIZE, CLASSES), LABELS)
