"""Checks of operator arguments: what came, what was expected, what to do.

Values are looked at only on the CPU, where that is free, and not while PyTorch traces the code.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ..support.native import host
from .layout import PADDING, RECORD_WIDTH, SKIPPED, STATS, temporal_width

LOGIT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _first_outside(values: NDArray[Any], limit: int) -> int:
    """Position of the first of values [n] outside 0..limit-1, or -1."""
    if host is not None:
        return host.first_outside(values, limit)
    outside = (values < 0) | (values >= limit)
    return int(outside.argmax()) if outside.any() else -1


def _is_tensor(value: object, name: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")


def _outside(values: Tensor, limit: int, padded: Tensor | None = None) -> int | None:
    """The first of values [n] int64 outside 0..limit-1; None where there is none, or where a look is not free.

    Rows that are padding by the index `padded` [n] are not looked at.
    """
    if not values.is_cpu or torch.compiler.is_compiling():
        return None
    if padded is not None:
        values = values[padded != PADDING]
    position = _first_outside(values.numpy(), limit)
    return None if position < 0 else int(values[position])


def check_logits(logits: Tensor) -> None:
    _is_tensor(logits, "logits")
    if logits.dtype not in LOGIT_DTYPES:
        raise TypeError(f"logits: got {logits.dtype}, expected float32, bfloat16 or float16; convert with .float()")
    if logits.dim() != 2:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, expected [batch, classes]")
    if logits.shape[1] == 0:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, expected at least one class")


def check_losses(loss: Tensor) -> None:
    _is_tensor(loss, "loss")
    if not loss.dtype.is_floating_point:
        raise TypeError(f"loss: got {loss.dtype}, expected floating point")
    if loss.dim() != 1:
        raise ValueError(f"loss: got shape {tuple(loss.shape)}, expected [batch]: one loss per example, not reduced")


def _check_integers(values: Tensor, rows: int | None, name: str) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name}: got {type(values).__name__}, expected an int64 torch.Tensor")
    if values.dtype != torch.int64:
        raise TypeError(f"{name}: got {values.dtype}, expected int64; convert with .long() if the values are whole")
    if values.dim() != 1 or rows not in (None, values.shape[0]):
        expected = "batch" if rows is None else rows
        raise ValueError(
            f"{name}: got shape {tuple(values.shape)}, expected [{expected}], one value per row of the batch"
        )


def check_labels(labels: Tensor, logits: Tensor) -> None:
    rows, classes = logits.shape
    _check_integers(labels, rows, "labels")
    check_same_device(labels=labels, logits=logits)
    outside = _outside(labels, classes)
    if outside is not None:
        raise ValueError(
            f"labels: got {outside}, expected 0..{classes - 1} for {classes} columns of logits; "
            "rows to be ignored must be dropped first"
        )


def check_given_stats(stats: Tensor, labels: Tensor, num_classes: int, index: Tensor) -> None:
    """Checks statistics and labels of the rows of a checked index; those of padding may be anything."""
    _is_tensor(stats, "stats")
    rows = index.shape[0]
    if stats.dtype != torch.float32 or tuple(stats.shape) != (rows, len(STATS)):
        raise ValueError(
            f"stats: got {stats.dtype} {tuple(stats.shape)}, expected float32 [{rows}, {len(STATS)}] of softmax_stats, "
            "one row per index"
        )
    if type(num_classes) is not int or num_classes < 1:
        raise ValueError(f"num_classes: got {num_classes!r}, expected the columns of the logits, at least 1")
    _check_integers(labels, rows, "labels")
    check_same_device(index=index, stats=stats, labels=labels)
    outside = _outside(labels, num_classes, index)
    if outside is not None:
        raise ValueError(
            f"labels: got {outside}, expected 0..{num_classes - 1} for {num_classes} classes; "
            f"rows to be ignored need the index {PADDING}"
        )


def check_index(index: Tensor, rows: int | None, num_examples: int, *, padding: bool = False) -> None:
    """With `padding`, an index may also be `PADDING`."""
    _check_integers(index, rows, "index")
    outside = _outside(index, num_examples, index if padding else None)
    if outside is not None:
        raise IndexError(
            f"index: got {outside}, expected 0..{num_examples - 1} for {num_examples} examples"
            f"{f', or {PADDING} for padding' if padding else ''}; "
            "an index is the example's position in the whole dataset (see IndexedDataset)"
        )


def check_gradients(gradients: Tensor, leading: int) -> int:
    """Checks [leading dimensions, C, ...]; returns the number of pixels."""
    _is_tensor(gradients, "gradients")
    shape = tuple(gradients.shape)
    expected = "[K, B, C, ...]" if leading == 2 else "[B, C, ...]"
    if not gradients.dtype.is_floating_point:
        raise TypeError(f"gradients: got {gradients.dtype}, expected a floating-point dtype")
    if gradients.dim() < leading + 1:
        raise ValueError(f"gradients: got shape {shape}, expected {expected}; unsqueeze a channel dimension of 1")
    if 0 in shape[leading:]:
        raise ValueError(f"gradients: got shape {shape}, expected {expected} with no empty channel or pixel dimension")
    return math.prod(shape[leading + 1 :])


def check_scale(scale: Tensor, gradients: Tensor) -> None:
    _is_tensor(scale, "scale")
    if scale.dtype != torch.float32 or tuple(scale.shape) != (gradients.shape[0],):
        raise ValueError(
            f"scale: got {scale.dtype} {tuple(scale.shape)}, expected float32 [{gradients.shape[0]}], one per row"
        )
    check_same_device(scale=scale, gradients=gradients)


def check_pixels(pixels: Tensor, size: int) -> int:
    """Checks positions among `size` pixels; returns their number."""
    _is_tensor(pixels, "pixels")
    if pixels.dtype != torch.int64 or pixels.dim() != 1 or pixels.numel() == 0:
        raise ValueError(f"pixels: got {pixels.dtype} {tuple(pixels.shape)}, expected int64 [P], P >= 1")
    outside = _outside(pixels, size)
    if outside is not None:
        raise IndexError(f"pixels: got {outside}, expected 0..{size - 1}, of the flattened input")
    return pixels.numel()


def check_state(
    state: Tensor, shape: tuple[int | None, ...], dtype: torch.dtype | tuple[torch.dtype, ...], name: str
) -> None:
    _is_tensor(state, name)
    dtypes = dtype if isinstance(dtype, tuple) else (dtype,)
    if state.dtype in dtypes and state.is_contiguous() and _is_shape(state.shape, shape):
        return
    wanted = ", ".join("N" if want is None else str(want) for want in shape)
    raise ValueError(
        f"{name}: got {state.dtype} {tuple(state.shape)}{'' if state.is_contiguous() else ' (not contiguous)'}, "
        f"expected contiguous {' or '.join(map(str, dtypes))} [{wanted}]"
    )


def _is_shape(got: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether the sizes are those wanted, where None is any."""
    if len(got) != len(wanted):
        return False
    return all(want is None or size == want for size, want in zip(got, wanted, strict=True))


