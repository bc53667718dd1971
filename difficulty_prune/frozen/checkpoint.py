"""Scoring with a frozen model, as the papers do it: evaluation mode, every example once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..data import label_key
from ..ops.checks import check_index, check_labels, check_logits
from ..scores.catalogue import SCORES, check_scores
from ..scores.gradients import input_gradient
from ..scores.grand.checks import Loss, check_loss
from ..scores.grand.grand import grand
from ..scores.grand.targets import check_targets, to_device
from ..tracker.tracker import DifficultyTracker


def score_checkpoint(
    model: nn.Module,
    loader: Iterable[Any],
    tracker: DifficultyTracker,
    *,
    scores: Iterable[str] | None = None,
    label: str = "true",
    loss: Loss = "cross_entropy",
    device: torch.device | str | None = None,
) -> None:
    """Shows one checkpoint of a model to a tracker: one more presentation of every example.

    The model is in evaluation mode during the call; its parameters and their `.grad` are not touched. Call it once per
    checkpoint: the checkpoints you pass decide which stage of training is scored. Give it a loader without
    augmentation, and a tracker of its own unless `scores` are those that the training step does not record. Batches
    before one that is refused stay recorded.

    Args:
        model: maps inputs [B, ...] to logits [B, C].
        loader: yields (inputs, labels, index), as a DataLoader of an IndexedDataset does, or mappings with
            the keys "input", "label" (or "labels") and "index". It may be a test set: N is then its length.
        tracker: logit scores cost a forward pass, each score of input gradients one backward pass to the input,
            `grand` a forward and a backward pass of its own.
        scores: which of the tracker's scores to record; default: all. Logit scores go together: naming one of them
            records all of them.
        label: "true", or "predicted": in place of the label, the class that this checkpoint predicts. The loader may
            then leave the labels out; scores of whether the prediction is right make no sense, and the run will not
            hold the predictions as its labels.
        loss: of `grand`, which see: "cross_entropy", or a function of (outputs, labels). If `grand` is the only score,
            the outputs of the model and the labels may be whatever that function takes.
        device: where to run; default: the device of the model's first parameter.

    Raises:
        ValueError: a batch is not of the form above, a score that the tracker does not have, another `label`, a score
            that compares the predicted label with itself, or a loss of your own without `grand` or without labels.
        RuntimeError: gradient scores in inference mode.

    >>> model = nn.Linear(3, 2)
    >>> tracker = DifficultyTracker(2, scores=("vog",))
    >>> for checkpoint in range(3):
    ...     score_checkpoint(model, [(torch.eye(2, 3), torch.tensor([0, 1]), torch.tensor([0, 1]))], tracker)
    >>> tracker.compute()["vog"]
    tensor([0., 0.])
    """
    chosen = _chosen(tracker, scores)
    if label not in ("true", "predicted"):
        raise ValueError(f"label: got {label!r}, expected 'true' or 'predicted'")
    judging = [name for name in chosen if SCORES[name].judges]
    if label == "predicted" and judging:
        raise ValueError(
            f"label: {judging[0]!r} compares the prediction with the label, which is the prediction; leave it out"
        )
    check_loss(loss)
    if loss != "cross_entropy" and ("grand" not in chosen or label == "predicted"):
        raise ValueError(
            f"loss: got {loss!r} for {', '.join(chosen)} of the {label} label; it is the loss of 'grand', of labels "
            "that the loader yields"
        )
    if device is None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    needs = {SCORES[name].needs for name in chosen}
    differentiated = [name for name in chosen if "gradients" in SCORES[name].needs]
    if differentiated and torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"score_checkpoint: {', '.join(differentiated)} need gradients; leave torch.inference_mode()"
        )
    of_logits = {"loss", "logits"}
    to_inputs = [name for name in chosen if SCORES[name].needs == "input gradients"]
    # A tracker of gradient scores alone keeps a record of each presentation for its label.
    with_logits = not needs.isdisjoint(of_logits) or not any(SCORES[name].needs in of_logits for name in tracker.scores)
    with evaluation_mode(model):
        for batch in loader:
            inputs, labels, index = unpack(batch, needs_labels=label == "true")
            if loss != "cross_entropy" and chosen == ("grand",):  # labels of any form
                _record_grand(model, inputs, labels, index, tracker, loss, device)
                continue
            inputs = _checked_inputs(inputs, bool(to_inputs)).to(device).detach()
            with torch.set_grad_enabled(bool(to_inputs)):
                inputs.requires_grad_(bool(to_inputs))
                logits = model(inputs.clone())  # whose first layer may work in place
            check_logits(logits)
            if labels is None and label == "true":
                raise ValueError(
                    "loader: got None for the labels, expected int64 [B]; data without labels can be scored by "
                    "score_checkpoint(..., label='predicted')"
                )
            if labels is None or label == "predicted":
                labels = logits.argmax(1)
            elif isinstance(labels, Tensor):
                labels = labels.to(device)
            check_labels(labels, logits)
            tracker.make_room(index)
            check_index(index, len(logits), tracker.capacity)
            tracker.record(
                index,
                logits if with_logits else None,
                labels,
                gradients={name: input_gradient(name, logits, labels, inputs) for name in to_inputs},
                norms=grand(model, inputs.detach(), labels, loss) if "parameter gradients" in needs else None,
                predicted=label == "predicted",
            )


def _record_grand(
    model: nn.Module,
    inputs: Any,
    labels: Any,
    index: Tensor,
    tracker: DifficultyTracker,
    loss: Loss,
    device: torch.device | str,
) -> None:
    inputs = _checked_inputs(inputs, differentiable=False)
    check_targets(labels, len(inputs))
    tracker.make_room(index)
    check_index(index, len(inputs), tracker.capacity)
    tracker.record(index, norms=grand(model, inputs.to(device), to_device(labels, device), loss))


def _checked_inputs(inputs: Any, differentiable: bool) -> Tensor:
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs: got {type(inputs).__name__}, expected a tensor [B, ...]")
    if differentiable and not inputs.is_floating_point():
        raise TypeError(
            f"inputs: got {inputs.dtype}, expected floating point for scores of input gradients: convert images with "
            ".float(), and score embeddings where inputs are tokens"
        )
    return inputs


def _chosen(tracker: DifficultyTracker, scores: Iterable[str] | None) -> tuple[str, ...]:
    if scores is None:
        return tracker.scores
    chosen = check_scores(scores)
    missing = [name for name in chosen if name not in tracker.scores]
    if missing:
        raise ValueError(f"scores: {missing[0]!r} is not among the scores of this tracker, {tracker.scores}")
    return chosen


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards every module is in the mode that it was in."""
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training


def unpack(batch: Any, needs_labels: bool = True) -> tuple[Tensor, Tensor | None, Tensor]:
    """Inputs, labels (None if they are not needed and not there) and index of a batch."""
    if isinstance(batch, Mapping) and {"input", "index"} <= batch.keys():
        key = label_key(batch)
        if key is not None or not needs_labels:
            return batch["input"], None if key is None else batch[key], batch["index"]
    if isinstance(batch, (tuple, list)) and len(batch) == 3:
        return batch[0], batch[1], batch[2]
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and not needs_labels:
        return batch[0], None, batch[1]
    got = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    raise ValueError(
        f"loader: got a batch of {got}{size}, expected (inputs, labels, index), or a mapping with the keys 'input', "
        "'label' (or 'labels') and 'index': wrap the data in IndexedDataset; data without labels can be scored by "
        "score_checkpoint(..., label='predicted')"
    )
