"""The main job: score over several runs, average, prune, and see whether it paid."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from ..consistency.correlation import correlation
from ..consistency.reliability import reliability
from ..consistency.run_agreement import run_agreement
from ..data import dataset_fingerprint
from ..fingerprint.architecture_fingerprint import ArchitectureFingerprint
from ..fingerprint.sensitive_examples import sensitive_examples
from ..policies.base import Policy, check_fraction
from ..policies.compose import PerClass
from ..policies.uniform import Easiest, Hardest, Random, Stratified, Window
from ..policies.weighted import Importance, SoftPrune
from ..runs.run_set import RunSet
from ..scores.catalogue import check_tracked
from ..scores.temporal import TEMPORAL, TemporalOptions
from ..support.files import write_atomically
from .executor import default_workers, run_tasks
from .figures import write_figures
from .hold_out import check_hold_out
from .models import find_model
from .study_data import StudyData, load_data
from .tasks import ComparisonTask, DataSource, ScoringTask, peak_memory, slug
from .train import Recipe

DEFAULT_SCORES: Final = ("el2n", "aum", "forgetting", "vog_loss")
DEFAULT_OUT: Final = Path("study")
SEEDS_PER_COMPARISON: Final = 2
TARGET: Final = 0.95  # the reliability that the needed runs are told for
RUNS_PER_FINGERPRINT: Final = 3
POLICIES: Final[dict[str, Any]] = {
    "hardest": Hardest,
    "easiest": Easiest,
    "window": lambda keep: Window(start=min(0.1, 1 - keep), keep=keep),
    "hardest-per-class": lambda keep: PerClass(Hardest(keep)),
    "stratified": Stratified,
    "soft": SoftPrune,
    "importance": lambda keep: Importance(keep=keep),
    "random": Random,
}


@dataclass(frozen=True)
class Settings:
    """What `difficulty-prune study` was asked for.

    Raises:
        TypeError, ValueError: a value that makes no sense.
    """

    data: str = "digits"
    test: str | None = None
    models: tuple[str, ...] = ()
    runs: int = 4
    epochs: int | None = None
    scores: tuple[str, ...] = DEFAULT_SCORES
    keep: tuple[float, ...] = (0.5, 0.7)
    policies: tuple[str, ...] = ("hardest",)
    out: Path = DEFAULT_OUT
    seed: int = 0
    workers: int | None = None
    hold_out: float = 0.0

    def __post_init__(self) -> None:
        check_tracked(self.scores)
        for keep in self.keep:
            check_fraction(keep, "keep")
        for name in self.policies:
            if name not in POLICIES:
                raise ValueError(f"policy: got {name!r}, expected one of {', '.join(POLICIES)}")
        for name in self.models:
            find_model(name)
        for key, value in (("runs", self.runs), ("epochs", self.epochs), ("workers", self.workers)):
            if value is not None and value < 1:
                raise ValueError(f"{key}: got {value}, expected at least 1")
        check_hold_out(self.hold_out, self.runs)
        in_windows, window = [name for name in self.scores if name in TEMPORAL], TemporalOptions().window
        if in_windows and self.recipe.epochs < window:
            raise ValueError(
                f"epochs: got {self.recipe.epochs}, but {in_windows[0]} looks at windows of {window} epochs"
            )

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models; by default a CNN, and for the small digits an MLP as well."""
        return self.models or (("cnn", "mlp") if self.data == "digits" else ("cnn",))

    @property
    def recipe(self) -> Recipe:
        """Epochs and batch size; smaller batches for the few digits."""
        if self.data == "digits":
            return Recipe(epochs=self.epochs or 12, batch_size=64)
        return Recipe(epochs=self.epochs or 10)


