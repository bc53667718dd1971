"""What trainers of language models have in common: rows of tokens that are packed, padded or cut."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from ..selected_rows import INDEX, OWNER, is_table
from ..tracker.tracker import DifficultyTracker
from .kept_scores import KeepsScores
from .owner_collator import KEYS, NOBODY, OwnerCollator
from .token_counts import TokenCounts


class ScoresTokens(KeepsScores):
    """A Trainer of a causal language model that records per row of the data set, and never per pack.

    Args:
        args, kwargs: of the Trainer.
        tracker: made for all rows of the whole data set; records.
    """

    def __init__(self, *args: Any, tracker: DifficultyTracker, **kwargs: Any) -> None:
        super().__init__(*args, tracker=tracker, **kwargs)
        self.token_counts = TokenCounts(tracker.num_examples, tracker.process_group)
        self.first_loss: Tensor | None = None
        self._goes_on = False  # with a tracker that had recorded another training, whose losses are in the means
        _refuse_shared_sequences(self.accelerator.parallelism_config)
        self.add_callback(_EndOfFirstEpoch(self))

    def tokens(self) -> Tensor:
        """[N] int64: how many tokens of each row were scored, over all presentations.

        The score "loss" of the tracker is a mean over examples: an example's presentations count the same, however many
        tokens each had. For the mean over all tokens of a data set, weigh with these:
        `(loss * tokens).nansum() / tokens.sum()`.
        """
        return self.token_counts.tokens()

    def loss_fall(self) -> Tensor:
        """[N] float32: how far the loss of each row fell, from its mean in the first epoch to "recent_loss" now.

        Garbage falls little, and so does what was known from the beginning: look at both, this and the loss.

        Raises:
            ValueError: the tracker does not have these scores, no epoch has ended, or the tracker had recorded another
                training before this one.
        """
        missing = {"loss", "recent_loss"} - set(self.tracker.scores)
        if missing:
            raise ValueError(f"loss_fall: got a tracker of {self.tracker.scores}, expected {', '.join(missing)} too")
        if self._goes_on:
            raise ValueError(
                "loss_fall: the tracker had recorded another training, so that the first epoch of this one is not "
                "known apart; call tracker.reset() before train(), or look at recent_loss"
            )
        if self.first_loss is None:
            raise ValueError("loss_fall: no epoch has ended, so there is nothing to compare with; train further")
        now = self.tracker.compute(scores=("recent_loss",), allow_skipped=True)["recent_loss"]
        return self.first_loss.to(now.device) - now

    # What is recorded

    def _begin(self) -> None:
        super()._begin()
        self._goes_on = self.first_loss is None and self.tracker.presentations > 0

    def end_of_epoch(self) -> None:
        """Keeps the first epoch's losses, with which later ones are compared."""
        if self.first_loss is None and "loss" in self.tracker.scores and self.tracker.presentations:
            self.first_loss = self.tracker.compute(scores=("loss",), allow_skipped=True)["loss"].clone()

    def recorded(self) -> dict[str, Any]:
        """Everything recorded: tensors and plain values."""
        state = {**super().recorded(), "tokens": self.token_counts.state_dict()}
        first = {} if self.first_loss is None else {"first_loss": self.first_loss}
        return {**state, "goes_on": self._goes_on, **first}

    def load_recorded(self, state: Mapping[str, Any]) -> None:
        """Replaces what was recorded by what `recorded` gave."""
        super().load_recorded(state)
        self.token_counts.load_state_dict(state["tokens"])
        self.first_loss = state.get("first_loss")
        self._goes_on = state["goes_on"]

    def forget_recorded(self) -> None:
        """Begins with nothing recorded."""
        super().forget_recorded()
        self.token_counts.forget()
        self.first_loss, self._goes_on = None, False

    # Batches

    def get_train_dataloader(self) -> Any:
        """See `Trainer.get_train_dataloader`: batches also say which row each token is of."""
        self.check_rows(self.train_dataset)
        self._warn_of_new_numbers(self.train_dataset)
        with self._collating(keep=True):
            return super().get_train_dataloader()

    def _rows_of_a_batch(self) -> int:
        """How many rows a training batch may hold at most, where processes have to agree on it; else 0."""
        if self.tracker.process_group is None:
            return 0
        rows: Any = self.train_dataset
        largest = 1
        if is_table(rows) and OWNER in rows.column_names:
            largest = max(len(np.unique(line[OWNER])) for line in rows.select_columns([OWNER]).with_format("numpy"))
        return largest * self.args.train_batch_size

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """See `Trainer.get_eval_dataloader`."""
        with self._collating(keep=False):
            return super().get_eval_dataloader(*args, **kwargs)

    def get_test_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """See `Trainer.get_test_dataloader`."""
        with self._collating(keep=False):
            return super().get_test_dataloader(*args, **kwargs)

    @contextmanager
    def _collating(self, keep: bool) -> Iterator[None]:
        """While a loader is made, its collator is ours; the Trainer looks at the kind of its own at other times."""
        given: Any = self.data_collator
        rows = self._rows_of_a_batch() if keep else 0
        self.data_collator = OwnerCollator(given, self.tracker.num_examples, keep, rows)
        try:
            yield
        finally:
            self.data_collator = given

    def _set_signature_columns_if_needed(self) -> None:
        """Keeps what says which row a token is of from being removed as columns that the model does not know."""
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        columns += [name for name in KEYS if name not in columns]

    def _warn_of_new_numbers(self, dataset: Any) -> None:
        """Warns of rows that are the first of the data set and no other, as where `index_rows` found no "index"."""
        if not is_table(dataset) or OWNER not in dataset.column_names:
            return
        seen = np.zeros(self.tracker.num_examples, dtype=bool)
        for part in dataset.select_columns([OWNER]).with_format("arrow").iter(batch_size=10_000):
            rows = part[OWNER].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(seen):
                return  # which the collator refuses
            seen[rows] = True
        number = int(seen.sum())
        if 0 < number < len(seen) and seen[:number].all():
            warnings.warn(
                f"train_dataset: its tokens are of the rows 0..{number - 1} of {len(seen)}, and of no other. If rows "
                "were chosen by dp.select_rows, these are new numbers and the scores go to other rows: keep the column "
                f"{INDEX!r} when you tokenise, map(..., remove_columns=['text']), so that dp.index_rows finds it",
                stacklevel=3,
            )

    def check_rows(self, dataset: Any) -> None:
        """TypeError for a stream, ValueError for a `datasets.Dataset` that does not say which row is which."""
        if isinstance(dataset, IterableDataset):
            raise TypeError(
                f"train_dataset: got {type(dataset).__name__}, expected a map-style data set, because accelerate "
                "shares out the batches of a stream by their lines, which are not the rows of the data set"
            )
        if is_table(dataset) and not {INDEX, OWNER} & set(dataset.column_names):
            raise ValueError(
                f"train_dataset: got the columns {', '.join(dataset.column_names)}, expected {OWNER!r} among them, "
                f"which tells of each token which row it is of; number the tokens before they are packed: "
                f"dp.index_rows(tokenised); rows that are not packed may have an {INDEX!r}"
            )


