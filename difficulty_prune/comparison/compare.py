"""Does pruning pay in the user's own training? The arms trained seed by seed, and a verdict."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..policies.base import Policy, check_difficulty, check_plan_labels
from ..policies.compose import PerClass
from ..policies.uniform import Hardest
from ..sampler import PruneSampler
from ..support.checks import check_between, check_fraction, check_number, whole_number
from ..support.digest import digest_of_array, digest_of_text
from ..support.files import write_atomically
from ..support.forked import in_worker
from ..support.json_text import read_json
from .arms import Arm, name_policies
from .comparison import PolicyComparison, judge
from .counting_sampler import CountingSampler
from .design import Design
from .source_of import name_of, source_of
from .trained import Trained, read_outcome, read_trained, write_trained

Train = Callable[[PruneSampler, int], Any]
"""`train(sampler, seed)`: trains a new model with this seed on what the sampler yields, and returns what it reached."""

_LOSSES: Final = re.compile(r"(?i)(?<![a-z])(loss|error|perplexity|nll|mse|rmse|mae|brier|ece|wer)(?![a-z])")
_NEGATED: Final = re.compile(r"(?i)^-|(?<![a-z])neg(ative|ated)?(?![a-z])")

_MANIFEST: Final = "comparison.json"
_FORMAT: Final = 1


def compare(
    train: Train,
    policies: Any,
    difficulty: Any,
    *,
    seeds: int | Sequence[int] = 5,
    keep: float | Iterable[float] | None = None,
    labels: Any = None,
    by: str | None = None,
    folder: Any = None,
    executor: Executor | None = None,
    until: float | None = None,
    most: int = 30,
    lower_is_better: Collection[str] = (),
    level: float = 0.95,
) -> PolicyComparison:
    """Says whether policies beat chance, and what they cost against all data, in a training of your own.

    For each policy it also trains on a random part of the same size, on all data, and on all data in as few steps:
    there every epoch is cut, at random, to as many examples as the policy has. A policy that draws anew in every epoch
    has to beat a new random part in each, which is all data in as few steps. All are trained with the same seeds, and
    compared seed by seed. Plans that are equal are trained once and are one row. `dp.Verdict` explains the verdicts.

    With `until`, seeds are added one by one. To look at results before deciding to go on makes intervals a little too
    optimistic: in simulations with 5 seeds to begin with those of 95 % held in 92 to 95 % of cases, with 3 in 90 to
    95 % (`tests/comparison/test_until.py`).

    Args:
        train: `train(sampler, seed)` trains a new model, whose initialisation and other randomness follow the seed, on
            what the `PruneSampler` yields, and calls `sampler.set_epoch` in each epoch, so that batches are
            `DataLoader(train_set, batch_size, sampler=sampler)`; losses are multiplied by `sampler.weight(index)`. It
            returns the accuracy, or a dict of metrics, the most important one first. A list, array or dict in it is a
            metric per class, such as {"accuracy": 0.8, "accuracy per class": [0.7, 0.9]}; NaN for a class that
            the test data lacks. A class that has no number in some trainings is named, and not compared.
        policies: a policy, several, or a dict of them with names. `Random` is always there.
        difficulty: [N], high = hard.
        seeds: how many, or which.
        keep: shares to keep; then the policies are functions of a share, such as `dp.policies.Hardest`.
        labels: [N] true classes, for the policies.
        by: the name of the score, for the sentences.
        folder: where finished trainings are written, a file each, so that an interrupted comparison goes on where it
            was. A folder belongs to one difficulty and one function: its source, defaults, what a partial gives it, and
            the numbers, texts, arrays, functions and classes that it encloses or has as attributes. Global variables
            are not looked at.
        executor: runs the trainings, such as a `ProcessPoolExecutor`; the function must be one that it can send. In
            processes that are forks, as by default on Linux, PyTorch computes with one thread, and the function must
            not ask for more; those of the start method "spawn" have their own. Default: one after the other, here. Wall
            times are reported where all trainings ran so.
        until: adds seeds until every interval of a difference to chance is narrower than this, in points where the
            metric is a share in [0, 1] (0.5: half a point), else in units of the metric.
        most: the largest number of seeds, with `until`.
        lower_is_better: the metrics that are, such as ("loss",); of all others more is better. Of one with a name such
            as "loss" or "error" that is not among them a warning says so.
        level: of the intervals, in (0, 1).

    Raises:
        TypeError, ValueError: before any training, what does not fit, or a folder that belongs to another comparison.
            After one: `train` returned something else, not finite, or under other names than before, or drew
            nothing from its sampler, or the same epoch again and again.

    >>> from difficulty_prune.policies import Easiest
    >>> def train(sampler, seed):  # instead of a training: the more different the examples, the better
    ...     return 0.5 + (max(sampler) - min(sampler)) / 400 + seed % 2 / 100
    >>> found = compare(train, Easiest(keep=0.5), list(range(100)), seeds=4)
    >>> found.policies[0].verdicts["value"]["chance"].word
    'worse'
    """
    values, wanted = check_difficulty(_fixed(difficulty), "keep").clone(), _seeds(seeds)
    check_plan_labels(labels, len(values))
    check_between(level, "level")
    _check_until(until, most, len(wanted))
    named = name_policies(policies, _shares(keep), by)
    if not callable(train):
        raise TypeError(f"train: got {train!r}, expected a function train(sampler, seed) that returns the accuracy")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor: got {executor!r}, expected a concurrent.futures.Executor, or None to train here")
    plan = Design(values, labels, named, wanted[0])
    lower = tuple([lower_is_better] if isinstance(lower_is_better, str) else lower_is_better)
    store = _Store(None if folder is None else Path(folder), _identity(train, plan), lower)
    done: list[int] = []
    waiting = wanted
    while True:
        _train_all(train, plan, waiting, store, executor)
        done += waiting
        found = judge(
            plan.arms,
            {arm.name: [store.trained[plan.job(arm, seed)] for seed in done] for arm in plan.arms},
            {arm.name: [(plan.job(arm, seed)[0], plan.size(arm, seed)) for seed in done] for arm in plan.arms},
            seeds=done,
            examples=len(values),
            level=level,
            lower_is_better=lower,
            until=until,
            advice=what_to_try(named.values()),
        )
        if until is None or found.widest < until or len(done) >= most:
            return found
        waiting = [max(done) + 1]


class _Store:
    """Finished trainings, in memory and, with a folder, on disk: all with the same metrics."""

    def __init__(self, folder: Path | None, identity: dict[str, Any], lower_is_better: Collection[str]) -> None:
        self.trained: dict[tuple[str, int], Trained] = {}
        self._lower = lower_is_better
        self._folder = folder
        self._comparison = digest_of_text(json.dumps(identity, sort_keys=True))
        if folder is not None:
            _check_folder(folder, identity)

    def find(self, job: tuple[str, int]) -> bool:
        """Whether the training is known, or can be read."""
        if job not in self.trained and self._folder is not None:
            found = read_trained(self._path(job), self._comparison, *job)
            if found is not None:
                self._check(found, str(self._path(job)))
                self.trained[job] = found
        return job in self.trained

    def add(self, job: tuple[str, int], trained: Trained, who: str) -> None:
        """Keeps a training of which messages say `who` it is."""
        self._check(trained, who)
        self.trained[job] = trained
        if self._folder is not None:
            write_trained(self._path(job), self._comparison, *job, trained)

    def _check(self, trained: Trained, who: str) -> None:
        """ValueError unless it has the metrics of the others, and those of which lower is better."""
        first = next(iter(self.trained.values()), trained)
        if (set(first.metrics), set(first.classes)) != (set(trained.metrics), set(trained.classes)):
            got, before = ([*found.metrics, *found.classes] for found in (trained, first))
            raise ValueError(f"train: got {got} from {who}, expected {before}, as before")
        known = {*trained.metrics, *trained.classes}
        unknown = [name for name in self._lower if name not in known]
        if trained is not first:
            return
        if unknown:
            raise ValueError(
                f"lower_is_better: got {unknown[0]!r}, but {who} gave {', '.join(sorted(known))}; name one of these"
            )
        for name in sorted(known.difference(self._lower)):
            if _LOSSES.search(name) and not _NEGATED.search(name):
                warnings.warn(
                    f"train: of the metric {name!r} more is taken as better; if less is, say "
                    f"lower_is_better=({name!r},)",
                    stacklevel=6,
                )

    def _path(self, job: tuple[str, int]) -> Path:
        assert self._folder is not None
        return self._folder / f"{job[0][:16]}-{job[1]}.json"


def _check_folder(folder: Path, identity: dict[str, Any]) -> None:
    """Writes what the comparison is, or compares it with what is written there."""
    path = folder / _MANIFEST
    try:
        found = read_json(path)
    except FileNotFoundError:
        write_atomically(path, json.dumps(identity, indent=1))
        return
    except ValueError as error:
        raise ValueError(f"{path}: not the description of a comparison ({error}); choose another folder") from error
    known = found if isinstance(found, dict) else {}
    differing = {key: (known.get(key), value) for key, value in identity.items() if known.get(key) != value}
    if differing:
        raise ValueError(
            f"{path}: the folder holds another comparison, (found, wanted): {differing}; choose another folder. One "
            "whose training function was edited, or was given other values, is another one"
        )


def _identity(train: Train, plan: Design) -> dict[str, Any]:
    """What all trainings in a folder have in common."""
    return {
        "format": _FORMAT,
        "examples": len(plan.difficulty),
        "difficulty": digest_of_array(plan.difficulty.numpy()),
        "train": name_of(train),
        "source": digest_of_text(source_of(train)),
    }


def _train_all(train: Train, plan: Design, seeds: Sequence[int], store: _Store, executor: Executor | None) -> None:
    """Trains what is not there yet; each training is kept as soon as it is finished."""
    jobs: dict[tuple[str, int], Arm] = {}
    for seed in seeds:
        for arm in plan.arms:
            job = plan.job(arm, seed)
            if not store.find(job):
                jobs.setdefault(job, arm)
    if executor is None:
        for job, arm in jobs.items():
            _keep(store, job, arm, _train_one(train, plan.sampler(arm, job[1]), job[1]), alone=True)
        return
    futures: dict[Future[Any], tuple[str, int]] = {}
    try:
        for job, arm in jobs.items():
            futures[executor.submit(in_worker, _train_one, train, plan.sampler(arm, job[1]), job[1])] = job
        pending = set(futures)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda future: future.exception() is not None):  # keeps what succeeded first
                _keep(store, futures[future], jobs[futures[future]], future.result(), alone=False)
    finally:
        for future in futures:
            future.cancel()


class _Finished(NamedTuple):
    """What a training returned, how many examples it drew, if only of epoch 0 again and again, and its seconds."""

    outcome: Any
    presentations: int
    stood_still: bool
    seconds: float


def _train_one(train: Train, sampler: CountingSampler, seed: int) -> _Finished:
    start = time.perf_counter()
    outcome = train(sampler, seed)
    stood_still = sampler.epochs == {0} and sampler.presentations > 2 * len(sampler)  # a second look is no epoch
    return _Finished(outcome, sampler.presentations, stood_still, time.perf_counter() - start)


def _keep(store: _Store, job: tuple[str, int], arm: Arm, finished: _Finished, alone: bool) -> None:
    outcome, presentations, stood_still, seconds = finished
    who = f"the training on {arm.name} with seed {job[1]}"
    metrics, classes = read_outcome(outcome, who)
    if presentations == 0:
        raise ValueError(
            f"train: {who} drew nothing from its sampler; give it to the loader, as in DataLoader(..., "
            "sampler=sampler), or take list(sampler) in each epoch"
        )
    if stood_still:
        raise ValueError(
            f"train: {who} drew {presentations:,} positions of epoch 0, which are the same again and again; call "
            "sampler.set_epoch(epoch) at the start of each epoch"
        )
    store.add(job, Trained(metrics, classes, presentations, seconds if alone else None), who)


def what_to_try(policies: Iterable[Policy]) -> str:
    """Advice for policies that are worse than chance."""
    inner = [policy.policy if isinstance(policy, PerClass) else policy for policy in policies]
    if any(isinstance(policy, Hardest) for policy in inner):
        return (
            "take a random part instead, keep more, or leave out first what looks mislabelled "
            "(dp.policies.WithoutWrong); dp.advise(runs, keep) says which"
        )
    return "take a random part instead, or keep more; dp.advise(runs, keep) says which"


def _fixed(difficulty: Any) -> Any:
    if callable(difficulty):
        raise TypeError(
            f"difficulty: got {difficulty!r}, expected numbers [N]: each training would need a tracker of its own. "
            "Make the sampler in your function, and compare what it reached with dp.verdict"
        )
    return difficulty


def _seeds(seeds: Any) -> list[int]:
    if isinstance(seeds, Iterable):
        found = [whole_number(seed, "seeds") for seed in seeds]
        if not found or len(set(found)) < len(found):
            raise ValueError(f"seeds: got {found}, expected one or more, each of them once")
        return found
    return list(range(whole_number(seeds, "seeds", least=1)))


def _shares(keep: Any) -> list[float] | None:
    if keep is None:
        return None
    found = list(keep) if isinstance(keep, Iterable) and not isinstance(keep, str) else [keep]
    for share in found:
        check_fraction(share, "keep")
    return [float(share) for share in found]


def _check_until(until: Any, most: Any, seeds: int) -> None:
    whole_number(most, "most", least=1)
    if until is None:
        return
    check_number(until, "until", "(0, inf), the width of interval that is narrow enough, in points")
    if not until > 0:
        raise ValueError(f"until: got {until}, expected a number above 0: the width that is narrow enough, in points")
    if seeds < 2:
        raise ValueError(f"seeds: got {seeds} with until {until}, expected 2 or more, better 5: one shows no spread")
