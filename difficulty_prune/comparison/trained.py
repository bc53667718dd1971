"""What a finished training reached, and the file that remembers it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from ..support.digest import digest_of_text
from ..support.files import MALFORMED, write_atomically
from ..support.json_text import read_json

VALUE: Final = "value"
"""The name of the metric where the training returns a number alone."""


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        metrics: name -> number; the first one is what the comparison is about.
        classes: name -> class -> number, of metrics that are given per class.
        presentations: examples that the training drew from its sampler, over all epochs.
        seconds: wall time; None where another training may have run at the same time.
    """

    metrics: Mapping[str, float]
    classes: Mapping[str, Mapping[str, float]]
    presentations: int
    seconds: float | None


def read_outcome(outcome: Any, who: str) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Metrics, and metrics per class, of what the user's function returned.

    Raises:
        TypeError, ValueError: neither a number nor a dict of numbers; no number; or one that is not finite.
    """
    entries = outcome if isinstance(outcome, Mapping) else {VALUE: outcome}
    metrics: dict[str, float] = {}
    classes: dict[str, dict[str, float]] = {}
    for name, value in entries.items():
        if not isinstance(name, str):
            raise TypeError(f"train: got the metric {name!r} from {who}, expected a name, such as 'accuracy'")
        plain = value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value
        if isinstance(plain, Mapping):
            classes[name] = _per_class(plain.items(), name, who)
        elif isinstance(plain, list | tuple):
            classes[name] = _per_class(enumerate(plain), name, who)
        else:
            metrics[name] = _number(plain, name, who)
            if not math.isfinite(metrics[name]):
                raise ValueError(f"train: got {name} {metrics[name]} from {who}, expected a finite number")
    if not metrics:
        raise ValueError(f"train: got {list(entries)} from {who}, expected at least one number, such as the accuracy")
    return metrics, classes


def _per_class(entries: Any, name: str, who: str) -> dict[str, float]:
    found = {str(key): _number(value, f"{name} of class {key}", who) for key, value in entries}
    for key, value in found.items():
        if math.isinf(value):
            raise ValueError(f"train: got {name} {value} of class {key} from {who}, expected a finite number or NaN")
    return {key: value for key, value in found.items() if not math.isnan(value)}  # NaN: not in the test data


def _number(value: Any, name: str, who: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"train: got {name} {value!r} from {who}, expected a number, or a dict of numbers such as "
            "{'accuracy': 0.9}"
        )
    return float(value)


def write_trained(path: Path, comparison: str, training: str, seed: int, trained: Trained) -> None:
    """Writes a training, whole or not at all, with a digest."""
    content = {
        "comparison": comparison,
        "training": training,
        "seed": seed,
        "metrics": dict(trained.metrics),
        "classes": {name: dict(of) for name, of in trained.classes.items()},
        "presentations": trained.presentations,
        "seconds": trained.seconds,
    }
    write_atomically(path, json.dumps({**content, "digest": _digest(content)}, indent=1))


def read_trained(path: Path, comparison: str, training: str, seed: int) -> Trained | None:
    """What `write_trained` wrote; None if there is no such file.

    Raises:
        ValueError: damaged, or of another comparison; the message names the file.
    """
    try:
        found = read_json(path)
        digest = found.pop("digest")
        if digest != _digest(found):
            raise ValueError("its content does not have the digest that it was written with")
        trained = Trained(found["metrics"], found["classes"], found["presentations"], found["seconds"])
        written_for = (found["comparison"], found["training"], found["seed"])
    except FileNotFoundError:
        return None
    except MALFORMED as error:
        raise ValueError(f"{path}: not a finished training, or changed since ({error}); remove it") from error
    if written_for != (comparison, training, seed):
        raise ValueError(f"{path}: of another comparison; give this one another folder")
    return trained


def _digest(content: Mapping[str, Any]) -> str:
    return digest_of_text(json.dumps(content, sort_keys=True))
