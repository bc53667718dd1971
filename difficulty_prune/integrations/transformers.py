"""Hugging Face Trainer: scores while it trains, on what a sampler keeps, with weights and through checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import label_key
from ..sampler import PruneSampler
from ..selected_rows import INDEX, OWNER, WEIGHT
from ..tracker.tracker import DifficultyTracker
from .kept_scores import KeepsScores, check_tracker
from .language_models import ScoresTokens, predicted_owner

LABELS: Final = "labels"
IGNORED: Final = -100

_OTHER_TASKS: Final = (
    "for other tasks, override DifficultyTrainer.example_loss(self, outputs, labels) to return one loss per example, "
    "such as (outputs['logits'][:, 0] - labels).abs() for another regression, and give the tracker scores=('loss',); "
    "dp.reduce_loss sums up tokens"
)

SINGLE_LABEL: Final = "single_label_classification"
MULTI_LABEL: Final = "multi_label_classification"
REGRESSION: Final = "regression"
_EXPECTED: Final = {
    SINGLE_LABEL: "[batch, classes], at least 2 of them, and whole numbers [batch]",
    MULTI_LABEL: "[batch, labels] and as many labels, each 0 or 1",
    REGRESSION: "[batch, values] and as many real numbers",
}


class DifficultyTrainer(KeepsScores):
    """A `transformers.Trainer` that scores each example, and visits what the sampler keeps, weighted as it says.

    `train_dataset` is `dp.IndexedDataset(...)` of dict samples with "labels" (or "label"), so that batches have an
    "index". The model does not get to see it, nor the labels while it trains: they are compared with its logits here.
    The loss is one per example, for classification, multi-label classification and regression, as
    `model.config.problem_type` says; override `example_loss` for other tasks. Scores and plan are in the Trainer's
    checkpoints. Evaluation and prediction take the same datasets, indexed or not, and are neither recorded nor
    weighted.

    The tracker of a multi-label task has `target="binary"`; that of a regression has the scores "loss" and
    "recent_loss" alone. With `label_smoothing_factor`, the smoothed loss is trained on, and what is recorded is that of
    the labels as they are, so that scores mean the same whatever the smoothing.

    The Trainer reads the number of steps per epoch once, and counts epochs by it. So a sampler that plans each epoch
    anew needs a `fixed_length`, such as `round(keep * len(train))`. On several processes, the Trainer shares out the
    batches itself: the sampler has neither rank nor world_size, and the tracker has the process group. It fills up the
    last batches with examples from the beginning, unless `dataloader_drop_last=True`.

    A model is one run. Where `model_init` makes a new one for each `train`, as `hyperparameter_search` needs it, each
    begins with an empty tracker. Without it, a second `train` goes on with weights and scores, and so does one after an
    error; to train other weights, make a new trainer with a new tracker. What `auto_find_batch_size` tries and breaks
    off is not recorded. The sampler begins with epoch 0 each time, planned by the scores that there are.

    Args:
        args, kwargs: of `Trainer`.
        tracker: records each step's logits (for a regression, or where `example_loss` is overridden, losses).
        sampler: default: the Trainer's own.
        late: whether `finish` gives `late_aum` too, the `aum` of the second half of the latest training's steps.

    Raises:
        TypeError: a tracker or sampler of another type, or a `compute_loss_func`.
        ValueError: a sampler whose epochs may differ in length, or that is one process's; a tracker without a process
            group where there are several processes, or without `aum` where `late` is asked for; in `train`, batches
            without an index or labels, outputs or labels of another task, or a tracker that does not fit the task; a
            checkpoint that is damaged, foreign, newer, or of another tracker or sampler.

    >>> from tempfile import TemporaryDirectory
    >>> from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
    >>> import difficulty_prune as dp
    >>> tracker = dp.DifficultyTracker(100, scores=("loss", "el2n"))
    >>> policy = dp.policies.SoftPrune(keep=0.5)
    >>> sampler = dp.PruneSampler(policy, tracker.source("loss"), fixed_length=50)
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    >>> with TemporaryDirectory() as folder:
    ...     arguments = TrainingArguments(folder, use_cpu=True, report_to="none")
    ...     trainer = DifficultyTrainer(
    ...         BertForSequenceClassification(config), arguments, tracker=tracker, sampler=sampler
    ...     )
    """

    def __init__(
        self,
        *args: Any,
        tracker: DifficultyTracker,
        sampler: PruneSampler | None = None,
        late: bool = False,
        **kwargs: Any,
    ) -> None:
        check_tracker(tracker)
        if sampler is not None:
            _check_sampler(sampler)
        super().__init__(*args, tracker=tracker, sampler=sampler, late=late, **kwargs)
        if self.compute_loss_func is not None:
            raise TypeError("compute_loss_func: expected none; override DifficultyTrainer.example_loss instead")
        # The loss of a micro-batch is computed here, and the Trainer divides it by how many there are in a step.
        self.model_accepts_loss_kwargs = False

    def example_loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """One loss per example, [B], as the models of transformers compute it. Override it for other tasks.

        It is the cross entropy of logits [B, C] and classes [B]; for several labels the mean over the logits [B, L] of
        the binary cross entropy, without those that are NaN (not known); for a regression the mean squared error of the
        values [B, V]. Where `model.config.problem_type` is None, real numbers are labels of a regression if there is
        one logit, and several labels otherwise, as in transformers.

        Where an example has several losses, such as those of its tokens, `dp.reduce_loss` puts them together; the
        tracker then has the score "loss" alone.

        Args:
            outputs: what the model returns without labels. The logits are `outputs["logits"]`, the outputs themselves,
                or of a tuple (as with `return_dict=False`) the one tensor with a row per example.
            labels: as in the batch.

        Raises:
            ValueError: no such logits or labels, or labels to be smoothed that are no classes.
        """
        task, logits = self._task(outputs, labels)
        smoothing = self.args.label_smoothing_factor
        if task == SINGLE_LABEL:
            return F.cross_entropy(logits, labels.long(), reduction="none", label_smoothing=smoothing)
        if smoothing:
            raise ValueError(
                f"label_smoothing_factor: got {smoothing}, expected 0 for a {task}: only classes are smoothed"
            )
        labels = labels.view_as(logits).float()
        if task == REGRESSION:
            return (logits - labels).square().mean(1)
        known = ~labels.isnan()
        losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
        return (losses * known).sum(1) / known.sum(1).clamp(min=1)

    def _task(self, outputs: Any, labels: Tensor) -> tuple[str, Tensor]:
        """The problem type, as the config of the model says or as transformers infers it, and the logits [B, C]."""
        logits = _class_logits(outputs, labels)
        task = getattr(getattr(self.model, "config", None), "problem_type", None)
        if task is None and not _is_real(labels):
            task = SINGLE_LABEL
        elif task is None:
            task = REGRESSION if logits.dim() == 2 and logits.shape[1] == 1 else MULTI_LABEL
        _check_labels(task, logits, labels)
        return task, logits

    # The training step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """See `Trainer.compute_loss`; `num_items_in_batch` is what `get_batch_samples` counted."""
        inputs = dict(inputs)
        index = inputs.pop(INDEX, None)
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs)
        labels = inputs.pop(self._name_of_labels(inputs))
        outputs = model(**inputs)
        losses = self.example_loss(outputs, labels)
        self._update_tracker(index, outputs, labels, losses.detach())
        if self.sampler is not None:
            losses = losses * self.sampler.weight(index, device=losses.device)
        if num_items_in_batch is None:
            loss = losses.mean()
        else:
            loss = losses.sum() * (self.current_gradient_accumulation_steps / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _name_of_labels(self, inputs: Mapping[str, Any]) -> str:
        name = label_key(inputs)
        if name is None and len(self.label_names) == 1 and self.label_names[0] in inputs:
            name = self.label_names[0]
        if name is None:
            got = ", ".join(key for key in inputs if key != INDEX)
            raise ValueError(
                f"got batches with {got}, expected 'labels' among them (or the one name in "
                "TrainingArguments(label_names=[...])), because DifficultyTrainer.example_loss compares the outputs "
                "with them; make one tensor of several labels in the data_collator"
            )
        return name

    def _update_tracker(self, index: Tensor, outputs: Any, labels: Tensor, losses: Tensor) -> None:
        if not self._has_own_loss:
            return self.tracker.update(index, loss=losses)
        task, logits = self._task(outputs, labels)
        _check_scores(task, self.tracker)
        if task == REGRESSION:
            self.tracker.update(index, loss=losses)
        else:
            self.tracker.update(index, logits, labels.long() if task == SINGLE_LABEL else labels)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of one optimiser's step, and the number of examples in them that have a label."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            if INDEX not in batch:
                raise ValueError(
                    f"got batches with {', '.join(batch)}, expected 'index' among them; give "
                    "train_dataset=dp.IndexedDataset(...) and a data_collator that keeps it"
                )
        number: Any = sum(self._labelled(batch) for batch in batches)
        return batches, number.clamp(min=1) if isinstance(number, Tensor) else number

    def _labelled(self, batch: Mapping[str, Any]) -> Tensor | int:
        """How many examples the mean of the losses is over: as in the models' own, without those labelled -100."""
        labels = batch[self._name_of_labels(batch)] if self._has_own_loss else None
        task = getattr(getattr(self.model, "config", None), "problem_type", None)
        if not isinstance(labels, Tensor) or labels.dim() != 1 or _is_real(labels) or task not in (None, SINGLE_LABEL):
            return len(batch[INDEX])
        return (labels != IGNORED).sum()  # left where it is, for to read it were to wait for the device

    @property
    def _has_own_loss(self) -> bool:
        """Whether `example_loss` is the one above."""
        return getattr(self.example_loss, "__func__", None) is DifficultyTrainer.example_loss

    # Evaluation and prediction

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """See `Trainer.prediction_step`: the model gets neither the index, nor labels where `label_names` is empty."""
        inputs.pop(INDEX, None)  # in place, for `compute_metrics` may be given these inputs
        if not self.label_names and not self.can_return_loss:
            inputs = {name: value for name, value in inputs.items() if name != LABELS}
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    # Data

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return super()._get_train_sampler(*args, **kwargs) if self.sampler is None else self.sampler

    def _set_signature_columns_if_needed(self) -> None:
        """Keeps index and labels from being removed as columns that the model does not know."""
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        columns += [name for name in (INDEX, LABELS) if name not in columns]


