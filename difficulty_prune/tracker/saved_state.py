"""Checks of a saved state, all of them before anything is taken over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from ..ops.layout import FIELD, HALF_LIFE, RECORD_WIDTH, SKIPPED
from ..ops.operators import new_steps
from ..support.checks import whole_number
from .wanted import Wanted
from .windows import TemporalRecords

FORMAT: Final = 3  # of a state; 1, without a number, kept `grand` among the moments; 2 had no recent loss and no steps
_FIRST_REASONS: Final = 3  # of `SKIPPED`, known from the first
_KEYS: Final = (
    *("num_examples", "scores", "num_classes", "gradient", "temporal", "steps", "labels_are_predictions"),
    *("table", "last_seen", "temporal_records", "skipped", "moments"),
)


def checked_state(state: Any, wanted: Wanted) -> dict[str, Any]:
    """A state of this format, on the wanted device, whose parts all fit; ValueError if it is not one."""
    if not isinstance(state, Mapping):
        raise ValueError(
            f"load_state_dict: got {type(state).__name__}, expected what DifficultyTracker.state_dict gives"
        )
    number = state.get("format", 1)
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise ValueError(f"load_state_dict: format {number!r} is newer than {FORMAT}, the newest known here; upgrade")
    if number < 3:
        state = _with_defaults(state)
    if wanted.grows and type(state.get("num_examples")) is int and state["num_examples"] >= 0:
        wanted = replace(wanted, num_examples=state["num_examples"])
    expected = wanted.definition | ({} if wanted.num_classes is None else {"num_classes": wanted.num_classes})
    for key, value in expected.items():
        if state.get(key) != value:
            raise ValueError(f"load_state_dict: the state has {key} {state.get(key)!r}, this tracker {value!r}")
    missing = [key for key in _KEYS if key not in state]
    if missing:
        raise ValueError(f"load_state_dict: the state has no {missing[0]}; it is damaged")
    saved = {"norms": None, "probabilities": None, "largest_batch": 0, "other_passes": 0, **state}
    saved["skipped"] = _with_newer_reasons(saved["skipped"])
    if number == 1 and isinstance(saved["moments"], Mapping) and "grand" in saved["moments"]:
        moments = dict(saved["moments"])
        saved |= {"norms": _norms_of_format_1(moments.pop("grand")), "moments": moments}
    _check_parts(saved, wanted)
    on_device: dict[str, Any] = _on_device(saved, wanted.device)
    return on_device


def _with_defaults(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state of before, with what trackers did then; what they did not record is not known."""
    state = {"target": "classes", "right_from": 1.0, "half_life": HALF_LIFE, "last_seen": None, **state}
    table = state.get("table")
    if isinstance(table, Tensor) and table.dim() == 2 and table.shape[1] == RECORD_WIDTH:
        state["table"] = table = table.clone()
        table[:, FIELD["recent_loss"]].masked_fill_(table[:, FIELD["count"]] > 0, torch.nan)
        state["last_seen"] = new_steps(len(table), table.device)
    return state


def _with_newer_reasons(skipped: Any) -> Any:
    """Counters of a state that was saved before the last reasons were known, with 0 for those."""
    if isinstance(skipped, Tensor) and tuple(skipped.shape) == (_FIRST_REASONS,) and skipped.dtype == torch.int64:
        return torch.cat([skipped, skipped.new_zeros(len(SKIPPED) - _FIRST_REASONS)])
    return skipped


def _norms_of_format_1(moments: Any) -> Any:
    """`grand` as it was kept before: as the gradient of one pixel."""
    mean = moments.get("mean") if isinstance(moments, Mapping) else None
    if not isinstance(mean, Tensor) or mean.dim() != 2 or mean.shape[1] != 1:
        raise ValueError(f"load_state_dict: moments.grand: got {type(moments).__name__}, expected means [N, 1]")
    return {"count": moments["count"], "mean": mean[:, 0]}


