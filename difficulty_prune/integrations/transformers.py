"""Hugging Face Trainer: scores while it trains, on what a sampler keeps, with weights and through checkpoints."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers import Trainer

from ..data import label_key
from ..sampler import PruneSampler
from ..support.digest import digest_of_array
from ..support.file_errors import errors_name
from ..support.files import MALFORMED, write_atomically
from ..tracker.tracker import DifficultyTracker

INDEX: Final = "index"
LABELS: Final = "labels"
STATE_NAME: Final = "difficulty.pt"

_FORMAT: Final = 1
"""Of that file: what torch.save writes, with a digest of it as the archive's comment. Earlier files have none."""

_COMMENT: Final = re.compile(rb"difficulty_prune checkpoint (\d) ([0-9a-f]{32})\n")
_COMMENT_SIZE: Final = 63  # bytes
_ZIP_END: Final = b"PK\x05\x06"  # the last 22 bytes of an archive begin with it, and end with the comment's length

_UNREADABLE: Final = (*MALFORMED, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile)

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


class DifficultyTrainer(Trainer):
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

    Raises:
        TypeError: a tracker or sampler of another type, or a `compute_loss_func`.
        ValueError: a sampler whose epochs may differ in length, or that is one process's; a tracker without a process
            group where there are several processes; in `train`, batches without an index or labels, outputs or labels
            of another task, or a tracker that does not fit the task; a checkpoint that is damaged, foreign, newer, or
            of another tracker or sampler.

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
        self, *args: Any, tracker: DifficultyTracker, sampler: PruneSampler | None = None, **kwargs: Any
    ) -> None:
        if not isinstance(tracker, DifficultyTracker):
            raise TypeError(f"tracker: got {tracker!r}, expected dp.DifficultyTracker(len(train_dataset), ...)")
        if sampler is not None:
            _check_sampler(sampler)
        super().__init__(*args, **kwargs)
        if self.compute_loss_func is not None:
            raise TypeError("compute_loss_func: expected none; override DifficultyTrainer.example_loss instead")
        if self.args.world_size > 1 and tracker.process_group is None:
            raise ValueError(
                f"the tracker knows what its own process saw alone, and there are {self.args.world_size}; make it as "
                "DifficultyTracker(..., process_group=torch.distributed.group.WORLD), after TrainingArguments(...)"
            )
        self.tracker = tracker
        self.sampler = sampler
        self._before: dict[str, Any] | None = None  # what the tracker held before a training that may be tried again
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

    # Trainings

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """See `Trainer.train`."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self._before = None

    def _inner_training_loop(
        self,
        batch_size: Any = None,
        args: Any = None,
        resume_from_checkpoint: str | None = None,
        *more: Any,
        **others: Any,
    ) -> Any:
        """One attempt at a training; the Trainer makes another where `auto_find_batch_size` runs out of memory."""
        if resume_from_checkpoint is None:  # otherwise the checkpoint's state replaces whatever there is
            self._begin()
        return super()._inner_training_loop(batch_size, args, resume_from_checkpoint, *more, **others)

    def _begin(self) -> None:
        """Leaves in the tracker what belongs to the weights, and has the sampler plan epoch 0 by it."""
        begun = self.tracker.presentations > 0
        if self.model_init is not None:
            self.tracker.reset()
        elif self._before is not None:
            self.tracker.load_state_dict(self._before)
        elif self.args.auto_find_batch_size:
            self._before = deepcopy(self.tracker.state_dict())
        if self.sampler is not None and (begun or self.sampler.epoch or self.sampler.state_dict()["yielded"]):
            # Only another epoch is planned anew, so go by way of one.
            self.sampler.set_epoch(0 if self.sampler.epoch else 1)
            self.sampler.set_epoch(0)

    # The training step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """See `Trainer.compute_loss`; `num_items_in_batch` is the number of examples in the optimiser's step."""
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
            raise ValueError(
                f"got batches with {', '.join(inputs)}, expected 'labels' among them (or the one name in "
                "TrainingArguments(label_names=[...])), because DifficultyTrainer.example_loss compares the outputs "
                "with them; make one tensor of several labels in the data_collator"
            )
        return name

    def _update_tracker(self, index: Tensor, outputs: Any, labels: Tensor, losses: Tensor) -> None:
        if getattr(self.example_loss, "__func__", None) is not DifficultyTrainer.example_loss:
            return self.tracker.update(index, loss=losses)
        task, logits = self._task(outputs, labels)
        _check_scores(task, self.tracker)
        if task == REGRESSION:
            self.tracker.update(index, loss=losses)
        else:
            self.tracker.update(index, logits, labels.long() if task == SINGLE_LABEL else labels)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], int]:
        """The micro-batches of one optimiser's step, and the number of examples in them."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            if INDEX not in batch:
                raise ValueError(
                    f"got batches with {', '.join(batch)}, expected 'index' among them; give "
                    "train_dataset=dp.IndexedDataset(...) and a data_collator that keeps it"
                )
        return batches, sum(len(batch[INDEX]) for batch in batches)

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

    # Checkpoints

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        state = {"tracker": self.tracker.state_dict()}
        if self.sampler is not None:
            # From the beginning of the epoch, because the Trainer skips what it has done of it.
            state["sampler"] = self.sampler.state_dict(consumed=0)
        if self.args.should_save:
            _write_state(os.path.join(output_dir, STATE_NAME), state)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = os.path.join(checkpoint, STATE_NAME)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path}: no such file; was the checkpoint saved by a DifficultyTrainer?")
        state = _read_state(path)
        if self.sampler is not None and "sampler" not in state:
            raise ValueError(
                f"{path}: got the state of a training without a sampler, expected one with a sampler; resume from a "
                "checkpoint of such a training, or make the DifficultyTrainer without sampler="
            )
        try:
            self.tracker.load_state_dict(send_to_device(state["tracker"], self.args.device))
            if self.sampler is not None:
                self.sampler.load_state_dict(state["sampler"])
        except MALFORMED as error:
            raise ValueError(
                f"{path}: {error}; expected the state of a training with this data, tracker and sampler: resume from "
                "one of its checkpoints"
            ) from error


def _write_state(path: str, state: dict[str, Any]) -> None:
    """Writes what `_read_state` and `torch.load` read."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(-2, os.SEEK_END)
    file.write(_COMMENT_SIZE.to_bytes(2, "little"))
    file.write(_comment(file.getvalue()))
    write_atomically(path, file.getvalue())


