"""The rows of a comparison, their verdicts, and the answer in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ..support.counted import counted
from ..support.name_some import name_some
from ..support.plain import plain, plain_fields
from .arms import Arm, Kind, percent
from .trained import Trained
from .verdict import Verdict, verdict

THAN: Final[dict[Kind, str]] = {"chance": "chance", "all": "all data", "few": "all data in as few steps"}
"""What a policy is compared with, in words."""

_SHOWN_CLASSES: Final = 5


@dataclass(frozen=True)
class Row:
    """What was trained on, and what came of it. Arms whose plans are equal for every seed are one row.

    Attributes:
        names: in words, one or more.
        kind: "policy", or what it serves as: "all", "chance" (random of the same size), "few" (all data in as few
            steps).
        examples: how many are visited in the first epoch; of `few`, how many there are.
        presentations: examples drawn in the whole training, the mean over seeds.
        seconds: wall time of a training, the median over seeds; None where any of them ran beside another.
        results: metric -> its value for each seed.
        classes: metric -> class -> its value for each seed; NaN where a training has none.
        verdicts: metric -> what it is compared with ("chance", "all", "few") -> verdict; of policies only.
        class_verdicts: metric -> "chance" or "all" -> class -> verdict; those of the classes of one row hold together.
    """

    names: tuple[str, ...]
    kind: Kind
    examples: int
    presentations: float
    seconds: float | None
    results: Mapping[str, tuple[float, ...]]
    classes: Mapping[str, Mapping[str, tuple[float, ...]]]
    verdicts: Mapping[str, Mapping[Kind, Verdict]] = field(default_factory=dict)
    class_verdicts: Mapping[str, Mapping[Kind, Mapping[str, Verdict]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """All names in one."""
        return ", also ".join(self.names)

    def of(self, metric: str) -> list[Verdict]:
        """The verdicts of a metric."""
        return list(self.verdicts.get(metric, {}).values())

    def mean(self, metric: str) -> float:
        """Over seeds."""
        return float(np.mean(self.results[metric]))


@dataclass(frozen=True)
class PolicyComparison:
    """Whether pruning pays: rows, verdicts, and the answer in words (`str`).

    Attributes:
        rows: all data, what chance gives, and the policies.
        metric: the one that the answer is about.
        seeds: of the trainings, the same for every row.
        examples: N.
        level: the intervals of all verdicts that answer one question ("better than chance?") hold together with at
            least this probability.
        lower_is_better: metrics that are.
        until: the width of interval that was asked for; None where none was.
        advice: what to try where a policy is worse than chance.
        caveat: what is to be known before the answer; "" for nothing.
    """

    rows: tuple[Row, ...]
    metric: str
    seeds: tuple[int, ...]
    examples: int
    level: float = 0.95
    lower_is_better: tuple[str, ...] = ()
    until: float | None = None
    advice: str = ""
    caveat: str = ""

    @property
    def policies(self) -> list[Row]:
        """The rows that have verdicts, the best first."""
        sign = -1 if self.metric in self.lower_is_better else 1
        found = [row for row in self.rows if row.verdicts]
        return sorted(found, key=lambda row: -sign * row.mean(self.metric))

    @property
    def full(self) -> Row:
        """The row of all data."""
        return next(row for row in self.rows if row.kind == "all")

    @property
    def widest(self) -> float:
        """The width of the widest interval of a difference to chance, in points where the metric is a share."""
        return max((row.verdicts[self.metric]["chance"].width for row in self.policies), default=0.0)

    def sentence(self, row: Row) -> str:
        """The answer for one policy: "Keeping the hardest 70 % by el2n: 0.8255, 0.8 points better than ..."."""
        found = row.verdicts[self.metric]
        said = [f"{_value(row.mean(self.metric))}"]
        said += [str(found["chance"]) if "chance" in found else "itself what chance gives"]
        said += [found["all"].short] if "all" in found else []
        return f"Keeping {row.name}: {', '.join([*said, self._steps(row)])}"

    def first_line(self) -> str:
        """What is to be known first, and the answer."""
        return f"{self.caveat}. {self._answer()}" if self.caveat else self._answer()

    def _answer(self) -> str:
        """Which policies are worse than chance, with what to try, and the answer for the best one."""
        if not self.policies:
            return "Nothing was compared: each policy keeps all data, or is what chance gives."
        best, *others = self.policies
        lost = [row for row in others if self._loses(row)]
        amounts = "; ".join(f"{row.name} (by {row.verdicts[self.metric]['chance'].amount})" for row in lost)
        text, advice = self.sentence(best), f": {self.advice}" if self.advice else ""
        if self._loses(best):
            return f"{text}{f'. Worse, too: keeping {amounts}' if lost else ''}{advice}."
        if not lost:
            return f"{text}."
        return f"Worse than chance: keeping {amounts}{advice}. The best: k{text[1:]}."

    def __str__(self) -> str:
        return f"{self.first_line()}\n\n{self.details()}"

    def details(self) -> str:
        """Every row, and every verdict."""
        lines = self._table()
        for row in self.policies:
            lines += ["", f"{_capital(row.name)}, {self.metric}:"]
            lines += [f"  {found}" for found in row.verdicts[self.metric].values()]
            lines += [f"  {line}" for line in self._losers(row)]
        return "\n".join([*lines, "", self._footnote()])

    def to_dict(self) -> dict[str, Any]:
        """Everything, per seed, as JSON can hold it."""
        rows = [
            plain_fields(row, verdicts=_verdicts(row.verdicts), class_verdicts=_verdicts(row.class_verdicts))
            for row in self.rows
        ]
        return plain_fields(self, rows=rows, in_words=str(self))

    def _loses(self, row: Row) -> bool:
        found = row.verdicts[self.metric].get("chance")
        return found is not None and found.word == "worse"

    def _steps(self, row: Row) -> str:
        fewer = 1 - row.presentations / self.full.presentations
        if abs(fewer) < 0.0005:
            return "as many steps"
        return f"{percent(float(f'{abs(fewer):.2g}'))} {'fewer' if fewer > 0 else 'more'} steps"

    def _table(self) -> list[str]:
        width = max(len(name) for row in self.rows for name in row.names)
        timed = all(row.seconds is not None for row in self.rows)
        header = (
            f"{'trained on':<{width}} {'examples':>10} {'presented':>12}{'  seconds' if timed else ''}  {self.metric}"
        )
        lines = [header]
        for row in self.rows:
            values = row.results[self.metric]
            time = f" {row.seconds:>8.1f}" if timed else ""
            said = f"{_value(row.mean(self.metric))} ({_value(min(values))} to {_value(max(values))})"
            lines.append(
                f"{row.names[0]:<{width}} {row.examples:>10,} {row.presentations:>12,.0f}{time}  {said}".rstrip()
            )
            lines += [f"  the same plan: {name}" for name in row.names[1:]]
        return lines

    def _losers(self, row: Row) -> list[str]:
        """Who loses: classes that are worse than all data, or than chance."""
        lines = []
        for metric, of_kinds in row.class_verdicts.items():
            for kind, of_classes in of_kinds.items():
                worst = sorted(of_classes.items(), key=lambda item: item[1].difference)
                losing = [(name, found) for name, found in worst if found.word == "worse"]
                said = [f"{name} by {found.amount} ({found.between})" for name, found in losing[:_SHOWN_CLASSES]]
                more = len(losing) - len(said)
                if losing:
                    rest = f", and {more} more" if more else ""
                    lines.append(f"classes that lose against {THAN[kind]} ({metric}): {', '.join(said)}{rest}")
                elif worst:
                    name, found = worst[0]
                    lowest = f"{name}, {found.amount} {'worse' if found.difference < 0 else 'better'}"
                    lowest += f" ({found.between})" if found.interval else ""
                    lines.append(f"no class is seen to lose against {THAN[kind]} ({metric}); lowest: {lowest}")
                if lacking := [name for name in row.classes[metric] if name not in of_classes]:
                    lines.append(
                        f"not compared with {THAN[kind]}, because not every training has a number ({metric}): "
                        f"{name_some(lacking)}"
                    )
        return lines

    def _footnote(self) -> str:
        seeds, cells = len(self.seeds), max((v.cells for row in self.policies for v in row.of(self.metric)), default=1)
        number = counted(seeds, "seed", "seeds each, paired")
        together = f" that hold together for the {cells} policies that are asked the same" if cells > 1 else ""
        return f"{number}; intervals of {100 * self.level:g} %{together}, Student's t."


def judge(
    arms: Sequence[Arm],
    trained: Mapping[str, Sequence[Trained]],
    plans: Mapping[str, Sequence[tuple[str, int]]],
    *,
    seeds: Sequence[int],
    examples: int,
    level: float = 0.95,
    lower_is_better: Collection[str] = (),
    until: float | None = None,
    advice: str = "",
    times: int = 1,
) -> PolicyComparison:
    """Rows and verdicts of finished trainings.

    Args:
        arms: what was trained.
        trained: name of the arm -> its trainings, one per seed.
        plans: name of the arm -> for each seed what names its plan, and how many examples the plan has.
        times: so many comparisons answer the same questions, and their verdicts shall hold together.
    """
    groups: dict[tuple[str, ...], list[Arm]] = {}
    for arm in arms:
        groups.setdefault(tuple(plan for plan, _ in plans[arm.name]), []).append(arm)
    row_of = {arm.name: group for group in groups.values() for arm in group}
    metrics = list(next(iter(trained.values()))[0].metrics)
    order: tuple[Kind, ...] = ("all", "chance", "few", "policy")
    compared = sum(_kind(group, order) == "policy" for group in groups.values())
    judge_one = _Judge(
        trained, row_of, level, tuple(lower_is_better), compared * times, _shares(trained), _class_names(trained)
    )
    rows = []
    for group in groups.values():
        first, kind = group[0], _kind(group, order)
        policy = next((arm for arm in group if arm.against), None) if kind == "policy" else None
        seconds = [found.seconds for found in trained[first.name] if found.seconds is not None]
        rows.append(
            Row(
                names=tuple(arm.name for arm in group),
                kind=kind,
                examples=plans[first.name][0][1],
                presentations=float(np.mean([found.presentations for found in trained[first.name]])),
                seconds=float(np.median(seconds)) if len(seconds) == len(seeds) else None,
                results={metric: _per_seed(trained[first.name], metric) for metric in metrics},
                classes=judge_one.classes(first.name),
                verdicts={} if policy is None else {m: judge_one.of(policy, m) for m in metrics},
                class_verdicts={} if policy is None else judge_one.of_classes(policy),
            )
        )
    return PolicyComparison(
        tuple(rows), metrics[0], tuple(seeds), examples, level, tuple(lower_is_better), until, advice
    )


@dataclass(frozen=True)
class _Judge:
    """Verdicts of a policy; `cells` policies have verdicts that answer the same question."""

    trained: Mapping[str, Sequence[Trained]]
    row_of: Mapping[str, list[Arm]]
    level: float
    lower_is_better: tuple[str, ...]
    cells: int
    shares: Collection[str]
    class_names: Mapping[str, Sequence[str]]

    def of(self, policy: Arm, metric: str) -> dict[Kind, Verdict]:
        own = _per_seed(self.trained[policy.name], metric)
        return {
            kind: self._verdict(own, _per_seed(self.trained[name], metric), metric, kind, self.cells)
            for kind, name in self._others(policy).items()
        }

    def of_classes(self, policy: Arm) -> dict[str, dict[Kind, dict[str, Verdict]]]:
        own, others = self.classes(policy.name), self._others(policy)
        against = {kind: self.classes(others[kind]) for kind in ("chance", "all") if kind in others}
        found: dict[str, dict[Kind, dict[str, Verdict]]] = {}
        for metric, values in own.items():
            found[metric] = {}
            for kind, of_kind in against.items():
                theirs = of_kind[metric]
                both = [name for name in values if np.isfinite([*values[name], *theirs[name]]).all()]
                found[metric][kind] = {
                    name: self._verdict(values[name], theirs[name], metric, kind, len(both)) for name in both
                }
        return found

    def classes(self, arm: str) -> dict[str, dict[str, tuple[float, ...]]]:
        """Metric -> class -> value per seed, NaN where there is none, of classes that any training has."""
        return {
            metric: {
                name: tuple(found.classes.get(metric, {}).get(name, math.nan) for found in self.trained[arm])
                for name in names
            }
            for metric, names in self.class_names.items()
        }

    def _others(self, policy: Arm) -> dict[Kind, str]:
        """What it is compared with; what is the same training stands there once."""
        others: dict[Kind, str] = {}
        for kind, name in (policy.against or {}).items():
            known = any(self.row_of[name] is self.row_of[other] for other in others.values())
            if not known and self.row_of[name] is not self.row_of[policy.name]:
                others[kind] = name
        return others

    def _verdict(self, own: Sequence[float], others: Sequence[float], metric: str, kind: Kind, cells: int) -> Verdict:
        lower = metric in self.lower_is_better
        points = not lower and metric in self.shares
        return verdict(
            own, others, than=THAN[kind], cells=cells, level=self.level, lower_is_better=lower, points=points
        )


def _shares(trained: Mapping[str, Sequence[Trained]]) -> set[str]:
    """The metrics whose values are in [0, 1] in every training, so that all differences of one have one unit."""
    names: set[str] = set()
    others: set[str] = set()
    for found in (each for trainings in trained.values() for each in trainings):
        of_classes = {name: list(values.values()) for name, values in found.classes.items()}
        for name, values in [*((name, [value]) for name, value in found.metrics.items()), *of_classes.items()]:
            names.add(name)
            if not all(0 <= value <= 1 for value in values):
                others.add(name)
    return names - others


def _kind(group: Sequence[Arm], order: Sequence[Kind]) -> Kind:
    kinds = {arm.kind for arm in group}
    return next(kind for kind in order if kind in kinds)


def _per_seed(trained: Sequence[Trained], metric: str) -> tuple[float, ...]:
    return tuple(found.metrics[metric] for found in trained)


def _class_names(trained: Mapping[str, Sequence[Trained]]) -> dict[str, list[str]]:
    """Metric -> classes of which any training has a number."""
    names: dict[str, dict[str, None]] = {}
    for found in (each for trainings in trained.values() for each in trainings):
        for metric, of_classes in found.classes.items():
            names.setdefault(metric, {}).update(dict.fromkeys(of_classes))
    return {metric: list(found) for metric, found in names.items()}


def _verdicts(nested: Any) -> Any:
    if isinstance(nested, Verdict):
        return nested.to_dict()
    return {key: _verdicts(value) for key, value in nested.items()} if isinstance(nested, Mapping) else plain(nested)


def _value(value: float) -> str:
    return f"{value:.4f}" if abs(value) <= 1 else f"{value:.5g}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
