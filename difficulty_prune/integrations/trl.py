"""TRL's SFTTrainer: scores per row of the data set, however the rows are packed."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
from torch import Tensor, nn
from trl import SFTTrainer, pack_dataset

from ..selected_rows import INDEX, OWNER, WEIGHT, check_index_column, index_rows, is_table
from ..tracker.tracker import DifficultyTracker
from .kept_scores import check_tracker
from .language_models import ScoresTokens, predicted_owner


class DifficultySFTTrainer(ScoresTokens, SFTTrainer):
    """TRL's `SFTTrainer` (>= 1.16) that records loss, entropy and accuracy per row of the data set, packed or not.

    Row i of `train_dataset` is example i of the tracker; rows of `dp.select_rows` keep their numbers from the whole
    data set. TRL prepares the rows as ever; each token keeps its row's number through packing, so that a row that is
    cut over two packs is one example. What is recorded are the log-probabilities, entropies and right answers that
    TRL's fused head computes for its loss: there are no logits, and no pass of the model is added. So the tracker may
    have the scores that need a loss, an entropy or right answers; prompt tokens and others that the loss leaves out
    count for nothing. Packing, training and evaluation are TRL's.

    One step records each row in it once, by the mean of those of its tokens that are there. A row whose parts come in
    different micro-batches is presented once with each, and the tracker then weighs the parts equally, however short.
    `token_loss` weighs tokens equally, and is exact for any cutting. `packing_strategy="bfd"` (the default) cuts no row
    in two: it drops what is too long.

    Rows with a "weight", as of `dp.select_rows`, have their tokens' losses multiplied by it.

    Args:
        args, kwargs: of `SFTTrainer`.
        tracker: `dp.DifficultyTracker(len(dataset), scores=("loss", "recent_loss", "entropy", "accuracy"))`, say.

    Raises:
        TypeError: another kind of tracker, an iterable data set, or an index that is no whole number.
        ValueError: a data set and a tracker of different lengths, data that were packed without saying which row a
            token is of, or weights with a loss that is not the sum of the tokens' negative log-likelihoods.
        IndexError: a row that the tracker does not have.
    """

    def __init__(self, *args: Any, tracker: DifficultyTracker, **kwargs: Any) -> None:
        check_tracker(tracker)
        self._rows_are_numbered = False
        super().__init__(*args, tracker=tracker, **kwargs)
        self.check_rows(self.train_dataset)
        rows: Any = self.train_dataset
        if WEIGHT in rows.column_names:
            self._check_weights_fit()

    def token_loss(self) -> Tensor:
        """[N] float64, nats: the mean loss of each row's tokens over all presentations, every token weighing the same.

        NaN for a row that was never presented. The tracker's "loss" weighs every presentation the same.
        """
        return self.token_counts.loss() / self.token_counts.tokens()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """See `SFTTrainer.compute_loss`."""
        inputs = dict(inputs)
        index, owner, weight = (inputs.pop(name, None) for name in (INDEX, OWNER, WEIGHT))
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        seen = _Outputs(weight)
        with model.register_forward_hook(seen.keep):
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self._record(index, owner, seen)
        return loss

    def _record(self, index: Tensor, owner: Tensor, seen: _Outputs) -> None:
        log_probs, entropy, is_top1, label_mask = seen.per_token()
        owner = predicted_owner(owner, label_mask)
        losses = -log_probs.detach()
        self.tracker.update(index, owner=owner, loss=losses, entropy=entropy.detach(), correct=is_top1)
        self.token_counts.add(index, owner, losses)

    # Data

    def _prepare_dataset(
        self,
        dataset: Any,
        processing_class: Any,
        args: Any,
        packing: bool,
        formatting_func: Callable[..., Any] | None,
        dataset_name: str,
    ) -> Any:
        """TRL's preparation, with a number beside each token of the training rows before they are packed."""
        if self._rows_are_numbered:  # so these are data for evaluation
            return super()._prepare_dataset(dataset, processing_class, args, packing, formatting_func, dataset_name)
        self._rows_are_numbered = True
        dataset = self._with_index(dataset)
        first = copy(args)
        if packing:  # cuts to max_length itself, after a shuffle
            if args.max_length is None:
                raise ValueError("max_length: got None, expected a number, because packing=True")
            first.max_length, first.shuffle_dataset = None, False
        rows = super()._prepare_dataset(dataset, processing_class, first, False, formatting_func, dataset_name)
        rows = rows if OWNER in rows.column_names else index_rows(rows)
        if not packing:
            return rows
        rows = rows.select_columns([c for c in ("input_ids", "labels", OWNER, WEIGHT) if c in rows.column_names])
        rows = rows.shuffle(seed=args.seed) if args.shuffle_dataset else rows
        rows = pack_dataset(rows, args.max_length, args.packing_strategy, {"num_proc": args.dataset_num_proc})
        return rows.shuffle(seed=args.seed) if args.shuffle_dataset else rows

    def _with_index(self, dataset: Any) -> Any:
        if not is_table(dataset):
            raise TypeError(
                f"train_dataset: got {type(dataset).__name__}, expected a datasets.Dataset, because rows of a stream "
                "have no position to be scored by"
            )
        if OWNER in dataset.column_names:
            return dataset
        if INDEX in dataset.column_names:
            check_index_column(dataset)
            return dataset
        if len(dataset) != self.tracker.num_examples:
            raise ValueError(
                f"train_dataset: got {len(dataset)} rows, expected {self.tracker.num_examples}, as many as the tracker "
                "was made for; choose rows by dp.select_rows(whole, plan), which keeps their numbers"
            )
        return dataset.add_column(INDEX, np.arange(len(dataset), dtype=np.int64))

    def _check_weights_fit(self) -> None:
        args: Any = self.args
        if args.loss_type != "nll" or args.label_smoothing_factor or self.compute_loss_func is not None:
            raise ValueError(
                f"train_dataset: got a column {WEIGHT!r} with loss_type={args.loss_type!r}, "
                f"label_smoothing_factor={args.label_smoothing_factor} and compute_loss_func={self.compute_loss_func}, "
                f"expected 'nll', 0 and None: other losses are no sum that could be weighted; remove "
                f"the column {WEIGHT!r}"
            )


class _Outputs:
    """What the model returned per token; where there are weights, it is made to return weighted log-probabilities."""

    def __init__(self, weight: Tensor | None) -> None:
        self.weight = weight
        self.found: tuple[Any, ...] = ()

    def keep(self, model: nn.Module, args: Any, outputs: Any) -> None:
        """A forward hook. Where TRL smooths labels it makes two calls, of which one returns logits instead."""
        log_probs = getattr(outputs, "log_probs", None)
        if log_probs is None:
            return
        self.found = tuple(getattr(outputs, name, None) for name in ("log_probs", "entropy", "is_top1", "label_mask"))
        if self.weight is not None:
            virtual = log_probs.shape[1] + 1 - self.weight.shape[1]
            outputs.log_probs = log_probs * nn.functional.pad(self.weight, (virtual, 0))[:, 1:]

    def per_token(self) -> tuple[Tensor, ...]:
        """log_probs, entropy, is_top1 and label_mask."""
        if not self.found or any(part is None for part in self.found):
            raise ValueError(
                "got outputs of the model without log_probs, entropy, is_top1 and label_mask, which TRL 1.16 computes "
                "in its fused head; expected trl >= 1.16 and its own SFTTrainer.compute_loss"
            )
        return self.found