def _read_state(path: str) -> dict[str, Any]:
    """The state in a file; ValueError for any file that is not just as it was written."""
    with errors_name(path):
        content = Path(path).read_bytes()
    found = _COMMENT.fullmatch(content[-_COMMENT_SIZE:])
    if found is not None and int(found[1]) > _FORMAT:
        raise ValueError(f"{path}: got format {int(found[1])}, expected at most {_FORMAT}; upgrade difficulty_prune")
    try:
        if found is not None:
            whole = found[0] == _comment(memoryview(content)[:-_COMMENT_SIZE])
        else:
            whole = _has_its_checksums(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True) if whole else None
    except _UNREADABLE:
        state = None
    if not isinstance(state, dict) or "tracker" not in state:
        raise ValueError(
            f"{path}: got a file that is damaged, cut short or of something else, expected the scores that a "
            "DifficultyTrainer saved; copy it again from where it came, or resume from another checkpoint"
        )
    return state


def _comment(content: bytes | memoryview) -> bytes:
    digest = digest_of_array(np.frombuffer(content, np.uint8))
    return f"difficulty_prune checkpoint {_FORMAT} {digest}\n".encode()


def _has_its_checksums(content: bytes) -> bool:
    """Whether this is what torch.save wrote, which compresses nothing, and each part is still what it was."""
    if content[-22:-18] != _ZIP_END or content[-2:] != bytes(2):
        return False
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())
        return stored and archive.testzip() is None


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
