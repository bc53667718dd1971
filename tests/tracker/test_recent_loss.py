"""A loss that forgets, and how long ago it was measured: a slow loop in float64, states, merging, old states."""

from __future__ import annotations

import copy
import io
import math
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import difficulty_prune as dp

N = 5
NAN = float("nan")
close = partial(torch.testing.assert_close, rtol=2e-5, atol=2e-6, equal_nan=True, check_dtype=False)
OLD_STATE = Path(__file__).parent.parent / "data" / "version-0.1.0" / "tracker.pt"

half_lives = st.one_of(st.sampled_from([0.1, 1, 2, 7.5, 1000.0]), st.floats(0.05, 500))
losses = st.floats(0, 100, width=32)
batches = st.lists(st.lists(st.tuples(st.integers(0, N - 1), losses), min_size=1, max_size=7), min_size=1, max_size=6)


def new_tracker(**options: Any) -> dp.DifficultyTracker:
    return dp.DifficultyTracker(N, ("loss", "recent_loss"), **options)


def record(tracker: dp.DifficultyTracker, shown: list[list[tuple[int, float]]]) -> dp.DifficultyTracker:
    for batch in shown:
        tracker.update(torch.tensor([i for i, _ in batch]), loss=torch.tensor([x for _, x in batch]))
    return tracker


def recent_losses(shown: list[list[tuple[int, float]]], half_life: float) -> Tensor:
    """From the definition: a presentation weighs 2^(-k / half-life), where k came later; weights add up to 1."""
    result = np.full(N, NAN)
    for example in range(N):
        history = [x for batch in shown for i, x in batch if i == example]
        weights = [2 ** (-later / half_life) for later in range(len(history))][::-1]
        if history:
            result[example] = sum(w * x for w, x in zip(weights, history, strict=True)) / sum(weights)
    return torch.from_numpy(result)


def ages(shown: list[list[tuple[int, float]]]) -> Tensor:
    last = {i: step for step, batch in enumerate(shown) for i, _ in batch}
    return torch.tensor([len(shown) - 1 - last[i] if i in last else NAN for i in range(N)], dtype=torch.float64)


def recent(tracker: dp.DifficultyTracker) -> Tensor:
    return tracker.compute()["recent_loss"]


@given(batches, half_lives)
def test_a_presentation_weighs_half_as_much_as_one_a_half_life_later(shown, half_life: float) -> None:
    tracker = record(new_tracker(half_life=half_life), shown)
    close(recent(tracker), recent_losses(shown, half_life), rtol=1e-4, atol=1e-4)
    assert torch.equal(tracker.age().nan_to_num(-1), ages(shown).nan_to_num(-1))


@given(batches, st.integers(0, 6), half_lives)
def test_merging_is_recording_one_after_the_other(shown, cut: int, half_life: float) -> None:
    first, second = (record(new_tracker(half_life=half_life), part) for part in (shown[:cut], shown[cut:]))
    first.merge(second)
    close(recent(first), recent_losses(shown, half_life), rtol=1e-4, atol=1e-4)
    assert torch.equal(first.age().nan_to_num(-1), ages(shown).nan_to_num(-1))


@given(batches, batches, half_lives)
def test_a_saved_state_goes_on_with_its_losses_and_ages(before, after, half_life: float) -> None:
    tracker = record(new_tracker(half_life=half_life), before)
    file = io.BytesIO()
    torch.save(tracker.state_dict(), file)
    file.seek(0)
    loaded = new_tracker(half_life=half_life)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    copies = [loaded, copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))]  # noqa: S301
    for each in (tracker, *copies):
        assert torch.equal(each.age().nan_to_num(-1), ages(before).nan_to_num(-1))
        record(each, after)
    for each in copies:
        assert torch.equal(recent(each).nan_to_num(-1), recent(tracker).nan_to_num(-1))
    assert torch.equal(tracker.age().nan_to_num(-1), ages(before + after).nan_to_num(-1))
    tracker.reset()
    assert recent(tracker).isnan().all()
    assert tracker.age().isnan().all()


@given(losses, half_lives, st.integers(1, 60))
def test_a_loss_that_stays_is_its_recent_loss_from_the_first_presentation_on(x, half_life, times: int) -> None:
    """The weights add up to 1 from the first presentation on: it does not start from 0."""
    tracker = record(new_tracker(half_life=half_life), [[(2, x)]] * times)
    close(recent(tracker)[2], torch.tensor(x), rtol=1e-3, atol=1e-6)


