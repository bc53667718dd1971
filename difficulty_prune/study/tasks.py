"""The trainings of a study as plain data, so that any `concurrent.futures.Executor` can run them."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..policies.base import Policy
from ..policies.plan import Plan, make_plan
from ..runs.run_set import Run
from ..sampler import PruneSampler
from ..support.files import write_atomically
from ..tracker.tracker import DifficultyTracker
from .hold_out import held_out
from .study_data import load_data
from .train import Recipe, number_of_batches, predict, train


@dataclass(frozen=True)
class DataSource:
    """Which data, and its fingerprint, so that a worker can tell that it reads the same."""

    spec: str
    test_spec: str | None
    fingerprint: str


@dataclass(frozen=True)
class ScoringTask:
    """Train on everything but what is held out, score inside the step, write a run file.

    Attributes:
        seed: of the training. The first run of the study has `first_seed`, which also decides what each run holds out.
        hold_out: the share of the examples that the run leaves out.
    """

    source: DataSource
    model: str
    seed: int
    recipe: Recipe
    scores: tuple[str, ...]
    path: str
    hold_out: float = 0.0
    first_seed: int = 0

    @property
    def label(self) -> str:
        return f"score {self.model} seed {self.seed}"

    def steps(self, train_size: int) -> int:
        return _steps(self.recipe, round((1 - self.hold_out) * train_size))

    def seen(self, train_size: int) -> NDArray[Any]:
        """The examples that the run trains on, [N] bool."""
        return ~held_out(self.seed - self.first_seed, train_size, self.hold_out, self.first_seed)

    @property
    def order_seed(self) -> int:
        """Of the order of the examples: another one for each model, or the runs of a seed would share noise."""
        return int(np.random.SeedSequence([self.seed, *self.model.encode()]).generate_state(1)[0])

    def is_done(self) -> bool:
        """Whether the run file holds just this run.

        Raises:
            ValueError: it holds another one.
        """
        if not Path(self.path).exists():
            return False
        run = Run.load(self.path)
        want = {**self._facts(), "dataset_fingerprint": self.source.fingerprint}
        found = {"hold_out": 0.0, **run.metadata}  # which older files do not name
        differing: dict[str, Any] = {
            key: (found.get(key), value) for key, value in want.items() if found.get(key) != value
        }
        other = run.seen is None or not np.array_equal(run.seen, self.seen(len(run)))
        if self.hold_out and not differing and other:
            differing["seen"] = ("other examples", f"those of a study whose first seed is {self.first_seed}")
        if not set(self.scores) <= set(run.scores):
            differing["scores"] = (list(run.scores), list(self.scores))
        if differing:
            raise ValueError(
                f"{self.path} is of another study, (found, wanted): {differing}; choose another --out, or remove it"
            )
        return True

    def run(self, report: Callable[[int], None]) -> None:
        data = load_data(self.source.spec, self.source.test_spec)
        tracker = DifficultyTracker(len(data.train), self.scores, num_classes=data.num_classes)
        seen = self.seen(len(data.train))
        sampler = PruneSampler(partial(_keep, seen), np.zeros(len(seen)), seed=self.order_seed)
        outcome = train(data, self.model, sampler, self.recipe, self.seed, tracker, report)
        tracker.finish(
            labels=data.train.labels,
            seen=seen if self.hold_out else None,
            probabilities=predict(outcome.model, data, data.train),
            dataset_fingerprint=self.source.fingerprint,
            data=self.source.spec,
            epochs=self.recipe.epochs,
            outcome=outcome.facts(),
            peak_memory_bytes=peak_memory(),
            **self._facts(),
        ).save(self.path)

    def _facts(self) -> dict[str, Any]:
        return {
            "architecture": self.model,
            "seed": self.seed,
            "recipe": asdict(self.recipe),
            "hold_out": self.hold_out,
        }


def _keep(seen: NDArray[Any], difficulty: Tensor, labels: Tensor | None = None, generator: Any = None) -> Plan:
    """A policy that keeps just the given examples."""
    kept = torch.from_numpy(np.flatnonzero(seen))
    return make_plan(kept, torch.ones(len(kept)), len(seen), "what is not held out", labels)


@dataclass(frozen=True)
class ComparisonTask:
    """Train on what a policy keeps and write down how well that went."""

    source: DataSource
    model: str
    seed: int
    recipe: Recipe
    name: str
    keep: float
    policy: Policy
    difficulty: NDArray[Any]
    difficulty_name: str
    path: str

    @property
    def label(self) -> str:
        return f"train {self.model} on {self.name} {self.keep:.0%} seed {self.seed}"

    def steps(self, train_size: int) -> int:
        return _steps(self.recipe, round(self.keep * train_size))

    def is_done(self) -> bool:
        """Whether the result is there, of the very same task."""
        path = Path(self.path)
        return path.exists() and json.loads(path.read_text())["task"] == self._facts()

    def run(self, report: Callable[[int], None]) -> None:
        data = load_data(self.source.spec, self.source.test_spec)
        sampler = PruneSampler(self.policy, self.difficulty, labels=data.train.labels, seed=self.seed)
        outcome = train(data, self.model, sampler, self.recipe, self.seed, report=report)
        result = {
            "task": self._facts(),
            "examples": len(sampler),
            "peak_memory_bytes": peak_memory(),
            **outcome.facts(),
        }
        write_atomically(self.path, json.dumps(result, indent=1))

    def result(self) -> dict[str, Any]:
        """What `run` wrote."""
        result: dict[str, Any] = json.loads(Path(self.path).read_text())
        return result

    def _facts(self) -> dict[str, Any]:
        return {
            "fingerprint": self.source.fingerprint,
            "architecture": self.model,
            "seed": self.seed,
            "recipe": asdict(self.recipe),
            "policy": self.name,
            "keep": self.keep,
            "difficulty": self.difficulty_name,
            "difficulty_digest": hashlib.blake2b(self.difficulty.tobytes(), digest_size=16).hexdigest(),
        }


Task = ScoringTask | ComparisonTask


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _steps(recipe: Recipe, size: int) -> int:
    return recipe.epochs * number_of_batches(size, recipe.batch_size)


def slug(text: str) -> str:
    """Text as a file name."""
    return "".join(c if c.isalnum() or c in "-_.=" else "-" for c in text).replace(os.sep, "-")
