"""The comparison of a study: its policies, what they have to beat, and a verdict for each model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from ..audit.label_issues import label_issues
from ..comparison.arms import Arm, SameSize, in_words, policy_name
from ..comparison.comparison import PolicyComparison, Row, judge
from ..comparison.design import Design
from ..comparison.trained import Trained
from ..policies.base import Policy
from ..policies.uniform import Random
from ..policies.without_wrong import WithoutWrong
from ..runs.run_set import RunSet
from ..sampler import PruneSampler
from .elsewhere import Elsewhere
from .executor import run_tasks
from .learned import nothing_learned
from .settings import PER_CLASS_POLICY, WITHOUT_WRONG, Settings, policy_by_name
from .study_data import StudyData
from .tasks import ComparisonTask, DataSource, slug, tell_of_checkpoints

ACCURACY: Final = "test accuracy"
TEST_LOSS: Final = "test loss"
PER_CLASS: Final = "test accuracy per class"

Label = tuple[str, float]
"""What is trained on, and the share to keep, as file names and `summary.json` say it: ("hardest", 0.7)."""


@dataclass
class Compared:
    """What the comparison of a study found.

    Attributes:
        of_models: model -> the comparison.
        rows: one per model, policy and share to keep, as plain data; those of equal plans name each other.
        left_out: a line for each policy that would drop a class.
        wrong_labels: what is likely wrong, as plain data with "in_words"; None where no policy asked for it.
        results: what the trainings wrote.
        reused: how many of them were on disk.
    """

    of_models: dict[str, PolicyComparison] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    wrong_labels: dict[str, Any] | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    reused: int = 0


def compare_policies(
    settings: Settings, source: DataSource, data: StudyData, runs: RunSet, workers: int | Elsewhere, console: Console
) -> Compared:
    """Trains what is not on disk yet, and compares; with `until`, adds seeds until every interval is narrow enough."""
    compared = Compared()
    if not settings.keep:
        return compared
    difficulty = runs.difficulty(settings.scores[0])
    wrong: NDArray[Any] = np.empty(0, np.int64)
    if WITHOUT_WRONG in settings.policy_names:
        wrong, compared.wrong_labels = likely_wrong(runs, data.train.labels.numpy())
    policies, labels = make_policies(settings, wrong, len(difficulty))
    policies, compared.left_out = without_droppers(policies, difficulty, data, settings)
    if not policies:
        return compared
    seeds = list(settings.comparison_seeds)
    design = Design(torch.from_numpy(difficulty), data.classes, policies, seeds[0])
    name = f"{settings.scores[0]} of {len(runs)} runs"
    work = _Work(settings, source, difficulty, name, design, labels, alone=workers == 1)
    waiting = seeds
    while True:
        tasks = [task for seed in waiting for task in work.of_seed(seed)]
        missing = [task for task in tasks if not task.is_done()]
        tell_of_checkpoints(missing, console)
        run_tasks(missing, workers, len(data.train), console, "comparing", settings.log)
        compared.reused += len(tasks) - len(missing)
        compared.results += [task.result() for task in tasks]
        compared.of_models = {model: work.judge(model, seeds, data) for model in settings.model_names}
        widest = max(found.widest for found in compared.of_models.values())
        if settings.until is None or widest < settings.until or len(seeds) >= settings.most:
            break
        waiting = [seeds[-1] + 1]
        seeds += waiting
    compared.rows = [
        each
        for model, found in compared.of_models.items()
        for row in found.rows
        for each in work.rows(model, row, found.seeds)
    ]
    return compared


def make_policies(settings: Settings, wrong: NDArray[Any], examples: int) -> tuple[dict[str, Policy], dict[str, Label]]:
    """Words -> policy, and words -> label."""
    policies: dict[str, Policy] = {}
    labels: dict[str, Label] = {}
    for keep in settings.keep:
        for name in settings.policy_names:
            room = examples - len(Random(keep)(torch.zeros(examples)))
            policy: Policy = (
                WithoutWrong(Random(keep), wrong=wrong[:room]) if name == WITHOUT_WRONG else policy_by_name(name, keep)
            )
            words = in_words(policy, settings.scores[0])
            if words in policies:  # the shares are too much alike to differ in words
                words = f"{words} as {policy_name(policy)}"
            policies[words], labels[words] = policy, (name, keep)
    return policies, labels


def without_droppers(
    policies: Mapping[str, Policy], difficulty: NDArray[Any], data: StudyData, settings: Settings
) -> tuple[dict[str, Policy], list[str]]:
    """Those that keep some of every class, whatever the seed, and a line for each of the others."""
    left: dict[str, Policy] = {}
    lines = []
    first = settings.comparison_seeds[0]
    last = first + (settings.seeds if settings.until is None else settings.most)
    for words, policy in policies.items():
        try:
            for seed in range(first, last):
                PruneSampler(policy, difficulty, labels=data.classes, seed=seed)
        except ValueError as error:
            PruneSampler(policy, difficulty, seed=first)  # or another error: it is the classes that do not fit
            what = str(error).partition(": ")[0]
            lines.append(
                f"Not compared: {words}, since {what}; keep more, or take {PER_CLASS_POLICY}, which keeps some of "
                "every class"
            )
        else:
            left[words] = policy
    return left, lines


def likely_wrong(runs: RunSet, labels: NDArray[Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    """Positions that are likely mislabelled, most likely first, and what to say of them.

    None, with the reason, where the estimate says little, or nothing but suspects would be in some class.
    """
    nobody = np.empty(0, np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the caveat says the same
        try:
            issues = label_issues(runs)
        except ValueError as error:  # a score that is the same for all
            return nobody, {"number": 0, "left_out": 0, "in_words": f"Which labels are wrong is not known: {error}"}
    found = {"number": issues.number, "examples": issues.examples, "left_out": 0}
    if issues.caveat is not None:
        return nobody, {**found, "in_words": f"{issues}. None is left out for it."}
    if len(np.unique(np.delete(labels, issues.index))) < len(np.unique(labels)):
        return nobody, {**found, "in_words": f"{issues}; but among them is a whole class, so none is left out."}
    share = f"{issues.number:,} of {issues.examples:,} labels are likely wrong ({issues.number / issues.examples:.1%})"
    return issues.index, {**found, "left_out": issues.number, "in_words": f"{share}."}


@dataclass
class _Work:
    """The trainings of a comparison, equal plans once."""

    settings: Settings
    source: DataSource
    difficulty: NDArray[Any]
    difficulty_name: str
    design: Design
    labels: Mapping[str, Label]
    alone: bool

    def __post_init__(self) -> None:
        self._tasks: dict[tuple[str, str, int], ComparisonTask] = {}
        self._paths: set[str] = set()

    def of_seed(self, seed: int) -> list[ComparisonTask]:
        """One task for each model and each plan."""
        tasks = []
        for model in self.settings.model_names:
            for arm in self.design.arms:
                job, _ = self.design.job(arm, seed)
                if (model, job, seed) not in self._tasks:
                    self._tasks[model, job, seed] = self._task(model, arm, seed, job)
                    tasks.append(self._tasks[model, job, seed])
        return tasks

    def _task(self, model: str, arm: Arm, seed: int, job: str) -> ComparisonTask:
        name, keep = self.label(arm)
        return ComparisonTask(
            self.source,
            model,
            seed,
            self.settings.recipe,
            name,
            keep,
            arm.policy,
            self.difficulty,
            self.difficulty_name,
            self._path(f"{slug(model)}-{name}-{keep:g}-{seed}", job),
            self.design.sampler(arm, seed).fixed_length,
            job,
            self.alone,
        )

    def _path(self, name: str, job: str) -> str:
        """A file of its own: what two policies have to beat may have one name and be two trainings."""
        folder = self.settings.out / "trainings"
        path = str(folder / f"{name}.json")
        if path in self._paths:
            path = str(folder / f"{name}-{job[:16]}.json")
        self._paths.add(path)
        return path

    def label(self, arm: Arm) -> Label:
        """The name of an arm in files, and its share."""
        if arm.kind == "all":
            return "full", 1.0
        if arm.name in self.labels and arm.kind == "policy":
            return self.labels[arm.name]
        like = arm.policy.policy if isinstance(arm.policy, SameSize) else arm.cut_to
        return "random" if arm.kind == "chance" else "fewer-steps", float(getattr(like, "keep", 1.0))

    def judge(self, model: str, seeds: Sequence[int], data: StudyData) -> PolicyComparison:
        """Rows and verdicts of a model."""
        arms, design, class_names = self.design.arms, self.design, _class_names(data)
        trained = {
            arm.name: [self._trained(model, design.job(arm, seed), class_names) for seed in seeds] for arm in arms
        }
        found = judge(
            arms,
            trained,
            {arm.name: [(design.job(arm, seed)[0], design.size(arm, seed)) for seed in seeds] for arm in arms},
            seeds=seeds,
            examples=len(self.difficulty),
            until=self.settings.until,
            advice=_what_to_try(self.settings),
            times=len(self.settings.model_names),
            lower_is_better=(TEST_LOSS,),
        )
        return replace(found, caveat=nothing_learned(found.full.mean(found.metric), data, class_names))

    def _trained(self, model: str, job: tuple[str, int], class_names: Sequence[str]) -> Trained:
        result = self._tasks[(model, *job)].result()
        cost = result["presentations"], result["seconds"] if result.get("alone") else None
        if "test_loss" in result:
            return Trained({TEST_LOSS: result["test_loss"]}, {}, *cost)
        per_class = {
            name: value for name, value in zip(class_names, result["class_accuracy"], strict=True) if value is not None
        }
        return Trained({ACCURACY: result["test_accuracy"]}, {PER_CLASS: per_class}, *cost)

    def rows(self, model: str, row: Row, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """A row as plain data, once for each policy of its plan, so that whoever asks for one by name finds it."""
        arms = [arm for arm in self.design.arms if arm.name in row.names]
        metric = next(iter(row.results))
        values, name = row.results[metric], metric.replace(" ", "_")
        results = [self._tasks[(model, *self.design.job(arms[0], seed))].result() for seed in seeds]
        found = {
            "in_words": row.name,
            "examples": row.examples,
            "steps": results[0]["steps"],
            "presentations": row.presentations,
            "seconds": None if row.seconds is None else round(row.seconds, 1),
            name: float(np.mean(values)),
            "test_accuracies" if metric == ACCURACY else "test_losses": list(values),
            "spread": float(np.std(values, ddof=1)),
            "range": [min(values), max(values)],
            "seeds": len(values),
            "plans": [result["plan"] for result in results],
        }
        labels = [self.label(arm) for arm in arms]
        return [
            {
                "model": model,
                "policy": name,
                "keep": keep,
                "same_plan": [f"{other} {share:g}" for other, share in labels if (other, share) != (name, keep)],
                **found,
            }
            for name, keep in labels
        ]


def _what_to_try(settings: Settings) -> str:
    """Advice for policies that are worse than chance."""
    if WITHOUT_WRONG in settings.policy_names or not settings.tells_wrong:
        return "take a random part instead, or keep more"
    return (
        f"take a random part instead, keep more, or leave out first what looks mislabelled (--policy {WITHOUT_WRONG})"
    )


def _class_names(data: StudyData) -> list[str]:
    names = data.train.class_names
    return list(names) if names and len(names) >= data.num_classes else [str(c) for c in range(data.num_classes)]
