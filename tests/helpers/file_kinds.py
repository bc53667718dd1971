"""Every kind of file with digests: how one is written, read, and what can be seen of its content."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import SIZE, make_run, some_probabilities

import difficulty_prune as dp
from difficulty_prune.comparison.trained import Trained, read_trained, write_trained
from difficulty_prune.study.checkpoint import Checkpoint
from difficulty_prune.study.result_file import read_result, write_result


def some_run() -> dp.Run:
    labels, seen = np.arange(SIZE) % 5, np.arange(SIZE) > 3
    return make_run(labels=labels, seen=seen, probabilities=some_probabilities(), options={"label": "true"}, more=[1.5])


def some_plan() -> dp.Plan:
    return dp.policies.SoftPrune(keep=0.5)(torch.arange(float(SIZE)), torch.arange(SIZE) % 3)


def some_mean() -> dp.RunningMean:
    mean = dp.RunningMean()
    for seed in range(3):
        mean.update(make_run(seed=seed, architecture="ab"[seed % 2], labels=np.arange(SIZE)))
    return mean


def some_fingerprint() -> dp.ArchitectureFingerprint:
    runs = dp.RunSet(make_run(seed=seed, architecture=name) for name in ("cnn", "mlp") for seed in range(3))
    return dp.ArchitectureFingerprint.fit(runs, "el2n", examples=3)


def of_run(run: dp.Run) -> Any:
    arrays = {**run.scores, "labels": run.labels, "seen": run.seen, "p": run.probabilities, "y": run.predictions}
    return {name: (array.dtype, array.tobytes()) for name, array in arrays.items()}, repr(run), dict(run.metadata)


def of_plan(plan: dp.Plan) -> Any:
    return plan.index.tolist(), plan.weight.tolist(), plan.summary()


def of_mean(mean: dp.RunningMean) -> Any:
    numbers = [(mean.mean(name).tobytes(), mean.standard_error(name).tobytes()) for name in mean.scores]
    refused = []
    again = make_run(seed=1, architecture="b", labels=np.arange(SIZE))
    for run in (again, make_run(seed=9, labels=np.zeros(SIZE, int)), make_run(seed=9, fingerprint="beef")):
        with pytest.raises(ValueError) as refusal:
            mean.update(run)
        refused.append(str(refusal.value))
    return numbers, repr(mean), refused


def of_fingerprint(fingerprint: dp.ArchitectureFingerprint) -> Any:
    run = make_run()
    numbers = fingerprint.distance(run), fingerprint.predict_proba(run), fingerprint.limit, fingerprint.num_examples
    return numbers, fingerprint.to_dict(), fingerprint.dataset_fingerprint


def some_table(path: Path) -> None:
    dp.InclusionTable.write(path, [([f"{number}.jpg" for number in range(50)], np.linspace(0.1, 1, 50))], weighted=True)


def of_table(table: dp.InclusionTable) -> Any:
    ids = [f"{number}.jpg" for number in range(60)]
    return table.inclusion(ids).tobytes(), table.weighted, table.redrawn, table.full_from, table.policy


RESULT: dict[str, Any] = {
    "task": {"keep": 0.5, "recipe": {"epochs": 1}},
    "examples": 7,
    "plan": "ab" * 16,
    "peak_memory_bytes": None,
    "test_accuracy": 0.9,
    "class_accuracy": [0.8, None, 1.0],
    "presentations": 12,
    "steps": 3,
    "seconds": 1.25,
}


def in_any_case(result: Any) -> Any:
    return json.dumps(result, sort_keys=True)


TRAINING = ("ab" * 16, "cd" * 16, 3)
"""Comparison, arm and seed."""


def some_training(path: Path) -> None:
    trained = Trained({"accuracy": 0.75, "loss": 1.5}, {"accuracy per class": {"cat": 0.5, "0": 1.0}}, 120, 2.25)
    write_trained(path, *TRAINING, trained)


def of_training(trained: Trained) -> Any:
    return trained.metrics, trained.classes, trained.presentations, trained.seconds


def some_checkpoint(path: Path) -> None:
    state = {"epoch": 2, "steps": 12, "seconds": 0.5, "model": {"weight": torch.arange(6.0)}}
    Checkpoint(path, {"seed": 3}, every=0).write(2, state)


def read_checkpoint(path: Path) -> Any:
    """A study refuses none: it says which one is as if it were not there, and begins anew."""
    own = Checkpoint(path, {"seed": 3})
    epoch, state = own.epoch(), own.read()
    assert (epoch is None) == (state is None), "the study would say something else than it does"
    if epoch is None:
        raise ValueError(f"{path} is as if it were not there")
    return epoch, state


def of_checkpoint(found: Any) -> Any:
    epoch, state = found
    return epoch, {**state, "model": {name: part.tolist() for name, part in state["model"].items()}}


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any], Callable[[Any], Any]]] = {
    "run": (lambda path: some_run().save(path), dp.Run.load, of_run),
    "plan": (lambda path: some_plan().save(path), dp.Plan.load, of_plan),
    "running-mean": (lambda path: some_mean().save(path), dp.RunningMean.load, of_mean),
    "fingerprint": (lambda path: some_fingerprint().save(path), dp.ArchitectureFingerprint.load, of_fingerprint),
    "inclusion-table": (some_table, dp.InclusionTable, of_table),
    "result": (lambda path: write_result(path, RESULT), read_result, in_any_case),
    "training": (some_training, lambda path: read_trained(path, *TRAINING), of_training),
    "checkpoint": (some_checkpoint, read_checkpoint, of_checkpoint),
}


@cache
def good(kind: str) -> tuple[bytes, Any]:
    """A file, and what is in it."""
    write, load, look = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "file"))
        return Path(folder, "file").read_bytes(), look(load(Path(folder, "file")))


def check_refused_or_same(kind: str, path: Path, content: bytes) -> bool:
    """Whether it is refused."""
    path.write_bytes(content)
    _, load, look = KINDS[kind]
    try:
        found = load(path)
    except ValueError as error:
        if type(error) is not ValueError or str(path) not in str(error):
            pytest.fail(f"{error!r} does not name the file")
        return True
    assert look(found) == good(kind)[1]
    return False