class DifficultyCausalLMTrainer(ScoresTokens):
    """A `transformers.Trainer` of a causal language model that scores each row of the data set, packed or not.

    A row is a text. Rows that are not packed are `dp.IndexedDataset(rows)`, or have a column "index", as those of
    `dp.select_rows`. Rows that are packed have their tokens numbered first: `dp.index_rows(tokenised)` adds the column
    "owner", which is packed like "input_ids". The data collator may pad, or flatten (`DataCollatorWithFlattening`); the
    model gets what it gets from a `Trainer`, and neither index nor owner.

    The logits are compared with the labels of the next tokens, and -100 is left out, as in the model's own loss, which
    stays the one that is trained on. One step records each row in it once, by the mean of those of its tokens that are
    there; a row whose parts come in different micro-batches is presented once with each. Trainings, checkpoints and
    evaluation are as for `DifficultyTrainer`. There is no sampler: it could not drop a row out of a pack. Choose rows
    by `dp.select_rows` before packing. Rows with a "weight" have the losses of their tokens multiplied by it; the loss
    must then be the mean cross entropy of the tokens, as of the models in transformers.

    Args:
        args, kwargs: of `Trainer`.
        tracker: made for all rows of the whole data set; any scores of the logits.

    Raises:
        TypeError: another kind of tracker, or a stream.
        ValueError: a model that returns no logits [P, T, V] while it trains; packed rows that do not say which token is
            of which row; weights with a smoothed loss or one of your own.
        IndexError: a row that the tracker does not have.
    """

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """See `Trainer.compute_loss`."""
        inputs = dict(inputs)
        index, owner, weight = (inputs.pop(name, None) for name in (INDEX, OWNER, WEIGHT))
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if weight is not None:
            self._check_weights_fit()
        labels: Any = inputs.get(LABELS)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        next_label, next_logits = labels[:, 1:], _token_logits(outputs, labels)[:, :-1].transpose(1, 2)
        owner = predicted_owner(owner, next_label != IGNORED)
        self.tracker.update(index, next_logits, next_label, owner=owner)
        self.token_counts.add(index, owner)
        if weight is not None:
            loss = loss + self._correction(next_logits, next_label, weight[:, 1:] - 1, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _check_weights_fit(self) -> None:
        if self.args.label_smoothing_factor or self.compute_loss_func is not None:
            raise ValueError(
                f"got rows with a 'weight', label_smoothing_factor={self.args.label_smoothing_factor} and "
                f"compute_loss_func={self.compute_loss_func}, expected 0 and None: other losses are no mean that could "
                "be weighted"
            )

    def _correction(self, logits: Tensor, labels: Tensor, more: Tensor, count: Tensor | int | None) -> Tensor:
        """What weights add to the mean of the tokens' losses: `more` is the weight of each, less 1."""
        losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="none")
        if count is None or not self.model_accepts_loss_kwargs:
            return (losses * more).sum() / (labels != IGNORED).sum().clamp(min=1)
        scale = self.accelerator.num_processes // self.get_tp_size() if self.args.average_tokens_across_devices else 1
        return (losses * more).sum() / count * scale


