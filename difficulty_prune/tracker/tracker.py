"""The tracker: sees every training step, keeps a few numbers per example, and hands out scores."""

from __future__ import annotations

import operator
import time
import warnings
from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

from .. import ops
from ..runs.run_set import Run
from ..scores.catalogue import SCORES, check_tracked
from ..scores.class_normalize import class_normalize
from ..scores.gradients import check_depends, input_gradient
from ..scores.grand.grand import grand
from ..scores.logits import logit_scores
from ..scores.temporal import TEMPORAL, TemporalOptions
from .group import Group
from .moments import GradientMoments
from .options import GradientOptions
from .records import merge_records_
from .source import ScoreSource
from .watch import GradientScaler, WatchInputs, loss_gradient_scale
from .windows import TemporalRecords

DEFAULT_SCORES: Final = ("el2n", "aum", "forgetting")

_IN_EACH_STEP: Final = "in each step, give that x to the model and run backward, or use score_checkpoint"
_HOW_GRADIENTS_ARRIVE: Final = {
    "vog": f"call tracker.update(..., inputs=x) {_IN_EACH_STEP}",
    "vog_probability": f"call tracker.update(..., inputs=x) {_IN_EACH_STEP}",
    "vog_loss": f"call x = tracker.watch(x, index) {_IN_EACH_STEP}",
    "grand": "call dp.score_checkpoint(model, loader, tracker, scores=('grand',)) at the epochs of your choice",
}


