"""All that a tracker has recorded, and where it lives."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ..ops.layout import SKIPPED, STAT
from ..ops.operators import new_state, new_table, try_record_stats_
from ..scores.logit_scores import logit_scores
from .moments import GradientMoments
from .norms import GradientNorms
from .probabilities import MeanProbabilities
from .records import Records, copy_rows
from .saved_state import FORMAT, checked_state
from .skipped import SkippedCounts
from .wanted import Wanted
from .windows import TemporalRecords

_NUMBERS = itertools.count()
LIVE: WeakValueDictionary[str, TrackerState] = WeakValueDictionary()
"""States by name. A tracer of older PyTorches takes text for a constant, and an object not."""


class TrackerState:
    """Everything recorded so far. What batches of a kind need is made when the first of them comes.

    Attributes:
        device: where the batches are; None before the first.
        num_classes: columns of the logits; None if not known.
        records, windows, norms: of the scores of logits, of windows of presentations, of parameter gradients.
        moments: by score, of input gradients.
        probabilities: means over time; None if not wanted, or before the first logits.
        skipped: what was left out.
        anchor: an empty tensor that requires grad, see `WatchInputs`.
        watch_phase, update_phase: steps since a gradient was recorded, modulo `GradientOptions.every`.
        labels_are_predictions: whether labels were what the model predicts.
        other_passes: backward passes through watched inputs beyond the first of each.
        keeps_records: whether a batch of logits is recorded.
        name: under which this state is in `LIVE`.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.device = wanted.device
        self.num_classes = wanted.num_classes
        self.records: Records | None = None
        self.windows: TemporalRecords | None = None
        self.norms: GradientNorms | None = None
        self.moments: dict[str, GradientMoments] = {}
        self._channels: dict[str, int] = {}  # of the inputs of each gradient score, since the state was made or loaded
        self.probabilities: MeanProbabilities | None = None
        self.skipped: SkippedCounts | None = None
        self.anchor: Tensor | None = None
        self.watch_phase = self.update_phase = 0
        self.labels_are_predictions = False
        self.other_passes = 0
        # Gradient scores need a record too, for the label that an example had before. In a group, where keeping it
        # would cost an exchange in each step, they do without.
        self.keeps_records = bool(wanted.names(needs=("loss", "logits"))) or wanted.group is None
        self.keeps_records |= wanted.probabilities is not None  # of presentations that a record takes
        self._windowed = wanted.names(windowed=True)
        self._columns: torch.Size | None = None  # of logits that need nothing but a record
        self._go_live()

    def _go_live(self) -> None:
        self.name = f"state {next(_NUMBERS)}"
        LIVE[self.name] = self

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._go_live()

    # Batches

    def check_logits(self, device: torch.device, shape: tuple[int, ...], classes: int) -> None:
        """ValueError unless logits of this shape, with so many classes, suit what is there."""
        self.check_device(device)
        self.wanted.check_columns(classes, shape)
        if self.num_classes not in (None, classes):
            raise ValueError(f"logits: got {classes} classes, expected {self.num_classes}, as the first batch had")

    def check_gradient(self, score: str, device: torch.device, shape: tuple[int, ...]) -> int:
        """ValueError unless gradients to inputs [B, ...] of this shape suit what is there; returns their pixels."""
        self.check_device(device)
        size = self.wanted.gradient.size(shape)
        if score in self.moments and size != self.moments[score].size:
            raise ValueError(
                f"{score}: got inputs of shape {tuple(shape)}, {size} pixels, expected {self.moments[score].size} "
                "as in the first batch; gradients of inputs of several sizes cannot be averaged (pad texts to one "
                "length)"
            )
        channels = self.wanted.gradient.channels(shape)
        if self._channels.get(score, channels) != channels:
            raise ValueError(
                f"{score}: got inputs of shape {tuple(shape)}, {channels} channels in dimension "
                f"{self.wanted.gradient.channel_dim}, expected {self._channels[score]} as in the first batch; their "
                "mean would be on another scale. Those of embedded text [B, T, D] are GradientOptions(channel_dim=2)"
            )
        return size

    def check_device(self, device: torch.device) -> None:
        """ValueError unless the device is that of the state: where the user said, else where the first batch was."""
        own = self.device
        if own is not None and (own.type != device.type or (own.index is not None and own.index != device.index)):
            raise ValueError(
                f"got a batch on {device}, but the state of this tracker is on {own}: move the batch there, or make "
                f"the tracker with device={str(device)!r}, and load its state into it"
            )

    def make_ready(
        self,
        device: torch.device,
        shape: tuple[int, ...],
        score: str | None = None,
        columns: int | None = None,
    ) -> None:
        """Makes what is lacking for logits of some columns, values, or the inputs [B, ...] of a gradient score.

        Raises:
            ValueError: they do not suit what is there; nothing is made then.
        """
        wanted = self.wanted
        if score is not None:
            size = self.check_gradient(score, device, shape)
            if score not in self.moments:
                self.moments[score] = GradientMoments(wanted.num_examples, size, device, wanted.gradient, wanted.group)
            self._channels[score] = wanted.gradient.channels(shape)
        elif columns is not None:
            self.check_logits(device, shape, columns)
            self.num_classes = columns
            if wanted.group is not None:
                wanted.group.definition["num_classes"] = columns
            if self.windows is None and self._windowed:
                self.windows = TemporalRecords(wanted.num_examples, columns, self._windowed, device, wanted.temporal)
            if self.probabilities is None and wanted.probabilities is not None:
                self.probabilities = MeanProbabilities(wanted.num_examples, columns, device, wanted.probabilities)
        self.check_device(device)
        if score is None and self.records is None and self.keeps_records:
            self.records = self._new_records(device)
        self.start_on(device)
        self._note_columns()

    def _new_records(self, device: torch.device) -> Records:
        return Records(self.wanted.num_examples, device, self.wanted.half_life, self.wanted.right_from)

    def make_norms(self, device: torch.device) -> GradientNorms:
        """The means of `grand`, made if lacking; ValueError for another device than that of the batches."""
        self.check_device(device)
        if self.norms is None:
            self.norms = GradientNorms(self.wanted.num_examples, device, self.wanted.group)
        self.start_on(device)
        return self.norms

    def start_on(self, device: torch.device) -> SkippedCounts:
        """Makes what is small, where it was not made before; returns the counters."""
        if self.skipped is None:
            self.device = device
            self.anchor = new_state((0,), torch.float32, device).requires_grad_()
            self.skipped = SkippedCounts(device)
        return self.skipped

    def note_predictions(self) -> None:
        """Keeps and compares no labels from now on: what a model predicts may change, also within a batch."""
        if self.records is not None and not self.labels_are_predictions:
            self.records.forget_labels()
        self.labels_are_predictions = True

    def note_another_pass(self) -> None:
        """Counts a backward pass through watched inputs that had one before."""
        self.other_passes += 1

    def presented(
        self, index: Tensor, logits: Tensor | None, labels: Tensor, ignore_index: int | None = None
    ) -> Tensor:
        """[B] bool: the rows of a batch just recorded that count, whose label is their example's, and possible.

        A label whose logit is -inf has an infinite loss, but a finite gradient.
        """
        own = torch.ones_like(index, dtype=torch.bool) if self.records is None else self.records.agree(index, labels)
        if ignore_index is not None:
            own = own & (labels != ignore_index)
        if logits is None:
            return own
        valid = labels.clamp(0, logits.shape[1] - 1)
        return own & (logits.detach().gather(1, valid[:, None])[:, 0] != -torch.inf)

    def record_probabilities(self, index: Tensor, probabilities: Tensor, stats: Tensor, labels: Tensor) -> None:
        """Adds those [B, C] of the examples that were just recorded with statistics [B, 8] and labels [B]."""
        assert self.records is not None
        assert self.probabilities is not None
        finite = (stats[:, STAT["loss"]] + probabilities.sum(1)).isfinite()
        self.probabilities.record(index, probabilities, finite & self.records.agree(index, labels))

    def count_changed_labels(self, changed: Tensor) -> None:
        """Counts the rows [B] bool that came with another label than their example has."""
        self.start_on(changed.device).update[SKIPPED.index("changed label")] += changed.sum()

    def try_record(self, index: Tensor, logits: Tensor | None, labels: Tensor | None, ignore_index: int | None) -> bool:
        """Records a batch by one compiled call, if a record is all it needs and nothing is wrong with it."""
        if self._columns is None or logits is None or labels is None or self.records is None or self.skipped is None:
            return False
        return (
            isinstance(logits, Tensor)
            and logits.shape[1:] == self._columns
            and type(ignore_index) is int
            and try_record_stats_(
                self.records.table,
                index,
                logits,
                labels,
                self.skipped.update,
                ignore_index,
                self.records.decay,
                self.records.steps,
            )
        )

    def _note_columns(self) -> None:
        plain = self.wanted.group is None and self.wanted.target == "classes" and self.wanted.probabilities is None
        simple = plain and self.records is not None and self.windows is None
        self._columns = torch.Size((self.num_classes,)) if simple and self.num_classes is not None else None

    def tensors(self) -> list[Tensor]:
        """All that the training step changes."""
        found = [self.anchor, *(() if self.skipped is None else self.skipped.tensors())]
        found += [] if self.records is None else [self.records.table, self.records.steps]
        found += [] if self.windows is None else [self.windows.table, self.windows.dual]
        found += [t for m in self.moments.values() for t in (m.count, m.mean, m.m2, m.pixels)]
        found += [] if self.probabilities is None else [self.probabilities.count, self.probabilities.mean]
        return [t for t in found if t is not None]

    # Growing

    def _parts(self) -> list[Any]:
        parts = [self.records, self.windows, self.norms, self.probabilities, *self.moments.values()]
        return [part for part in parts if part is not None]

    def make_room(self, size: int) -> None:
        """Grows to so many examples; what is there already keeps its place."""
        if size > self.wanted.num_examples:
            for part in self._parts():
                part.resize(size)
            self.wanted = replace(self.wanted, num_examples=size)

    def resized(self, size: int) -> TrackerState:
        """For so many examples, to be read: it shares the memory of this state unless it is larger."""
        other = copy.copy(self)
        other.records, other.windows = copy.copy(self.records), copy.copy(self.windows)
        other.norms, other.probabilities = copy.copy(self.norms), copy.copy(self.probabilities)
        other.moments = {name: copy.copy(moments) for name, moments in self.moments.items()}
        for part in other._parts():
            part.resize(size)
        other.wanted = replace(self.wanted, num_examples=size)
        return other

    @property
    def presented_up_to(self) -> int:
        """One more than the last example that was presented; 0 if none was."""
        lasts = (counts.nonzero()[-1:, 0].tolist() for counts in self.counts())
        return max((last + 1 for found in lasts for last in found), default=0)

    # Reading

    def scores(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Each [N] float32 by name, NaN where never presented; a gradient score of which nothing came is absent."""
        if self.records is not None:
            found = self.records.scores(names)
        else:
            found = logit_scores(new_table(self.wanted.num_examples, self.wanted.device), names)
        if self.windows is not None:
            found |= self.windows.scores()
        skipped = bool(self.total_skipped().any())
        for name, moments in self.moments.items():
            if name in names and (skipped or bool(moments.counts().any())):
                found[name] = moments.vog()
        if self.norms is not None:
            found["grand"] = self.norms.average()
        return {name: found[name] for name in names if name in found}

    def age(self) -> Tensor:
        """[N] float64, steps since each example was last presented; NaN for never."""
        if self.records is None:
            return torch.full((self.wanted.num_examples,), torch.nan, dtype=torch.float64, device=self.device or "cpu")
        return self.records.age()

    def labels(self) -> Tensor | None:
        """The label of each example, -1 where none was shown; None if no logits were, or not with true labels."""
        return None if self.records is None or self.labels_are_predictions else self.records.labels()

    def counts(self) -> list[Tensor]:
        """How often each example was presented, [N], by each part of the state."""
        parts = [self.records.count] if self.records is not None else []
        parts += [moments.counts() for moments in self.moments.values()]
        return parts + ([self.norms.counts()] if self.norms is not None else [])

    def total_skipped(self) -> Tensor:
        """[4] int64, what is reported, in the order of `ops.SKIPPED`."""
        for moments in self.moments.values():
            moments.settle()
        if self.skipped is None:
            return torch.zeros(len(SKIPPED), dtype=torch.int64, device="cpu")
        group = self.wanted.group
        return self.skipped.total(
            group if self.wanted.names(needs=("input gradients", "parameter gradients")) else None
        )

    def total_other_passes(self) -> int:
        """Further backward passes, of all processes of a group."""
        group = self.wanted.group
        if group is None or "vog_loss" not in self.wanted.scores:
            return self.other_passes
        return int(group.sum(torch.tensor(self.other_passes, dtype=torch.int64, device="cpu")))

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been recorded."""
        return self.records is None and not self.moments and self.norms is None

    # Merging

    def merge(self, other: TrackerState) -> None:
        """Adds what `other` recorded, as if it had come afterwards; both are of the same `definition`.

        Raises:
            ValueError: they do not go together; nothing is changed then.
        """
        if None not in (self.num_classes, other.num_classes) and self.num_classes != other.num_classes:
            raise ValueError(f"merge: got a tracker of {other.num_classes} classes, expected {self.num_classes}")
        for name, moments in other.moments.items():
            if name in self.moments and self.moments[name].size != moments.size:
                raise ValueError(
                    f"merge: {name} of inputs of {moments.size} pixels, expected {self.moments[name].size}"
                )
        if self.windows is not None and other.windows is not None:
            self.windows.check_merge(other.windows)
        if self.records is not None and other.records is not None:
            self.records.check_merge(other.records)
        self._merge(other)

    def _merge(self, other: TrackerState) -> None:
        wanted, theirs = self.wanted, other.total_skipped()
        if other.skipped is not None:
            counters = self.start_on(other.skipped.update.device if self.device is None else self.device)
            counters.update.add_(theirs.to(counters.update.device))
        home = self.device or torch.device("cpu")
        self.num_classes = self.num_classes or other.num_classes
        if other.windows is not None:
            if self.windows is None:
                assert self.num_classes is not None
                self.windows = TemporalRecords(
                    wanted.num_examples, self.num_classes, self._windowed, home, wanted.temporal
                )
            self.windows.merge(other.windows)
        if other.probabilities is not None:
            if self.probabilities is None:
                classes = other.probabilities.classes
                self.probabilities = MeanProbabilities(wanted.num_examples, classes, home, wanted.probabilities)
            self.probabilities.merge(other.probabilities)
        if other.records is not None:
            if self.records is None:
                self.records = self._new_records(home)
            self.records.merge(other.records)
        if other.norms is not None:
            self.make_norms(home).merge(other.norms)
        for name, moments in other.moments.items():
            if name not in self.moments:
                self.moments[name] = GradientMoments(
                    wanted.num_examples, moments.size, home, wanted.gradient, wanted.group
                )
            self.moments[name].merge(moments)
        self.labels_are_predictions |= other.labels_are_predictions
        self.other_passes += other.other_passes
        self._note_columns()

    def take(self, part: TrackerState, here: Tensor, there: Tensor, counts: bool) -> None:
        """Takes over the examples [k] at the places `there` of a part, which were at no place here before.

        Args:
            counts: whether to add what it counted as left out.
        """
        wanted, device = self.wanted, self.device or part.device or torch.device("cpu")
        if None not in (self.num_classes, part.num_classes) and self.num_classes != part.num_classes:
            raise ValueError(f"load_parts: got parts of {self.num_classes} and of {part.num_classes} classes")
        self.num_classes = self.num_classes or part.num_classes
        if part.skipped is not None and counts:
            self.start_on(device).update.add_(part.total_skipped().to(device))
        elif part.skipped is not None:
            self.start_on(device)
        self.other_passes += part.other_passes if counts else 0
        self.labels_are_predictions |= part.labels_are_predictions
        self.watch_phase, self.update_phase = part.watch_phase, part.update_phase
        if part.records is not None:
            self.records = self.records or self._new_records(device)
            self.records.take(part.records, here, there)
        if part.windows is not None:
            if self.windows is None:
                self.windows = TemporalRecords(
                    wanted.num_examples, part.windows.classes, self._windowed, device, wanted.temporal
                )
            self.windows.take(part.windows, here, there)
        if part.norms is not None:
            copy_rows(self.make_norms(device), part.norms, ("count", "mean"), here, there)
        if part.probabilities is not None:
            if self.probabilities is None:
                classes = part.probabilities.classes
                self.probabilities = MeanProbabilities(wanted.num_examples, classes, device, wanted.probabilities)
            copy_rows(self.probabilities, part.probabilities, ("count", "mean"), here, there)
        for name, moments in part.moments.items():
            if name not in self.moments:
                self.moments[name] = GradientMoments(wanted.num_examples, moments.size, device, wanted.gradient)
            if moments.size != self.moments[name].size:
                raise ValueError(
                    f"load_parts: {name}: got parts of {self.moments[name].size} and of {moments.size} pixels"
                )
            copy_rows(self.moments[name], moments, ("count", "mean", "m2"), here, there)
        self._note_columns()

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """See `DifficultyTracker.state_dict`."""
        return {
            "format": FORMAT,
            **self.wanted.definition,
            "num_classes": self.num_classes,
            "steps": [self.watch_phase, self.update_phase],
            "labels_are_predictions": self.labels_are_predictions,
            "other_passes": self.other_passes,
            "table": None if self.records is None else self.records.table,
            "last_seen": None if self.records is None else self.records.steps,
            "temporal_records": None if self.windows is None else self.windows.state_dict(),
            "skipped": None if self.skipped is None else self.total_skipped(),
            "moments": {name: moments.state_dict() for name, moments in self.moments.items()},
            "norms": None if self.norms is None else self.norms.state_dict(),
            "probabilities": None if self.probabilities is None else self.probabilities.state_dict(),
            "largest_batch": 0 if self.wanted.group is None else self.wanted.group.largest_batch,
        }

    @classmethod
    def from_state_dict(cls, state: Any, wanted: Wanted) -> TrackerState:
        """The inverse of `state_dict`; the tensors are copied, to the wanted device or to where they were.

        Raises:
            ValueError: no such state, a damaged or newer one, or one of other examples, classes, scores or options.
        """
        saved = checked_state(state, wanted)
        wanted = replace(wanted, num_examples=saved["num_examples"])
        loaded = cls(wanted)
        loaded.num_classes = saved["num_classes"]
        loaded.labels_are_predictions = saved["labels_are_predictions"]
        loaded.other_passes = saved["other_passes"]
        loaded.watch_phase, loaded.update_phase = saved["steps"]
        if saved["table"] is not None:
            loaded.records = loaded._new_records(saved["table"].device)
            loaded.records.table.copy_(saved["table"])
            loaded.records.steps.copy_(saved["last_seen"])
            if loaded.labels_are_predictions:  # which states of before compared with each other
                loaded.records.forget_labels()
        if saved["temporal_records"] is not None:
            loaded.windows = TemporalRecords.from_state_dict(saved["temporal_records"], wanted.temporal)
        if saved["skipped"] is not None:
            loaded.start_on(wanted.device or saved["skipped"].device).update.copy_(saved["skipped"])
        if saved["norms"] is not None:
            loaded.norms = GradientNorms.from_state_dict(saved["norms"], wanted.group)
        if saved["probabilities"] is not None:
            loaded.probabilities = MeanProbabilities.from_state_dict(saved["probabilities"], wanted.probabilities)
        loaded.moments = {
            name: GradientMoments.from_state_dict(of_score, wanted.gradient, wanted.group)
            for name, of_score in saved["moments"].items()
        }
        loaded._note_columns()
        return loaded
