"""Calls of the CUDA launchers whose traffic `test_traffic.py` counts, and the bytes that each of them must move.

Every byte of the input is read once, every byte of the output is written once, and a state is read and written once.
Of a state, only what a presentation needs: of a temporal one the count, the sum of deviations, the window of p_label
of which one is replaced, and with changes the same again and a logarithm for each class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import native_calls as calls
import torch
from native_calls import Call, Options, State
from torch import Tensor

FLOAT, INT64, RECORD, STATS = 4, 8, 64, 32  # bytes
NARROW = (torch.float32, torch.bfloat16)
WINDOW = 10


@dataclass(frozen=True)
class Kernel:
    """What native/traffic.cpp counted of one launch."""

    read: int
    written: int
    wide: int  # bytes by accesses of 16 bytes
    sectors: int
    loads: int

    @property
    def moved(self) -> int:
        return self.read + self.written


def kernels_of(printed: str) -> list[list[Kernel]]:
    """By call and launch."""
    numbers = r"read (\d+) written (\d+) wide (\d+) sectors (\d+) loads (\d+)\n"
    return [[Kernel(*map(int, found)) for found in re.findall(numbers, part)] for part in printed.split("call\n")[1:]]


@dataclass(frozen=True)
class Counted:
    call: Call
    must: int  # bytes
    rows: int  # of the batch, where rows of one example are chained
    wide: float  # the least part of the bytes that is to move in pieces of 16

    @property
    def chains(self) -> int:
        """Bytes that tell which rows present the same example: the index again, and a link written and read."""
        return self.rows * (INT64 + 2 * 4)


def zeros_like_records(examples: int) -> Tensor:
    return torch.zeros(examples, RECORD // FLOAT)


def batch(rows: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    index = calls.indices_of(rows, rows, "distinct")
    return calls.logits_of(rows, classes, dtype, "contiguous"), index % classes, index


def softmax_stats(rows: int, classes: int, dtype: torch.dtype, wide: float) -> Counted:
    logits, labels, _ = batch(rows, classes, dtype)
    call = calls.softmax_stats_call(f"{rows} x {classes}, {dtype}", logits, labels)
    return Counted(call, rows * (classes * dtype.itemsize + INT64 + STATS), 0, wide)


def record_stats(rows: int, classes: int, dtype: torch.dtype, wide: float) -> Counted:
    logits, labels, index = batch(rows, classes, dtype)
    options = Options(steps=calls.steps_of(rows))
    name, table = f"{rows} x {classes}, {dtype}", zeros_like_records(rows)
    call = calls.record_stats_call(name, logits, labels, index, rows, options, table)
    return Counted(call, rows * (classes * dtype.itemsize + 2 * INT64 + 2 * RECORD + 4), rows, wide)


def record_temporal(rows: int, classes: int, dtype: torch.dtype, changes: bool, wide: float) -> Counted:
    logits, labels, index = batch(rows, classes, dtype)
    name = f"{rows} x {classes}, {dtype}" + ", changes" * changes
    call = calls.record_temporal_call(
        name, logits, labels, index, rows, WINDOW, 0.9, changes, zeros_like_records(rows), count=2 * WINDOW
    )
    state = 2 * 2 + (WINDOW - 1) + 1  # values of the window but one, and the new one
    if changes:
        state += 2 + (WINDOW - 2) + 1 + 2 * classes
    label = 2  # of the record: it, and whether there is one
    return Counted(call, rows * (classes * dtype.itemsize + 2 * INT64 + FLOAT * (state + label)), rows, wide)


def record_given_stats(rows: int) -> Counted:
    logits, labels, index = batch(rows, 10, torch.float32)
    stats = calls.reference.softmax_stats(logits, labels)
    options, table = Options(steps=calls.steps_of(rows)), zeros_like_records(rows)
    call = calls.record_given_stats_call(f"{rows} rows", stats, labels, index, rows, options, table)
    return Counted(call, rows * (STATS + 2 * INT64 + 2 * RECORD + 4), rows, 0.75)


def images(dtype: torch.dtype, layout: str, wide: float) -> Counted:
    """Logits of images to segment."""
    shape = (2, 21, 32, 64)
    logits = calls.lay_out(torch.randn(shape, generator=calls.generator(shape)).to(dtype), layout)
    labels = torch.randint(21, (2, 32, 64), generator=calls.generator("labels"))
    call = calls.softmax_stats_call(f"images, {dtype}, {layout}", logits, labels)
    return Counted(call, labels.numel() * (21 * dtype.itemsize + INT64 + STATS), 0, wide)


def soft_stats(shape: tuple[int, ...], dtype: torch.dtype, target_dtype: torch.dtype, wide: float) -> Counted:
    logits = torch.randn(shape, generator=calls.generator(shape)).to(dtype)
    call = calls.soft_stats_call(
        f"{shape}, {dtype}, {target_dtype}", logits, calls.targets_of(shape, target_dtype), False
    )
    return Counted(call, logits.numel() * (dtype.itemsize + target_dtype.itemsize + STATS / shape[1]), 0, wide)


def sigmoid_stats(dtype: torch.dtype) -> Counted:
    logits = torch.randn(64, 80, generator=calls.generator("logits")).to(dtype)
    labels = torch.randint(2, (64, 80), generator=calls.generator("labels")).float()
    call = calls.sigmoid_stats_call(str(dtype), logits, labels, None)
    return Counted(call, logits.numel() * (dtype.itemsize + FLOAT + STATS), 0, 0.75)


def reduce_rows(rows: int, examples: int, owned: bool, weighted: bool, wide: float) -> Counted:
    g = calls.generator(rows)
    stats = torch.rand(rows, 8, generator=g)
    owner = torch.randint(examples, (rows,), generator=g) if owned else None
    weight = torch.rand(rows, generator=g) + 0.1 if weighted else None
    name = f"{rows} rows of {examples} examples" + ", owned" * owned + ", weighted" * weighted
    call = calls.reduce_rows_call(name, stats, examples, owner, weight, None)
    # Owners come sorted: the sorted ones tell where examples begin, and the order where their rows are.
    each = STATS + 2 * INT64 * owned + FLOAT * weighted
    return Counted(call, rows * each + examples * (STATS + INT64 + 2 * INT64 * owned), 0, wide)


def record_gradients(dtype: torch.dtype, m2: torch.dtype, layout: str) -> Counted:
    rows, pixels = 32, 1024
    gradients = calls.gradients_of((rows, 3, pixels), dtype, layout)
    state, index = State(rows, pixels, m2), calls.indices_of(rows, rows, "distinct")
    call = calls.record_gradients_call(f"{dtype}, {m2}, {layout}", state, gradients, index)
    wide = 0.95 if m2 == torch.float32 else 0.8  # beside four gradients of float32, four of M2 are 8 bytes
    moments = 2 * pixels * (FLOAT + m2.itemsize) + 2 * 4
    return Counted(call, rows * (3 * pixels * dtype.itemsize + moments + INT64), rows, wide)


def merge_moments(m2: torch.dtype) -> Counted:
    state, other = State(32, 1024, m2, seed="a"), State(32, 1024, m2, seed="b")
    known = int((other.count > 0).sum())
    call = calls.merge_moments_call(str(m2), state, other)
    return Counted(
        call, known * (1024 * 3 * (FLOAT + m2.itemsize) + 4) + 2 * 32 * 4, 0, 0.95 if m2 == torch.float32 else 0.6
    )


def gradient_variance(dtype: torch.dtype, layout: str) -> Counted:
    call = calls.gradient_variance_call(3, 8, 3, 1024, dtype, layout)
    return Counted(call, 3 * 8 * 3 * 1024 * dtype.itemsize + 8 * FLOAT, 0, 0.95)


def counted_calls() -> Iterator[Counted]:
    """Of every operator, in layouts that allow pieces of 16 bytes; `wide` is 0 where they do not."""
    for dtype in NARROW:
        for rows, classes, wide in ((256, 10, 0.5), (256, 96, 0.75), (128, 1000, 0.95), (16, 32000, 0.95)):
            yield softmax_stats(rows, classes, dtype, wide)
            yield record_stats(rows, classes, dtype, wide)
        for rows, classes, wide in ((256, 10, 0.0), (256, 96, 0.5), (128, 1000, 0.9)):
            yield record_temporal(rows, classes, dtype, False, wide)
        for rows, classes in ((256, 96), (128, 1000)):
            yield record_temporal(rows, classes, dtype, True, 0.0)  # 22 floats before those of the classes
        yield images(dtype, "contiguous", 0.95)
        yield images(dtype, "channels last", 0.75)
        yield soft_stats((64, 1000), dtype, torch.float32, 0.95)
        yield soft_stats((64, 1000), dtype, dtype, 0.95)
        yield soft_stats((2, 21, 32, 64), dtype, torch.float32, 0.0)
        yield sigmoid_stats(dtype)
        for layout in ("contiguous", "channels_last"):
            yield record_gradients(dtype, torch.float32, layout)
            yield gradient_variance(dtype, layout)
        yield record_gradients(torch.float32, dtype, "contiguous")
        yield merge_moments(dtype)
    yield record_given_stats(256)
    for examples in (8, 256):
        yield reduce_rows(4096, examples, False, False, 0.95)
        yield reduce_rows(4096, examples, True, True, 0.5)


FEW, MANY = 256, 65536
CLASSES = 10


def growing_calls(launcher: str, kind: str, rows: int) -> Call:
    """Narrow rows, of which there are few or many; `kind`: see indices_of."""
    index = calls.indices_of(rows, rows // 16 if kind == "repeated" else rows, kind)
    labels, examples = index % CLASSES, rows
    if launcher == "record_gradients":
        gradients = torch.randn(rows, 1, 4, generator=calls.generator(rows))
        return calls.record_gradients_call("many rows", State(examples, 4, torch.float32), gradients, index)
    if launcher == "record_given_stats":
        stats = torch.rand(rows, 8, generator=calls.generator(rows))
        return calls.record_given_stats_call(
            "many rows", stats, labels, index, examples, table=zeros_like_records(rows)
        )
    logits = calls.logits_of(rows, CLASSES, torch.float32, "contiguous")
    if launcher == "record_temporal":
        return calls.record_temporal_call("many rows", logits, labels, index, examples, 3, 0.9, False, count=6)
    return calls.record_stats_call("many rows", logits, labels, index, examples, table=zeros_like_records(rows))
