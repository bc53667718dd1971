"""What a run says of itself when a tracker finishes it, and what is too little to be said."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import IndexedDataset, fingerprint_and_classes
from ..ops.layout import HALF_LIFE
from ..support.arrays import as_tensor
from .state import TrackerState


class OtherLabelsError(ValueError):
    """Labels were given that are not those that the tracker was shown."""


def facts_of_dataset(dataset: Any, num_examples: int) -> tuple[dict[str, Any], NDArray[np.int64] | None]:
    """What a run keeps of a dataset: ids, labels, class names and fingerprint, as far as they are known.

    The examples of a dataset that augments them at random have no fingerprint; ids, or labels, then identify them. Nor
    is one made where ids do and every example would have to be read for its label.

    Returns:
        These; and where labels are not among them, those of the examples that were read for the fingerprint, [N] int64,
        -1 for the others, or None.

    Raises:
        ValueError: a dataset of another length.
    """
    indexed = dataset if isinstance(dataset, IndexedDataset) else IndexedDataset(dataset)
    if len(indexed) != num_examples:
        raise ValueError(
            f"dataset: got {len(indexed)} examples, expected {num_examples}, as many as the tracker has: give the "
            "whole dataset whose positions are the index"
        )
    ids, labels = indexed.ids, indexed.labels
    if labels is not None and labels.min() < 0:
        labels = None  # of examples of which some have no class
    facts: dict[str, Any] = {"ids": ids, "labels": labels, "class_names": indexed.class_names}
    if ids is not None and labels is None:
        return facts, None
    try:
        facts["dataset_fingerprint"], read = fingerprint_and_classes(indexed)
    except (TypeError, ValueError) as error:
        if ids is None and labels is None:
            warnings.warn(f"finish: this run has no dataset fingerprint, ids or labels: {error}", stacklevel=3)
        return facts, None
    return facts, None if labels is not None else np.asarray(indexed.correct_all(read), np.int64)


def options_of_scores(state: TrackerState) -> dict[str, Any]:
    """The options on which the scores depend."""
    wanted = state.wanted
    options: dict[str, Any] = {}
    if wanted.names(needs="input gradients"):
        options["gradient"] = wanted.gradient.definition
    if wanted.names(windowed=True):
        options["temporal"] = wanted.temporal.definition
    usual = {"target": "classes", "right_from": 1.0, "half_life": HALF_LIFE}
    options |= {name: own for name, own in wanted.kind.items() if own != usual[name]}
    if state.labels_are_predictions:
        options["label"] = "predicted"
    return options


def labels_of_run(state: TrackerState, labels: Any) -> Any:
    """The labels of the run: those given, or those shown, if every example was; None if not known.

    Raises:
        OtherLabelsError: labels were given, and others were shown.
    """
    shown = state.labels()
    if labels is None or shown is None:
        return labels if shown is None or bool((shown < 0).any()) else shown
    given, shown = as_tensor(labels, "labels").cpu(), shown.cpu()
    differing = int(((given != shown) & (shown >= 0)).sum()) if given.shape == shown.shape else 0
    if differing:
        raise OtherLabelsError(
            f"labels: {differing} of {len(shown)} examples were shown with other labels than those given here; give "
            "the labels that were trained on, in the order of the dataset, or leave them out"
        )
    return labels


def check_read(state: TrackerState, read: NDArray[np.int64]) -> None:
    """Compares the labels that examples of a dataset show with those that the tracker was shown.

    A training that renumbers the classes (`y - 1`, or one class against the others) shows other numbers for the same
    labels: each class is one number then, and the numbers together are others. That is no other data.

    Args:
        read: [N] the labels of the examples that were read, -1 for the others.

    Raises:
        OtherLabelsError: others were shown.
    """
    labels = state.labels()
    if labels is None or labels.shape != read.shape:
        return
    shown = labels.cpu().numpy()
    compared = (read >= 0) & (shown >= 0)
    pairs = np.stack([read[compared], shown[compared]])
    differing = int((pairs[0] != pairs[1]).sum())
    if not differing:
        return
    own, others = np.unique(pairs[0]), np.unique(pairs[1])
    if np.unique(pairs, axis=1).shape[1] == len(own) and not np.array_equal(own, others):
        return
    raise OtherLabelsError(
        f"dataset: {differing} of {pairs.shape[1]} examples that were read have other labels than those shown to the "
        "tracker; give the dataset that was trained on, in its order. If the training makes its own labels of those of "
        "the dataset, give them too: labels="
    )


def seen_by_run(state: TrackerState, seen: Any) -> Any:
    """Which examples the run trained on: those said to be, or those presented; None for all.

    Raises:
        ValueError: an example is said to be seen, but was never presented.
    """
    presented = torch.stack([counts.cpu() > 0 for counts in state.counts()]).any(0)
    if seen is None:
        return None if bool(presented.all()) else presented
    said = as_tensor(seen, "seen").cpu()
    if said.dtype != torch.bool or said.shape != presented.shape:
        return seen  # which Run refuses, saying what it got
    missing = said & ~presented
    if missing.any():
        raise ValueError(
            f"seen: {int(missing.sum())} examples are said to be trained on, the first of them "
            f"{int(missing.int().argmax())}, but were never presented. The index must be the position in the whole "
            "dataset: Subset(IndexedDataset(dataset), part), and not the other way round"
        )
    return seen


def means_of_run(state: TrackerState, whole: bool) -> dict[str, Tensor]:
    """The suggested labels and their mean probabilities, and with `whole` those of all classes; nothing if not kept.

    Raises:
        ValueError: they were asked for, but not recorded.
    """
    means = state.probabilities
    if whole and means is None:
        raise ValueError(
            "mean_probabilities: none were recorded; make the tracker with DifficultyTracker(..., "
            "mean_probabilities=True)"
        )
    if means is None:
        return {}
    label, probability = means.suggested()
    found = {"suggested": label, "suggested_probability": probability}
    return {**found, "mean_probabilities": means.average()} if whole else found


def warn_of_too_little(state: TrackerState, scores: Mapping[str, Tensor]) -> None:
    """Warns of scores that say nothing, because examples were presented too rarely."""
    wanted = state.wanted
    for name in wanted.names(windowed=True):
        if bool(scores[name].isnan().all()):
            warnings.warn(
                f"{name}: no example was presented {wanted.temporal.window} times, as often as a window asks for, so "
                "that none has a score; choose a smaller one with temporal=dp.TemporalOptions(window=...)",
                stacklevel=3,
            )
    for name, moments in state.moments.items():
        if int(moments.counts().max()) == 1:
            warnings.warn(
                f"{name}: no example's gradient was seen more than once, so that all deviations over time are 0; show "
                "more epochs or checkpoints",
                stacklevel=3,
            )