def test_a_long_half_life_is_the_plain_mean_and_a_short_one_the_last_loss() -> None:
    shown = [[(0, float(x))] for x in (8, 1, 6, 3)]
    close(recent(record(new_tracker(half_life=1e6), shown))[0], torch.tensor(4.5), rtol=1e-2)
    close(recent(record(new_tracker(half_life=0.02), shown))[0], torch.tensor(3.0))
    default = record(new_tracker(), shown)
    weights = [2 ** (-k / 2) for k in (3, 2, 1, 0)]
    expected = sum(w * x for w, x in zip(weights, (8, 1, 6, 3), strict=True)) / sum(weights)
    close(recent(default)[0], torch.tensor(expected))


def test_logits_and_rows_give_the_loss_of_the_example() -> None:
    generator = torch.Generator().manual_seed(0)
    tracker, given_losses = new_tracker(), new_tracker()
    for _ in range(3):
        logits, labels = torch.randn(4, 3, generator=generator), torch.tensor([0, 1, 0, 1])
        owner = torch.tensor([0, 1, 0, 1])
        tracker.update(torch.tensor([3, 1]), logits, labels, owner=owner)
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        given_losses.update(torch.tensor([3, 1]), loss=loss.view(2, 2).mean(0))
    close(recent(tracker), recent(given_losses))


@pytest.mark.parametrize("half_life", [0, -1, math.inf, math.nan, True, "2", None])
def test_a_half_life_that_is_none_is_refused(half_life: Any) -> None:
    with pytest.raises(ValueError, match=r"half_life: got .*, expected a number of presentations above 0"):
        new_tracker(half_life=half_life)


def test_trackers_with_other_half_lives_and_the_like_do_not_merge_nor_load() -> None:
    tracker = record(new_tracker(), [[(0, 1.0)]])
    with pytest.raises(ValueError, match=r"half_life 3\.0, expected 2\.0"):
        tracker.merge(new_tracker(half_life=3))
    with pytest.raises(ValueError, match=r"right_from 0\.5, expected 1\.0"):
        tracker.merge(new_tracker(right_from=0.5))
    with pytest.raises(ValueError, match="target binary, expected classes"):
        tracker.merge(new_tracker(target="binary"))
    with pytest.raises(ValueError, match=r"half_life 2\.0, this tracker 3\.0"):
        new_tracker(half_life=3).load_state_dict(tracker.state_dict())
    assert recent(tracker)[0] == 1


# Age


def test_age_counts_calls_of_update_and_tells_stale_from_fresh() -> None:
    tracker = new_tracker()
    assert tracker.age().isnan().all()
    for index in ([0, 1], [1, 2], [2], [2]):
        tracker.update(torch.tensor(index), torch.zeros(len(index), 2), torch.zeros(len(index)).long())
    close(tracker.age(), torch.tensor([3.0, 2.0, 0.0, NAN, NAN]))
    assert tracker.age().dtype == torch.float64
    stale = tracker.age() >= 3
    assert stale.tolist() == [True, False, False, False, False]  # NaN is neither


def test_what_is_left_out_makes_nothing_fresh() -> None:
    tracker = new_tracker()
    tracker.update(torch.tensor([0, 1]), torch.zeros(2, 2), torch.tensor([0, 1]))
    logits = torch.tensor([[torch.nan, 0], [0, 0], [0, 0]])
    tracker.update(torch.tensor([0, 1, 2]), logits, torch.tensor([0, 0, -100]))  # NaN, another label, ignored
    close(tracker.age(), torch.tensor([1.0, 1.0, NAN, NAN, NAN]))
    assert tracker.skipped["not finite"] == tracker.skipped["changed label"] == 1


def test_merging_puts_the_steps_of_the_other_behind_ones_own() -> None:
    first, second = (
        record(new_tracker(), [[(0, 1.0)], [(1, 1.0)]]),
        record(new_tracker(), [[(1, 1.0)], [(2, 1.0)], [(3, 1.0)]]),
    )
    first.merge(second)
    close(first.age(), torch.tensor([4.0, 2.0, 1.0, 0.0, NAN]))
    close(second.age(), torch.tensor([NAN, 2.0, 1.0, 0.0, NAN]))


# Corrected labels