def check_width(mean: Tensor, pixels: int, gradients: Tensor) -> None:
    if isinstance(mean, Tensor) and mean.dim() == 2 and mean.shape[1] != pixels:
        raise ValueError(
            f"gradients: {tuple(gradients.shape)} as [B, C, ...] have {pixels} pixels to keep, but mean is "
            f"{tuple(mean.shape)}; unsqueeze a channel dimension of 1 where there are no channels"
        )


def check_moments(
    count: Tensor, mean: Tensor, m2: Tensor, pixels: int | None, examples: int | None = None, prefix: str = ""
) -> None:
    check_state(count, (examples,), torch.int32, prefix + "count")
    check_state(mean, (count.shape[0], pixels), torch.float32, prefix + "mean")
    check_state(m2, tuple(mean.shape), (torch.float32, torch.bfloat16), prefix + "m2")


def check_table(table: Tensor, examples: int | None = None, name: str = "table") -> None:
    check_state(table, (examples, RECORD_WIDTH), torch.float32, name)
    if not torch.compiler.is_compiling() and table.is_cpu and table.data_ptr() % 64:
        raise ValueError(f"{name}: got data that is not aligned to 64 bytes, a record; make the table with new_table")


def check_temporal(window: int, decay: float) -> None:
    if type(window) is not int or window < 3:
        raise ValueError(
            f"window: got {window!r}, expected a whole number of presentations, at least 3; two hold a single change, "
            "which cannot deviate from its own mean"
        )
    if not isinstance(decay, int | float) or not 0 < decay <= 1:
        raise ValueError(f"decay: got {decay!r}, expected the weight of the newest window, in (0, 1]")


def check_temporal_table(table: Tensor, window: int, classes: int) -> None:
    narrow, wide = temporal_width(window), temporal_width(window, classes)
    if isinstance(table, Tensor) and table.dim() == 2 and table.shape[1] not in (narrow, wide):
        raise ValueError(
            f"table: got shape {tuple(table.shape)}, expected [N, {narrow}], or [N, {wide}] with changes, for windows "
            f"of {window} and {classes} classes; make the table with new_temporal_table"
        )
    check_state(table, (None, None), torch.float32, "table")


def check_skipped(skipped: Tensor) -> Tensor:
    check_state(skipped, (len(SKIPPED),), torch.int64, "skipped")
    return skipped


def check_same_device(**tensors: Tensor) -> None:
    devices = [t.device for t in tensors.values()]
    if devices.count(devices[0]) != len(devices):
        got = ", ".join(f"{name} on {t.device}" for name, t in tensors.items())
        raise ValueError(f"got {got}; expected one device: move them with .to(device)")