def _check_parts(saved: dict[str, Any], wanted: Wanted) -> None:
    n, every = wanted.num_examples, wanted.gradient.every
    classes, steps = saved["num_classes"], saved["steps"]
    least = 2 if wanted.target == "classes" else 1
    if classes is not None and (type(classes) is not int or classes < least):
        raise ValueError(
            f"load_state_dict: num_classes: got {classes!r}, expected a whole number, at least {least}, or None"
        )
    good = isinstance(steps, list | tuple) and len(steps) == 2 and all(type(step) is int for step in steps)
    if not good or not all(0 <= step < every for step in steps):
        raise ValueError(f"load_state_dict: steps: got {steps!r}, expected two whole numbers from 0 to {every - 1}")
    if type(saved["labels_are_predictions"]) is not bool:
        raise ValueError(f"load_state_dict: labels_are_predictions: got {saved['labels_are_predictions']!r}")
    for key in ("largest_batch", "other_passes"):
        whole_number(saved[key], f"load_state_dict: {key}")
    if saved["table"] is not None:
        _check_tensor(saved["table"], (n, RECORD_WIDTH), torch.float32, "table")
        _check_counts(saved["table"][:, 0], "table")
        _check_tensor(saved["last_seen"], (n + 1,), torch.int32, "last_seen")
        _check_counts(saved["last_seen"], "last_seen")
    if saved["skipped"] is not None:
        _check_tensor(saved["skipped"], (len(SKIPPED),), torch.int64, "skipped")
    if saved["norms"] is not None:
        _check_group(saved["norms"], "norms", {"count": ((n,), torch.int32), "mean": ((n,), torch.float32)})
    if saved["probabilities"] is not None:
        _check_probabilities(saved["probabilities"], classes, wanted)
    if not isinstance(saved["moments"], Mapping):
        raise ValueError(f"load_state_dict: moments: got {type(saved['moments']).__name__}, expected a dict by score")
    for name, of_score in saved["moments"].items():
        if name not in wanted.names(needs="input gradients"):
            raise ValueError(f"load_state_dict: moments: got {name!r}, expected of {wanted.scores}")
        _check_moments(of_score, name, wanted)
    windows = saved["temporal_records"]
    if windows is not None:
        TemporalRecords.check_state(windows, n, wanted.temporal)
        if windows["classes"] != classes:
            raise ValueError(
                f"load_state_dict: num_classes: got {classes!r} beside windows of {windows['classes']} classes"
            )


def _check_moments(state: Any, name: str, wanted: Wanted) -> None:
    n, options = wanted.num_examples, wanted.gradient
    size = state.get("size") if isinstance(state, Mapping) else None
    if type(size) is not int or size < 1:
        raise ValueError(f"load_state_dict: moments.{name}.size: got {size!r}, expected a number of pixels")
    selected = options.selected(size)
    kept = size if selected is None else len(selected)
    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "count": ((n,), torch.int32),
        "mean": ((n, kept), torch.float32),
        "m2": ((n, kept), options.m2_type),
    }
    _check_group(state, f"moments.{name}", tensors)
    pixels = state.get("pixels")
    if (pixels is None) != (selected is None) or (
        selected is not None and not (isinstance(pixels, Tensor) and torch.equal(pixels.cpu(), selected))
    ):
        raise ValueError(
            f"load_state_dict: moments.{name}.pixels: the state keeps other pixels of {size} than "
            f"GradientOptions(pixels={options.pixels}) chooses"
        )


def _check_probabilities(state: Any, classes: int | None, wanted: Wanted) -> None:
    n, options = wanted.num_examples, wanted.probabilities
    if options is None or classes is None:
        raise ValueError("load_state_dict: probabilities: got some, expected none; the state is damaged")
    _check_group(state, "probabilities", {"count": ((n,), torch.int32), "mean": ((n, classes), options.type)})


def _check_group(state: Any, name: str, tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
    for key, (shape, dtype) in tensors.items():
        _check_tensor(state.get(key) if isinstance(state, Mapping) else None, shape, dtype, f"{name}.{key}")
    _check_counts(state["count"], f"{name}.count")


def _check_tensor(value: Any, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    if not isinstance(value, Tensor) or tuple(value.shape) != shape or value.dtype != dtype:
        got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"load_state_dict: {name}: got {got}, expected {dtype} {list(shape)}")


def _check_counts(counts: Tensor, name: str) -> None:
    if not bool((counts >= 0).all()):  # NaN is not either
        raise ValueError(f"load_state_dict: {name}: got counts below 0 or no numbers; the state is damaged")


def _on_device(value: Any, device: torch.device | None) -> Any:
    """A state with its tensors on a device; None leaves them where they are."""
    if device is None:
        return value
    if isinstance(value, Mapping):
        return {key: _on_device(item, device) for key, item in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value