def test_a_corrected_label_is_presented_from_then_on_also_after_saving() -> None:
    tracker = new_tracker()
    wrong, right = torch.tensor([0]), torch.tensor([1])
    logits = torch.tensor([[0.0, 3.0]])
    for _ in range(3):
        tracker.update(torch.tensor([2]), logits, wrong)
    tracker.relabel(torch.tensor([2]), right)
    assert recent(tracker)[2].isnan()
    loaded, merged = new_tracker(), new_tracker()
    loaded.load_state_dict(tracker.state_dict())
    now = -logits.log_softmax(1)[0, 1]
    for times in range(1, 7):
        for each in (tracker, loaded):
            each.update(torch.tensor([2]), logits, right)
            scores = each.compute()  # which raises where something was left out
            close(scores["recent_loss"][2], now, rtol=1e-4)
            assert scores["loss"][2] > 3 * 3 / (3 + times)
    merged.update(torch.tensor([2]), logits, wrong)
    merged.relabel(torch.tensor([2]), right)
    after = new_tracker()
    after.update(torch.tensor([2]), logits, right)
    merged.merge(after)
    close(recent(merged)[2], now, rtol=1e-4)
    other = new_tracker()
    other.update(torch.tensor([2]), logits, wrong)
    with pytest.raises(
        ValueError, match="presented with other labels there than here; that of example 2 is 0, expected 1"
    ):
        tracker.merge(other)
    other.relabel(torch.tensor([2]), right)
    tracker.merge(other)
    assert tracker.presentations == 10


# States of before


def old_tracker() -> dp.DifficultyTracker:
    names = ("el2n", "aum", "forgetting", "variability", "tdds", "dyn_unc", "vog_loss", "grand")
    return dp.DifficultyTracker(
        12,
        names,
        temporal=dp.TemporalOptions(window=3),
        gradient=dp.GradientOptions(pixels=3, m2_dtype="bfloat16"),
    )


def test_of_a_state_of_before_nothing_recent_is_known() -> None:
    """0 would be the easiest of all, and the freshest."""
    state = torch.load(OLD_STATE, weights_only=True)
    seen = state["table"][:, 0] > 0
    assert seen.any()
    state["scores"] = [*state["scores"], "recent_loss"]  # of the same records
    tracker = dp.DifficultyTracker(
        12, state["scores"], temporal=old_tracker().temporal, gradient=old_tracker().gradient
    )
    tracker.load_state_dict(state)
    assert tracker.compute()["recent_loss"].isnan().all()
    assert tracker.age().isnan().all()
    labels = tracker.state_dict()["table"][:, dp.ops.FIELD["label"]].long()
    example = int(seen.nonzero()[0, 0])
    tracker.update(torch.tensor([example]), torch.zeros(1, 3), labels[example : example + 1])
    recent_loss, known = tracker.compute()["recent_loss"], torch.arange(12) == example
    close(recent_loss[known], torch.tensor([math.log(3)]))  # of what came before nothing is known
    assert recent_loss[~known].isnan().all()
    assert tracker.age()[example] == 0
    assert not torch.load(OLD_STATE, weights_only=True)["table"].isnan().any()  # the caller's state stays as it was


def test_examples_that_a_state_of_before_had_not_seen_are_measured_from_the_start() -> None:
    tracker = record(new_tracker(), [[(0, 1.0)]])
    state = {**tracker.state_dict(), "format": 2}
    for key in ("target", "right_from", "half_life", "last_seen", "mean_probabilities", "probabilities"):
        del state[key]
    loaded = new_tracker()
    loaded.load_state_dict(state)
    record(loaded, [[(1, 3.0)]])
    close(recent(loaded), torch.tensor([NAN, 3.0, NAN, NAN, NAN]))
    close(loaded.age(), torch.tensor([NAN, 0.0, NAN, NAN, NAN]))
    close(loaded.compute()["loss"], torch.tensor([1.0, 3.0, NAN, NAN, NAN]))
    with pytest.raises(ValueError, match=r"half_life 2\.0, this tracker 4\.0"):  # what trackers had then
        new_tracker(half_life=4).load_state_dict(state)


@pytest.mark.parametrize(
    ("index", "labels", "message"),
    [
        ([0], [2], r"labels: got 2, expected 0\.\.1 for 2 classes"),
        ([0], [-1], r"labels: got -1, expected 0\.\.1"),
        ([9], [1], r"index: got 9, expected 0\.\.4"),
        ([0, 1], [1], r"labels: got shape \(1,\), expected \[2\]"),
        ([1, 0, 1], [0, 0, 1], "index: got example 1 twice, with different labels"),
    ],
)
def test_labels_that_cannot_be_are_no_correction(index: list[int], labels: list[int], message: str) -> None:
    tracker = new_tracker()
    tracker.update(torch.tensor([0, 1]), torch.zeros(2, 2), torch.tensor([0, 0]))
    before = tracker.state_dict()["table"].clone()
    with pytest.raises((ValueError, IndexError), match=message):
        tracker.relabel(torch.tensor(index), torch.tensor(labels))
    assert torch.equal(tracker.state_dict()["table"], before)
    tracker.relabel(torch.tensor([1, 1]), torch.tensor([1, 1]))  # the same twice is no contradiction