def run_study(settings: Settings, console: Console) -> dict[str, Any]:
    """Runs a study, writes `runs/`, `trainings/`, `figures/` and `summary.json` below `settings.out`.

    Trainings whose result is on disk are not repeated. Returns the summary.

    Raises:
        TypeError, ValueError, FileNotFoundError: bad settings or data, before any training.
        ValueError: an example without a score, before the comparison.
    """
    start = time.perf_counter()
    with console.status(f"reading {settings.data}"):
        data = load_data(settings.data, settings.test)
        source = DataSource(settings.data, settings.test, dataset_fingerprint(data.train))
    workers = settings.workers or default_workers()
    scoring = scoring_tasks(settings, source)
    run_tasks([t for t in scoring if not t.is_done()], workers, len(data.train), console, "scoring")
    runs = RunSet.load(task.path for task in scoring)
    if settings.keep:
        check_all_scored(runs, settings.scores[0])

    comparison = comparison_tasks(settings, source, runs)
    run_tasks([t for t in comparison if not t.is_done()], workers, len(data.train), console, "comparing")
    results = [task.result() for task in comparison]

    summary = {
        "settings": {**asdict(settings), "models": settings.model_names, "out": str(settings.out)},
        "recipe": asdict(settings.recipe),
        "data": describe(data, source),
        "agreement": {model: agreement(runs, model) for model in settings.model_names},
        "score_correlation": {
            "scores": list(runs.scores),
            "spearman": np.round(correlation(runs).of_means, 4).tolist(),
        },
        "reliability": {model: reliabilities(runs.where(architecture=model)) for model in settings.model_names},
        "fingerprint": fingerprint(runs, settings.scores[0], settings.seed),
        "scoring_accuracy": {
            model: [run.metadata["outcome"]["test_accuracy"] for run in runs.where(architecture=model)]
            for model in settings.model_names
        },
        "together": together(runs),
        "difficulty": settings.scores[0],
        "comparison": comparison_rows(results),
        "seconds": round(time.perf_counter() - start, 1),
        "workers": workers,
        "peak_memory_bytes": {
            "study": peak_memory(),
            "largest_worker": max(
                [run.metadata["peak_memory_bytes"] for run in runs] + [r["peak_memory_bytes"] for r in results]
            ),
        },
    }
    write_figures(settings.out / "figures", runs, summary, data)
    write_atomically(settings.out / "summary.json", json.dumps(summary, indent=1, default=list))
    return summary


def scoring_tasks(settings: Settings, source: DataSource) -> list[ScoringTask]:
    """One task per model and run; seeds count up from the study's."""
    return [
        ScoringTask(
            source,
            model,
            seed,
            settings.recipe,
            settings.scores,
            str(settings.out / "runs" / f"{slug(model)}-{seed}.safetensors"),
            settings.hold_out,
            settings.seed,
        )
        for model in settings.model_names
        for seed in range(settings.seed, settings.seed + settings.runs)
    ]


def comparison_tasks(settings: Settings, source: DataSource, runs: RunSet) -> list[ComparisonTask]:
    """Full data, then for each share the policies and random subsets, for each model with two seeds each.

    The difficulty is the mean of the first score over all runs of all models. The seeds are not those of the
    scoring runs. Where nothing is to be kept, nothing is compared.
    """
    if not settings.keep:
        return []
    score = settings.scores[0]
    difficulty = runs.difficulty(score)
    chosen: list[tuple[str, float, Policy]] = [("full", 1.0, Random(1.0))]
    for keep in settings.keep:
        names = [*settings.policies, *(["random"] if "random" not in settings.policies else [])]
        chosen += [(name, keep, POLICIES[name](keep)) for name in names]
    folder = settings.out / "trainings"
    return [
        ComparisonTask(
            source,
            model,
            seed,
            settings.recipe,
            name,
            keep,
            policy,
            difficulty,
            f"{score} of {len(runs)} runs",
            str(folder / f"{slug(model)}-{name}-{keep:g}-{seed}.json"),
        )
        for model in settings.model_names
        for name, keep, policy in chosen
        for seed in range(settings.seed + 1000, settings.seed + 1000 + SEEDS_PER_COMPARISON)
    ]


