"""Two real processes that see rows of every form give what one gives that sees both their batches."""

from __future__ import annotations

import subprocess
import sys

import pytest
import row_group_process
import torch
from row_batches import FORMS
from row_group_process import STEPS, WORLD, batch, facts, tracker_for

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:labels. the targets of:UserWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    script = row_group_process.__file__
    processes = [
        subprocess.Popen([sys.executable, script, str(rank), folder], stderr=subprocess.PIPE, text=True)
        for rank in range(WORLD)
    ]
    for rank, process in enumerate(processes):
        _, errors = process.communicate(timeout=180)
        # Not by its exit status: a thread of Gloo's may end a process with SIGABRT after its work.
        assert (folder / f"done-{rank}").exists(), errors
    return folder


def alone(form: str, steps: range = range(STEPS), state: dict | None = None):
    """A tracker that sees first the batch of one process and then that of the other, in each step."""
    tracker = tracker_for(form)
    if state is not None:
        tracker.load_state_dict(state)
    for step in steps:
        for rank in range(WORLD):
            batch(form, step, rank).update(tracker)
    return tracker


def in_steps_of_both(age: torch.Tensor) -> torch.Tensor:
    """Of an age in calls of `update`, two of which were one step."""
    return STEPS - 1 - (WORLD * STEPS - 1 - age) // WORLD


@pytest.mark.parametrize("form", FORMS)
def test_two_processes_give_what_one_gives(folder, form) -> None:
    expected = facts(alone(form))
    assert expected["presentations"] > 5
    for rank in range(WORLD):
        got = torch.load(folder / f"facts-{rank}.pt", weights_only=True)[form]
        assert list(got["scores"]) == list(expected["scores"])
        for name, score in expected["scores"].items():
            assert got["scores"][name].numpy().tobytes() == score.numpy().tobytes(), name
        assert got["skipped"] == expected["skipped"]
        assert got["presentations"] == expected["presentations"]
        torch.testing.assert_close(got["age"], in_steps_of_both(expected["age"]), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("form", FORMS)
def test_one_process_goes_on_from_the_state_of_two(folder, form) -> None:
    state = torch.load(folder / "states-1.pt", weights_only=True)[form]
    resumed = alone(form, range(STEPS // 2 + 1, STEPS), state)
    expected = alone(form)
    for name, score in expected.compute(allow_skipped=True).items():
        assert resumed.compute(allow_skipped=True)[name].numpy().tobytes() == score.numpy().tobytes(), name
    assert resumed.skipped == expected.skipped


def test_the_batches_leave_something_out(folder) -> None:
    """Else the tests above would show less than they seem to."""
    found = torch.load(folder / "facts-0.pt", weights_only=True)
    skipped = [tuple(found[form]["skipped"].values()) for form in FORMS]
    assert sum(counts[2] for counts in skipped) > 0
    assert sum(counts[3] for counts in skipped) > 0
