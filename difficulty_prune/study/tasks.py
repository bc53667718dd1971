"""The trainings of a study as plain data, which any `concurrent.futures.Executor` can run."""

from __future__ import annotations

import hashlib
import json
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

from ..data import dataset_fingerprint
from ..policies.base import Policy
from ..policies.plan import Plan, make_plan
from ..runs.run import Run
from ..sampler import PruneSampler
from ..support.files import write_atomically
from ..tracker.tracker import DifficultyTracker
from .hold_out import held_out
from .models import source_digest
from .study_data import StudyData, load_data
from .train import Recipe, number_of_batches, predict, train


@dataclass(frozen=True)
class DataSource:
    """Where the data comes from, and its fingerprints, by which a worker knows that it reads the same data.

    Attributes:
        size: the side to which images are resized; None for as they are.
        dataset_fingerprint, test_fingerprint: of the training data and of the test data.
    """

    spec: str
    test_spec: str | None
    dataset_fingerprint: str
    test_fingerprint: str
    size: int | None = None

    def load(self) -> StudyData:
        """Loads the data.

        Raises:
            ValueError: it is not the data of the study.
        """
        data = load_data(self.spec, self.test_spec, self.size)
        for part, expected in ((data.train, self.dataset_fingerprint), (data.test, self.test_fingerprint)):
            found = dataset_fingerprint(part)
            if found != expected:
                raise ValueError(
                    f"data: {self.spec} has dataset fingerprint {found} in a worker, expected {expected}: it must give "
                    "the same examples in the same order every time, so fix its seed"
                )
        return data


@dataclass(frozen=True)
class ScoringTask:
    """Trains on everything that is not held out, scores inside the step, and writes a run file.

    Attributes:
        seed: of the training. The first run of the study has `first_seed`, which also decides what each run holds out.
        hold_out: the fraction of the examples that the run leaves out.
    """

    source: DataSource
    model: str
    seed: int
    recipe: Recipe
    scores: tuple[str, ...]
    path: str
    hold_out: float = 0.0
    first_seed: int = 0

    def steps(self, train_size: int) -> int:
        """Steps of the whole training, out of `train_size` examples."""
        return _steps(self.recipe, round((1 - self.hold_out) * train_size))

    def seen(self, train_size: int) -> NDArray[Any]:
        """The examples that the run trains on, [N] bool."""
        return ~held_out(self.seed - self.first_seed, train_size, self.hold_out, self.first_seed)

    @property
    def order_seed(self) -> int:
        """The seed of the order of the examples: one per model, or models of the same seed would share noise."""
        return int(np.random.SeedSequence([self.seed, *self.model.encode()]).generate_state(1)[0])

    def is_done(self) -> bool:
        """Whether the run file is there and holds this very run.

        Raises:
            ValueError: it holds another run, or is no run file.
        """
        if not Path(self.path).exists():
            return False
        run = Run.load(self.path)
        want = {**self._facts(), "dataset_fingerprint": self.source.dataset_fingerprint}
        found = {"hold_out": 0.0, **run.metadata}  # older files do not mention it
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
                f"{self.path} is of another study, of other data, test data, model or recipe, (found, wanted): "
                f"{differing}; choose another --out, or remove it"
            )
        return True

    def run(self, report: Callable[[int], None]) -> None:
        """Trains and writes; `report` is called with the number of steps after each epoch."""
        data = self.source.load()
        tracker = DifficultyTracker(len(data.train), self.scores, num_classes=data.num_classes)
        seen = self.seen(len(data.train))
        sampler = PruneSampler(partial(_keep, seen), np.zeros(len(seen)), seed=self.order_seed)
        outcome = train(data, self.model, sampler, self.recipe, self.seed, tracker, report)
        tracker.finish(
            labels=data.train.labels,
            seen=seen if self.hold_out else None,
            probabilities=predict(outcome.model, data, data.train),
            dataset_fingerprint=self.source.dataset_fingerprint,
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
            "test_fingerprint": self.source.test_fingerprint,
            "model_digest": source_digest(self.model),
        }


def _keep(seen: NDArray[Any], difficulty: Tensor, labels: Tensor | None = None, generator: Any = None) -> Plan:
    """A policy that keeps what is `seen` [N] bool, whatever the difficulty."""
    kept = torch.from_numpy(np.flatnonzero(seen))
    return make_plan(
        kept, torch.ones(len(kept), dtype=torch.float32, device="cpu"), len(seen), "what is not held out", labels
    )


@dataclass(frozen=True)
class ComparisonTask:
    """Trains on what a policy keeps, and writes the test accuracy and the cost.

    Attributes:
        name: of the policy, in file names and tables.
        keep: the fraction of the examples that it keeps.
        difficulty: [N] float64, high = hard.
        difficulty_name: where it comes from.
    """

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

    def steps(self, train_size: int) -> int:
        """Steps of the whole training, out of `train_size` examples."""
        return _steps(self.recipe, round(self.keep * train_size))

    def is_done(self) -> bool:
        """Whether the result of this very task is there; that of another task would be replaced."""
        try:
            return bool(self.result()["task"] == self._facts())
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # not there, or not the file of a result
            return False

    def run(self, report: Callable[[int], None]) -> None:
        """Trains and writes; `report` is called with the number of steps after each epoch."""
        data = self.source.load()
        sampler = PruneSampler(self.policy, self.difficulty, labels=data.train.labels, seed=self.seed)
        outcome = train(data, self.model, sampler, self.recipe, self.seed, report=report)
        result = {
            "task": self._facts(),
            "examples": len(sampler),
            "plan": sampler.plan.digest,
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
            "fingerprint": self.source.dataset_fingerprint,  # the key in files of every version
            "test_fingerprint": self.source.test_fingerprint,
            "architecture": self.model,
            "model_digest": source_digest(self.model),
            "seed": self.seed,
            "recipe": asdict(self.recipe),
            "policy": self.name,
            "keep": self.keep,
            "difficulty": self.difficulty_name,
            "difficulty_digest": hashlib.blake2b(self.difficulty.tobytes(), digest_size=16).hexdigest(),
        }


Task = ScoringTask | ComparisonTask


def peak_memory() -> int | None:
    """Largest resident memory of this process so far, in bytes; None on Windows, where it is not measured."""
    try:
        import resource  # Linux and macOS only
    except ImportError:
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _steps(recipe: Recipe, size: int) -> int:
    return recipe.epochs * number_of_batches(size, recipe.batch_size)


def slug(text: str) -> str:
    """The text as part of a file name.

    >>> slug("my.module:function")
    'my.module-function'
    """
    return "".join(c if c.isalnum() or c in "-_.=" else "-" for c in text)