def agreement(runs: RunSet, model: str) -> dict[str, list[float]]:
    """Spearman of each run of a model with the mean of that model's runs, per score, over what the run scored."""
    own = runs.where(architecture=model)
    return {score: np.round(run_agreement(own, score), 4).tolist() for score in runs.scores}


def reliabilities(runs: RunSet) -> dict[str, dict[str, Any]]:
    """How reliable the mean of a model's runs is, per score, or why that is not known."""
    found = {}
    for score in runs.scores:
        try:
            known = reliability(runs, score)
        except ValueError as error:  # a single run, or runs that share too few examples
            found[score] = {"not_known": str(error)}
        else:
            found[score] = {**known.to_dict(), "in_words": known.describe(TARGET)}
    return found


def fingerprint(runs: RunSet, score: str, seed: int) -> dict[str, Any]:
    """How well the architectures can be told apart by a few sensitive examples, or why that is not known."""
    fewest = min(len(own) for own in runs.group_by("architecture").values())
    if len(runs.architectures) < 2 or fewest < RUNS_PER_FINGERPRINT:
        return {"not_known": f"that takes at least 2 models with {RUNS_PER_FINGERPRINT} runs each"}
    try:
        sensitive = sensitive_examples(runs, score, seed=seed)
        found = ArchitectureFingerprint.fit(runs, score, seed=seed)
    except ValueError as error:  # runs that hold out share too few examples
        return {"not_known": str(error)}
    return {
        "sensitive": sensitive.to_dict(),
        "examples": found.examples.tolist(),
        "accuracy": found.accuracy.to_dict(),
        "in_words": f"{sensitive}\n{found}",
    }


def check_all_scored(runs: RunSet, score: str) -> None:
    """ValueError where no run scored an example, since no plan can be made then."""
    missing = np.isnan(runs.mean(score))
    if missing.any():
        raise ValueError(
            f"{score}: {int(missing.sum())} of {runs.num_examples} examples have no value in any of the {len(runs)} "
            f"runs, the first is {int(missing.argmax())}, so that nothing can be pruned by it. They were presented too "
            "rarely for this score: raise --epochs, or choose another first score"
        )


def together(runs: RunSet) -> dict[str, Any]:
    """What the trained models together say of the examples, or why that is not known."""
    lacking = [run for run in runs if run.predictions is None]
    if lacking:
        return {
            "left_out": f"{len(lacking)} of {len(runs)} run files come from an older version and have no predictions, "
            f"such as that of {lacking[0].architecture} with seed {lacking[0].seed}: remove them and run the study "
            "again to learn on which examples models are never, always or sometimes right"
        }
    known = {"runs": len(runs), "model_accuracy": runs.dichotomy().to_dict()}
    if runs.seen.all():
        return known
    return {
        **known,
        "memorization": runs.memorization().to_dict(),
        "held_out_consistency": runs.held_out_consistency().to_dict(),
    }


def comparison_rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per model, policy and share: mean and spread over seeds."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for result in results:
        task = result["task"]
        groups.setdefault((task["architecture"], task["policy"], task["keep"]), []).append(result)
    return [
        {
            "model": model,
            "policy": policy,
            "keep": keep,
            "examples": group[0]["examples"],
            "steps": group[0]["steps"],
            "seconds": round(float(np.mean([r["seconds"] for r in group])), 1),
            "test_accuracy": float(np.mean([r["test_accuracy"] for r in group])),
            "spread": float(np.std([r["test_accuracy"] for r in group], ddof=1)),
            "seeds": len(group),
        }
        for (model, policy, keep), group in groups.items()
    ]


def describe(data: StudyData, source: DataSource) -> dict[str, Any]:
    """Sizes and identity of the data."""
    return {
        "train": len(data.train),
        "test": len(data.test),
        "shape": list(data.shape),
        "classes": data.num_classes,
        "fingerprint": source.fingerprint,
    }