def _token_logits(outputs: Any, labels: Any) -> Tensor:
    """The logits [P, T, V] of a causal model."""
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if not isinstance(logits, Tensor) or not isinstance(labels, Tensor) or logits.shape[:-1] != labels.shape:
        got = _shape(logits) if isinstance(logits, Tensor) else "none"
        raise ValueError(
            f"got logits {got} and labels {_shape(labels)}, expected logits [P, T, V] and labels [P, T] of a causal "
            "language model; where the model returns no logits while it trains (use_liger_kernel=True), switch that "
            "off, or train with difficulty_prune.integrations.trl.DifficultySFTTrainer"
        )
    return logits


def _class_logits(outputs: Any, labels: Any) -> Tensor:
    """The logits among a model's outputs; ValueError if there are none."""
    if isinstance(outputs, Mapping):
        found = [outputs.get("logits")]
        got = f"outputs {', '.join(map(str, outputs))}"
    elif isinstance(outputs, tuple | list):
        found = [part for part in outputs if isinstance(part, Tensor) and part.dim() == 2 and len(part) == len(labels)]
        got = f"a {type(outputs).__name__} of {', '.join(map(_shape, outputs))}"
    else:
        found = [getattr(outputs, "logits", outputs)]
        got = type(outputs).__name__
    if len(found) != 1 or not isinstance(found[0], Tensor):
        raise ValueError(f"got {got}, expected 'logits', or one tensor [batch, classes] among them; {_OTHER_TASKS}")
    return found[0]


