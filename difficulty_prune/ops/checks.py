"""Checks of operator arguments: what came, what was expected, what to do.

Values are looked at only on the CPU, where that is free, and not while PyTorch traces the code.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ..support.native import host
from .layout import NO_LABEL, PADDING, RECORD_WIDTH, SKIPPED, STATS, temporal_width

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
    if value.layout != torch.strided:
        raise TypeError(f"{name}: got a tensor of layout {value.layout}, expected a dense one")


def _outside(values: Tensor, limit: int, kept: Tensor | None = None, also: int | None = None) -> int | None:
    """The first of values [...] int64 outside 0..limit-1; None where there is none, or where a look is not free.

    Not looked at are those where `kept` [...] is False, and those that are `also`.
    """
    if not values.is_cpu or torch.compiler.is_compiling():
        return None
    values = values.reshape(-1)
    if kept is None and also is not None and _first_outside(values.numpy(), limit) >= 0:
        kept = values != also
    if kept is not None:
        values = values[kept.reshape(-1)]
    position = _first_outside(values.numpy(), limit)
    return None if position < 0 else int(values[position])


def check_logits(logits: Tensor) -> None:
    """Logits [B, C]."""
    check_logits_of_rows(logits)
    if logits.dim() != 2:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, expected [batch, classes]")


def check_logits_of_rows(logits: Tensor, *, classes: bool = True) -> None:
    """Logits [B, C, ...]; of any shape without classes."""
    _is_tensor(logits, "logits")
    if logits.dtype not in LOGIT_DTYPES:
        raise TypeError(f"logits: got {logits.dtype}, expected float32, bfloat16 or float16; convert with .float()")
    if logits.dim() < (2 if classes else 1):
        raise ValueError(
            f"logits: got shape {tuple(logits.shape)}, expected "
            + (
                "[batch, classes, ...]; for a task with one logit, whose labels are each 0 or 1, make the tracker with "
                'target="binary"'
                if classes
                else "[batch, ...]"
            )
        )
    if classes and logits.shape[1] == 0:
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
        several = "; where examples have several rows, give owner=" if name == "index" and values.dim() == 1 else ""
        raise ValueError(
            f"{name}: got shape {tuple(values.shape)}, expected [{expected}], one value per row of the batch{several}"
        )


def check_labels(labels: Tensor, logits: Tensor, ignore_index: int | None = None) -> None:
    """One class for each row of logits [B, C]; rows of `ignore_index` are none."""
    _refuse_one_for_each_logit(labels, logits)
    _check_integers(labels, logits.shape[0], "labels")
    _check_classes(labels, logits, ignore_index)


def check_new_labels(labels: Tensor, index: Tensor, num_classes: int | None) -> None:
    """Labels [B] that the examples of a checked index [B] are to have; None: the number of classes is not known."""
    _check_integers(labels, index.shape[0], "labels")
    outside = _outside(labels, torch.iinfo(torch.int64).max if num_classes is None else num_classes)
    if outside is not None:
        expected = "0 or more" if num_classes is None else f"0..{num_classes - 1} for {num_classes} classes"
        raise ValueError(f"labels: got {outside}, expected {expected}")
    if index.is_cpu and labels.is_cpu and len(index) != len(index.unique()):
        pairs = torch.stack([index, labels], 1).unique(dim=0)
        first, times = pairs[:, 0].unique(return_counts=True)
        if bool((times > 1).any()):
            raise ValueError(
                f"index: got example {int(first[times > 1][0])} twice, with different labels; give it once"
            )


def check_labels_of_rows(labels: Tensor, logits: Tensor, ignore_index: int | None = None) -> None:
    """One class for each row of logits [B, C, ...]."""
    _is_tensor(labels, "labels")
    _refuse_one_for_each_logit(labels, logits)
    if labels.dtype != torch.int64:
        raise TypeError(f"labels: got {labels.dtype}, expected int64; convert with .long() if the values are whole")
    wanted = (logits.shape[0], *logits.shape[2:])
    if tuple(labels.shape) != wanted:
        raise ValueError(
            f"labels: got shape {tuple(labels.shape)}, expected {list(wanted)} for logits {tuple(logits.shape)}: "
            "classes come second, as for F.cross_entropy; give a language model's [B, T, V] as logits.transpose(1, 2)"
        )
    _check_classes(labels, logits, ignore_index)


def _refuse_one_for_each_logit(labels: object, logits: Tensor) -> None:
    """Of a multi-label task, or one-hot, where one class for each row is expected."""
    if isinstance(labels, Tensor) and labels.shape == logits.shape and not labels.is_floating_point():
        raise ValueError(
            f"labels: got shape {tuple(labels.shape)} of {labels.dtype}, one for each logit, expected one class for "
            f"each row, {[logits.shape[0], *logits.shape[2:]]}; where each label is 0 or 1, make the tracker with "
            'target="binary"; of a one-hot label take .argmax(1); probabilities need a floating dtype'
        )


def _check_classes(labels: Tensor, logits: Tensor, ignore_index: int | None) -> None:
    check_same_device(labels=labels, logits=logits)
    classes = logits.shape[1]
    outside = _outside(labels, classes, also=ignore_index)
    if outside is not None:
        if classes == 1:
            raise ValueError(
                f'labels: got {outside} for one column of logits; of one logit for yes or no, say target="binary" and '
                "give labels of the shape of the logits"
            )
        if ignore_index is None:  # which `score_checkpoint` and `score_features` do not even take
            advice = (
                f"nothing is ignored here: leave out examples of {outside}, such as by a Subset of the indexed data"
            )
        else:
            advice = (
                f"{ignore_index} is ignored: if rows of {outside} are to be ignored, say ignore_index={outside}, as to "
                "the loss"
            )
        raise ValueError(f"labels: got {outside}, expected 0..{classes - 1} for {classes} columns of logits; {advice}")


def check_targets(targets: Tensor, logits: Tensor) -> None:
    """Probabilities of the classes of logits [B, C, ...]."""
    _is_tensor(targets, "labels")
    if not targets.dtype.is_floating_point:
        raise TypeError(f"labels: got {targets.dtype}, expected floating point probabilities")
    if targets.shape != logits.shape:
        raise ValueError(
            f"labels: got probabilities of shape {tuple(targets.shape)}, expected that of the logits, "
            f"{tuple(logits.shape)}"
        )
    check_same_device(labels=targets, logits=logits)


BINARY_DTYPES = (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float64, *LOGIT_DTYPES)


def check_binary_labels(labels: Tensor, logits: Tensor, ignore_index: int | None = None) -> None:
    """A label of 0 or 1 for each of logits [...]."""
    _is_tensor(labels, "labels")
    if labels.dtype not in BINARY_DTYPES:
        raise TypeError(f"labels: got {labels.dtype}, expected bool, uint8, int32, int64 or floating point")
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels: got shape {tuple(labels.shape)}, expected that of the logits, {tuple(logits.shape)}: 0 or 1 each"
        )
    check_same_device(labels=labels, logits=logits)
    if labels.dtype == torch.bool or not labels.is_cpu or torch.compiler.is_compiling():
        return
    wrong = (labels != 0) & (labels != 1)
    if bool(wrong.any()):  # as a rule not, and then nothing more is looked at
        wrong &= ~labels.isnan() if labels.is_floating_point() else wrong
        if ignore_index is not None:
            wrong &= labels != ignore_index
        if bool(wrong.any()):
            raise ValueError(
                f"labels: got {labels[wrong][0].item()}, expected 0 or 1 for each logit (NaN or ignore_index="
                f"{ignore_index}: not known); for probabilities q give two classes: logits [0, z] and labels [1 - q, q]"
            )


def check_reduction(
    stats: Tensor, examples: int, owner: Tensor | None, weight: Tensor | None, labels: Tensor | None
) -> None:
    """What `reduce_rows` takes: one value for each row of stats [..., 8]."""
    _is_tensor(stats, "stats")
    if stats.dtype != torch.float32 or stats.dim() < 2 or stats.shape[-1] != len(STATS):
        raise ValueError(f"stats: got {stats.dtype} {tuple(stats.shape)}, expected float32 [..., {len(STATS)}]")
    if not _is_count(examples):
        raise ValueError(f"examples: got {examples!r}, expected how many the rows belong to")
    rows = stats.numel() // len(STATS)
    if owner is None and (rows % examples if examples else rows):
        raise ValueError(
            f"got {rows} rows for {examples} examples, expected equally many of each, or an owner of each row"
        )
    for name, given, dtype in (("owner", owner, torch.int64), ("labels", labels, torch.int64)):
        if given is not None:
            _check_column(given, rows, dtype, name)
            check_same_device(**{"stats": stats, name: given})
    if owner is not None:
        check_owner(owner, examples)
    if weight is not None:
        _check_column(weight, rows, torch.float32, "weight")
        check_row_weight(weight)
        check_same_device(stats=stats, weight=weight)


def _is_count(value: object) -> bool:
    return isinstance(value, torch.SymInt) or (type(value) is int and value >= 0)


def _check_column(values: Tensor, rows: int, dtype: torch.dtype, name: str) -> None:
    _is_tensor(values, name)
    if values.dtype != dtype or values.numel() != rows:
        raise ValueError(f"{name}: got {values.dtype} {tuple(values.shape)}, expected {dtype} for each of {rows} rows")


def check_owner(owner: Tensor, examples: int) -> None:
    """Owners [...] in 0..examples-1, or -1 for nobody; looked at on the CPU."""
    outside = _outside(owner, examples, also=PADDING)
    if outside is not None:
        raise IndexError(
            f"owner: got {outside}, expected 0..{examples - 1}, the place in `index` of the example to which the row "
            f"belongs, or {PADDING} for nobody"
        )


def check_row_weight(weight: Tensor) -> None:
    """Weights [...] of rows, at least 0; looked at on the CPU."""
    if not weight.is_cpu or torch.compiler.is_compiling():
        return
    wrong = ~((weight >= 0) & (weight < torch.inf))
    if bool(wrong.any()):
        raise ValueError(
            f"row_weight: got {weight[wrong][0].item()}, expected finite weights of at least 0, in float32; 0 leaves a "
            "row out"
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
    outside = _outside(labels, num_classes, (index != PADDING) & (labels != NO_LABEL))
    if outside is not None:
        raise ValueError(
            f"labels: got {outside}, expected 0..{num_classes - 1} for {num_classes} classes; "
            f"rows to be ignored need the index {PADDING}"
        )


def check_index(
    index: Tensor, rows: int | None, num_examples: int, *, padding: bool = False, name: str = "index"
) -> None:
    """With `padding`, an index may also be `PADDING`."""
    _check_integers(index, rows, name)
    outside = _outside(index, num_examples, also=PADDING if padding else None)
    if outside is not None:
        raise IndexError(
            f"{name}: got {outside}, expected 0..{num_examples - 1} for {num_examples} examples"
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


def check_steps(steps: Tensor, examples: int) -> None:
    check_state(steps, (examples + 1,), torch.int32, "steps")


def check_decay(decay: float) -> None:
    if isinstance(decay, bool) or not isinstance(decay, Real) or not 0 <= decay < 1:
        raise ValueError(f"decay: got {decay!r}, expected what a presentation weighs beside the next one, in [0, 1)")


def check_right_from(right_from: float) -> None:
    if isinstance(right_from, bool) or not isinstance(right_from, Real) or not 0 < right_from <= 1:
        raise ValueError(
            f"right_from: got {right_from!r}, expected the fraction of its rows from which an example is right, "
            "in (0, 1]"
        )


def check_skipped(skipped: Tensor) -> Tensor:
    check_state(skipped, (len(SKIPPED),), torch.int64, "skipped")
    return skipped


def check_same_device(**tensors: Tensor) -> None:
    devices = [t.device for t in tensors.values()]
    if devices.count(devices[0]) != len(devices):
        got = ", ".join(f"{name} on {t.device}" for name, t in tensors.items())
        raise ValueError(f"got {got}; expected one device: move them with .to(device)")
