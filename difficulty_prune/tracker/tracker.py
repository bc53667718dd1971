"""The tracker: sees every training step, keeps a few numbers per example, and hands out scores."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from numbers import Real
from threading import RLock
from typing import Any, Final
from weakref import WeakSet

import torch
from torch import Tensor

from ..ops.checks import check_index, check_labels, check_logits, check_new_labels, check_right_from
from ..ops.layout import HALF_LIFE, NO_ROW, PADDING, SKIPPED, STAT
from ..ops.operators import softmax_stats
from ..runs.run import Run
from ..scores.catalogue import SCORES, check_scores, check_tracked
from ..scores.class_normalize import class_normalize
from ..scores.gradients import check_depends, has_module_hooks, input_gradient
from ..scores.temporal import TemporalOptions
from ..support.checks import whole_number
from .batch import check_batch, index_beside, index_of_rows, refuse_transforms
from .finish import (
    check_read,
    facts_of_dataset,
    labels_of_run,
    means_of_run,
    options_of_scores,
    seen_by_run,
    warn_of_too_little,
)
from .group import Group
from .growth import room_for
from .moments import GradientMoments
from .options import GradientOptions, ProbabilityOptions
from .partition import Partition
from .parts import check_partition, put_together, saved_partition
from .probabilities import MeanProbabilities
from .rows import Rows, check_rows, check_values, wants_log_loss
from .since import (
    check_late,
    check_of_a_part,
    late_scores,
    part_since,
    presentations_before,
    take_snapshot,
    warn_of_rounding,
)
from .source import ScoreSource
from .state import TrackerState
from .wanted import Wanted
from .watch import (
    FirstPass,
    GradientScaler,
    Recomputed,
    WatchInputs,
    check_loss_scale,
    in_backward_pass,
    loss_gradient_scale,
)

DEFAULT_SCORES: Final = ("el2n", "aum", "forgetting")

_IN_EACH_STEP: Final = "in each step, give that x to the model and run backward, or use score_checkpoint"
_HOW_GRADIENTS_ARRIVE: Final = {
    "update(inputs=)": f"call tracker.update(..., inputs=x) {_IN_EACH_STEP}",
    "watch": f"call x = tracker.watch(x, index) {_IN_EACH_STEP}",
    "score_checkpoint": "call dp.score_checkpoint(model, loader, tracker) at the epochs of your choice",
}


_LIVE: Final[WeakSet[Any]] = WeakSet()
"""All trackers of this process."""


def _renew_locks() -> None:
    """In a forked process, which lacks the thread that may have held a lock in its parent."""
    for tracker in _LIVE:
        tracker._lock = RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew_locks)


class DifficultyTracker:
    """Scores examples while a model trains on them.

    Call `update` once per training step, before the backward pass. Logit scores cost one small kernel and 64
    bytes per example; gradient scores 8 bytes per pixel and example. Nothing is read back from the device before
    `compute` or `finish`.

    A step with the tracker in it can be compiled with `torch.compile(fullgraph=True)`; bad values are then counted,
    as on an accelerator. It can also be captured in a CUDA graph, after a first step, which makes the state, and
    with the index on the device.

    Args:
        num_examples: N, the length of the whole dataset; or None, if it is not known: the tracker then grows to the
            largest index. Give it the index on the CPU, as loaders do, and not in a compiled step or a process group.
        scores: names from `score_names()`.
        device: where the state lives. Default: where the first logits or inputs are.
        num_classes: expected columns of the logits; default: those of the first batch. With `target="binary"` the
            expected labels of each example; default: any number.
        target: "classes", of which each row of logits has one (or probabilities of each); or "binary" where each logit
            has a label of its own, 0 or 1.
        right_from: of an example with several rows, such as the tokens of a text, the fraction that has to be right for
            the example to count as right in `forgetting`, `learning_time` and `consistently_learned`.
        half_life: presentations after which a loss weighs half as much in `recent_loss`.
        gradient: options of the gradient scores.
        temporal: options of `tdds`, `dyn_unc` and `dual`, whose state per example
            `TemporalOptions.bytes_per_example` tells.
        mean_probabilities: whether to keep the mean of each example's probabilities [C] over its presentations, which
            suggest a label for it; or a `ProbabilityOptions`, which says in which dtype, and where.
        process_group: of `torch.distributed`, whose processes each see a share of every batch. `update` then exchanges
            the statistics of the step (the logits, for `tdds`, `dyn_unc`, `dual` and `mean_probabilities`), so that
            each process holds the records of all; gradients stay where they are seen, and are merged when they are
            asked for. So every process calls `update` in every step, and, where gradients are scored, `compute`,
            `finish`, `state_dict`, `skipped` and `presentations` too; all get the same. One saved state serves every
            process. No batch may be larger than the largest first one.
        partition: a `Partition`, in place of `process_group`: this process records only its own examples, by their
            place among these, and exchanges nothing in a step; `num_examples` is None or `len(partition)`. What the
            tracker tells is of its own examples; plans are made of all. Every process saves a state of its own, and
            `load_parts` reads those of any number of processes.

    Raises:
        TypeError, ValueError: an unknown score, no score, or a count that is no positive whole number.

    >>> tracker = DifficultyTracker(4, scores=("el2n", "accuracy"))
    >>> tracker.update(torch.tensor([0, 2]), torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]))
    >>> tracker.compute()["accuracy"]
    tensor([1., nan, 0., nan])
    """

    def __init__(
        self,
        num_examples: int | None,
        scores: Iterable[str] = DEFAULT_SCORES,
        *,
        device: torch.device | str | None = None,
        num_classes: int | None = None,
        target: str = "classes",
        right_from: float = 1.0,
        half_life: float = HALF_LIFE,
        gradient: GradientOptions | None = None,
        temporal: TemporalOptions | None = None,
        mean_probabilities: bool | ProbabilityOptions = False,
        process_group: Any = None,
        partition: Partition | None = None,
    ) -> None:
        if partition is not None:
            num_examples = _of_partition(partition, num_examples, process_group)
        size = 0 if num_examples is None else _number_of_examples(num_examples)
        names = check_tracked(scores)
        gradient = GradientOptions() if gradient is None else gradient
        if not isinstance(gradient, GradientOptions):
            raise TypeError(f"gradient: got {type(gradient).__name__}, expected dp.GradientOptions(...)")
        temporal = TemporalOptions() if temporal is None else temporal
        if not isinstance(temporal, TemporalOptions):
            raise TypeError(f"temporal: got {type(temporal).__name__}, expected dp.TemporalOptions(...)")
        if target not in ("classes", "binary"):
            raise ValueError(f"target: got {target!r}, expected 'classes' or 'binary'")
        check_right_from(right_from)
        _check_half_life(half_life)
        least = 2 if target == "classes" else 1
        classes = None if num_classes is None else whole_number(num_classes, "num_classes", least=least)
        if num_examples is None and process_group is not None:
            raise ValueError(
                "num_examples: got None with process_group, whose processes would grow apart; give len(dataset)"
            )
        group = None if process_group is None else Group(process_group)
        kind = target, float(right_from), float(half_life), _probabilities(mean_probabilities, target)
        grows = num_examples is None
        self._wanted = Wanted(size, names, classes, gradient, temporal, group, _device(device), *kind, grows)
        if group is not None:
            group.definition = {**self._wanted.definition, "num_classes": classes}
        self.partition = partition
        if partition is not None:
            shared = {name: own for name, own in self._wanted.definition.items() if name != "num_examples"}
            advice = "Make them alike in every process: the same scores, classes and options"
            partition.compare({**shared, "num_classes": classes}, "trackers", advice)
        self._extra_backward_scores = self._wanted.names(how="update(inputs=)")
        self._pauses = 0  # `paused` blocks that are open, in any thread
        self._lock = RLock()
        _LIVE.add(self)
        self._recomputed = Recomputed()
        self.reset()

    @property
    def num_examples(self) -> int:
        """N, the length of the whole dataset; of a tracker that grows, up to the last example presented so far."""
        return self._wanted.num_examples if not self._wanted.grows else max(self._least, self._state.presented_up_to)

    @property
    def grows(self) -> bool:
        """Whether it was made without the number of examples, and grows to the largest index."""
        return self._wanted.grows

    @property
    def capacity(self) -> int:
        """How many examples there is room for: N, or more of a tracker that grows."""
        return self._wanted.num_examples

    def make_room(self, index: Tensor) -> None:
        """Grows for a batch, if this is a tracker that does; `watch`, `update` and `record` call it themselves.

        Raises:
            ValueError: an index on an accelerator, or in a compiled step.
        """
        if self._wanted.grows:
            size = room_for(index, self.capacity)
            if size > self.capacity:
                self._make_room(size)

    def _make_room(self, size: int) -> None:
        with self._lock:
            self._state.make_room(size)
            self._wanted = self._state.wanted

    def _readable(self) -> TrackerState:
        """The state of as many examples as there are."""
        return self._state.resized(self.num_examples) if self._wanted.grows else self._state

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of the scores that are recorded."""
        return self._wanted.scores

    @property
    def target(self) -> str:
        """What labels are: "classes" or "binary"."""
        return self._wanted.target

    @property
    def gradient(self) -> GradientOptions:
        """How input gradients are recorded."""
        return self._wanted.gradient

    @property
    def temporal(self) -> TemporalOptions:
        """How windows of presentations are looked at."""
        return self._wanted.temporal

    @property
    def process_group(self) -> Any:
        """The group of processes that see the batches together; None for this one alone."""
        return None if self._wanted.group is None else self._wanted.group.process_group

    def reset(self) -> None:
        """Forgets everything recorded."""
        self._least = 0  # examples that there are at least, of a tracker that grows
        self._state = TrackerState(self._wanted)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"} | {"_pauses": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=RLock())
        _LIVE.add(self)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Backward passes in here are not the training step's own, and what was watched does not record them.

        For saliency maps, gradients that a penalty is made of, and the like that go through the same graph, before the
        step's own pass or after it. The tracker is paused for every thread, because a backward pass may run in a thread
        of its own.

        A penalty on gradients that is part of the step's loss sends a gradient of its own to the inputs, which
        `vog_loss` would contain. Compute such a penalty from inputs that are not watched, `x.clone().requires_grad_()`.

        >>> tracker = DifficultyTracker(1, scores=("vog_loss",))
        >>> x = tracker.watch(torch.ones(1, 1, 2, 2), torch.tensor([0]))
        >>> with tracker.paused():
        ...     x.sum().backward(retain_graph=True)
        >>> x.mean().backward()
        >>> tracker.presentations
        1
        """
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1

    # Recording

    def watch(
        self,
        inputs: Tensor,
        index: Tensor,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
        accumulation_steps: float = 1,
        scaler: GradientScaler | None = None,
    ) -> Tensor:
        """Records `vog_loss` from the training step's own backward pass.

        Put the result into the model in place of the inputs. What arrives is the gradient of the loss as you reduced,
        weighted and scaled it; `watch` undoes that, so that neither batch size nor weights change the score. So it has
        to be told how the loss is made, with l_i the losses of the B examples and w_i their weights:

        | the loss | the call |
        |---|---|
        | `l.mean()` | `watch(x, index)` |
        | `(l * w).mean()`, as with a sampler's weights | `watch(x, index, weight=w)` |
        | `l.sum()` | `watch(x, index, reduction="sum")` |
        | `F.cross_entropy(z, y, weight=c)`: `(l * c[y]).sum() / c[y].sum()` | `watch(x, index, weight=c[y], \
reduction="weighted_mean")` |
        | `F.cross_entropy(z, y)` with ignored labels -100 | `watch(x, index, weight=(y != -100).float(), \
reduction="weighted_mean")` |
        | both of these | `watch(x, index, weight=c[y.clamp(min=0)] * (y != -100), reduction="weighted_mean")` |
        | text, the mean over all tokens of the batch, of which each example has n_i | `watch(x, index, weight=n, \
reduction="weighted_mean")` |
        | any sum of f_i l_i, such as f_i = n_i / num_items_in_batch | `watch(x, index, weight=f, reduction="sum")` |
        | any of these divided by 4, for gradient accumulation | `watch(..., accumulation_steps=4)` |
        | any of these through a `GradScaler` | `watch(..., scaler=scaler)` |

        Of text [B, T], watch the embeddings [B, T, D], padded to one length, with `GradientOptions(channel_dim=2)`.
        The gradient is not kept in `.grad`. Under `torch.no_grad()` the inputs come back as they are. The model's first
        layer must not work in place, and each graph is meant for one backward pass: see `paused` for others.

        Args:
            inputs: [B, ...] floating point.
            index: [B] int64, positions in the dataset, on the CPU or on the device of the inputs.
            weight: [B], the factor of each example's loss. An example of weight 0 shows no gradient and is passed
                over.
            reduction: "mean" when the (weighted) losses are divided by B, "sum" when they are summed, "weighted_mean"
                when they are divided by the sum of the weights.
            accumulation_steps: what the loss is divided by besides.
            scaler: the `torch.amp.GradScaler` in use; gradients that overflowed are left out, as it leaves them out.
                `torch.compile` cannot trace a scaler: compile what comes after `watch`.

        Returns:
            A tensor equal to the inputs, through which the gradient will pass.

        Raises:
            TypeError, ValueError, IndexError: wrong type, dtype, shape, device or index, a reduction or divisor that
                cannot be, or no "vog_loss" among the scores.

        >>> tracker = DifficultyTracker(2, scores=("vog_loss",))
        >>> x = tracker.watch(torch.ones(1, 1, 2, 2), torch.tensor([1]))
        >>> x.mean().backward()
        >>> tracker.compute()["vog_loss"]
        tensor([nan, 0.])
        """
        if "vog_loss" not in self.scores:
            raise ValueError(f"watch: 'vog_loss' is not among the scores of this tracker, {self.scores}")
        if not isinstance(inputs, Tensor) or not inputs.dtype.is_floating_point:
            got = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
            raise TypeError(f"inputs: got {got}, expected floating point; watch embeddings where inputs are integers")
        self.make_room(index)
        given, index = index, index_beside(index, inputs, self.capacity)
        check_loss_scale(inputs, weight, reduction, accumulation_steps, scaler)
        state, compiling = self._state, torch.compiler.is_compiling()
        if not compiling:
            refuse_transforms("watch")
        if not torch.is_grad_enabled():
            return self._recomputed.put_off(inputs, given) if not compiling else inputs
        if not compiling and in_backward_pass() and not self._recomputed.was_put_off(given):
            return self._recomputed.again(inputs, given, state, self._note_another_pass)
        if compiling:
            phase = self._next_to_watch(inputs)
        else:
            with self._lock:
                phase = self._next_to_watch(inputs)
            self._recomputed.note(given, watched=phase == 0)
        if phase or state.skipped is None:
            return inputs
        if scaler is not None and not scaler.is_enabled():
            scaler = None  # which leaves no step out
        if index is given:  # the caller may put the next batch into the same tensor before the backward pass
            index = index.clone()
        scale = loss_gradient_scale(inputs, weight, reduction, accumulation_steps, scaler)
        moments = state.moments["vog_loss"]
        # A scaler provokes overflows and then leaves the step out: so do we, and that is no fault to report.
        skipped = state.skipped.watch if scaler is None else state.skipped.unreported
        tensors = index, scale, moments.count, moments.mean, moments.m2, moments.pixels, skipped
        watched: Tensor
        if compiling:
            watched = WatchInputs.apply(inputs, state.anchor, self._record_watched, *tensors)
        else:
            first = FirstPass(
                lambda gradient: self._record_in_turn(gradient, index, scale, moments, skipped), self._note_another_pass
            )
            watched = WatchInputs.apply(inputs, state.anchor, first)
        return watched

    def _next_to_watch(self, inputs: Tensor) -> int:
        """Steps since one was watched, modulo `every`; 0 for one that is, for which the state is made ready."""
        state = self._state
        if state.watch_phase == 0:
            self._prepare(inputs, "vog_loss")
        phase, state.watch_phase = state.watch_phase, (state.watch_phase + 1) % self.gradient.every
        return phase

    def _note_another_pass(self) -> None:
        if not self._pauses:
            self._state.note_another_pass()

    def _record_in_turn(
        self, gradient: Tensor, index: Tensor, scale: Tensor | None, moments: GradientMoments, skipped: Tensor
    ) -> bool:
        """`_record_watched`, while no other thread records, with state that may have grown since."""
        with self._lock:
            tensors = moments.count, moments.mean, moments.m2, moments.pixels
            return self._record_watched(gradient, index, scale, *tensors, skipped)

    def _record_watched(
        self,
        gradients: Tensor,
        index: Tensor,
        scale: Tensor | None,
        count: Tensor,
        mean: Tensor,
        m2: Tensor,
        pixels: Tensor | None,
        skipped: Tensor,
    ) -> bool:
        """What the backward pass does with the gradient of watched inputs, unless paused; `watch` checked the rest."""
        if self._pauses:
            return False
        gradients = self.gradient.with_channels(gradients)
        if mean.device == gradients.device:
            torch.ops.difficulty_prune.record_gradients_(count, mean, m2, index, gradients, scale, pixels, skipped)
        else:
            self._state.moments["vog_loss"].record(index, gradients, scale, skipped)
        return True

    def update(
        self,
        index: Tensor,
        logits: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        owner: Tensor | None = None,
        row_weight: Tensor | None = None,
        ignore_index: int = -100,
        inputs: Tensor | None = None,
        loss: Tensor | None = None,
        entropy: Tensor | None = None,
        correct: Tensor | None = None,
    ) -> None:
        """Records one presentation of each example in the batch, without waiting for the device.

        It takes what the loss takes:

        | logits | labels | such as |
        |---|---|---|
        | [B, C] | [B] int64 | classification |
        | [B, C, d1, ...] | [B, d1, ...] int64 | segmentation; text, `logits.transpose(1, 2)` of [B, T, V] |
        | [B, C, ...] | [B, C, ...] floating | soft labels, label smoothing, distillation: probabilities |
        | [R, C] | [R] or [R, C], with `owner` [R] | packed text, boxes, several views of an example |
        | [B, L] | [B, L] of 0 and 1 | multi-label, of a tracker with `target="binary"` |
        | none | none, but `loss`, `entropy` or `correct` | what a fused loss hands over in place of logits |

        Each line of logits with its target is a row. One call is one presentation of each example that has a row that
        counts: the mean over its rows is recorded, whatever their order or number; an example without such a row is not
        presented. An index that occurs twice counts twice, in batch order. On an accelerator a bad index and a row of
        logits that is not finite are left out, counted, and reported by the next `compute` or `finish`. A refused call
        leaves nothing behind. In a backward pass nothing is recorded: there, activation checkpointing runs parts of the
        forward pass again, which have counted already. Threads may share a tracker and take turns.

        Args:
            index: [B] int64, positions in the dataset, on the CPU or on the device of the logits.
            logits: float32, bfloat16 or float16, before the softmax or sigmoid, of any strides.
            labels: see the table. Of binary ones, those that are NaN are not known and count for nothing.
            owner: one int64 for each row: the place in `index` of the example to which it belongs, 0..B-1, or -1 for
                nobody.
            row_weight: one number for each row, at least 0, by which it weighs in the mean; 0 leaves it out.
            ignore_index: the label of rows that count for nothing, as for the loss.
            inputs: [B, ...] that led to the logits and required gradients; for `vog` and `vog_probability`, at the
                price of one backward pass to the input each. Call before the training step's own backward pass. After
                the first step they may be left out, where no gradient is to be recorded. The extra pass would also run
                full backward hooks of modules (`register_full_backward_hook`, as per-sample gradient libraries use
                them) once more, which these do not expect: where there are any, nothing is recorded, with a warning.
            loss: [B], or one for each row with `owner`: in place of logits and labels, for tasks with any other loss,
                for "loss" and "recent_loss"; and for "confidence" and "variability" where it is -log p.
            entropy, correct: of the same shape, for "entropy", and for "accuracy" and the scores that count events;
                correct is bool, or a fraction.

        Raises:
            TypeError, ValueError, IndexError: wrong type, dtype, shape, device, label or index, or an argument that
                the scores of this tracker need is missing.
        """
        compiling = torch.compiler.is_compiling()
        if not compiling and in_backward_pass():
            return
        if not compiling and torch._C._functorch.peek_interpreter_stack() is not None:
            refuse_transforms("update")
        self.make_room(index)
        plain = owner is None and row_weight is None and inputs is None
        plain = plain and loss is None and entropy is None and correct is None and not compiling
        with self._lock if not compiling else nullcontext():
            if not plain or not self._state.try_record(index, logits, labels, ignore_index):
                given = {"loss": loss, "entropy": entropy, "correct": correct}
                values = {name: value for name, value in given.items() if value is not None}
                self._update(index, logits, labels, owner, row_weight, ignore_index, inputs, values)

    def _update(
        self,
        index: Tensor,
        logits: Tensor | None,
        labels: Tensor | None,
        owner: Tensor | None,
        row_weight: Tensor | None,
        ignore_index: int,
        inputs: Tensor | None,
        values: dict[str, Tensor],
    ) -> None:
        ignore_index = whole_number(ignore_index, "ignore_index", least=torch.iinfo(torch.int64).min)
        if values:
            _refuse_beside(values, logits=logits, labels=labels, inputs=inputs)
            rows = check_values(self._wanted, index, values, owner, row_weight, ignore_index)
            return self._record_rows(index, rows)
        if logits is None or labels is None:
            raise TypeError("update: expected logits and labels; or loss=, entropy= or correct= in their place")
        if not self._is_plain(logits, labels) or owner is not None or row_weight is not None:
            if inputs is not None:
                raise ValueError("update: inputs= goes with one row of logits [B, C] and one class [B] per example")
            rows = check_rows(self._wanted, index, logits, labels, owner, row_weight, ignore_index)
            return self._record_rows(index, rows)
        gradients = self._input_gradients(logits, labels, inputs, ignore_index)
        self.record(index, logits, labels, gradients=gradients, ignore_index=ignore_index)
        if inputs is not None and self._extra_backward_scores:
            self._state.update_phase = (self._state.update_phase + 1) % self.gradient.every

    def _is_plain(self, logits: Tensor, labels: Tensor) -> bool:
        """Whether each example has one row of logits, with a class: what records take as it is."""
        if self._wanted.target != "classes" or (isinstance(logits, Tensor) and logits.dim() > 2):
            return False
        tensors = isinstance(logits, Tensor) and isinstance(labels, Tensor)  # of what is none the checks tell
        return not (tensors and labels.is_floating_point() and labels.shape == logits.shape)

    def _input_gradients(
        self, logits: Tensor, labels: Tensor, inputs: Tensor | None, ignore_index: int
    ) -> dict[str, Tensor]:
        """Those that this step is to record, by score, at the price of an extra backward pass each."""
        names = self._extra_backward_scores
        if not names or (inputs is not None and self._state.update_phase):
            return {}
        if inputs is None:
            if not any(name in self._state.moments for name in names):
                raise ValueError(f"update: the scores {', '.join(names)} need inputs=, the tensor given to the model")
            return {}
        check_logits(logits)
        check_labels(labels, logits, ignore_index)
        check_depends(inputs, logits)
        labels = torch.where(labels == ignore_index, 0, labels)  # of these rows nothing is recorded
        if not torch.compiler.is_compiling() and has_module_hooks(logits):
            warnings.warn(
                f"{', '.join(names)}: not recorded. The extra backward pass would run the full backward hooks of this "
                "model's modules once more, which whoever set them does not expect; remove the hooks, or score "
                "checkpoints of a model without them with dp.score_checkpoint",
                stacklevel=4,
            )
            return {}
        with self.paused():
            return {name: input_gradient(name, logits, labels, inputs) for name in names}

    def record(
        self,
        index: Tensor,
        logits: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        gradients: Mapping[str, Tensor] | None = None,
        norms: Tensor | None = None,
        predicted: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        """Records what was computed elsewhere; `score_checkpoint` and a plain `update` end here.

        Args:
            index: [B] int64, positions in the dataset, on the CPU or on the device of the batch.
            logits, labels: [B, C] and [B] int64, as for `update`.
            gradients: by score, such as {"vog": g}: each example's own gradient to its input, [B, ...].
            norms: [B] floating point, the norm of each example's gradient to the parameters, for `grand`.
            predicted: whether the labels are what the model predicts; a run then does not take them for its labels.
            ignore_index: the label of rows that count for nothing.

        Raises:
            TypeError, ValueError, IndexError: wrong type, dtype, shape, device, label, index or score. Nothing is
                recorded then.

        >>> tracker = DifficultyTracker(2, scores=("grand",))
        >>> tracker.record(torch.tensor([1]), norms=torch.tensor([0.5]))
        >>> tracker.compute()["grand"]
        tensor([   nan, 0.5000])
        """
        gradients = {} if gradients is None else gradients
        self.make_room(index)
        index = check_batch(self._state, index, logits, labels, gradients, norms, ignore_index)
        if logits is not None and labels is not None:
            self._record_logits(index, logits, labels, predicted, ignore_index)
        scale = None
        if (gradients or norms is not None) and labels is not None:
            # A row that was left out, with another label than before or one of probability 0, is passed over here.
            presented = self._state.presented(index, logits, labels, ignore_index)
            scale = presented.float()
            if logits is None:  # else the record has counted it
                self._state.count_changed_labels(~presented)
        for name, gradient in gradients.items():
            self._prepare(gradient, name)
            gradient = self.gradient.with_channels(gradient)
            self._state.moments[name].record(index, gradient, scale, self._skipped_gradients())
        if norms is not None:
            means = self._state.make_norms(norms.device)
            means.record(index, norms.detach(), scale, self._skipped_gradients())

    def _skipped_gradients(self) -> Tensor:
        """Where gradients are counted that were left out: apart from logits, if every process counts these."""
        assert self._state.skipped is not None
        return self._state.skipped.update if self._wanted.group is None else self._state.skipped.watch

    def _record_logits(
        self, index: Tensor, logits: Tensor, labels: Tensor, predicted: bool, ignore_index: int | None
    ) -> None:
        self._prepare(logits, columns=logits.shape[1])
        state, group, probabilities = self._state, self._wanted.group, self._wanted.probabilities
        logits = logits.detach()
        if group is not None and not state.keeps_records:
            return  # gradients stay where they are seen, and so no exchange is needed
        assert state.skipped is not None
        if predicted:
            state.note_predictions()
        table = None if state.records is None else state.records.table
        if group is None and probabilities is None:
            if state.records is not None:
                state.records.record(index, logits, labels, state.skipped.update, ignore_index)
            if state.windows is not None:
                state.windows.record(index, logits, labels, state.skipped.unreported, table, ignore_index)
            return
        # A row of statistics is shorter than one of logits, and all that the records need.
        stats = softmax_stats(logits, labels, ignore_index)
        rest = [] if state.windows is None and probabilities is None else [logits]
        index, labels, stats, *rest = self._gathered(index, labels, stats, *rest)
        if state.records is not None:
            kept = torch.where(stats[:, STAT["loss"]] == NO_ROW, 0, labels)  # one that is ignored is not looked at
            state.records.record_given(index, stats, kept, logits.shape[1], state.skipped.update)
        for everyones_logits in rest:
            if state.windows is not None:
                counters = state.skipped.unreported
                state.windows.record_gathered(index, everyones_logits, labels, counters, table, ignore_index)
            if probabilities is not None:
                state.record_probabilities(index, everyones_logits.float().softmax(1), stats, labels)

    def _gathered(self, index: Tensor, *columns: Tensor) -> list[Tensor]:
        """The rows of all processes of the group; without a group those of this one."""
        if self._wanted.group is not None:
            return self._wanted.group.gather_rows(index, *columns)
        if not index.is_cpu:  # where nobody has looked, -1 is a bad index like any other
            index = index.where(index != PADDING, torch.iinfo(index.dtype).max)
        return [index, *columns]

    def _record_rows(self, index: Tensor, rows: Rows) -> None:
        """Records the means over the rows of each example."""
        index = index_of_rows(index, rows.batch, self.capacity)
        self._prepare(rows.batch, columns=rows.columns)
        state = self._state
        if state.records is None or state.skipped is None:
            return
        stats, labels = rows.statistics(state.skipped, wants_log_loss(self._wanted))
        probabilities = [] if self._wanted.probabilities is None else [rows.probabilities()]
        index, labels, stats, *probabilities = self._gathered(index, labels, stats, *probabilities)
        state.records.record_given(index, stats, labels, rows.classes, state.skipped.update)
        for of_examples in probabilities:
            state.record_probabilities(index, of_examples, stats, labels)

    def relabel(self, index: Tensor, labels: Tensor) -> None:
        """Tells that labels were corrected: from now on the examples are presented with these.

        Without it, an example that comes with another label than before is left out and reported. What was recorded
        under the other label stays in the means; `recent_loss` starts anew, and is NaN until the next presentation. An
        example that was never presented has no label yet: the first one shown counts.

        Args:
            index: [B] int64, positions in the dataset.
            labels: [B] int64, the corrected ones. In a process group, every process makes the same call.

        Raises:
            TypeError, ValueError, IndexError: wrong type, dtype, shape or index.

        >>> tracker = DifficultyTracker(2, scores=("loss",))
        >>> tracker.update(torch.tensor([0]), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        >>> tracker.relabel(torch.tensor([0]), torch.tensor([1]))
        >>> tracker.update(torch.tensor([0]), torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
        >>> tracker.presentations
        2
        """
        self.make_room(index)
        check_index(index, None, self.capacity)
        check_new_labels(labels, index, self._state.num_classes)
        with self._lock:
            if self._state.records is not None:
                table = self._state.records.table
                self._state.records.relabel(index.to(table.device), labels.to(table.device))

    # Results

    def snapshot(self) -> Tensor:
        """Marks this moment: `compute(since=)` and `finish(since=)` give the scores of what comes after.

        Taken when the first half of the training is over, it gives `finish(late=)` the score `late_aum`.

        Once a model has memorised its labels, and before it has learned anything, scores say little, so that a part of
        training can find more than all of it (docs/wrong_labels.md). Does not wait for the device.

        Returns:
            [N, 16] float32 on the state's device, to hand back as it is; it can be saved and loaded.

        Raises:
            ValueError: the tracker records no score that is known of a part of training: gradients, and windows of
                presentations, are not.

        >>> tracker = DifficultyTracker(1, scores=("el2n", "forgetting"))
        >>> tracker.update(torch.tensor([0]), torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
        >>> early = tracker.snapshot()
        >>> tracker.update(torch.tensor([0]), torch.tensor([[9.0, -9.0]]), torch.tensor([0]))
        >>> tracker.compute(since=early)
        {'el2n': tensor([0.])}
        """
        with self._lock:
            return take_snapshot(self._readable())

    def compute(
        self,
        *,
        scores: Iterable[str] | None = None,
        class_normalized: bool = False,
        allow_skipped: bool = False,
        since: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The scores so far.

        Args:
            scores: which of this tracker's; default: all, with `since` all that are known of a part of training.
            class_normalized: give z-scores within the true class.
            allow_skipped: accept that presentations were left out.
            since: what `snapshot` returned: the scores of the presentations after it, NaN for an example without any.
                Sums and means are known, as those of loss, el2n, margins and probabilities, and
                `consistently_learned`; differences of float32 sums, which round by about 1e-7 of the whole training.
                Loss and aum are NaN, with a warning, where a value before the snapshot was so large that this hides
                what came after it.

        Returns:
            For each score [N] float32 on the state's device; NaN for an example that was never presented.

        Raises:
            TypeError, ValueError: presentations were left out (a bad index on an accelerator; logits or gradients that
                are not finite), and `allow_skipped` is False; or a score that this tracker does not record, or that is
                not known of a part of training; or `since` is no snapshot of this tracker.
            RuntimeError: a gradient score was asked for, but no gradient arrived.
        """
        names = self.scores if scores is None else self._own(scores)
        if since is not None:
            names = check_of_a_part(self.scores, () if scores is None else names)
        with self._lock:
            if self._state.skipped is not None:
                self._state.skipped.warn_of_targets(stacklevel=2)
            if not allow_skipped:
                self._raise_if_skipped(names)
            state = self._readable() if since is None else part_since(self._readable(), since)
            if since is not None:
                warn_of_rounding(state, names, stacklevel=2)
            found = state.scores(names)
            for name in names:
                if name not in found:
                    found[name] = self._without_gradients(name)
            if class_normalized and self.partition is not None and self.partition.world_size > 1:
                raise ValueError(
                    "class_normalized: got True, but this process has only its part of each class; put the scores of "
                    "all processes together first, and call dp.class_normalize(score, labels)"
                )
            if class_normalized:
                labels = self._known_labels()
                found = {name: class_normalize(score, labels.to(score.device)) for name, score in found.items()}
            return {name: found[name] for name in names}

    def _own(self, scores: Iterable[str]) -> tuple[str, ...]:
        chosen = check_scores(scores)
        missing = [name for name in chosen if name not in self.scores]
        if missing:
            raise ValueError(f"scores: {missing[0]!r} is not among the scores of this tracker, {self.scores}")
        return chosen

    def _without_gradients(self, name: str) -> Tensor:
        """A score of which nothing came: NaN where nothing came of any other either, else an error that says how."""
        if SCORES[name].how in _HOW_GRADIENTS_ARRIVE and not self._state.is_empty:
            raise RuntimeError(f"{name}: no gradient arrived; {_HOW_GRADIENTS_ARRIVE[SCORES[name].how]}")
        return torch.full((self.num_examples,), torch.nan, dtype=torch.float32, device=self._wanted.device or "cpu")

    def _known_labels(self) -> Tensor:
        labels = self._readable().labels()
        unknown = self.num_examples if labels is None else int((labels < 0).sum())
        if labels is None or unknown:
            raise ValueError(
                f"class_normalized: the class of {unknown} examples is not known, since no logits and labels were "
                "shown for them, or several rows; take dp.class_normalize(score, labels) with the labels of the dataset"
            )
        return labels

    def age(self) -> Tensor:
        """How long ago each example was presented, in steps: how stale what is recorded of it may be.

        Returns:
            [N] float64 on the state's device: calls of `update` since its last presentation, 0 for one in the last
            call, NaN for one that was never presented, or not since a state of an older version was loaded.

        >>> tracker = DifficultyTracker(3, scores=("loss",))
        >>> for i in (0, 1):
        ...     tracker.update(torch.tensor([i]), torch.zeros(1, 2), torch.tensor([0]))
        >>> tracker.age()
        tensor([1., 0., nan], dtype=torch.float64)
        """
        with self._lock:
            return self._readable().age()

    def mean_probabilities(self, *, allow_skipped: bool = False) -> Tensor:
        """The mean of each example's probabilities over its presentations: what the models of all steps said together.

        It is what cleanlab calls `pred_probs`, though of models that trained on the example: look early, before they
        have learned wrong labels by heart.

        Args:
            allow_skipped: see `compute`.

        Returns:
            [N, C] float32 on the device of the means, each row with sum 1; NaN for an example never presented.

        Raises:
            ValueError: see `compute`; or this tracker was made without `mean_probabilities`.
            RuntimeError: nothing was recorded.

        >>> tracker = DifficultyTracker(2, mean_probabilities=True)
        >>> tracker.update(torch.tensor([1]), torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
        >>> tracker.mean_probabilities()
        tensor([[   nan,    nan],
                [0.5000, 0.5000]])
        """
        with self._lock:
            return self._means_of_probabilities(allow_skipped).average()

    def suggested(self, *, allow_skipped: bool = False) -> Tensor:
        """The label that the training suggests for each example: the class of its largest mean probability.

        Args:
            allow_skipped: see `compute`.

        Returns:
            [N] int64 on the device of the means; the lowest class on a tie, and -1 for an example never presented.

        Raises:
            ValueError, RuntimeError: see `mean_probabilities`.

        >>> tracker = DifficultyTracker(2, mean_probabilities=True)
        >>> tracker.update(torch.tensor([1]), torch.tensor([[0.0, 9.0]]), torch.tensor([0]))
        >>> tracker.suggested()
        tensor([-1,  1])
        """
        with self._lock:
            return self._means_of_probabilities(allow_skipped).suggested()[0]

    def _means_of_probabilities(self, allow_skipped: bool) -> MeanProbabilities:
        if self._wanted.probabilities is None:
            raise ValueError(
                "this tracker keeps no mean probabilities; make it with DifficultyTracker(..., mean_probabilities=True)"
            )
        if self._state.probabilities is None:
            raise RuntimeError("nothing was recorded; call tracker.update(index, logits, labels) in each step")
        if not allow_skipped:
            self._raise_if_skipped(())
        means = self._readable().probabilities
        assert means is not None
        return means

    def source(self, score: str, *, allow_skipped: bool = False) -> ScoreSource:
        """A live view of one score for a `PruneSampler`, which plans every epoch with what is known by then.

        Args:
            score: one of this tracker's; turned so that high = hard.
            allow_skipped: see `compute`.

        Raises:
            ValueError: a score that this tracker does not record.

        >>> tracker = DifficultyTracker(4, scores=("loss",))
        >>> tracker.source("loss")
        ScoreSource('loss', live)
        """
        if score not in self.scores:
            raise ValueError(f"source: got {score!r}, expected one of this tracker's scores, {self.scores}")
        return ScoreSource(self, score, allow_skipped)

    def finish(
        self,
        *,
        architecture: str,
        seed: int,
        labels: Any = None,
        seen: Any = None,
        probabilities: Any = None,
        predictions: Any = None,
        mean_probabilities: bool = False,
        dataset: Any = None,
        ids: Any = None,
        class_names: Iterable[str] | None = None,
        dataset_fingerprint: str | None = None,
        allow_skipped: bool = False,
        since: Tensor | None = None,
        late: Tensor | None = None,
        **metadata: Any,
    ) -> Run:
        """Ends the run: its scores and what is known about it, ready to be saved.

        Args:
            architecture, seed: what was trained.
            labels: [N]; default: the labels shown, if every example was presented.
            seen: [N] bool, whether the run trained on the example; default: what was presented, on all if all was.
            probabilities: [N, C], the softmax of the trained model in evaluation mode, for all examples; with them (or
                with `predictions` [N] alone) runs tell memorization, agreement and the accuracy over models.
            predictions: [N] int64, the classes that the trained model predicts.
            mean_probabilities: whether the run keeps those of this tracker, [N, C]; the labels that they suggest it
                keeps anyhow.
            dataset: what was trained on, the `IndexedDataset` or what it wraps. Its ids, labels, class names and
                fingerprint are kept, as far as they are known, where they are not given here. Of a dataset that
                augments at random the fingerprint is not known. Labels are compared with those shown: all of them
                where the dataset knows them or every example is read for them, else those of the examples that the
                fingerprint reads.
            ids: [N] what names each example for good.
            class_names: the name of each class.
            dataset_fingerprint: from `dp.dataset_fingerprint`, so that runs of different data are not mixed.
            allow_skipped: see `compute`.
            since: what `snapshot` returned: the run has the scores of what came after it, those of them that are known
                of a part of training; see `compute`. What was seen, labels, and means of probabilities are of the whole
                training all the same.
            late: what `snapshot` returned when the first half of the training was over: beside the scores of the whole
                the run has `late_aum`, the aum of what came afterwards, NaN for an example without any of it.
            metadata: anything else that JSON can hold, such as epochs=10.

        Raises:
            RuntimeError: nothing was recorded.
            TypeError, ValueError: see `compute`; or `late` is no snapshot of this tracker, or given with `since` or
                without aum.
            ValueError: nothing was presented `since`; or labels other than those shown, an example said to be seen that
                was never presented, or mean probabilities that were not recorded; or a dataset of another length.

        >>> tracker = DifficultyTracker(1, scores=("el2n",))
        >>> tracker.update(torch.tensor([0]), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        >>> tracker.finish(architecture="mlp", seed=0, epochs=1).metadata["epochs"]
        1
        """
        if self._state.is_empty:
            raise RuntimeError("finish: nothing was recorded; call tracker.update(index, logits, labels) in each step")
        if late is not None:
            check_late(self.scores, since)
        given: dict[str, Any] = {
            "labels": labels,
            "ids": ids,
            "class_names": class_names,
            "dataset_fingerprint": dataset_fingerprint,
        }
        read = None
        if dataset is not None:
            if self._wanted.grows and len(dataset) > self.num_examples:
                self._least = len(dataset)
            known, read = facts_of_dataset(dataset, self.num_examples)
            given = {name: known.get(name) if value is None else value for name, value in given.items()}
        if self.partition is not None and given["ids"] is None:
            given["ids"] = self.partition.ids  # so that the runs of all processes can be put together
        with self._lock:  # no step of another thread in between
            scores = self.compute(allow_skipped=allow_skipped, since=since)
            whole = self._readable()
            state = whole if since is None else part_since(whole, since)
            if not bool((state.counts()[0] > 0).any()) and since is not None:
                raise ValueError("since: nothing was presented after the snapshot, so that this part has no scores")
            warn_of_too_little(state, scores)
            if late is not None:
                scores |= late_scores(whole, late)
            if read is not None and labels is None:
                check_read(whole, read)
            labels, seen = labels_of_run(whole, given.pop("labels")), seen_by_run(whole, seen)
            means: dict[str, Any] = {**given, **means_of_run(state, whole=mean_probabilities)}
            windows = {"since": since, "late": late}
            facts = {
                "presentations": self.presentations if since is None else int(state.counts()[0].double().sum()),
                "skipped": self.skipped,
                "options": options_of_scores(state)
                | {name: presentations_before(whole, mark) for name, mark in windows.items() if mark is not None},
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                **metadata,
            }
        return Run(
            {name: score.cpu().numpy() for name, score in scores.items()},
            architecture=architecture,
            seed=seed,
            labels=labels.cpu().numpy() if isinstance(labels, Tensor) else labels,
            seen=seen,
            probabilities=probabilities,
            predictions=predictions,
            **means,
            **facts,
        )

    @property
    def presentations(self) -> int:
        """Presentations recorded, over all examples (waits for the device)."""
        state = self._state
        if state.records is not None and self._wanted.names(needs=("loss", "logits")):
            return int(state.records.count.double().sum())
        return max((int(counts.double().sum()) for counts in state.counts()), default=0)

    @property
    def skipped(self) -> dict[str, int]:
        """Presentations that were left out, by reason (waits for the device).

        `watch` and `update` count apart: an example that both leave out counts twice.
        """
        return dict(zip(SKIPPED, self._state.total_skipped().tolist(), strict=True))

    def _raise_if_skipped(self, names: tuple[str, ...]) -> None:
        reported = self.skipped  # read before anything is raised: every process of a group has to take part
        other_passes = self._state.total_other_passes()
        if other_passes and "vog_loss" in names:
            raise ValueError(
                f"{other_passes} further backward passes went through watched inputs, and vog_loss does "
                "not know which was the training step's own. Put a pass that is not (a gradient penalty, a saliency "
                "map, another tracker's update(inputs=)) into `with tracker.paused():`, add up a loss of several parts "
                "before one backward(), and score again; or take the first pass of each step: allow_skipped=True"
            )
        skipped = {reason: count for reason, count in reported.items() if count}
        if skipped:
            listed = ", ".join(f"{count} x {reason}" for reason, count in skipped.items())
            raise ValueError(
                f"presentations were left out: {listed}. A bad index or label means that the batch is not what the "
                "tracker was told, and so does a changed label: the example was presented with another one before, as "
                "where a validation step shares the tracker, or the data shuffle themselves. Values that are not "
                "finite mean that losses or gradients overflowed (lower the learning rate, or pass scaler= to watch), "
                "or that the class of a label is masked by -inf. To take the scores of the others: allow_skipped=True. "
                "But if wrong labels came first, as from a validation step before the training, the right ones were "
                "left out: call update in the training step alone, tracker.reset(), and score again"
            )

    # State

    def state_dict(self) -> dict[str, Any]:
        """Everything recorded, for a checkpoint: tensors and plain values.

        As with modules, the tensors are the live ones, and training goes on in them: save or copy the result.
        """
        with self._lock:
            own = {} if self.partition is None else {"partition": saved_partition(self.partition)}
            return {**self._readable().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replaces what was recorded; the tensors are copied: to the device of this tracker, if it was given one.

        Raises:
            ValueError: no such state, a damaged or newer one, or one of another number of examples or classes, of other
                scores or options. What was recorded stays as it was then.
        """
        check_partition(state, self.partition)
        with self._lock:
            self._state = TrackerState.from_state_dict(state, self._wanted)
            if self._wanted.grows:
                self._wanted, self._least = self._state.wanted, self._state.wanted.num_examples
        if self._wanted.group is not None:  # which may go on with the short last batch of an epoch
            group = self._wanted.group
            group.largest_batch = max(group.largest_batch, state.get("largest_batch", 0))

    def load_parts(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Replaces what was recorded by what all processes of an earlier training saved, however many they were.

        Every process calls it, and gives the states of all; it takes the examples that are its own now. One state after
        the other is held in memory: `tracker.load_parts(torch.load(path, mmap=True) for path in paths)`.

        Raises:
            ValueError: see `load_state_dict`; or an example that is in no state, or in several; or a tracker that was
                made without `partition`. What was recorded stays as it was then.
            RuntimeError: another process refused them.

        >>> parts = [DifficultyTracker(None, ("loss",), partition=Partition([i])) for i in (7, 8)]
        >>> for number, part in enumerate(parts):
        ...     part.update(torch.tensor([0]), loss=torch.tensor([float(number)]))
        >>> whole = DifficultyTracker(None, ("loss",), partition=Partition([8, 7]))
        >>> whole.load_parts(part.state_dict() for part in parts)
        >>> whole.compute()["loss"]
        tensor([1., 0.])
        """
        partition = self.partition
        if partition is None:
            raise ValueError("load_parts: this tracker has no partition; load the one state with load_state_dict")
        loaded = partition.together(lambda: put_together(states, self._wanted, partition))
        with self._lock:
            self._state = loaded

    def merge(self, other: DifficultyTracker) -> None:
        """Adds what `other` recorded, as if its presentations had come after this tracker's.

        Raises:
            ValueError: the other tracker has another number of examples or classes, other scores or options; or both
                have presented an example to `tdds`, `dyn_unc` or `dual`, whose windows cannot be put together
                afterwards.
        """
        if other is self:
            raise ValueError("merge: got the tracker itself, expected another one")
        if not isinstance(other, DifficultyTracker):
            raise TypeError(f"merge: got {type(other).__name__}, expected a DifficultyTracker")
        theirs, own = other._wanted.definition, self._wanted.definition
        size = other.num_examples
        if self._wanted.grows or (other._wanted.grows and size < self.num_examples):
            size = self.num_examples
        for what, got, expected in (
            ("(examples, scores)", (size, other.scores), (self.num_examples, self.scores)),
            ("process_group", other.process_group, self.process_group),
            ("partition", other.partition, self.partition),
            ("gradient options", other.gradient.definition, self.gradient.definition),
            ("temporal options", other.temporal, self.temporal),
            *((name, theirs[name], own[name]) for name in ("target", "right_from", "half_life", "mean_probabilities")),
        ):
            if got != expected:
                raise ValueError(f"merge: got a tracker with {what} {got}, expected {expected}")
        first, second = sorted((self, other), key=id)  # always in the same order, or two merges would block each other
        with first._lock, second._lock:
            if self._wanted.grows:
                self._least = max(self._least, other.num_examples)
                self._make_room(self._least)
            same = other.capacity == self.capacity
            self._state.merge(other._state if same else other._state.resized(self.capacity))

    def _prepare(self, batch: Tensor, score: str | None = None, columns: int | None = None) -> None:
        """Checks that logits or values, or the inputs of a gradient score, suit the state, and makes what it lacks.

        `columns` are those of the logits, None for values.

        A compiled training step must not make it: what a graph makes is its own, and Python values that are new
        after the first step mean that the second is compiled again. There the tracer does, before any is read.
        """
        if torch.compiler.is_compiling():
            from .compiled import make_ready

            make_ready(self._state, batch, score, columns)
        else:
            self._state.make_ready(batch.device, batch.shape, score, columns)


def _of_partition(partition: Any, num_examples: Any, process_group: Any) -> int:
    if not isinstance(partition, Partition):
        raise TypeError(f"partition: got {type(partition).__name__}, expected dp.Partition(ids, group) or its split")
    if process_group is not None:
        raise ValueError("partition: got it beside process_group; every process has either all records, or its own")
    partition.together(lambda: _check_share(partition, num_examples))
    return len(partition)


def _check_share(partition: Partition, num_examples: Any) -> None:
    if num_examples not in (None, len(partition)):
        raise ValueError(
            f"num_examples: got {num_examples}, expected None or {len(partition)}, the examples of this process"
        )


def _number_of_examples(value: Any) -> int:
    try:
        return whole_number(value, "num_examples", least=1)
    except TypeError as error:
        raise TypeError(f"num_examples: got {value!r}, expected a whole number such as len(dataset)") from error
    except ValueError as error:
        raise ValueError(f"num_examples: got {value}, expected at least 1; is the dataset empty?") from error


def _probabilities(value: Any, target: str) -> ProbabilityOptions | None:
    if not isinstance(value, bool | ProbabilityOptions):
        raise TypeError(
            f"mean_probabilities: got {type(value).__name__}, expected True, False or dp.ProbabilityOptions(...)"
        )
    if value is False:
        return None
    if target != "classes":
        raise ValueError(
            f"mean_probabilities: got it with target={target!r}, whose labels are not classes of one example"
        )
    return ProbabilityOptions() if value is True else value


def _check_half_life(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= 1e6:
        raise ValueError(
            f"half_life: got {value!r}, expected a number of presentations above 0, at most 1e6; of a loss that never "
            "fades the mean is the score 'loss'"
        )


def _refuse_beside(values: Mapping[str, Tensor], **others: Tensor | None) -> None:
    beside = [name for name, given in others.items() if given is not None]
    if beside:
        raise ValueError(
            f"update: got {', '.join(f'{name}=' for name in values)} beside {', '.join(beside)}; it takes the place of "
            "logits and labels"
        )


def _device(value: Any) -> torch.device | None:
    try:
        return None if value is None else torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: got {value!r}, expected a device such as 'cpu' or 'cuda:0'") from error
