"""The trainings of a study as plain data, which any `concurrent.futures.Executor` can run."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from ..comparison.counting_sampler import CountingSampler
from ..data import dataset_fingerprint
from ..policies.base import Policy
from ..policies.plan import Plan, make_plan
from ..runs.run import Run
from ..sampler import PruneSampler
from ..scores.catalogue import recorded
from ..support.ids import digest_of_ids, encode_ids
from ..tracker.options import GradientOptions
from ..tracker.tracker import DifficultyTracker
from .checkpoint import Checkpoint
from .halfway import Halfway, needs_halves
from .hold_out import held_out
from .photographs import Photographs
from .result_file import read_result, write_result
from .source_digest import source_digest
from .study_data import Examples, StudyData, load_data
from .train import Recipe, number_of_batches, predict, train

CHECKPOINT: Final = ".checkpoint"
_LARGE: Final = 97 * 97  # pixels, from which on the gradients of a part are recorded: of all, 8 bytes for each
_PIXELS: Final = 256


@dataclass(frozen=True)
class DataSource:
    """Where the data comes from, and what it is, by which a worker knows that it reads the same data.

    Attributes:
        size: the side to which images are resized; None for as they are.
        dataset_fingerprint, test_fingerprint: of the training data and of the test data, from a sample of each.
        train_digest, test_digest: of all their images and labels.
        ids_digest: of what names the training images, their paths; None where that is not known.
        plant_wrong, plant_seed: the share of the training labels that is made wrong, and the seed by which.
    """

    spec: str
    test_spec: str | None
    size: int | None
    dataset_fingerprint: str
    test_fingerprint: str
    train_digest: str
    test_digest: str
    ids_digest: str | None = None
    plant_wrong: float = 0.0
    plant_seed: int = 0

    @classmethod
    def of(
        cls,
        spec: str,
        test_spec: str | None = None,
        size: int | None = None,
        plant_wrong: float = 0.0,
        plant_seed: int = 0,
    ) -> DataSource:
        """The source with these arguments of `load_data`, as its data is now.

        Raises:
            TypeError, ValueError, FileNotFoundError: as for `load_data`, or the test data are the training data.
        """
        data = load_data(spec, test_spec, size, plant_wrong, plant_seed)
        train, test = data.train, data.test
        if train.digest == test.digest:
            raise ValueError(
                f"test: {test_spec or spec} has the {len(test):,} training examples themselves, which say nothing of "
                "others; name other test data, or leave --test out, so that a fifth is set aside"
            )
        fingerprints = dataset_fingerprint(train), dataset_fingerprint(test)
        ids = _digest_of_ids(train)
        return cls(spec, test_spec, size, *fingerprints, train.digest, test.digest, ids, plant_wrong, plant_seed)

    def load(self) -> StudyData:
        """Loads the data.

        Raises:
            ValueError: it is not the data of the study.
        """
        data = load_data(self.spec, self.test_spec, self.size, self.plant_wrong, self.plant_seed)
        for name, part, expected in (
            ("training", data.train, (self.train_digest, self.dataset_fingerprint)),
            ("test", data.test, (self.test_digest, self.test_fingerprint)),
        ):
            # Of photographs, which the study has read all, a worker reads only some again.
            sampled = isinstance(part, Photographs)
            found = dataset_fingerprint(part) if sampled else part.digest
            if found != expected[sampled]:
                raise ValueError(
                    f"data: the {name} data of {self.spec} has digest {found} in a worker, expected "
                    f"{expected[sampled]}: it must give the same examples in the same order every time, so fix its "
                    "seed, and leave its files as they are while a study runs"
                )
        if _digest_of_ids(data.train) != self.ids_digest:
            raise ValueError(
                f"data: the training examples of {self.spec} have other names in a worker than in the study; leave its "
                "files as they are while a study runs"
            )
        return data

    def facts(self) -> dict[str, str]:
        """What the files of results say of the test data, and of all images and labels."""
        return {
            "test_fingerprint": self.test_fingerprint,
            "train_digest": self.train_digest,
            "test_digest": self.test_digest,
        }


def _digest_of_ids(images: Examples) -> str | None:
    return None if images.ids is None else digest_of_ids(encode_ids(images.ids))


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
        """Steps of the training that are still to do, out of `train_size` examples."""
        return _steps(self.recipe, round((1 - self.hold_out) * train_size), self.checkpoint())

    def describe(self) -> str:
        """What is trained, for people."""
        return f"{self.model}, seed {self.seed}"

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
        differing = self.differing(run)
        other = run.seen is None or not np.array_equal(run.seen, self.seen(len(run)))
        if self.hold_out and not differing and other:
            differing["seen"] = ("other examples", f"those of a study whose first seed is {self.first_seed}")
        if not set(self.scores) <= set(run.scores):
            differing["scores"] = (list(run.scores), list(self.scores))
        refuse_other_study(self.path, differing)
        return True

    def differing(self, run: Run) -> dict[str, tuple[Any, Any]]:
        """In what the run differs from this one: (found, wanted). Ids that the run does not say are no difference."""
        want = {**self._facts(), "dataset_fingerprint": self.source.dataset_fingerprint}
        found = {"hold_out": 0.0, **run.metadata}  # older files do not mention it
        if self.source.ids_digest is not None and run.has("ids"):
            want["ids"], found["ids"] = self.source.ids_digest, digest_of_ids(run.encoded_ids())
        return {key: (found.get(key), value) for key, value in want.items() if found.get(key) != value}

    def run(self, report: Callable[[int], None]) -> None:
        """Trains and writes; `report` is called with 1 after each step."""
        late = needs_halves(self.scores, self.recipe.epochs)
        data = self.source.load()
        tracker = DifficultyTracker(
            len(data.train),
            recorded(self.scores),
            num_classes=None if data.regression else data.num_classes,
            gradient=GradientOptions(pixels=_PIXELS) if data.shape[1] * data.shape[2] >= _LARGE else None,
            mean_probabilities=not data.regression,
        )
        seen = self.seen(len(data.train))
        sampler = PruneSampler(partial(_keep, seen), np.zeros(len(seen)), seed=self.order_seed)
        checkpoint = self.checkpoint()
        halfway = Halfway(tracker, self.recipe.epochs) if late else None
        outcome = train(
            data, self.model, sampler, self.recipe, self.seed, tracker, report, checkpoint=checkpoint, halfway=halfway
        )
        tracker.finish(
            late=halfway.snapshot if halfway is not None else None,
            labels=data.classes,
            ids=data.train.ids,
            class_names=data.names_of_classes,
            seen=seen if self.hold_out else None,
            probabilities=None if data.regression else predict(outcome.model, data, data.train),
            dataset_fingerprint=self.source.dataset_fingerprint,
            data=self.source.spec,
            set_aside=data.set_aside,
            epochs=self.recipe.epochs,
            outcome=outcome.facts(),
            peak_memory_bytes=peak_memory(),
            **self._facts(),
        ).save(self.path)
        checkpoint.remove()

    def checkpoint(self) -> Checkpoint:
        """Of the middle of the training, beside its result."""
        more = {"fingerprint": self.source.dataset_fingerprint, "ids": self.source.ids_digest, "scores": self.scores}
        return Checkpoint(
            Path(self.path).with_suffix(CHECKPOINT), {**self._facts(), **more, "first_seed": self.first_seed}
        )

    def _facts(self) -> dict[str, Any]:
        return {
            "architecture": self.model,
            "seed": self.seed,
            "recipe": self.recipe.facts(),
            "hold_out": self.hold_out,
            "model_digest": source_digest(self.model),
            **self.source.facts(),
        }


def unfinished_runs(tasks: Sequence[ScoringTask]) -> list[ScoringTask]:
    """The tasks that are still to do. The folder of their runs must hold no others but those that may be averaged.

    These are of the same data, test data and recipe, and of the same model if they name the same; their seeds may be
    others.

    Raises:
        ValueError: a run of another study, or a file that is no run.
    """
    unfinished = [task for task in tasks if not task.is_done()]
    own, of_model = {Path(task.path).name for task in tasks}, {task.model: task for task in tasks}
    for path in sorted(Path(tasks[0].path).parent.glob("*.safetensors")):
        if path.name not in own:
            run = Run.load(path)
            differing = of_model.get(run.architecture, tasks[0]).differing(run)
            may_differ = {"seed"} if run.architecture in of_model else {"seed", "architecture", "model_digest"}
            refuse_other_study(path, {key: found for key, found in differing.items() if key not in may_differ})
    return unfinished


def refuse_other_study(path: str | Path, differing: dict[str, tuple[Any, Any]]) -> None:
    """ValueError if the run in a file differs from what is wanted; `differing`: name -> (found, wanted)."""
    if not differing:
        return
    missing = [name for name, (found, _) in differing.items() if found is None]
    older = f"; it does not say its {', '.join(missing)}, as runs of earlier versions do not" if missing else ""
    raise ValueError(
        f"{path} is of another study, of other data, test data, model or recipe: {_in_words(differing)}{older}; "
        "choose another --out, or remove it"
    )


def _in_words(differing: dict[str, tuple[Any, Any]]) -> str:
    """What differs; of what has parts, such as a recipe, those alone that do.

    >>> _in_words({"recipe": ({"epochs": 3, "size": 64}, {"epochs": 4, "size": 64}), "hold_out": (0.0, 0.3)})
    'epochs is 3 there and 4 now, hold_out is 0.0 there and 0.3 now'
    """
    parts: dict[str, tuple[Any, Any]] = {}
    for name, (found, wanted) in differing.items():
        if isinstance(found, dict) and isinstance(wanted, dict):
            keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
            parts |= {key: (found.get(key, "not said"), wanted.get(key, "not said")) for key in keys}
        else:
            parts[name] = (found, wanted)
    return ", ".join(f"{name} is {found} there and {wanted} now" for name, (found, wanted) in parts.items())


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
        length: examples in each epoch, drawn from the plan; None for all of it.
        training: a digest of what is visited.
        alone: whether no other training runs at the same time, so that its wall time means something.
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
    length: int | None = None
    training: str = ""
    alone: bool = False

    def steps(self, train_size: int) -> int:
        """Steps of the training that are still to do, out of `train_size` examples."""
        return _steps(self.recipe, self.length or round(self.keep * train_size), self.checkpoint())

    def describe(self) -> str:
        """What is trained, for people."""
        on = self.name if self.keep == 1 else f"{self.name} {self.keep:.0%}"
        return f"{self.model} on {on}, seed {self.seed}"

    def is_done(self) -> bool:
        """Whether the result of this very task is there; that of another task would be replaced."""
        try:
            return bool(self.result()["task"] == self._facts())
        except (FileNotFoundError, ValueError):  # not there; damaged, or no result of this version
            return False

    def run(self, report: Callable[[int], None]) -> None:
        """Trains and writes; `report` is called with 1 after each step."""
        data = self.source.load()
        labels = data.classes
        sampler = CountingSampler(self.policy, self.difficulty, labels=labels, seed=self.seed, fixed_length=self.length)
        checkpoint = self.checkpoint()
        outcome = train(data, self.model, sampler, self.recipe, self.seed, report=report, checkpoint=checkpoint)
        result = {
            "task": self._facts(),
            "examples": len(sampler),
            "plan": sampler.plan.digest,
            "presentations": sampler.presentations,
            "peak_memory_bytes": peak_memory(),
            "alone": self.alone,
            **outcome.facts(),
        }
        write_result(self.path, result)
        checkpoint.remove()

    def checkpoint(self) -> Checkpoint:
        """Of the middle of the training, beside its result."""
        return Checkpoint(Path(self.path).with_suffix(CHECKPOINT), self._facts())

    def result(self) -> dict[str, Any]:
        """What `run` wrote.

        Raises:
            FileNotFoundError, ValueError: it is not there, or damaged.
        """
        return read_result(self.path)

    def _facts(self) -> dict[str, Any]:
        return {
            "fingerprint": self.source.dataset_fingerprint,  # the key in files of every version
            **self.source.facts(),
            "architecture": self.model,
            "model_digest": source_digest(self.model),
            "seed": self.seed,
            "recipe": self.recipe.facts(),
            "policy": self.name,
            "keep": self.keep,
            "length": self.length,
            "training": self.training,
            # Earlier versions took larger steps where weights are above 1.
            **({"weights": "over their mean"} if getattr(self.policy, "unbiased", False) else {}),
            "difficulty": self.difficulty_name,
            "difficulty_digest": hashlib.blake2b(self.difficulty.tobytes(), digest_size=16).hexdigest(),
        }


Task = ScoringTask | ComparisonTask


def tell_of_checkpoints(tasks: Sequence[Task], console: Console) -> None:
    """Says which trainings go on in the middle, and which begin anew though they have a checkpoint."""
    for task in tasks:
        epoch = task.checkpoint().epoch()
        if epoch == 0:
            continue
        said = (
            f"{task.checkpoint().path} is of other settings, data or code, or damaged: {task.describe()} begins anew"
            if epoch is None
            else f"{task.describe()} goes on after epoch {epoch} of {task.recipe.epochs}"
        )
        console.print(said, soft_wrap=True, markup=False, emoji=False, highlight=False)


def peak_memory() -> int | None:
    """Largest resident memory of this process so far, in bytes; None on Windows, where it is not measured."""
    try:
        import resource  # Linux and macOS only
    except ImportError:
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _steps(recipe: Recipe, size: int, checkpoint: Checkpoint) -> int:
    return (recipe.epochs - (checkpoint.epoch() or 0)) * number_of_batches(size, recipe.batch_size)


def slug(text: str) -> str:
    """The text as part of a file name.

    >>> slug("my.module:function")
    'my.module-function'
    """
    return "".join(c if c.isalnum() or c in "-_.=" else "-" for c in text)
