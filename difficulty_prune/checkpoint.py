"""Scoring with a frozen model, as the papers do it: evaluation mode, every example once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .scores import SCORES
from .tracker import DifficultyTracker


def score_checkpoint(
    model: nn.Module, loader: Iterable[Any], tracker: DifficultyTracker, *, device: torch.device | str | None = None
) -> None:
    """Shows one checkpoint of a model to a tracker: one more presentation of every example.

    The model is put into evaluation mode for the time of the call, its parameters and their `.grad` are not
    touched. Call once per checkpoint; which stage of training the score speaks of is just which checkpoints are
    passed. Give it a tracker of its own, and a loader without augmentation.

    Args:
        model: maps inputs [B, ...] to logits [B, C].
        loader: yields (inputs, labels, index), as a DataLoader of an IndexedDataset does, or mappings with
            the keys "input", "label" and "index".
        tracker: its scores say what is computed: logit scores cost a forward pass, each gradient score one
            backward pass to the input.
        device: where to run; default: the device of the model's first parameter.

    Raises:
        ValueError: a batch is not of the form above.
        RuntimeError: gradient scores in inference mode.

    >>> model = nn.Linear(3, 2)
    >>> tracker = DifficultyTracker(2, scores=("vog",))
    >>> for checkpoint in range(3):
    ...     score_checkpoint(model, [(torch.eye(2, 3), torch.tensor([0, 1]), torch.tensor([0, 1]))], tracker)
    >>> tracker.compute()["vog"]
    tensor([0., 0.])
    """
    if device is None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    gradient_scores = [name for name in tracker.scores if SCORES[name].needs == "input gradients"]
    if gradient_scores and torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"score_checkpoint: {', '.join(gradient_scores)} need gradients; leave torch.inference_mode()"
        )
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for batch in loader:
            inputs, labels, index = _unpack(batch)
            inputs, labels = inputs.to(device).detach(), labels.to(device)
            with torch.set_grad_enabled(bool(gradient_scores)):
                inputs.requires_grad_(bool(gradient_scores))
                logits = model(inputs)
            tracker.record_logits(index, logits, labels)
            for name in gradient_scores:
                tracker.record_input_gradient(name, index, logits, labels, inputs)
    finally:
        for module, training in was_training.items():
            module.training = training


def _unpack(batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    if isinstance(batch, dict) and {"input", "label", "index"} <= batch.keys():
        return batch["input"], batch["label"], batch["index"]
    if isinstance(batch, (tuple, list)) and len(batch) == 3:
        return batch[0], batch[1], batch[2]
    got = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
    raise ValueError(f"loader: got a batch of {got}, expected (inputs, labels, index): wrap the data in IndexedDataset")
