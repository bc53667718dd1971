"""The main job: score over several runs, average, prune, and see whether it paid."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.text import Text

from ..consistency.correlation import correlation
from ..consistency.reliability import reliability
from ..consistency.run_agreement import run_agreement
from ..fingerprint.architecture_fingerprint import ArchitectureFingerprint
from ..fingerprint.sensitive_examples import sensitive_examples
from ..runs.run_set import RunSet
from ..support.files import write_atomically
from ..support.plain import plain
from .compare_policies import Compared, compare_policies
from .elsewhere import Elsewhere, open_executor
from .executor import default_workers, run_tasks
from .figures import write_figures
from .folder_lock import locked
from .photographs import Photographs
from .preflight import check_fit, check_out, make_folders
from .progress import Bar, Lines, Logged, report_on
from .settings import Settings
from .study_data import StudyData, is_regression, load_data
from .tasks import DataSource, ScoringTask, peak_memory, slug, tell_of_checkpoints, unfinished_runs

TARGET: Final = 0.95  # the reliability for which the runs needed are stated
RUNS_PER_FINGERPRINT: Final = 3


def run_study(settings: Settings, console: Console, *, executor: Executor | None = None) -> dict[str, Any]:
    """Runs a study, writes `runs/`, `trainings/`, `figures/` and `summary.json` below `settings.out`.

    Trainings whose result is on disk are not repeated. Returns the summary.

    Args:
        executor: any of `concurrent.futures`, whose workers train in place of processes of this machine; also see
            `settings.executor`. It is left open. Its workers must have this library, and see the data and
            `settings.out` under the same paths; in each of their processes one training runs at a time, and with one
            thread where the process is a fork, as by default on Linux.

    Raises:
        TypeError, ValueError, OSError, ImportError: before any training: an executor that cannot be reached, data that
            cannot be used, settings that do not fit the data, a folder that cannot be written to, or one that holds a
            run of another study, under whatever name.
        ValueError: before the comparison: an example without a score.
    """
    start = time.perf_counter()
    if executor is not None and settings.executor is not None:
        raise ValueError(f"executor: got {executor!r}, and settings.executor {settings.executor!r}; choose one")
    check_out(settings)
    with open_executor(settings.executor if executor is None else executor) as elsewhere:
        if elsewhere is not None:  # which has another current folder
            settings = replace(settings, out=settings.out.absolute())
        return _run(settings, console, start, elsewhere)


def _run(settings: Settings, console: Console, start: float, elsewhere: Elsewhere | None) -> dict[str, Any]:
    with console.status(Text(f"reading {settings.data}")):
        what = *settings.data_specs, settings.size, settings.plant_wrong, settings.seed
        data = load_data(*what)
        check_fit(settings, data)
    read_photographs(data, console)
    with console.status(Text(f"reading {settings.data}")):
        source = DataSource.of(*what)
    scoring = scoring_tasks(settings, source)
    unfinished_runs(scoring)  # refuses the runs of another study, before anything is written
    make_folders(settings)
    if elsewhere is not None:
        elsewhere.check(settings.out)
    with locked(settings.out):
        return _run_locked(settings, data, source, scoring, elsewhere, console, start)


def _run_locked(
    settings: Settings,
    data: StudyData,
    source: DataSource,
    scoring: Sequence[ScoringTask],
    elsewhere: Elsewhere | None,
    console: Console,
    start: float,
) -> dict[str, Any]:
    """The study itself, while no other one writes to its folder."""
    workers = elsewhere or settings.workers or default_workers(reading=isinstance(data.train, Photographs))
    unfinished = unfinished_runs(scoring)
    tell_of_checkpoints(unfinished, console)
    run_tasks(unfinished, workers, len(data.train), console, "scoring", settings.log)
    runs = RunSet.load(task.path for task in scoring)
    if settings.keep:
        check_all_scored(runs, settings.scores[0])
    compared = compare_policies(settings, source, data, runs, workers, console)

    summary = {
        **summarise(settings, describe(data, source), runs, compared),
        "reused": {"runs": len(scoring) - len(unfinished), "trainings": compared.reused},
        "runs_without_ids": 0 if data.train.ids is None else sum(not run.has("ids") for run in runs),
        "seconds": round(time.perf_counter() - start, 1),
        "workers": workers if isinstance(workers, int) else None,
        **({} if data.planted is None else {"planted": data.planted.to_dict()}),
    }
    write_atomically(settings.out / "summary.json", json.dumps(summary, indent=1, default=list))
    write_figures(settings.out / "figures", runs, summary, data)
    return summary


def read_photographs(data: StudyData, console: Console) -> None:
    """Reads all images that are not in memory, with a report, so that what cannot be used is found before a training.

    Raises:
        TypeError, ValueError: see `Photographs.read_all`.
    """
    parts = {"training images": data.train, "test images": data.test}
    photographs = {f"{len(part):,} {name}": part for name, part in parts.items() if isinstance(part, Photographs)}
    if not photographs:
        return
    before, total = 0, sum(len(part) for part in photographs.values())
    with report_on(console, "reading", total, len(photographs), keep=False) as report:
        for name, part in photographs.items():
            start = time.monotonic()
            part.read_all(partial(_update, report, name, before))
            before += len(part)
            report.finished(name, time.monotonic() - start)


def _update(report: Bar | Lines | Logged, name: str, before: int, done: int) -> None:
    report.update(before + done, [name])


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
        for seed in settings.scoring_seeds
    ]


def summarise(settings: Settings, data: dict[str, Any], runs: RunSet, compared: Compared) -> dict[str, Any]:
    """What a study found, as JSON can hold it."""
    of_models = runs.group_by("architecture")
    peaks = [found["peak_memory_bytes"] for found in (*(run.metadata for run in runs), *compared.results)]
    return {
        "verdicts": {
            model: {**found.to_dict(), "first_line": found.first_line(), "details": found.details()}
            for model, found in compared.of_models.items()
        },
        "settings": {
            **asdict(settings),
            "models": settings.model_names,
            "policies": settings.policy_names,
            "out": str(settings.out),
        },
        "recipe": asdict(settings.recipe),
        "data": data,
        "agreement": {model: agreement_with_mean(own) for model, own in of_models.items()},
        "score_correlation": {
            "scores": list(runs.scores),
            "spearman": plain(np.round(correlation(runs).of_means, 4)),
        },
        "reliability": {model: reliabilities(own) for model, own in of_models.items()},
        "fingerprint": architecture_fingerprint(runs, settings.scores[0], settings.seed),
        "scoring_accuracy": {
            model: [run.metadata["outcome"]["test_accuracy"] for run in own] for model, own in of_models.items()
        },
        "scoring_loss": {
            model: [run.metadata["outcome"].get("test_loss") for run in own] for model, own in of_models.items()
        },
        "together": (
            {"left_out": "Numbers are predicted, and not classes, so that no prediction is simply right or wrong"}
            if is_regression(settings.data_specs[0])
            else together(runs)
        ),
        "difficulty": settings.scores[0],
        "wrong_labels": compared.wrong_labels,
        "not_compared": compared.left_out,
        "comparison": compared.rows,
        "peak_memory_bytes": {
            "study": peak_memory(),
            "largest_worker": max((peak for peak in peaks if peak is not None), default=None),
        },
    }


def agreement_with_mean(runs: RunSet) -> dict[str, list[float | None]]:
    """Spearman correlation of each run with the mean of the runs, per score, over what the run scored.

    None for a run whose values are all equal.
    """
    return {score: plain(np.round(run_agreement(runs, score), 4)) for score in runs.scores}


def reliabilities(runs: RunSet) -> dict[str, dict[str, Any]]:
    """How reliable the mean of the runs is, per score, or why that is not known."""
    found = {}
    for score in runs.scores:
        try:
            known = reliability(runs, score)
        except ValueError as error:  # a single run, or runs that share too few examples
            found[score] = {"not_known": str(error)}
        else:
            found[score] = {**known.to_dict(), "in_words": known.describe(TARGET)}
    return found


def architecture_fingerprint(runs: RunSet, score: str, seed: int) -> dict[str, Any]:
    """How well the architectures can be told apart by a few sensitive examples, or why that is not known."""
    fewest = min(len(own) for own in runs.group_by("architecture").values())
    if len(runs.architectures) < 2 or fewest < RUNS_PER_FINGERPRINT:
        return {"not_known": f"it takes at least 2 models with {RUNS_PER_FINGERPRINT} runs each"}
    try:
        sensitive = sensitive_examples(runs, score, seed=seed)
        found = ArchitectureFingerprint.fit(runs, score, seed=seed)
    except ValueError as error:  # runs that hold out share too few examples
        return {"not_known": str(error)}
    return {
        "sensitive": sensitive.to_dict(),
        "examples": found.examples.tolist(),
        "accuracy": found.accuracy.to_dict(),
        "in_words": f"{sensitive}\n{found.describe(sensitive)}",
    }


def check_all_scored(runs: RunSet, score: str) -> None:
    """ValueError if no run scored some example, since no plan can be made then."""
    missing = np.isnan(runs.mean(score))
    if missing.any():
        raise ValueError(
            f"{score}: {int(missing.sum())} of {runs.num_examples} examples have no value in any of the {len(runs)} "
            f"runs, the first is {int(missing.argmax())}, so this score cannot prune. The examples were presented too "
            "rarely for it: raise --epochs, or put another score first"
        )


def together(runs: RunSet) -> dict[str, Any]:
    """What the trained models together say about the examples, or why that is not known."""
    lacking = [run for run in runs if run.predictions is None]
    if lacking:
        return {
            "left_out": f"{len(lacking)} of {len(runs)} run files come from an older version and have no predictions, "
            f"such as that of {lacking[0].architecture} with seed {lacking[0].seed}: remove them and run the study "
            "again to see which examples the models always, never or sometimes get right"
        }
    known = {"runs": len(runs), "model_accuracy": runs.dichotomy().to_dict()}
    if runs.seen.all():
        return known
    return {
        **known,
        "memorization": runs.memorization().to_dict(),
        "held_out_consistency": runs.held_out_consistency().to_dict(),
    }


def describe(data: StudyData, source: DataSource) -> dict[str, Any]:
    """How large the data is, and which."""
    return {
        "train": len(data.train),
        "test": len(data.test),
        "shape": list(data.shape),
        "classes": data.num_classes,
        "dataset_fingerprint": source.dataset_fingerprint,
        **source.facts(),
    }