class DifficultyTracker:
    """Scores examples while a model trains on them.

    Call `update` once per training step, before the backward pass. Logit scores cost one small kernel and 64
    bytes per example; gradient scores 8 bytes per pixel and example. Nothing is read back from the device before
    `compute` or `finish`.

    A step with the tracker in it can be compiled with `torch.compile(fullgraph=True)`; bad values are then counted,
    as on an accelerator. It can also be captured in a CUDA graph, after a first step, which makes the state, and
    with the index on the device.

    Args:
        num_examples: N, the length of the whole dataset.
        scores: names from `score_names()`.
        device: where the state lives. Default: where the first logits or inputs are.
        num_classes: expected columns of the logits; default: those of the first batch.
        gradient: options of the gradient scores.
        temporal: options of `tdds` and `dyn_unc`, whose state per example `TemporalOptions.bytes_per_example` tells.
        process_group: of `torch.distributed`, whose processes each see a share of every batch. `update` then exchanges
            the statistics of the step (the logits, for `tdds` and `dyn_unc`), so that each process holds the records of
            all; gradients stay where they are seen, and are merged when they are asked for. So every process calls
            `update` in every step, and, where gradients are scored, `compute`, `finish`, `state_dict`, `skipped`
            and `presentations` too; all get the same. One saved state serves every process. No batch may be larger
            than the largest first one.

    Raises:
        TypeError, ValueError: an unknown score, no score, or a count that is no positive whole number.

    >>> tracker = DifficultyTracker(4, scores=("el2n", "accuracy"))
    >>> tracker.update(torch.tensor([0, 2]), torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]))
    >>> tracker.compute()["accuracy"]
    tensor([1., nan, 0., nan])
    """

    def __init__(
        self,
        num_examples: int,
        scores: Iterable[str] = DEFAULT_SCORES,
        *,
        device: torch.device | str | None = None,
        num_classes: int | None = None,
        gradient: GradientOptions | None = None,
        temporal: TemporalOptions | None = None,
        process_group: Any = None,
    ) -> None:
        if isinstance(num_examples, bool) or not hasattr(num_examples, "__index__"):
            raise TypeError(f"num_examples: got {num_examples!r}, expected a whole number such as len(dataset)")
        self.num_examples = operator.index(num_examples)
        if self.num_examples < 1:
            raise ValueError(f"num_examples: got {num_examples}, expected at least 1; is the dataset empty?")
        self.scores = check_tracked(scores)
        self.gradient = gradient if gradient is not None else GradientOptions()
        if not isinstance(self.gradient, GradientOptions):
            raise TypeError(f"gradient: got {type(gradient).__name__}, expected dp.GradientOptions(...)")
        self.temporal = temporal if temporal is not None else TemporalOptions()
        if not isinstance(self.temporal, TemporalOptions):
            raise TypeError(f"temporal: got {type(temporal).__name__}, expected dp.TemporalOptions(...)")
        self._gradient_scores = tuple(name for name in self.scores if SCORES[name].needs == "input gradients")
        self._extra_backward_scores = tuple(name for name in self._gradient_scores if name != "vog_loss")
        self._record_scores = tuple(name for name in self.scores if SCORES[name].needs in ("loss", "logits"))
        self._scores_gradients = bool(self._gradient_scores) or "grand" in self.scores
        self._temporal_scores = tuple(name for name in self.scores if name in TEMPORAL)
        self._expected_classes = num_classes
        self._group = None if process_group is None else Group(process_group)
        self._requested_device = None if device is None else torch.device(device)
        self.reset()

    @property
    def process_group(self) -> Any:
        """The group of processes that see the batches together; None for this one alone."""
        return None if self._group is None else self._group.process_group

    @property
    def _local(self) -> str:
        """Where gradients are counted that were left out: apart from logits, if these are counted by every process."""
        return "update" if self._group is None else "watch"

    def reset(self) -> None:
        """Forgets everything recorded."""
        self._device = self._requested_device
        self._num_classes = self._expected_classes
        self._table: Tensor | None = None
        self._temporal: TemporalRecords | None = None
        # What `update` and what the backward pass left out, apart because each may be a graph of its own; and what is
        # not reported: overflows under a scaler, and what another kernel of the same step has counted already.
        self._skipped: dict[str, Tensor] = {}
        self._moments: dict[str, GradientMoments] = {}
        self._anchor: Tensor | None = None
        self._watch_phase = 0  # steps since one was recorded, modulo `every`
        self._update_phase = 0
        self._in_extra_backward = False
        self._labels_are_predictions = False

    # Recording

    def watch(
        self,
        inputs: Tensor,
        index: Tensor,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
        scaler: GradientScaler | None = None,
    ) -> Tensor:
        """Records `vog_loss` from the training step's own backward pass.

        Put the result into the model in place of the inputs. What arrives is the gradient of the reduced, weighted,
        perhaps AMP-scaled loss; that scale is undone here, so that neither batch size nor weights change the
        score. The gradient is not kept in `.grad`. Under `torch.no_grad()` the inputs come back as they are. The
        model's first layer must not work in place, and each graph is meant for one backward pass.

        Args:
            inputs: [B, ...] floating point.
            index: [B] int64, positions in the dataset, on the CPU or on the device of the inputs.
            weight: [B], the factor of each example's loss. An example of weight 0 shows no gradient and is passed
                over.
            reduction: "mean" when the loss is averaged over the batch, "sum" when it is summed.
            scaler: the `torch.amp.GradScaler` in use; gradients that overflowed are left out, as it leaves them out.
                `torch.compile` cannot trace a scaler: compile what comes after `watch`.

        Returns:
            A tensor equal to the inputs, through which the gradient will pass.

        Raises:
            TypeError, ValueError, IndexError: wrong type, dtype, shape, device or index, or no "vog_loss" among the
                scores.

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
        index = self._index(index, inputs)
        if not torch.is_grad_enabled():
            return inputs
        phase, self._watch_phase = self._watch_phase, (self._watch_phase + 1) % self.gradient.every
        if phase:
            return inputs
        scale = loss_gradient_scale(inputs, weight, reduction, scaler)
        self._prepare(inputs, "vog_loss")
        moments = self._moments["vog_loss"]
        # A scaler provokes overflows and then leaves the step out: so do we, and that is no fault to report.
        skipped = self._skipped["watch" if scaler is None else "unreported"]
        state = moments.count, moments.mean, moments.m2, moments.pixels, skipped
        watched: Tensor = WatchInputs.apply(inputs, self._anchor, self._record_watched, index, scale, *state)
        return watched

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
    ) -> None:
        """What the backward pass does with the gradient of watched inputs; `watch` has checked the rest."""
        if self._in_extra_backward:  # which comes here when update is given the inputs from before `watch`
            return
        gradients = self.gradient.with_channels(gradients)
        if mean.device == gradients.device:
            torch.ops.difficulty_prune.record_gradients_(count, mean, m2, index, gradients, scale, pixels, skipped)
        else:
            self._moments["vog_loss"].record(index, gradients, scale, skipped)

    def update(
        self,
        index: Tensor,
        logits: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        inputs: Tensor | None = None,
        loss: Tensor | None = None,
    ) -> None:
        """Records one presentation of each example in the batch, without waiting for the device.

        An example that occurs twice counts twice, in batch order. On an accelerator a bad index and a row of logits
        that is not finite are left out, counted, and reported by the next `compute` or `finish`.

        Args:
            index: [B] int64, positions in the dataset, on the CPU or on the device of the logits.
            logits: [B, C] float32, bfloat16 or float16, before the softmax.
            labels: [B] int64.
            inputs: [B, ...] that led to the logits and required gradients; for `vog` and `vog_probability`, at the
                price of one backward pass to the input each. Call before the training step's own backward pass. After
                the first step they may be left out, where no gradient is to be recorded.
            loss: [B], instead of logits and labels, for tasks with any other loss; only for the score "loss".

        Raises:
            TypeError, ValueError, IndexError: wrong type, dtype, shape, device, label or index, or an argument that
                the scores of this tracker need is missing.
        """
        if loss is not None:
            self._record_losses(index, loss, logits)
        elif logits is None or labels is None:
            raise TypeError("update: expected logits and labels (or loss=, for the score 'loss' alone)")
        else:
            self._check_inputs(inputs, logits)
            self.record_logits(index, logits, labels)
            self._record_input_gradients(index, logits, labels, inputs)

    def record_logits(self, index: Tensor, logits: Tensor, labels: Tensor, *, predicted: bool = False) -> None:
        """The logit scores' share of `update`; `predicted` says that the labels are what the model predicts."""
        self._labels_are_predictions |= predicted
        ops.check_logits(logits)
        index = self._index(index, logits)
        ops.check_labels(labels, logits)
        self._prepare(logits)
        if self._group is not None:
            self._record_everyones_logits(self._group, index, logits.detach(), labels)
            return
        if self._table is not None:
            torch.ops.difficulty_prune.record_stats_(
                self._table, index, logits.detach(), labels, self._skipped["update"]
            )
        self._record_windows(index, logits.detach(), labels)

    def _record_everyones_logits(self, group: Group, index: Tensor, logits: Tensor, labels: Tensor) -> None:
        """A row of statistics is shorter than one of logits, and all that the records need."""
        stats = torch.ops.difficulty_prune.softmax_stats(logits, labels)
        more = () if self._temporal is None else (logits,)
        index, labels, stats, *rest = group.gather_rows(index, labels, stats, *more)
        if self._table is not None:
            torch.ops.difficulty_prune.record_given_stats_(
                self._table, index, stats, labels, logits.shape[1], self._skipped["update"]
            )
        for everyones_logits in rest:
            self._record_windows(index, everyones_logits, labels)

    def _record_windows(self, index: Tensor, logits: Tensor, labels: Tensor) -> None:
        if self._temporal is not None:
            torch.ops.difficulty_prune.record_temporal_(
                self._temporal.table,
                index,
                logits,
                labels,
                self.temporal.window,
                self.temporal.decay,
                self._skipped["unreported"],
            )

    def _check_inputs(self, inputs: Tensor | None, logits: Tensor) -> None:
        names = self._extra_backward_scores
        if inputs is None and names and not any(name in self._moments for name in names):
            raise ValueError(f"update: the scores {', '.join(names)} need inputs=, the tensor given to the model")
        if inputs is not None and names:
            check_depends(inputs, logits)

    def _record_input_gradients(self, index: Tensor, logits: Tensor, labels: Tensor, inputs: Tensor | None) -> None:
        names = self._extra_backward_scores
        if inputs is None or not names:
            return
        phase, self._update_phase = self._update_phase, (self._update_phase + 1) % self.gradient.every
        if not phase:
            for name in names:
                self.record_input_gradient(name, index, logits, labels, inputs)

    def record_input_gradient(self, score: str, index: Tensor, logits: Tensor, labels: Tensor, inputs: Tensor) -> None:
        """One extra backward pass to the inputs for one gradient score; `update` and `score_checkpoint` call it."""
        self._in_extra_backward = True
        try:
            gradient = input_gradient(score, logits, labels, inputs)
        finally:
            self._in_extra_backward = False
        index = self._index(index, inputs)
        self._prepare(inputs, score)
        self._moments[score].record(index, self.gradient.with_channels(gradient), None, self._skipped[self._local])

    def record_grand(self, index: Tensor, model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
        """One forward and one backward pass of the model for `grand`; `score_checkpoint` calls it.

        Args:
            index: [B] int64, on the CPU or on the device of the inputs.
            model: in evaluation mode; maps inputs [B, ...] to logits [B, C]; see `dp.scores.grand`.
            inputs, labels: [B, ...] and [B] int64.
        """
        if "grand" not in self.scores:
            raise ValueError(f"record_grand: 'grand' is not among the scores of this tracker, {self.scores}")
        index = self._index(index, inputs)
        norms = grand(model, inputs, labels)[:, None]
        self._prepare(norms, "grand")
        self._moments["grand"].record(index, norms[:, None], None, self._skipped[self._local])

    def _record_losses(self, index: Tensor, loss: Tensor, logits: Tensor | None) -> None:
        if logits is not None or self.scores != ("loss",):
            raise ValueError(
                f"update: loss= serves the score 'loss' alone, without logits; this tracker has {self.scores}"
            )
        if not isinstance(loss, Tensor) or not loss.dtype.is_floating_point:
            raise TypeError(
                f"loss: got {getattr(loss, 'dtype', type(loss).__name__)}, expected a floating-point tensor"
            )
        if loss.dim() != 1:
            raise ValueError(
                f"loss: got shape {tuple(loss.shape)}, expected [batch]: one loss per example, not reduced"
            )
        index = self._index(index, loss)
        self._prepare(loss)
        loss = loss.detach()
        if self._group is not None:
            index, loss = self._group.gather_rows(index, loss)
        if self._table is not None:
            ops.record_losses_(self._table, index, loss, self._skipped["update"], padding=self._group is not None)

    # Results

    def compute(self, *, class_normalized: bool = False, allow_skipped: bool = False) -> dict[str, Tensor]:
        """The scores so far.

        Args:
            class_normalized: give z-scores within the true class.
            allow_skipped: accept that presentations were left out.

        Returns:
            For each score [N] float32 on the state's device; NaN for an example that was never presented.

        Raises:
            ValueError: presentations were left out (a bad index on an accelerator; logits or gradients that are not
                finite), and `allow_skipped` is False.
            RuntimeError: a gradient score was asked for, but no gradient arrived.
        """
        scores = self._compute(self.scores, allow_skipped)
        if class_normalized:
            labels = self._labels()
            unknown = self.num_examples if labels is None else int((labels < 0).sum())
            if labels is None or unknown:
                raise ValueError(
                    f"class_normalized: the class of {unknown} examples is not known, since no logits and labels were "
                    "shown for them; take dp.class_normalize(score, labels) with the labels of the dataset"
                )
            scores = {name: class_normalize(score, labels.to(score.device)) for name, score in scores.items()}
        return scores

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
        dataset_fingerprint: str | None = None,
        allow_skipped: bool = False,
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
            dataset_fingerprint: from `dp.dataset_fingerprint`, so that runs of different data are not mixed.
            allow_skipped: see `compute`.
            metadata: anything else that JSON can hold, such as epochs=10.

        Raises:
            RuntimeError: nothing was recorded.
            ValueError: see `compute`; or labels other than those shown, or an example said to be seen that was never
                presented.

        >>> tracker = DifficultyTracker(1, scores=("el2n",))
        >>> tracker.update(torch.tensor([0]), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        >>> tracker.finish(architecture="mlp", seed=0, epochs=1).metadata["epochs"]
        1
        """
        if self._table is None and not self._moments:
            raise RuntimeError("finish: nothing was recorded; call tracker.update(index, logits, labels) in each step")
        scores = self.compute(allow_skipped=allow_skipped)
        self._warn_of_missing_windows(scores)
        self._warn_of_single_gradients()
        presented = self._presented()
        labels = self._checked_labels(labels)
        if seen is None:
            seen = None if bool(presented.all()) else presented
        else:
            _check_seen(seen, presented)
        facts = {
            "presentations": self.presentations,
            "skipped": self.skipped,
            "options": self._options(),
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
            dataset_fingerprint=dataset_fingerprint,
            **facts,
        )

    def _options(self) -> dict[str, Any]:
        """The options that the scores of this tracker depend on."""
        options: dict[str, Any] = {"gradient": self.gradient.definition} if self._gradient_scores else {}
        if self._temporal_scores:
            options["temporal"] = self.temporal.definition
        if self._labels_are_predictions:
            options["label"] = "predicted"
        return options

    def _presented(self) -> Tensor:
        """Which examples were presented at all, [N] bool on the CPU."""
        counts = [moments.counts().cpu() > 0 for moments in self._moments.values()]
        if self._table is not None:
            counts.append(self._table[:, ops.FIELD["count"]].cpu() > 0)
        return torch.stack(counts).any(0)

    def _checked_labels(self, labels: Any) -> Any:
        """The labels of the run: those given, which must be those shown, or those shown to all examples."""
        shown = self._labels()
        if labels is None or shown is None:
            return labels if shown is None or bool((shown < 0).any()) else shown
        given, shown = torch.as_tensor(labels).cpu(), shown.cpu()
        differing = int(((given != shown) & (shown >= 0)).sum()) if given.shape == shown.shape else 0
        if differing:
            raise ValueError(
                f"labels: {differing} of {self.num_examples} examples were shown with other labels than those given "
                "here; give the labels that were trained on, in the order of the dataset, or leave them out"
            )
        return labels

    def _warn_of_single_gradients(self) -> None:
        for name in self._gradient_scores:
            if name in self._moments and int(self._moments[name].counts().max()) == 1:
                warnings.warn(
                    f"{name}: no example's gradient was seen more than once, so that all deviations over time are 0; "
                    "show more epochs or checkpoints",
                    stacklevel=3,
                )

    def _warn_of_missing_windows(self, scores: dict[str, Tensor]) -> None:
        for name in self._temporal_scores:
            if bool(scores[name].isnan().all()):
                warnings.warn(
                    f"{name}: no example was presented {self.temporal.window} times, as often as a window asks for, so "
                    f"that none has a score; choose a smaller one with temporal=dp.TemporalOptions(window=...)",
                    stacklevel=3,
                )

    @property
    def presentations(self) -> int:
        """Presentations recorded, over all examples (waits for the device)."""
        if self._table is not None:
            return int(self._table[:, ops.FIELD["count"]].double().sum())
        return max((int(moments.counts().sum()) for moments in self._moments.values()), default=0)

    @property
    def skipped(self) -> dict[str, int]:
        """Presentations that were left out, by reason (waits for the device).

        `watch` and `update` count apart: an example that both leave out counts twice.
        """
        counts = self._all_skipped()
        return dict(zip(ops.SKIPPED, [0] * len(ops.SKIPPED) if counts is None else counts.tolist(), strict=True))

    def _all_skipped(self) -> Tensor | None:
        for moments in self._moments.values():
            moments.settle()
        if not self._skipped:
            return None
        of_gradients = self._skipped["watch"]
        if self._group is not None and self._scores_gradients:
            of_gradients = self._group.sum(of_gradients)
        return self._skipped["update"] + of_gradients

    def _raise_if_skipped(self) -> None:
        skipped = {reason: count for reason, count in self.skipped.items() if count}
        if skipped:
            listed = ", ".join(f"{count} x {reason}" for reason, count in skipped.items())
            raise ValueError(
                f"presentations were left out: {listed}. A bad index or label means that the batch is not what the "
                "tracker was told; values that are not finite mean that logits or gradients overflowed (lower the "
                "learning rate, or pass scaler= to watch). To take the scores of the others: allow_skipped=True"
            )

    def _compute(self, names: Iterable[str], allow_skipped: bool) -> dict[str, Tensor]:
        if not allow_skipped:
            self._raise_if_skipped()
        return self._recorded_scores(tuple(names))

    def _recorded_scores(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        table = self._table if self._table is not None else ops.new_table(self.num_examples, self._requested_device)
        scores = logit_scores(table, [name for name in self._record_scores if name in names])
        if self._temporal is not None:
            scores |= self._temporal.scores()
        skipped = any(self.skipped.values())
        for name in names:
            if name in scores:
                continue
            moments = self._moments.get(name)
            if moments is not None and (skipped or bool(moments.counts().any())):
                scores[name] = moments.average() if name == "grand" else moments.vog()
            elif name in _HOW_GRADIENTS_ARRIVE and (self._table is not None or self._moments):
                raise RuntimeError(f"{name}: no gradient arrived; {_HOW_GRADIENTS_ARRIVE[name]}")
            else:
                scores[name] = torch.full((self.num_examples,), torch.nan, device=self._requested_device)
        return {name: scores[name] for name in names}

    def _labels(self) -> Tensor | None:
        """The label of each example, -1 where none was shown; None if no logits were, or not with true labels."""
        if self._table is None or self._labels_are_predictions:
            return None
        shown = self._table[:, ops.FIELD["p_max"]] > 0  # which a loss alone leaves at 0
        return torch.where(shown, self._table[:, ops.FIELD["label"]], -1).long()

    # State

    def state_dict(self) -> dict[str, Any]:
        """Everything recorded, for a checkpoint: tensors and plain values.

        As with modules, the tensors are the live ones, and training goes on in them: save or copy the result.
        """
        return {
            "num_examples": self.num_examples,
            "scores": list(self.scores),
            "num_classes": self._num_classes,
            "gradient": self.gradient.definition,
            "temporal": self.temporal.definition,
            "steps": [self._watch_phase, self._update_phase],
            "labels_are_predictions": self._labels_are_predictions,
            "table": self._table,
            "temporal_records": None if self._temporal is None else self._temporal.state_dict(),
            "skipped": self._all_skipped(),
            "moments": {name: moments.state_dict() for name, moments in self._moments.items()},
            "largest_batch": 0 if self._group is None else self._group.largest_batch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replaces what was recorded; the tensors are copied: to the device of this tracker, if it was given one.

        Raises:
            ValueError: the state is of another number of examples or classes, of other scores or options.
        """
        own = {
            "num_examples": self.num_examples,
            "scores": list(self.scores),
            "gradient": self.gradient.definition,
            "temporal": self.temporal.definition,
        }
        if self._expected_classes is not None:
            own["num_classes"] = self._expected_classes
        for key, value in own.items():
            if state.get(key) != value:
                raise ValueError(f"load_state_dict: the state has {key} {state.get(key)!r}, this tracker {value!r}")
        self.reset()
        state = _on_device(state, self._requested_device)
        self._num_classes = state["num_classes"]
        self._labels_are_predictions = state["labels_are_predictions"]
        if self._group is not None:  # which may go on with the short last batch of an epoch
            self._group.largest_batch = max(self._group.largest_batch, state.get("largest_batch", 0))
        self._watch_phase, self._update_phase = state["steps"]
        self._table = None if state["table"] is None else state["table"].clone()
        if state["temporal_records"] is not None:
            self._temporal = TemporalRecords.from_state_dict(state["temporal_records"], self.temporal)
        if state["skipped"] is not None:
            self._start_on(state["skipped"].device)
            self._skipped["update"].copy_(state["skipped"])
        self._moments = {
            name: GradientMoments.from_state_dict(s, self.gradient, self._group) for name, s in state["moments"].items()
        }

    def merge(self, other: DifficultyTracker) -> None:
        """Adds what `other` recorded, as if its presentations had come after this tracker's.

        Raises:
            ValueError: the other tracker has another number of examples or classes, other scores or options; or both
                have presented an example to `tdds` or `dyn_unc`, whose windows cannot be put together afterwards.
        """
        if other is self:
            raise ValueError("merge: got the tracker itself, expected another one")
        own, got = (self.num_examples, self.scores), (other.num_examples, other.scores)
        if own != got:
            raise ValueError(f"merge: got a tracker of (examples, scores) {got}, expected {own}")
        if self.process_group is not other.process_group:
            raise ValueError(
                f"merge: got a tracker with process_group {other.process_group}, expected {self.process_group}"
            )
        if self.gradient.definition != other.gradient.definition:
            raise ValueError(f"merge: got gradient options {other.gradient}, expected {self.gradient}")
        if self.temporal != other.temporal:
            raise ValueError(f"merge: got temporal options {other.temporal}, expected {self.temporal}")
        if None not in (self._num_classes, other._num_classes) and self._num_classes != other._num_classes:
            raise ValueError(f"merge: got a tracker of {other._num_classes} classes, expected {self._num_classes}")
        if other._temporal is not None:  # first, because it may refuse
            if self._temporal is None:
                self._temporal = TemporalRecords.from_state_dict(other._temporal.state_dict())
            else:
                self._temporal.merge(other._temporal)
        theirs = other._all_skipped()
        if theirs is not None:
            self._start_on(theirs.device)
            self._skipped["update"].add_(theirs)
        if other._table is not None:
            if self._table is None:
                self._table = ops.new_table(self.num_examples, other._table.device)
            merge_records_(self._table, other._table)
        for name, moments in other._moments.items():
            if name not in self._moments:
                self._moments[name] = GradientMoments(
                    self.num_examples, moments.size, moments.mean.device, self.gradient, self._group
                )
            self._moments[name].merge(moments)
        self._num_classes = self._num_classes or other._num_classes
        self._labels_are_predictions |= other._labels_are_predictions

    def _index(self, index: Tensor, batch: Tensor) -> Tensor:
        """The checked index on the device of the batch; one on the CPU is checked there and then copied."""
        ops.check_index(index, batch.shape[0], self.num_examples)
        if index.device.type == "cpu" and batch.device.type != "cpu":
            return index.to(batch.device, non_blocking=True)
        ops.check_same_device(index=index, batch=batch)
        return index

    def _prepare(self, batch: Tensor, score: str | None = None) -> None:
        """Checks that logits or losses, or the inputs of a gradient score, suit the state, and makes what it lacks.

        A compiled training step must not make it: what a graph makes is its own, and Python values that are new
        after the first step mean that the second is compiled again. There the tracer does, before any is read.
        """
        if torch.compiler.is_compiling():
            from .compiled import make_ready

            make_ready(self, batch, score)
        else:
            self._make_ready(batch.device, batch.shape, score)

    def _make_ready(self, device: torch.device, shape: tuple[int, ...], score: str | None) -> None:
        self._check_device(device)
        if score is None:
            if len(shape) == 2:
                self._check_classes(shape[1])
                self._num_classes = shape[1]
                if self._temporal is None and self._temporal_scores:
                    self._temporal = TemporalRecords(
                        self.num_examples, shape[1], self._temporal_scores, device, self.temporal
                    )
            if self._table is None and self._record_scores:
                self._table = ops.new_table(self.num_examples, device)
        else:
            size = self.gradient.size(shape)
            if score not in self._moments:
                self._moments[score] = GradientMoments(self.num_examples, size, device, self.gradient, self._group)
            elif size != self._moments[score].size:
                raise ValueError(
                    f"{score}: got inputs of shape {tuple(shape)}, {size} pixels, expected {self._moments[score].size} "
                    "as in the first batch; gradients of images of several sizes cannot be averaged"
                )
        self._start_on(device)

    def _start_on(self, device: torch.device) -> None:
        """Makes what is small, where it was not made before."""
        if not self._skipped:
            self._device = device
            self._anchor = ops.new_state((0,), torch.float32, device).requires_grad_()
            self._skipped = {by: ops.new_skipped(device) for by in ("update", "watch", "unreported")}

    def _state_tensors(self) -> list[Tensor]:
        moments = [t for m in self._moments.values() for t in (m.count, m.mean, m.m2, m.pixels)]
        temporal = None if self._temporal is None else self._temporal.table
        return [t for t in (self._table, temporal, self._anchor, *self._skipped.values(), *moments) if t is not None]

    def _check_device(self, device: torch.device) -> None:
        """The state lives where the user said, else where the first batch was; batches have to be there."""
        own = self._device
        if own is not None and (own.type != device.type or (own.index is not None and own.index != device.index)):
            raise ValueError(
                f"got a batch on {device}, but the state of this tracker is on {own}: move the batch there, or make "
                f"the tracker with device={str(device)!r}, and load its state into it"
            )

    def _check_classes(self, classes: int) -> None:
        if classes < 2:
            raise ValueError(f"logits: got {classes} class, expected at least 2 (give a binary task two columns)")
        if self._num_classes not in (None, classes):
            known = "num_classes says" if self._expected_classes is not None else "the first batch had"
            raise ValueError(f"logits: got {classes} classes, expected {self._num_classes}, as {known}")


def _on_device(value: Any, device: torch.device | None) -> Any:
    """A state with its tensors on a device; None leaves them where they are."""
    if device is None:
        return value
    if isinstance(value, dict):
        return {key: _on_device(item, device) for key, item in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value


def _check_seen(seen: Any, presented: Tensor) -> None:
    """ValueError where an example is said to be seen, but was never presented."""
    said = torch.as_tensor(seen).cpu()
    if said.dtype != torch.bool or said.shape != presented.shape:
        return  # which Run refuses, saying what it got
    missing = said & ~presented
    if missing.any():
        raise ValueError(
            f"seen: {int(missing.sum())} examples are said to be trained on, the first of them "
            f"{int(missing.int().argmax())}, but were never presented. The index must be the position in the whole "
            "dataset: Subset(IndexedDataset(dataset), part), and not the other way round"
        )
