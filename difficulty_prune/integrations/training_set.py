"""What a framework knows of its training set and processes: which examples a run is of, and who records them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..data import IndexedDataset
from ..runs.run import Run
from ..tracker.finish import OtherLabelsError
from ..tracker.tracker import DifficultyTracker


def finish_with(tracker: DifficultyTracker, dataset: Any, metadata: Mapping[str, Any]) -> Run:
    """`tracker.finish(**metadata)`, with ids, labels and class names of the training set where these are known.

    No example is read for it, so that there is no fingerprint unless `metadata` has one: reading would draw random
    augmentations after the training. What does not fit is warned of and left out, for a training is not to be lost by
    it: ids that occur twice; labels that are not those the tracker was shown, with the names of their classes.

    Args:
        dataset: of a training loader; an `IndexedDataset` of all the tracker's examples, or what wraps one.
        metadata: what it holds goes before what the dataset knows; with "dataset" nothing is added.
    """
    indexed = indexed_in(dataset)
    if indexed is None or len(indexed) != tracker.num_examples or "dataset" in metadata:
        return tracker.finish(**metadata)
    facts = _ids(indexed)
    try:
        return tracker.finish(**{**facts, **_classes(indexed, tracker), **metadata})
    except OtherLabelsError as error:
        if metadata.get("labels") is not None:
            raise
        warnings.warn(
            f"the run keeps neither labels nor class names of the training set: {error}",
            stacklevel=3,
        )
        return tracker.finish(**{**facts, **metadata})


def late_option(early: Tensor | None) -> dict[str, Any]:
    """What `finish` takes to give `late_aum`: the snapshot of a training's middle. Nothing, and a warning, without it.

    >>> import torch
    >>> late_option(torch.zeros(1, 16)).keys()
    dict_keys(['late'])
    """
    if early is not None:
        return {"late": early}
    warnings.warn(
        "late: the training ended before its middle, or went on after it from a checkpoint without late, so that the "
        "run has no late_aum",
        stacklevel=3,
    )
    return {}


def check_processes(tracker: DifficultyTracker, processes: int, where: str) -> None:
    """ValueError unless the tracker records what all processes of a framework see.

    Args:
        where: it is to be made.

    >>> check_processes(DifficultyTracker(10, ("loss",)), 2, "in setup")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: the tracker knows what its own process saw alone, and there are 2; make it in setup as ...
    """
    if processes < 2 or tracker.process_group is not None:
        return
    instead = f"make it {where} as DifficultyTracker(..., process_group=torch.distributed.group.WORLD)"
    if tracker.partition is not None:
        raise ValueError(
            f"the tracker has a partition, whose records are those of one process of {processes}: checkpoints and the "
            f"run file would hold those of process 0 alone; {instead}, or train in a loop of your own, as in "
            "docs/many_processes.md"
        )
    raise ValueError(f"the tracker knows what its own process saw alone, and there are {processes}; {instead}")


def indexed_in(dataset: Any) -> IndexedDataset | None:
    """The dataset that gives samples their index: this one, or the outermost that it wraps; None if there is none.

    >>> from torch.utils.data import Subset
    >>> whole = IndexedDataset([("a", 0), ("b", 1)])
    >>> indexed_in(Subset(whole, [1])) is whole, indexed_in([1])
    (True, None)
    """
    while dataset is not None and not isinstance(dataset, IndexedDataset):
        dataset = getattr(dataset, "dataset", None)
    return dataset


def _ids(dataset: IndexedDataset) -> dict[str, Any]:
    try:
        return {"ids": dataset.ids}
    except ValueError as error:  # one that occurs twice
        warnings.warn(f"the run keeps no ids: {error}", stacklevel=4)
        return {}


def _classes(dataset: IndexedDataset, tracker: DifficultyTracker) -> dict[str, Any]:
    labels, names = dataset.labels, dataset.class_names
    if tracker.target != "classes" or labels is None or labels.min() < 0:
        return {}
    return {"labels": labels, "class_names": names if names is not None and len(names) > labels.max() else None}
