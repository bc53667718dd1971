"""From what the loss takes to one row of statistics per example.

An image to classify has one row of logits. A sentence has one per token, an image to segment one per pixel, a
multi-label example one per label; what an example's rows say is averaged before anything is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ..ops.checks import (
    check_binary_labels,
    check_index,
    check_labels_of_rows,
    check_logits_of_rows,
    check_owner,
    check_row_weight,
    check_same_device,
    check_targets,
)
from ..ops.layout import NO_LABEL, PADDING
from ..ops.operators import given_stats, reduce_rows, sigmoid_stats, soft_stats, softmax_stats
from ..scores.catalogue import SCORES
from .skipped import SkippedCounts
from .wanted import Wanted

GIVEN: Final = {
    "loss": "loss",
    "recent_loss": "loss",
    "confidence": "loss",
    "variability": "loss",
    "entropy": "entropy",
    "accuracy": "correct",
    "forgetting": "correct",
    "learning_time": "correct",
    "consistently_learned": "correct",
}
"""Scores that can do without logits, and what they need in their place."""


@dataclass(frozen=True)
class Rows:
    """The checked rows of a batch.

    Attributes:
        examples: B, length of the index.
        logits, labels: of any form that `DifficultyTracker.update` takes; None where values are given.
        values: loss, entropy, correct, those that are known, in place of logits.
        owner, weight: one value for each row, in the shape of the rows; None for the default.
        ignore_index: the label of rows that do not count.
        binary: whether labels are 0 or 1 for each logit.
    """

    examples: int
    logits: Tensor | None
    labels: Tensor | None
    values: dict[str, Tensor]
    owner: Tensor | None
    weight: Tensor | None
    ignore_index: int
    binary: bool

    @property
    def batch(self) -> Tensor:
        """What tells the device."""
        return self.logits if self.logits is not None else next(iter(self.values.values()))

    @property
    def columns(self) -> int | None:
        """Of the logits, a number that stays; None where there are none, or each logit is a row of its own.

        Of binary rows it does not: images to segment, and texts, may have another size in every batch.
        """
        return None if self.logits is None or self.binary else self.logits.shape[1]

    @property
    def classes(self) -> int:
        """That a label may be one of."""
        return 2 if self.binary else self.columns or 1

    @property
    def _is_soft(self) -> bool:
        return not self.binary and self.labels is not None and self.labels.is_floating_point()

    def statistics(self, skipped: SkippedCounts, log_loss: bool) -> tuple[Tensor, Tensor]:
        """Of each example, [B, 8] float32, and its label [B] int64 where it has one; see `ops.reduce_rows`.

        Args:
            skipped: where owners that do not exist are counted, on an accelerator.
            log_loss: whether a loss that is given is -log p of the label.
        """
        stats, labels = self._of_rows(skipped, log_loss), self._labels_of_rows()
        alone = stats.numel() == self.examples * stats.shape[-1]
        if alone and self.owner is None and self.weight is None:
            stats = stats.view(self.examples, stats.shape[-1])
            if labels is None:
                labels = torch.full_like(stats[:, 0], NO_LABEL, dtype=torch.int64)
            return stats, labels.reshape(-1)
        return reduce_rows(stats, self.examples, self.owner, self.weight, labels, skipped.update)

    def probabilities(self) -> Tensor:
        """Of each example, [B, C] float32: the mean over its rows of logits [R, C]; NaN where it has none that counts.

        Not for a single row of which `statistics` says that it is none.
        """
        assert self.logits is not None
        assert self.labels is not None
        logits = self.logits.detach()
        if self.owner is None:
            return logits.float().softmax(1)
        owner = self.owner
        if not self._is_soft:
            owner = torch.where(self.labels == self.ignore_index, PADDING, owner)
        return torch.ops.difficulty_prune.reduce_probabilities(  # type: ignore[no-any-return]
            logits, self.examples, owner, self.weight
        )

    def _of_rows(self, skipped: SkippedCounts, log_loss: bool) -> Tensor:
        if self.logits is None:
            return given_stats(**self.values, log_loss=log_loss)
        assert self.labels is not None
        logits, labels = self.logits.detach(), self.labels.detach()
        if self.binary:
            return sigmoid_stats(logits, labels, self.ignore_index)
        if self._is_soft:
            stats = soft_stats(logits, labels, skipped.unnormalised)
            if labels.is_cpu and not torch.compiler.is_compiling():
                skipped.warn_of_targets(stacklevel=6)
            return stats
        return softmax_stats(logits, labels, self.ignore_index)

    def _labels_of_rows(self) -> Tensor | None:
        """int64, for examples with a single row; None where rows have no class, or no example has a single row."""
        if self.labels is None or self._is_soft:
            return None
        if not self.binary:
            return torch.where(self.labels == self.ignore_index, 0, self.labels)
        alone = self.owner is None and self.labels.numel() == self.examples
        return (self.labels == 1).long() if alone else None


def check_rows(
    wanted: Wanted,
    index: Tensor,
    logits: Tensor,
    labels: Tensor,
    owner: Tensor | None,
    row_weight: Tensor | None,
    ignore_index: int,
) -> Rows:
    """The rows of logits and labels of any form, if everything fits together.

    Raises:
        TypeError, ValueError, IndexError: something does not, or a score that is wanted needs one row per example.
    """
    binary = wanted.target == "binary"
    _refuse_scores(wanted)
    check_logits_of_rows(logits, classes=not binary)
    if wanted.probabilities is not None and logits.dim() > 2:
        raise ValueError(
            "update: mean_probabilities needs one row of logits [B, C] per example, or rows [R, C] with owner=, but "
            f"got logits {list(logits.shape)}: positions have no class in common; make the tracker without it"
        )
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels: got {type(labels).__name__}, expected a torch.Tensor")
    wanted.check_columns(_columns_of(logits), tuple(logits.shape))
    if binary:
        check_binary_labels(labels, logits, ignore_index)
        shape = tuple(logits.shape)
    elif labels.is_floating_point():
        check_targets(labels, logits)
        _refuse_ignored_class(ignore_index)
        shape = (logits.shape[0], *logits.shape[2:])
    else:
        check_labels_of_rows(labels, logits, ignore_index)
        shape = tuple(labels.shape)
    owner, weight = _owner_and_weight(index, owner, row_weight, shape, logits, binary)
    return Rows(len(index), logits, labels, {}, owner, weight, ignore_index, binary)


def check_values(
    wanted: Wanted,
    index: Tensor,
    values: dict[str, Tensor],
    owner: Tensor | None,
    row_weight: Tensor | None,
    ignore_index: int,
) -> Rows:
    """The rows of losses and the like, if they fit together and serve the scores that are wanted.

    Raises:
        TypeError, ValueError, IndexError: something does not, or a score that is wanted needs something else.
    """
    if wanted.probabilities is not None:
        got = ", ".join(f"{name}=" for name in values)
        raise ValueError(f"update: mean_probabilities needs logits and labels, but got only {got}")
    for score in wanted.names(needs=("loss", "logits")):
        need = GIVEN.get(score)
        if need not in values:
            lacking = "logits and labels" if need is None else f"{need}="
            got = ", ".join(f"{name}=" for name in values)
            raise ValueError(f"update: the score {score!r} needs {lacking}, but got only {got}")
    first = next(iter(values))
    for name, given in values.items():
        _check_value(name, given, values[first], owner)
    _check_ranges(wanted, values)
    batch = values[first]
    owner, weight = _owner_and_weight(index, owner, row_weight, tuple(batch.shape), batch, prefix=False)
    return Rows(len(index), None, None, values, owner, weight, ignore_index, False)


def _refuse_ignored_class(ignore_index: int) -> None:
    if ignore_index >= 0:
        raise ValueError(
            f"ignore_index: got {ignore_index} beside labels that are probabilities, which no row can be told by; "
            "leave rows out by row_weight of 0, or by owner of -1"
        )


def wants_log_loss(wanted: Wanted) -> bool:
    """Whether a loss that is given has to be -log p, since a score is made of p."""
    return any(name in wanted.scores for name in ("confidence", "variability"))


def _check_value(name: str, given: Tensor, first: Tensor, owner: Tensor | None) -> None:
    if not isinstance(given, Tensor):
        raise TypeError(f"{name}: got {type(given).__name__}, expected a torch.Tensor")
    if not given.is_floating_point() and not (name == "correct" and given.dtype == torch.bool):
        also = " or bool; convert with .bool() if it is 0 or 1" if name == "correct" else ""
        raise TypeError(f"{name}: got {given.dtype}, expected floating point{also}")
    if given.shape != first.shape:
        raise ValueError(
            f"{name}: got shape {tuple(given.shape)}, expected {tuple(first.shape)}, as what is given beside it"
        )
    if given.dim() < 1 or (given.dim() > 1 and owner is None):
        raise ValueError(
            f"{name}: got shape {tuple(given.shape)}, expected [batch]: one value per example, not reduced; or one "
            "per row, with owner= of the same shape, which says whose it is (-1: nobody's, as where text is padded)"
        )
    check_same_device(batch=first, **{name: given})


def _check_ranges(wanted: Wanted, values: dict[str, Tensor]) -> None:
    if not next(iter(values.values())).is_cpu or torch.compiler.is_compiling():
        return
    loss, correct = values.get("loss"), values.get("correct")
    if loss is not None and wants_log_loss(wanted) and bool((loss < -1e-3).any()):
        raise ValueError(
            f"loss: got {loss[loss < -1e-3][0].item():g}, expected -log p, which is never negative, for the scores "
            "confidence and variability; leave them out for any other loss"
        )
    entropy = values.get("entropy")
    if entropy is not None and bool((entropy < -1e-3).any()):
        wrong = entropy[entropy < -1e-3][0].item()
        raise ValueError(
            f"entropy: got {wrong:g}, expected -sum p log p, which is never negative; is its sign flipped?"
        )
    if correct is not None and correct.is_floating_point() and bool(((correct < 0) | (correct > 1)).any()):
        wrong = correct[(correct < 0) | (correct > 1)][0].item()
        raise ValueError(f"correct: got {wrong:g}, expected whether each row is right, or a fraction in [0, 1]")


def _columns_of(logits: Tensor) -> int:
    return logits.shape[1] if logits.dim() > 1 else 1


def _refuse_scores(wanted: Wanted) -> None:
    for name in wanted.scores:
        score = SCORES[name]
        if score.windowed or score.how == "update(inputs=)":
            instead = "leave it out" if score.windowed else "watch the inputs, or their embeddings, for vog_loss"
            raise ValueError(
                f"update: the score {name!r} needs one row of logits [B, C] with one class [B] per example; {instead}"
            )


def _owner_and_weight(
    index: Tensor,
    owner: Tensor | None,
    row_weight: Tensor | None,
    shape: tuple[int, ...],
    batch: Tensor,
    prefix: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Owner and weight of each row, checked; with `prefix` they may lack the last dimensions, and are then repeated."""
    if not isinstance(index, Tensor) or index.dim() != 1:
        check_index(index, None, 1)  # which says what is wrong
    if owner is None and shape[0] != len(index):
        raise ValueError(
            f"index: got {len(index)} examples for a batch of {shape[0]}; give an index of the same length, or owner=, "
            "which says to which of the examples each row belongs"
        )
    if owner is not None:
        owner = _beside(_of_shape(owner, shape, "owner", torch.int64, prefix), batch)
        check_owner(owner, len(index))
        check_same_device(owner=owner, batch=batch)
    if row_weight is not None:
        row_weight = _beside(_of_shape(row_weight, shape, "row_weight", None, prefix), batch).detach().float()
        check_row_weight(row_weight)
        check_same_device(row_weight=row_weight, batch=batch)
    return owner, row_weight


def _beside(values: Tensor, batch: Tensor) -> Tensor:
    on_the_way = values.device.type == "cpu" and batch.device.type != "cpu"
    return values.to(batch.device, non_blocking=True) if on_the_way else values


def _of_shape(values: Tensor, shape: tuple[int, ...], name: str, dtype: torch.dtype | None, prefix: bool) -> Tensor:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name}: got {type(values).__name__}, expected a torch.Tensor")
    if values.dtype != dtype if dtype is not None else not values.is_floating_point():
        raise TypeError(
            f"{name}: got {values.dtype}, expected "
            + (
                "floating point; convert with .float(), also a mask"
                if dtype is None
                else f"{dtype}; convert with .long()"
            )
        )
    got = tuple(values.shape)
    if got != shape and not (prefix and 0 < len(got) < len(shape) and shape[: len(got)] == got):
        raise ValueError(f"{name}: got shape {got}, expected {list(shape)}, one value for each row")
    return values.reshape(*got, *(1 for _ in shape[len(got) :])).expand(shape)