class _EndOfFirstEpoch(TrainerCallback):
    def __init__(self, trainer: ScoresTokens) -> None:
        self.trainer = trainer

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.epoch >= 1:  # and not by `max_steps` before it
            self.trainer.end_of_epoch()


def predicted_owner(owner: Tensor, scored: Tensor) -> Tensor:
    """Whose the predicted tokens are: those that are scored, for all positions but the last; -1 for the others.

    Args:
        owner: [P, T] int64, of each token.
        scored: [P, T - 1] bool, of each prediction; [P, V + T - 1] where the model puts V virtual tokens before.
    """
    virtual = scored.shape[1] + 1 - owner.shape[1]
    if virtual < 0 or scored.shape[0] != owner.shape[0]:
        raise ValueError(
            f"got {tuple(scored.shape)} scored predictions for {tuple(owner.shape)} tokens, expected one fewer in each "
            "line; scoring does not follow tokens that a model merges or leaves out"
        )
    if virtual:
        owner = torch.nn.functional.pad(owner, (virtual, 0), value=NOBODY)
    return owner[:, 1:].masked_fill(~scored, NOBODY)


def _refuse_shared_sequences(parallelism: Any) -> None:
    if parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled):
        raise ValueError(
            "parallelism_config: got context or sequence parallelism, expected neither: each process then has a part "
            "of each row, and the parts would be recorded as if they were whole; train with data or tensor parallelism"
        )
