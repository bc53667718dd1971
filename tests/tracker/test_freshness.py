"""Real trainings in which difficulty changes: corrected labels, and plans that follow what was seen lately."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Digits:
    """Digits with some planted wrong labels, and a small network."""

    images: Tensor
    true: Tensor
    labels: Tensor
    wrong: Tensor
    model: nn.Module
    optimizer: torch.optim.Optimizer
    trackers: list[dp.DifficultyTracker] = field(default_factory=list)

    @classmethod
    def make(cls, planted: int, seed: int = 0) -> Digits:
        images, true = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
        images = (images / 16).float()
        generator = torch.Generator().manual_seed(seed)
        wrong = torch.randperm(len(true), generator=generator)[:planted].sort().values
        labels = true.clone()
        labels[wrong] = (true[wrong] + torch.randint(1, 10, (planted,), generator=generator)) % 10
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        return cls(images, true, labels, wrong, model, torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9))

    def step(self, index: Tensor, weight: Tensor | float = 1.0) -> None:
        logits = self.model(self.images[index])
        for tracker in self.trackers:
            tracker.update(index, logits, self.labels[index])
        loss = F.cross_entropy(logits, self.labels[index], reduction="none")
        self.optimizer.zero_grad()
        (loss * weight).mean().backward()
        self.optimizer.step()


def among_the_hardest(difficulty: Tensor, examples: Tensor, share: float) -> Tensor:
    """Which of the examples are in that part of all that is hardest."""
    hardest = torch.zeros(len(difficulty), dtype=torch.bool)
    hardest[difficulty.argsort(descending=True)[: round(share * len(difficulty))]] = True
    return hardest[examples]


def test_a_corrected_example_leaves_the_hard_end_by_its_recent_loss_alone() -> None:
    """Its label is corrected after epoch 10 with what the training suggests, and looked at after epoch 15."""
    digits = Digits.make(planted=40)  # 2 % of the labels
    size = len(digits.true)
    tracker = dp.DifficultyTracker(size, ("loss", "recent_loss"), mean_probabilities=True)
    digits.trackers = [tracker]
    generator = torch.Generator().manual_seed(1)

    def train(epochs: int) -> dict[str, Tensor]:
        for _ in range(epochs):
            for index in torch.randperm(size, generator=generator).split(64):
                digits.step(index)
        return tracker.compute()  # which raises where a presentation was left out

    for difficulty in train(10).values():
        assert among_the_hardest(difficulty, digits.wrong, 0.05).float().mean() > 0.95
    suggested = tracker.suggested()
    right = suggested[digits.wrong] == digits.true[digits.wrong]
    assert right.float().mean() > 0.9
    found, kept = digits.wrong[right], digits.wrong[~right]

    digits.labels[found] = suggested[found]
    tracker.relabel(found, suggested[found])
    after = train(5)
    assert among_the_hardest(after["recent_loss"], found, 0.2).float().mean() < 0.4  # of all it is 0.2
    assert among_the_hardest(after["recent_loss"], found, 0.05).float().mean() < 0.15
    assert among_the_hardest(after["recent_loss"], kept, 0.05).all()
    assert among_the_hardest(after["loss"], found, 0.2).all()
    run = tracker.finish(architecture="mlp", seed=0)
    assert torch.equal(torch.from_numpy(run.labels.copy())[found], digits.true[found])


def test_a_plan_by_recent_loss_follows_and_ages_tell_what_it_left_out() -> None:
    digits = Digits.make(planted=40)
    size, epochs = len(digits.true), 8
    tracker = dp.DifficultyTracker(size, ("recent_loss",))
    digits.trackers = [tracker]
    policy = dp.policies.SoftPrune(keep=0.5, anneal=0.125, epochs=epochs)
    sampler = dp.PruneSampler(policy, tracker.source("recent_loss"), seed=0)
    data = dp.IndexedDataset(TensorDataset(digits.images, digits.labels))
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        visited = []
        for _, _, index in loader:
            digits.step(index, sampler.weight(index))
            visited.append(index)
        seen, age = torch.zeros(size, dtype=torch.bool), tracker.age()
        seen[torch.cat(visited)] = True
        if epoch in (0, epochs - 1):
            assert seen.all()
            continue
        assert seen.sum() == len(sampler.plan) < 0.6 * size
        assert (age[seen] < len(visited)).all()  # measured in this epoch
        assert (age[~seen] >= len(visited)).all()  # stale: measured in an earlier one
        if epoch >= 3:  # when the network has learned to tell wrong labels
            assert among_the_hardest(tracker.source("recent_loss")(), digits.wrong, 0.05).float().mean() > 0.9
            assert seen[digits.wrong].float().mean() > 0.9


def test_what_has_become_stale_is_visited_again_where_it_counts_as_not_seen() -> None:
    """As docs/policies.md shows it; without it, what `Hardest` leaves out once is never measured again."""
    digits = Digits.make(planted=40)
    size, epochs, patience = len(digits.true), 9, 3 * 14
    tracker = dp.DifficultyTracker(size, ("recent_loss",))
    digits.trackers = [tracker]

    def difficulty() -> Tensor:
        return tracker.source("recent_loss")().masked_fill(tracker.age() > patience, torch.nan)

    ages = {}
    for name, source in (("fresh", difficulty), ("stale", tracker.source("recent_loss"))):
        tracker.reset()
        sampler = dp.PruneSampler(dp.policies.Hardest(keep=0.5, unseen="keep"), source, seed=0)
        oldest = []
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            order = torch.tensor(list(sampler))
            assert len(order) >= round(0.5 * size) - 1
            for index in order.split(128):
                digits.step(index)
            oldest.append(float(tracker.age().max()))
        ages[name] = oldest
    longest_epoch = -(-size // 128)
    assert max(ages["fresh"]) <= patience + 2 * longest_epoch
    assert max(ages["stale"]) > max(ages["fresh"])


def test_a_source_of_recent_loss_is_the_score_of_the_moment() -> None:
    tracker = dp.DifficultyTracker(2, ("recent_loss",), half_life=1)
    source = tracker.source("recent_loss")
    for loss, expected in ((4.0, 4.0), (1.0, 2.0)):
        tracker.update(torch.tensor([1]), loss=torch.tensor([loss]))
        torch.testing.assert_close(source(), torch.tensor([torch.nan, expected], dtype=torch.float64), equal_nan=True)
