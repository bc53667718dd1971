"""Two real processes give what one gives that sees both their batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import group_process
import pytest
import torch
from group_process import (
    EPOCHS,
    GRADIENTS,
    LABELS,
    SIZE,
    STEPS,
    WORLD,
    everyones_batch,
    facts,
    record_all,
    record_suggestions,
    suggesting_trackers,
    suggestions,
    trackers,
)

import difficulty_prune as dp

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:grand. on this batch the model is no better than chance:UserWarning"),
]


def start(folder: Path, scenario: str) -> list[subprocess.Popen]:
    script = Path(group_process.__file__)
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([sys.executable, script, str(r), folder, scenario], **pipes) for r in range(WORLD)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes leave that recorded, planned and made a mistake."""
    folder = tmp_path_factory.mktemp("group")
    for rank, process in enumerate(start(folder, "recording+planning+growing+estimating+suggesting")):
        _, errors = process.communicate(timeout=180)
        # Not by its exit status: a thread of Gloo's may end a process with SIGABRT after its work.
        assert (folder / f"done-{rank}").exists(), errors
    return folder


@pytest.fixture(scope="module")
def alone():
    """What one process knows that sees everyone's batches."""
    recorders = trackers()
    for step in range(STEPS):
        record_all(recorders, step, everyones_batch(step))
    return facts(recorders)


@pytest.mark.parametrize("rank", range(WORLD))
@pytest.mark.parametrize("name", ["logits", "losses"])
def test_records_are_the_same_bits_as_of_one_process(folder, alone, rank, name):
    together = torch.load(folder / f"facts-{rank}.pt", weights_only=True)
    for kind in (name, f"{name} run"):
        assert list(together[kind]) == list(alone[kind])
        for score, values in alone[kind].items():
            assert together[kind][score].numpy().tobytes() == values.numpy().tobytes(), score


@pytest.mark.parametrize("rank", range(WORLD))
@pytest.mark.parametrize("name", ["gradients", "grand"])
def test_gradients_are_those_of_one_process_but_for_rounding(folder, alone, rank, name):
    together = torch.load(folder / f"facts-{rank}.pt", weights_only=True)
    for score, values in alone[name].items():
        assert values.nan_to_num(0).max() > 0.001
        torch.testing.assert_close(together[name][score], values, rtol=2e-5, atol=1e-7, equal_nan=True)
        torch.testing.assert_close(together[f"{name} run"][score], values, rtol=2e-5, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("rank", range(WORLD))
@pytest.mark.parametrize("name", ["logits", "gradients", "losses", "grand"])
def test_what_was_seen_and_left_out_is_counted_once(folder, alone, rank, name):
    together = torch.load(folder / f"facts-{rank}.pt", weights_only=True)
    for fact in ("skipped", "presentations"):
        assert together[f"{name} {fact}"] == alone[f"{name} {fact}"]
    assert torch.equal(torch.as_tensor(together[f"{name} seen"]), torch.as_tensor(alone[f"{name} seen"]))


def test_the_batches_left_something_out(alone):
    """Else the test above would show nothing."""
    assert sum(alone["logits skipped"].values()) > 0
    assert alone["losses presentations"] == sum(len(everyones_batch(step)[0]) for step in range(STEPS))


def test_one_process_goes_on_from_the_state_of_two(folder, alone):
    recorders = trackers()
    for name, state in torch.load(folder / "states.pt", weights_only=True).items():
        recorders[name].load_state_dict(state)
    for step in range(STEPS // 2, STEPS):
        record_all(recorders, step, everyones_batch(step))
    for name in ("logits", "gradients", "losses", "grand"):
        for score, values in recorders[name].compute(allow_skipped=True).items():
            torch.testing.assert_close(values, alone[name][score], rtol=2e-5, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("rank", range(WORLD))
def test_mean_probabilities_recent_losses_and_ages_are_those_of_one_process(folder, rank):
    recorders = suggesting_trackers()
    for step in range(STEPS):
        record_suggestions(recorders, step, everyones_batch(step))
    alone = suggestions(recorders)
    together = torch.load(folder / f"suggestions-{rank}.pt", weights_only=True)
    assert list(together) == list(alone)
    for name, values in alone.items():
        assert together[name].numpy().tobytes() == values.numpy().tobytes(), name
    assert recorders["labels"].skipped["not finite"] > 0 < recorders["labels"].skipped["changed label"]
    assert alone["labels age"].nan_to_num(0).max() > 2


def test_processes_plan_the_same_epochs_and_share_them(folder):
    visits = [torch.load(folder / f"visited-{rank}.pt", weights_only=True) for rank in range(WORLD)]
    for epoch, (first, second) in enumerate(zip(*visits, strict=True)):
        assert first["digest"] == second["digest"]
        assert len(first["share"]) == len(second["share"]) == (SIZE // 2 if epoch in (0, 3, 4) else 7)
        assert not set(first["share"].tolist()) & set(second["share"].tolist())
    assert len({first["digest"] for first in visits[0][1:3]}) == 2
    assert max(float(visit["weight"].max()) for visit in visits[0][1:3]) > 1
    assert all(float(visit["weight"].max()) == 1 for visit in visits[0][3:])


@pytest.mark.parametrize("policy", ["soft", "importance"])
def test_the_weighted_gradient_of_two_processes_is_unbiased(folder, policy):
    first, second = (torch.load(folder / f"estimates-{rank}.pt", weights_only=True)[policy] for rank in range(WORLD))
    assert torch.equal(first, second)
    error = first.std(0) / EPOCHS**0.5
    assert ((first.mean(0) - GRADIENTS.mean(0)).abs() < 4.5 * error).all()
    assert (error < 0.03).all()  # of gradients with a deviation of 1


@pytest.mark.parametrize("rank", range(WORLD))
def test_a_sampler_refuses_scores_that_only_its_own_process_knows(folder, rank):
    assert "process_group" in (folder / f"refused-{rank}.txt").read_text()


@pytest.mark.parametrize("rank", range(WORLD))
def test_batches_may_not_outgrow_the_largest_first_one(folder, rank):
    text = (folder / f"error-{rank}.txt").read_text()
    assert "got a batch of 5 examples, expected at most 4" in text


@pytest.mark.parametrize("rank", range(WORLD))
def test_who_goes_on_with_a_short_batch_still_has_room_for_full_ones(folder, rank):
    assert int((folder / f"presentations-{rank}.txt").read_text()) == (3 + 4) + (4 + 4) + (1 + 1) + (4 + 4)


@pytest.mark.parametrize(("scenario", "step"), [("dying", 2), ("silent", 1)])
def test_a_process_that_is_lost_is_an_error_in_the_other_and_no_hang(tmp_path, scenario, step):
    first, second = start(tmp_path, scenario)
    first.communicate(timeout=120)  # mostly to start; the time-out of the group is 4 s
    second.communicate(timeout=120)
    assert first.returncode == 3
    text = (tmp_path / "error.txt").read_text()
    assert text.startswith(f"step {step}: ")
    assert "could not exchange with the others" in text


def test_a_group_has_to_be_one():
    with pytest.raises(TypeError, match=r"process_group: got 'world', expected"):
        dp.DifficultyTracker(SIZE, process_group="world")
    assert dp.DifficultyTracker(SIZE, process_group=None).process_group is None
    assert len(LABELS) == SIZE
