"""A training of 100,000 updates takes no more memory than one of a few, and one that was stopped ends bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import difficulty_prune as dp

pytestmark = [pytest.mark.stress, pytest.mark.usefixtures("one_thread")]
UPDATES, FIRST = 100_000, 10_000

UPDATING = """
import sys, torch
import difficulty_prune as dp

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

torch.set_num_threads(1)
size = 512
scores = (*dp.score_names("loss", "logits"), "vog_loss")
tracker = dp.DifficultyTracker(size, scores, temporal=dp.TemporalOptions(window=5), mean_probabilities=True)
weight = torch.randn(12, 5, requires_grad=True)
labels = torch.arange(size) % 5
generator = torch.Generator().manual_seed(0)
for step in range(int(sys.argv[1])):
    index = torch.randint(size, (16,), generator=generator)
    x = tracker.watch(torch.randn(16, 1, 3, 4, generator=generator), index)
    logits = x.flatten(1) @ weight
    tracker.update(index, logits, labels[index])
    torch.nn.functional.cross_entropy(logits, labels[index]).backward()
    weight.grad = None
    if step + 1 == int(sys.argv[2]):
        before = resident()
assert tracker.presentations == 16 * int(sys.argv[1])
assert all(values.isfinite().all() for values in tracker.compute().values())
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat(tell) -> None:
    command = [sys.executable, "-c", UPDATING, str(UPDATES), str(FIRST)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout)
    assert grown < 2**21, f"{grown} bytes in {UPDATES - FIRST} updates"
    tell(
        "updates of every score of the step", f"{UPDATES:,}", f"{grown / 1024:.0f} KiB more memory than after {FIRST:,}"
    )


# Stopped and resumed

SIZE, EPOCHS, BATCH = 48, 4, 8
LABELS = torch.arange(SIZE) % 3
IMAGES = torch.randn(SIZE, 1, 3, 3, generator=torch.Generator().manual_seed(5)) + LABELS[:, None, None, None]

TRACKERS: dict[str, dict[str, Any]] = {
    "logits": {"scores": dp.score_names("loss", "logits")},
    "windows": {"scores": ("loss", "tdds", "dyn_unc"), "temporal": dp.TemporalOptions(window=3)},
    "watched": {"scores": ("loss", "vog_loss")},
    "inputs": {"scores": ("loss", "vog", "vog_probability")},
    "thinned": {"scores": ("loss", "vog_loss"), "gradient": dp.GradientOptions(pixels=4, m2_dtype="bfloat16")},
    "probabilities": {"scores": ("loss", "recent_loss"), "mean_probabilities": True, "half_life": 3.0},
    "losses": {"scores": ("loss",)},
}
SAMPLERS: dict[str, Any] = {
    "hardest": lambda tracker: dp.PruneSampler(dp.policies.Hardest(0.75), torch.arange(float(SIZE)), seed=1),
    "soft": lambda tracker: dp.PruneSampler(dp.policies.SoftPrune(0.75), torch.arange(float(SIZE)), seed=1),
    "importance": lambda tracker: dp.PruneSampler(dp.policies.Importance(0.75), torch.arange(float(SIZE)), seed=1),
    "while it scores": lambda tracker: dp.PruneSampler(dp.policies.SoftPrune(0.75), tracker.source("loss"), seed=1),
}


class Training:
    """A training that can stop after any step, and go on in another process."""

    def __init__(self, recording: str, sampling: str) -> None:
        self.recording = recording
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.model = nn.Sequential(nn.Flatten(), nn.Linear(9, 12), nn.ReLU(), nn.Linear(12, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, momentum=0.9)
        self.tracker = dp.DifficultyTracker(SIZE, **TRACKERS[recording])
        self.sampler = SAMPLERS[sampling](self.tracker)
        self.epoch = self.consumed = 0

    def step(self, index: Tensor) -> None:
        x, y = IMAGES[index], LABELS[index]
        if self.recording in ("watched", "thinned"):
            x = self.tracker.watch(x, index, weight=self.sampler.weight(index))
        elif self.recording == "inputs":
            x = x.clone().requires_grad_()
        logits = self.model(x)
        loss = F.cross_entropy(logits, y, reduction="none")
        if self.recording == "losses":
            self.tracker.update(index, loss=loss)
        else:
            self.tracker.update(index, logits, y, **({"inputs": x} if self.recording == "inputs" else {}))
        self.optimizer.zero_grad()
        (loss * self.sampler.weight(index)).mean().backward()
        self.optimizer.step()

    def run(self, steps: int) -> int:
        """At most so many steps; how many there were."""
        done = 0
        while self.epoch < EPOCHS:
            if self.consumed == 0:
                self.sampler.set_epoch(self.epoch)
            left = list(self.sampler)
            for batch in batches(left):
                if done == steps:
                    return done
                self.step(torch.tensor(batch))
                self.consumed += len(batch)
                done += 1
            self.epoch, self.consumed = self.epoch + 1, 0
        return done

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "tracker": self.tracker.state_dict(),
            "sampler": self.sampler.state_dict(consumed=self.consumed),
            "place": (self.epoch, self.consumed),
        }
        torch.save(state, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        for name in ("model", "optimizer", "tracker", "sampler"):
            getattr(self, name).load_state_dict(state[name])
        self.epoch, self.consumed = state["place"]

    def content(self) -> list[bytes]:
        tensors = [*self.model.state_dict().values(), *self.tracker.compute().values()]
        return [tensor.numpy().tobytes() for tensor in tensors]


def batches(positions: list[int]) -> list[list[int]]:
    return [positions[start : start + BATCH] for start in range(0, len(positions), BATCH)]


@pytest.mark.parametrize("sampling", SAMPLERS)
@pytest.mark.parametrize("recording", TRACKERS)
def test_a_training_stopped_at_any_step_ends_bit_for_bit(recording: str, sampling: str, tmp_path: Path, tell) -> None:
    whole = Training(recording, sampling)
    steps = whole.run(10**6)
    for stop in range(1, steps):
        first, second = Training(recording, sampling), Training(recording, sampling)
        assert first.run(stop) == stop
        first.save(tmp_path / "state.pt")
        second.load(tmp_path / "state.pt")
        assert stop + second.run(10**6) == steps
        assert second.content() == whole.content(), stop
    tell(f"resumed: {recording}, {sampling}", f"stopped after each of {steps - 1} steps", "bit for bit")