def _check_labels(task: str, logits: Tensor, labels: Tensor) -> None:
    """ValueError unless these are logits and labels of the task."""
    fits = logits.dim() == 2
    if fits and task == SINGLE_LABEL:
        fits = logits.shape[1] > 1 and labels.shape == logits.shape[:1] and not _is_real(labels)
    elif fits:
        of_one_logit = task == REGRESSION and logits.shape[1] == 1 and labels.shape == logits.shape[:1]
        fits = (labels.shape == logits.shape or of_one_logit) and not labels.dtype.is_complex
    if task not in _EXPECTED:
        raise ValueError(f"model.config.problem_type: got {task!r}, expected {', '.join(_EXPECTED)}")
    if not fits:
        raise ValueError(
            f"{task}: got logits {tuple(logits.shape)} and labels {tuple(labels.shape)} of {labels.dtype}, expected "
            f"{_EXPECTED[task]} (model.config.problem_type says which task it is); {_OTHER_TASKS}"
        )


def _check_scores(task: str, tracker: DifficultyTracker) -> None:
    """ValueError unless the tracker is one for the task."""
    target = "binary" if task == MULTI_LABEL else "classes"
    if task != REGRESSION and tracker.target != target:
        raise ValueError(
            f"tracker: got target={tracker.target!r}, expected {target!r} for a {task}: "
            f"dp.DifficultyTracker(len(train_dataset), ..., target={target!r})"
        )
    others = [name for name in tracker.scores if name not in ("loss", "recent_loss")]
    if task == REGRESSION and others:
        raise ValueError(
            f"tracker: got the scores {', '.join(others)}, expected 'loss' or 'recent_loss', because a regression has "
            "no classes: dp.DifficultyTracker(len(train_dataset), scores=('loss',))"
        )


def _is_real(labels: Tensor) -> bool:
    return labels.dtype.is_floating_point or labels.dtype.is_complex


def _shape(part: Any) -> str:
    return str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__


def _check_sampler(sampler: PruneSampler) -> None:
    if not isinstance(sampler, PruneSampler):
        raise TypeError(f"sampler: got {sampler!r}, expected dp.PruneSampler(...)")
    if sampler.world_size != 1:
        raise ValueError(
            f"sampler: got world_size {sampler.world_size}, expected a sampler without rank and world_size, because "
            "the Trainer shares out the batches itself"
        )
    if sampler.fixed_length is None and sampler.state_dict()["replans"]:
        raise ValueError(
            "fixed_length: got None, expected a number, because the sampler plans each epoch anew, but the Trainer "
            "reads the number of steps once: PruneSampler(..., fixed_length=round(keep * len(train)))"
        )
