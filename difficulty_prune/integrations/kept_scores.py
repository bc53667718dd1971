"""What the trainers of Hugging Face have in common: a training's scores are its own, and lie in its checkpoints."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor
from transformers import Trainer, TrainerCallback

from ..runs.run import Run
from ..sampler import PruneSampler
from ..support.digest import digest_of_array
from ..support.file_errors import errors_name
from ..support.files import MALFORMED, write_atomically
from ..tracker.since import check_late
from ..tracker.tracker import DifficultyTracker
from .training_set import check_processes, finish_with, late_option

STATE_NAME: Final = "difficulty.pt"

_FORMAT: Final = 1
"""Of that file: what torch.save writes, with a digest of it as the archive's comment. Earlier files have none."""

_COMMENT: Final = re.compile(rb"difficulty_prune checkpoint (\d) ([0-9a-f]{32})\n")
_COMMENT_SIZE: Final = 63  # bytes
_ZIP_END: Final = b"PK\x05\x06"  # the last 22 bytes of an archive begin with it, and end with the comment's length

_UNREADABLE: Final = (*MALFORMED, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile)


class KeepsScores(Trainer):
    """A `transformers.Trainer` whose tracker follows the weights: through trainings, further attempts, checkpoints.

    Args:
        args, kwargs: of the Trainer.
        tracker: what is recorded.
        sampler: what plans the epochs; None: the Trainer's own does not.
        late: whether `finish` gives `late_aum` too, the `aum` of the second half of the latest training's steps.

    Raises:
        TypeError: a tracker of another type.
        ValueError: a tracker without a process group where there are several processes, or without `aum` where `late`
            is asked for; in `train`, a checkpoint that is damaged, foreign, newer, or of another tracker or sampler.
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
        if late:
            check_late(tracker.scores, None)
        self.tracker = tracker
        self.sampler = sampler
        self.late = late
        self._early: Tensor | None = None  # the snapshot at the middle of the training
        self._before: dict[str, Any] | None = None  # what was recorded before a training that may be tried again
        super().__init__(*args, **kwargs)
        if late:
            self.add_callback(_Middle(self))
        check_processes(tracker, self.args.world_size, "after TrainingArguments(...)")

    def finish(self, **metadata: Any) -> Run:
        """Ends the run, see `DifficultyTracker.finish`, whose arguments it takes: `architecture` and `seed` at least.

        Where `train_dataset` is an `IndexedDataset`, the run has its ids, labels and class names, as far as they are
        known. For a table that was tokenised or packed, give `dataset=dp.IndexedDataset(rows, key="name")`, of the rows
        that the tracker was made for.
        """
        if self.late and not {"late", "since"} & metadata.keys():
            metadata |= late_option(self._early)
        return finish_with(self.tracker, self.train_dataset, metadata)

    # What is recorded

    def recorded(self) -> dict[str, Any]:
        """Everything recorded: tensors and plain values."""
        early = {} if self._early is None else {"early": self._early}
        return {"tracker": self.tracker.state_dict(), **early}

    def load_recorded(self, state: Mapping[str, Any]) -> None:
        """Replaces what was recorded by what `recorded` gave."""
        self.tracker.load_state_dict(state["tracker"])
        self._early = state.get("early")

    def forget_recorded(self) -> None:
        """Begins with nothing recorded."""
        self.tracker.reset()
        self._early = None

    def begin_second_half(self) -> None:
        """Before the first step of it."""
        self._early = self.tracker.snapshot()

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
        begun, self._early = self.tracker.presentations > 0, None
        if self.model_init is not None:
            self.forget_recorded()
        elif self._before is not None:
            self.load_recorded(self._before)
        elif self.args.auto_find_batch_size:
            self._before = deepcopy(self.recorded())
        if self.sampler is not None and (begun or self.sampler.epoch or self.sampler.state_dict()["yielded"]):
            # Only another epoch is planned anew, so go by way of one.
            self.sampler.set_epoch(0 if self.sampler.epoch else 1)
            self.sampler.set_epoch(0)

    # Checkpoints

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        state = self.recorded()
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
            raise FileNotFoundError(
                f"{path}: no such file; was the checkpoint saved by a trainer that scores, such as DifficultyTrainer?"
            )
        state = _read_state(path)
        if self.sampler is not None and "sampler" not in state:
            raise ValueError(
                f"{path}: got the state of a training without a sampler, expected one with a sampler; resume from a "
                "checkpoint of such a training, or make the DifficultyTrainer without sampler="
            )
        try:
            recorded = {name: part for name, part in state.items() if name != "sampler"}
            self.load_recorded(send_to_device(recorded, self.args.device))
            if self.sampler is not None:
                self.sampler.load_state_dict(state["sampler"])
        except MALFORMED as error:
            raise ValueError(
                f"{path}: {error}; expected the state of a training with this data, tracker and sampler: resume from "
                "one of its checkpoints"
            ) from error


class _Middle(TrainerCallback):
    def __init__(self, trainer: KeepsScores) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == state.max_steps // 2:
            self.trainer.begin_second_half()


def check_tracker(tracker: Any) -> None:
    """TypeError for anything but a tracker."""
    if not isinstance(tracker, DifficultyTracker):
        raise TypeError(f"tracker: got {tracker!r}, expected dp.DifficultyTracker(len(train_dataset), ...)")


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
