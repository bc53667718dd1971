"""Runs of several architectures on real images, for `four_architectures.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from images import Positions, some_images

import difficulty_prune as dp
from difficulty_prune.policies.uniform import Random
from difficulty_prune.study.study_data import StudyData
from difficulty_prune.study.train import Recipe, number_of_batches, train

SCORES = (*dp.score_names("loss", "logits"), "vog_loss")
ARCHITECTURES = ("cnn", "resnet8", "mlp", "vit")
OF_ARCHITECTURE = 1000  # seeds


@cache
def load(images: Path, size: int) -> tuple[StudyData, Positions]:
    """The images of the study, the same for every run."""
    return some_images(images, size)


@dataclass(frozen=True)
class ScoringRun:
    """One training on all images of the study; its scores become a run file.

    With `shared_order`, runs of the same number see the examples in the same order whatever the architecture.
    """

    images: Path
    size: int
    epochs: int
    architecture: str
    number: int
    work: Path
    shared_order: bool = False

    def describe(self) -> str:
        return f"{self.architecture}, run {self.number}"

    @property
    def seed(self) -> int:
        """Of the initialisation, the augmentation and the order."""
        return self.number + (
            0 if self.shared_order else OF_ARCHITECTURE * (1 + ARCHITECTURES.index(self.architecture))
        )

    @property
    def path(self) -> Path:
        kind = "shared" if self.shared_order else "own"
        return self.work / f"{self.size}-{self.epochs}-{kind}-order" / f"{self.architecture}-{self.number}.safetensors"

    def steps(self, train_size: int) -> int:
        return self.epochs * number_of_batches(train_size, Recipe.batch_size)

    def is_done(self) -> bool:
        return self.path.exists()

    def run(self, report: Callable[[int], None]) -> None:
        data, _ = load(self.images, self.size)
        tracker = dp.DifficultyTracker(self.size, SCORES)
        sampler = dp.PruneSampler(Random(1.0), np.zeros(self.size), seed=self.seed)
        outcome = train(data, self.architecture, sampler, Recipe(self.epochs), self.seed, tracker, report)
        tracker.finish(
            architecture=self.architecture,
            seed=self.seed,
            labels=data.train.labels,
            dataset_fingerprint=dp.dataset_fingerprint(data.train),
            epochs=self.epochs,
            outcome=outcome.facts(),
        ).save(self.path)
