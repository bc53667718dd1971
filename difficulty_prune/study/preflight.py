"""Checks made before the first training, so that what is bound to fail does not fail hours later."""

from __future__ import annotations

import math
import os
import re
import tempfile
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..policies.base import number_kept
from ..policies.uniform import Random
from ..sampler import PruneSampler
from ..scores.grand.grand import grand
from .models import build_model
from .settings import Settings
from .study_data import StudyData
from .train import prepare, training_device


def folders(settings: Settings) -> list[Path]:
    """Where a study writes."""
    names = ["runs", "trainings", "figures"] if settings.keep else ["runs", "figures"]
    return [settings.out, *(settings.out / name for name in names)]


def check_out(settings: Settings) -> None:
    """Checks that results can be written, and leaves nothing behind.

    Raises:
        ValueError: a URL.
        NotADirectoryError: a file is in the way.
        OSError: a folder cannot be written to.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:[/\\]", str(settings.out)):  # in which Path has left one of the two slashes
        raise ValueError(f"out: got {settings.out}, expected a folder of this machine, not a URL; choose another --out")
    for folder in folders(settings):
        whole = folder.absolute()
        existing = next(path for path in (whole, *whole.parents) if path.exists())
        if not existing.is_dir():
            raise NotADirectoryError(f"out: {existing} is a file, expected a folder; choose another --out")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(f"out: the folder {existing} cannot be written to; choose another --out")
        try:
            tempfile.TemporaryDirectory(dir=existing).cleanup()  # permissions do not tell of every obstacle
        except OSError as error:
            raise OSError(f"out: {existing} cannot be written to ({error}); choose another --out") from error


def make_folders(settings: Settings) -> None:
    """Makes the folders of a study and writes to each, since permissions do not tell that a disk is read-only.

    Raises:
        OSError: a folder cannot be made or written to.
    """
    for folder in folders(settings):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"a result")
        except OSError as error:
            raise OSError(f"out: {folder} cannot be written to ({error}); choose another --out") from error


def check_fit(settings: Settings, data: StudyData) -> None:
    """Checks that the data is what the settings need.

    Raises:
        ValueError: a model that cannot be trained on the images, a hold-out that leaves too few examples, or a random
            subset without an example of some class.
    """
    check_hold_out_size(settings.hold_out, len(data.train))
    for name in settings.model_names:
        check_model(name, data, with_grand="grand" in settings.scores)
    check_random_subsets(settings, data)


def check_hold_out_size(share: float, size: int) -> None:
    """ValueError unless every run trains on two examples or more, since batch norm needs two."""
    left = size - math.ceil(Fraction(str(float(share))) * size)
    if left < 2:
        raise ValueError(
            f"hold_out: got {share}, which may leave a run {left} of {size} examples, expected to leave 2 or more"
        )


def check_model(name: str, data: StudyData, with_grand: bool = False) -> None:
    """Makes the model, and shows it two training images on the device that will train it.

    The global generators are left as they were.

    Args:
        with_grand: also compute GraNd of the two images, which not every model allows.

    Raises:
        ValueError: it cannot be made, has nothing to learn, does not take the images, or does not return logits.
    """
    device = training_device()
    images, labels = (
        prepare(data.train.at(list(range(min(2, len(data.train))))), data, device),
        data.train.labels[:2].to(device),
    )
    expected = [len(images), data.num_classes]
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GraNd warns of an untrained model
            model = build_model(name, data.shape, data.num_classes)
            if not isinstance(model, nn.Module):
                raise TypeError(f"got {type(model).__name__}, expected a torch.nn.Module")
            if not any(parameter.requires_grad for parameter in model.parameters()):
                raise ValueError("it has no parameters to train")
            model = model.to(device)
            for mode in ("training", "evaluation"):
                with torch.no_grad():
                    logits = model.train(mode == "training")(images)
                if not isinstance(logits, torch.Tensor):
                    got = type(logits).__name__
                    raise TypeError(f"in {mode} mode it returns a {got}, expected logits {expected}, a tensor")
                if list(logits.shape) != expected:
                    raise ValueError(f"it returns logits of shape {list(logits.shape)}, expected {expected}")
            if with_grand:
                grand(model, images, labels)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"model: {name!r} does not work with images {list(data.shape)} of {data.num_classes} classes: {reason}"
        ) from error


def check_random_subsets(settings: Settings, data: StudyData) -> None:
    """ValueError for a random subset that lacks a class: it depends on no score, and every comparison trains on it.

    Also for one of a single example, as there may be where numbers are predicted, since batch norm needs two.
    """
    for keep in settings.keep:
        if data.regression and number_kept(keep, len(data.train)) < 2:
            raise ValueError(f"keep: got {keep:g}, which keeps 1 of {len(data.train):,} examples, expected 2 or more")
        for seed in settings.comparison_seeds:
            try:
                PruneSampler(Random(keep), np.zeros(len(data.train)), labels=data.classes, seed=seed)
            except ValueError as error:
                raise ValueError(
                    f"keep: got {keep:g}, expected more: the random subset to compare with must have examples of every "
                    f"class, but {error}"
                ) from error
