"""Calls of the CUDA launchers for `test_native.py`: arguments that are awkward in every way that launchers allow.

Pointers that are not aligned, strides with NaN in the gaps, rows that cannot be recorded, the same example many times
in a batch. States are random before the call. What to expect comes from `difficulty_prune.ops.reference`.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from zlib import crc32

import torch
from torch import Tensor

from difficulty_prune.ops import reference
from difficulty_prune.ops.layout import (
    FIELD,
    NO_LABEL,
    PADDING,
    RECORD_WIDTH,
    STAT,
    STATS,
    temporal_width,
)

LAUNCHERS = (
    *("chain_rows", "softmax_stats", "soft_stats", "sigmoid_stats", "reduce_rows", "record_stats"),
    *("record_given_stats", "record_temporal", "record_gradients", "merge_moments", "gradient_variance"),
)
LOGIT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GRADIENT_DTYPES = (*LOGIT_DTYPES, torch.float64)
ELEMENT_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}  # as in csrc/core/numbers.h
BINARY_TYPES = {  # as in csrc/core/views.h
    **{torch.bool: 0, torch.uint8: 1, torch.int32: 2, torch.int64: 3, torch.float32: 4, torch.float64: 5},
    **{torch.bfloat16: 6, torch.float16: 7},
}
FAR = 1 << 40
IGNORED = -100

identical = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)


@dataclass(eq=False)  # each call is itself
class Call:
    name: str
    launcher: str
    arguments: Sequence[int | Tensor | None]  # in the order in which native/calls.cpp reads them
    written: Sequence[Tensor]
    expect: Callable[[], Sequence[Tensor]]
    atol: float = 1e-5
    states: int = 0  # so many written tensors are states [examples, ...]; the first begins with the count

    def __str__(self) -> str:
        return f"{self.launcher}: {self.name}".replace("torch.", "")

    def encode(self) -> bytes:
        parts = [struct.pack("<q", LAUNCHERS.index(self.launcher))]
        for argument in self.arguments:
            if isinstance(argument, int):
                parts.append(struct.pack("<q", argument))
            elif argument is None:
                parts.append(struct.pack("<qq", -1, 0))
            else:
                data = memory(argument)
                parts.append(struct.pack("<qq", len(data), argument.data_ptr() % 64) + data)
        return b"".join(parts)

    @property
    def result_bytes(self) -> int:
        return 8 + sum(t.nbytes for t in self.written)

    def check(self, result: bytes) -> None:
        """Compares what native/calls.cpp wrote of this call: the launcher's error, then the written tensors."""
        (error,) = struct.unpack_from("<q", result)
        assert error == 0
        expected = self.expect()
        same = expected[0] == self.written[0]
        untouched = same if same.dim() == 1 else same[:, 0]
        start = 8
        for i, (before, after) in enumerate(zip(self.written, expected, strict=True)):
            part = bytearray(result[start : start + before.nbytes])
            start += before.nbytes
            got = torch.frombuffer(part, dtype=before.dtype).reshape(before.shape) if part else before.clone()
            if i < self.states:
                identical(got[untouched], before[untouched])
            if got.dtype == torch.bfloat16:
                assert_almost_same_rounding(got, after)
            else:
                rtol, atol = (2e-5, self.atol) if got.dtype.is_floating_point else (0, 0)
                torch.testing.assert_close(got, after, rtol=rtol, atol=atol, equal_nan=True)


def assert_almost_same_rounding(got: Tensor, expected: Tensor) -> None:
    """Not quite the same, because the float32 values that were rounded may differ in their last bits."""
    ulps = (got.view(torch.int16).int() - expected.view(torch.int16).int()).abs()
    assert (ulps > 1).sum() == 0
    assert (ulps == 1).sum() <= 1 + ulps.numel() // 200


def memory(t: Tensor) -> bytes:
    """What lies between the first and the last element, gaps included."""
    return t.as_strided((extent(t.shape, t.stride()),), (1,)).view(torch.uint8).numpy().tobytes()


def extent(shape: Sequence[int], stride: Sequence[int]) -> int:
    return 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))


def place(values: Tensor, stride: Sequence[int], shift: int = 0) -> Tensor:
    """The same values with other strides, `shift` elements past an aligned address, with NaN in the gaps."""
    gaps = torch.full((shift + extent(values.shape, stride),), torch.nan, dtype=values.dtype)
    return gaps.as_strided(values.shape, stride, shift).copy_(values)


def generator(*seed: object) -> torch.Generator:
    return torch.Generator().manual_seed(crc32(repr(seed).encode()))


def logits_of(rows: int, classes: int, dtype: torch.dtype, layout: str) -> Tensor:
    values = 3 * torch.randn(rows, classes, generator=generator(rows, classes))
    values[::3] = values[::3].round()  # ties
    stride, shift = {
        "contiguous": (classes, 0),
        "shifted": (classes, 1),
        "aligned rows": (classes + 16 - classes % 8, 0),
        "odd rows": (classes + 1 + classes % 2, 0),
    }[layout]
    return place(values.to(dtype), (stride, 1), shift)


def labels_of(rows: int, classes: int) -> Tensor:
    labels = torch.randint(classes, (rows,), generator=generator(rows, classes))
    labels[:2] = torch.tensor([0, classes - 1])[:rows]
    return labels


def labels_of_examples(index: Tensor, classes: int) -> Tensor:
    """Labels [B] that are the same wherever an example occurs, now and then but for one."""
    labels = (7 * index + 3).remainder(classes)
    labels[5::11] = (labels[5::11] + 1) % classes
    return labels


def mask_classes(logits: Tensor, labels: Tensor) -> None:
    """Of every four rows the first has half its classes masked, the second all but the label, the fourth all."""
    rows = torch.arange(len(logits))
    own = labels.remainder(logits.shape[1])[:, None] == torch.arange(logits.shape[1])
    half = torch.rand(logits.shape, generator=generator(logits.shape)) < 0.5
    masked = torch.stack([half & ~own, ~own, torch.zeros_like(own), torch.ones_like(own)])[rows % 4, rows]
    masked[: len(rows) // 3] = False
    logits.masked_fill_(masked, -torch.inf)


def spoil_rows(values: Tensor) -> None:
    """Makes some rows of a batch of at least 7 not finite: at an end, in the middle and at the other end."""
    if len(values) >= 7:
        shape = values.shape[1:]
        for row, part, value in ((1, 0.0, torch.nan), (3, 0.5, torch.inf), (5, 1.0, -torch.inf)):
            values[(row, *(int(part * (n - 1)) for n in shape))] = value


FEW_ROWS = 1024  # kFewRows of csrc/cuda/launch.h
PRECEDED, LAST = -(1 << 31), (1 << 31) - 1  # of csrc/cuda/chains.cuh, as int32


def links_of(index: Tensor, examples: int) -> Tensor:
    """int32 [B]: the next row of the same example, LAST if there is none; with the sign bit where one precedes."""
    links, latest = torch.full((len(index),), LAST, dtype=torch.int32), dict[int, int]()
    for row, example in enumerate(index.tolist()):
        if 0 <= example < examples:
            if example in latest:
                before = latest[example]
                links[before] = (int(links[before]) & PRECEDED) | row
                links[row] = PRECEDED | LAST
            latest[example] = row
    return links


def chain_rows_calls() -> Iterator[Call]:
    for sorts, kind in itertools.product((False, True), ("distinct", "repeated", "all the same", "bad")):
        for rows, examples in itertools.product((0, 1, 2, 31, 32, 33, 255, 1023, 1024, 2500), (40, 3000)):
            if sorts or rows <= FEW_ROWS:
                index, out = indices_of(rows, examples, kind), torch.zeros(rows, dtype=torch.int32)
                name = f"{rows} rows of {examples} examples, {kind}" + ", sorted" * sorts
                if rows or not sorts:
                    yield chain_rows_call(name, index, out, examples, sorts, rows % 2 == 0)


def chain_rows_call(name: str, index: Tensor, out: Tensor, examples: int, sorts: bool, counts_steps: bool) -> Call:
    steps = torch.arange(examples + 1, dtype=torch.int32)

    def expect() -> list[Tensor]:
        after = steps.clone()
        after[examples] += counts_steps
        return [links_of(index, examples), after] if counts_steps else [links_of(index, examples)]

    arguments = (len(index), examples, int(sorts), index, steps if counts_steps else None, out)
    return Call(name, "chain_rows", arguments, [out, steps] if counts_steps else [out], expect)


def softmax_stats_call(name: str, logits: Tensor, labels: Tensor, ignore: int | None = None) -> Call:
    out = torch.randn(labels.numel(), len(STATS), generator=generator("out"))
    arguments = (*logits_view(logits), labels, ignored(ignore), out)
    return Call(
        *(name, "softmax_stats", arguments, [out]),
        lambda: [reference.softmax_stats(logits, labels, ignore).view(out.shape)],
        atol=2e-6,
    )


def ignored(label: int | None) -> int:
    return NO_LABEL if label is None else label


def logits_view(logits: Tensor, class_dimension: int = 1) -> tuple[int | Tensor, ...]:
    """Logits [B, C, ...] as csrc/torch/tensors.h lays them out; with class_dimension = -1 each element is a row."""
    sizes, strides = list(logits.shape), list(logits.stride())
    classes, class_stride = (1, 1) if class_dimension < 0 else (sizes.pop(1), strides.pop(1))
    dims = [(n, s) for n, s in zip(reversed(sizes), reversed(strides), strict=True) if n != 1]
    joined: list[tuple[int, int]] = []
    for size, stride in dims:
        if joined and stride == joined[-1][0] * joined[-1][1]:
            joined[-1] = (joined[-1][0] * size, joined[-1][1])
        else:
            joined.append((size, stride))
    positions, row_stride = joined[0] if joined else (1, 0)
    outer = (joined[1:] + [(0, 0)] * 2)[:2]
    rows = logits.numel() // max(classes, 1)
    numbers = (rows, classes, row_stride, class_stride, positions, len(joined[1:]))
    return ELEMENT_TYPES[logits.dtype], *numbers, *(n for n, _ in outer), *(s for _, s in outer), logits


LAYOUTS = ("contiguous", "channels last", "transposed", "cropped", "shifted", "expanded")


def lay_out(values: Tensor, layout: str) -> Tensor:
    """[B, C, H, W] in different places of memory."""
    b, c, h, w = values.shape
    if layout == "expanded":
        return values[:1].clone().expand(b, c, h, w)
    stride, shift = {
        "contiguous": ((c * h * w, h * w, w, 1), 0),
        "channels last": ((c * h * w, 1, w * c, c), 0),
        "transposed": ((c * h * w, h * w, 1, h), 0),
        "cropped": ((c * (h + 1) * (w + 8), (h + 1) * (w + 8), w + 8, 1), 0),
        "shifted": ((c * h * w, h * w, w, 1), 1),
    }[layout]
    return place(values, stride, shift)


def strided_stats_calls() -> Iterator[Call]:
    """Logits [B, C, H, W] of few and of many classes, in every layout."""
    for n, (layout, dtype, classes) in enumerate(itertools.product(LAYOUTS, LOGIT_DTYPES, (1, 5, 21, 40, 300, 1040))):
        shape = (2, classes, 3, 8) if classes < 300 else (2, classes, 1, 3)
        values = 3 * torch.randn(shape, generator=generator(shape))
        values[0] = values[0].round()  # ties
        labels = torch.randint(classes, (2, *shape[2:]), generator=generator(classes))
        logits = lay_out(values.to(dtype), layout)
        if layout != "expanded":
            logits[1, :, -1, -1], logits[0, classes // 2, 0, 0], logits[1, 0, 0, 1] = -torch.inf, torch.nan, torch.inf
            logits[1, classes // 3, -1, 0] = -torch.inf
        labels[0, 0, 1], labels[1, 0, 0], labels[0, -1, -1] = IGNORED, classes, -1
        ignore = (IGNORED, None, classes // 2)[n % 3]
        yield softmax_stats_call(f"{shape}, {dtype}, {layout}, ignored: {ignore}", logits, labels, ignore)


def soft_stats_call(name: str, logits: Tensor, targets: Tensor, counts: bool = True) -> Call:
    out = torch.randn(logits.numel() // logits.shape[1], len(STATS), generator=generator("out"))
    unnormalised = torch.tensor([5])

    def expect() -> list[Tensor]:
        after = unnormalised.clone()
        stats = reference.soft_stats(logits, targets, after).view(out.shape)
        return [stats, after] if counts else [stats]

    arguments = (*logits_view(logits), *logits_view(targets), out, unnormalised if counts else None)
    return Call(name, "soft_stats", arguments, [out, unnormalised] if counts else [out], expect, 3e-6)


def targets_of(shape: Sequence[int], dtype: torch.dtype, *seed: object) -> Tensor:
    """[B, C, ...]: of every three examples the first has one class, the second a few, the third all of them."""
    g = generator(shape, *seed)
    wide = (2 * torch.randn(shape, generator=g)).softmax(1)
    label = torch.randint(shape[1], (shape[0], 1, *shape[2:]), generator=g)
    one = torch.zeros(shape).scatter_(1, label, 1)
    few = 0.75 * one + 0.25 * torch.zeros(shape).scatter_(1, (label + 1) % shape[1], 1)
    return torch.stack([one, few, wide])[torch.arange(shape[0]) % 3, torch.arange(shape[0])].to(dtype)


def soft_stats_calls() -> Iterator[Call]:
    for n, (classes, dtype, target_dtype) in enumerate(
        itertools.product((1, 2, 10, 33, 100, 1000, 1032), LOGIT_DTYPES, GRADIENT_DTYPES)
    ):
        layout = ("contiguous", "shifted", "aligned rows", "odd rows")[n % 4]
        logits, targets = logits_of(8, classes, dtype, layout), targets_of((8, classes), target_dtype)
        spoil_rows(logits)
        targets[4] *= 2
        targets[6, 0] -= 1.5
        mixed = place(targets, (targets.shape[1] + n % 3 * 8, 1), n // 4 % 2)
        yield soft_stats_call(
            f"{classes} classes, {dtype}, {layout}, targets {target_dtype}", logits, mixed, n % 5 != 0
        )
    for layout, target_layout, dtype in itertools.product(LAYOUTS, ("contiguous", "channels last"), LOGIT_DTYPES):
        for shape in ((3, 7, 2, 8), (3, 40, 2, 2)):
            logits = lay_out((3 * torch.randn(shape, generator=generator(shape))).to(dtype), layout)
            targets = lay_out(targets_of(shape, torch.float32), target_layout)
            yield soft_stats_call(f"{shape}, {dtype}, {layout}, targets {target_layout}", logits, targets)
    for dtype in LOGIT_DTYPES:  # more than a block may hold in shared memory, unless the device has much of it
        logits, targets = logits_of(3, 20000, dtype, "contiguous"), targets_of((3, 20000), dtype)
        yield soft_stats_call(f"20000 classes, {dtype}", logits, targets)
    half = torch.rand(8, 60, generator=generator("half")) < 0.5
    logits, targets = logits_of(8, 60, torch.float32, "contiguous"), targets_of((8, 60), torch.float32)
    targets = (targets * ~half) / (targets * ~half).sum(1, keepdim=True).clamp(min=1e-9)
    yield soft_stats_call("some masked", logits.masked_fill(half, -torch.inf), targets)
    equal = logits.softmax(1)
    yield soft_stats_call("targets are the probabilities", logits, equal)
    yield soft_stats_call("targets are the probabilities, few", logits[:, :9], logits[:, :9].softmax(1))
    yield soft_stats_call("0 rows", torch.zeros(0, 3), torch.zeros(0, 3))


def sigmoid_stats_calls() -> Iterator[Call]:
    for n, (label_dtype, dtype) in enumerate(itertools.product(BINARY_TYPES, LOGIT_DTYPES)):
        values = (4 * torch.randn(6, 50, generator=generator(n))).to(dtype)
        stride = ((50, 1), (1, 6), (53, 1))[n % 3]
        logits = place(values, stride, n % 2)
        logits[1, 3], logits[2, 7], logits[3, 9], logits[4, 2] = torch.nan, torch.inf, -torch.inf, 0
        labels = torch.randint(2, (6, 50), generator=generator(n)).to(label_dtype)
        ignore = (None, IGNORED, 7, 1, 0)[n % 5]
        if label_dtype != torch.bool:
            labels[0, :3] = torch.tensor([IGNORED % 256 if label_dtype == torch.uint8 else IGNORED, 7, 2])
        if label_dtype.is_floating_point:
            labels[5, 5], labels[5, 6] = torch.nan, 0.5
        yield sigmoid_stats_call(f"{dtype}, labels {label_dtype}, ignored: {ignore}", logits, labels, ignore)
    nothing = torch.zeros(0)
    yield sigmoid_stats_call("0 rows", nothing, nothing, None)


def sigmoid_stats_call(name: str, logits: Tensor, labels: Tensor, ignore: int | None) -> Call:
    out = torch.randn(logits.numel(), len(STATS), generator=generator("out"))
    arguments = (*logits_view(logits, -1), BINARY_TYPES[labels.dtype], ignored(ignore), labels, out)
    return Call(
        *(name, "sigmoid_stats", arguments, [out]),
        lambda: [reference.sigmoid_stats(logits, labels, ignore).view(out.shape)],
        atol=2e-6,
    )


def reduce_rows_call(
    name: str, stats: Tensor, examples: int, owner: Tensor | None, weight: Tensor | None, labels: Tensor | None
) -> Call:
    out = torch.randn(examples, len(STATS), generator=generator("out"))
    out_labels, skipped = torch.arange(examples), torch.tensor([10, 20, 30, 40])

    def expect() -> list[Tensor]:
        after = skipped.clone()
        return [*reference.reduce_rows(stats, examples, owner, weight, labels, after), after]

    arguments = (len(stats), examples, stats, owner, weight, labels, out, out_labels, skipped)
    return Call(name, "reduce_rows", arguments, [out, out_labels, skipped], expect)


def reduce_rows_calls() -> Iterator[Call]:
    shapes = ((1, 1), (1, 5), (7, 1), (7, 33), (3, 700), (2, 1500), (300, 2))
    for n, ((examples, each), owned) in enumerate(itertools.product(shapes, (None, "any", "few", "bad"))):
        rows, g = examples * each, generator(n)
        stats = reference.softmax_stats(logits_of(rows, 10, torch.float32, "contiguous"), labels_of(rows, 10))
        stats[::4] = 0
        stats[::4, STAT["loss"]] = -torch.inf  # no row
        if rows > 4:
            stats[3] = torch.nan
        owner = None
        if owned is not None:
            owner = torch.randint(-1, {"any": examples, "few": 1, "bad": examples + 3}[owned], (rows,), generator=g)
            owner[-1] = {"any": examples - 1, "few": 0, "bad": -FAR}[owned]
        weight = torch.rand(rows, generator=g) * (torch.rand(rows, generator=g) < 0.8) if n % 2 else None
        if weight is not None and rows > 5:
            weight[5] = -1
        labels = labels_of(rows, 10) if n % 3 else None
        name = f"{examples} examples, {rows} rows, owned: {owned}"
        name += ", weighted" * (weight is not None) + ", labels" * (labels is not None)
        yield reduce_rows_call(name, place(stats, (len(STATS), 1), n // 2 % 2), examples, owner, weight, labels)
    nobody = torch.zeros(0, dtype=torch.int64)
    yield reduce_rows_call("nobody", torch.zeros(0, 8), 3, nobody, None, None)
    yield reduce_rows_call("no rows", torch.zeros(0, 8), 3, None, None, None)
    yield reduce_rows_call("no examples", torch.zeros(0, 8), 0, nobody, None, None)
    yield reduce_rows_call("of no example", torch.zeros(4, 8), 0, torch.tensor([-1, 0, 5, -1]), None, None)


def softmax_stats_calls() -> Iterator[Call]:
    layouts = ("contiguous", "shifted", "aligned rows", "odd rows")
    for classes, dtype, layout in itertools.product(
        (1, 2, 10, 31, 32, 33, 100, 1000, 1024, 1025, 2048), LOGIT_DTYPES, layouts
    ):
        logits, labels = logits_of(7, classes, dtype, layout), labels_of(7, classes)
        spoil_rows(logits)
        yield softmax_stats_call(f"{classes} classes, {dtype}, {layout}", logits, labels)
        masked = place(logits_of(8, classes, dtype, layout), logits.stride(), logits.storage_offset())
        labels = labels_of(8, classes)
        mask_classes(masked, labels)
        yield softmax_stats_call(f"{classes} classes, some masked, {dtype}, {layout}", masked, labels)
    for dtype, layout in zip(LOGIT_DTYPES, ("contiguous", "shifted", "aligned rows"), strict=True):
        logits, labels = logits_of(8, 32000, dtype, layout), labels_of(8, 32000)
        mask_classes(logits, labels)
        yield softmax_stats_call(f"32000, {dtype}, {layout}", logits, labels)
    for rows, dtype in itertools.product((0, 1, 127, 129, 256), LOGIT_DTYPES):
        for classes in (1, 3, 10, 32):
            logits = logits_of(rows, classes, dtype, "contiguous")
            yield softmax_stats_call(f"{rows} rows of {classes}, {dtype}", logits, labels_of(rows, classes))
    labels = torch.tensor([-1, 5, FAR, -FAR, 0])
    yield softmax_stats_call("bad labels", logits_of(5, 5, torch.float32, "contiguous"), labels)
    for classes in (3, 1100):
        largest = torch.finfo(torch.float32).max
        rows = torch.tensor([[largest, -largest], [-largest, largest], [0, -largest], [100, -100], [-100, 100], [0, 0]])
        extremes = torch.cat([rows, torch.zeros(6, classes - 2)], 1)
        yield softmax_stats_call(f"extremes, {classes} classes", extremes, torch.zeros(6, dtype=torch.int64))


def records_of(examples: int, classes: int) -> Tensor:
    """A table that holds what some presentations may have left, and 0 in the unused columns."""
    table = torch.rand(examples, RECORD_WIDTH, generator=generator(examples))
    table[:, len(FIELD) :] = 0
    for field in ("count", "correct", "forgotten", "first_correct", "last_wrong", "unrivalled"):
        table[:, FIELD[field]] = torch.randint(5, (examples,), generator=generator(field)).float()
    table[:, FIELD["label"]] = labels_of_examples(torch.arange(examples), classes)
    table[::7, FIELD["label"]] = -1  # labels that are not kept
    table[::5, FIELD["p_max"]] = 0  # losses alone, without a label
    table[::19, FIELD["loss"]] = torch.finfo(torch.float32).max
    table[::3, FIELD["recent_loss"]] = torch.nan  # to be forgotten
    return table


@dataclass(frozen=True)
class Options:
    """How to record: RecordOptions of csrc/core/record.h."""

    ignore: int | None = None
    right_percent: int = 100
    decay_percent: int = 71
    steps: Tensor | None = None

    @property
    def decay(self) -> float:
        return self.decay_percent / 100

    @property
    def arguments(self) -> tuple[int | Tensor | None, ...]:
        return ignored(self.ignore), self.right_percent, self.decay_percent, self.steps


def steps_of(examples: int) -> Tensor:
    return torch.randint(9, (examples + 1,), generator=generator("steps")).int()


def record_stats_call(
    name: str,
    logits: Tensor,
    labels: Tensor,
    index: Tensor,
    examples: int,
    options: Options = Options(),
    table: Tensor | None = None,
) -> Call:
    table = records_of(examples, logits.shape[1]) if table is None else table
    skipped = torch.tensor([10, 20, 30, 40])
    steps = [] if options.steps is None else [options.steps]

    def expect() -> list[Tensor]:
        after, count, seen = table.clone(), skipped.clone(), [t.clone() for t in steps]
        reference.record_stats_(after, index, logits, labels, count, options.ignore, options.decay, *seen)
        return [after, count, *seen]

    arguments = (table, examples, index, *logits_view(logits), labels, *options.arguments, skipped)
    return Call(name, "record_stats", arguments, [table, skipped, *steps], expect, states=1)


def indices_of(rows: int, examples: int, kind: str) -> Tensor:
    index = {
        "distinct": torch.randperm(max(rows, examples), generator=generator(rows)) % examples,
        "repeated": torch.randint(examples // 2 + 1, (rows,), generator=generator(rows)),
        "all the same": torch.full((rows,), examples - 1),
        "bad": torch.tensor([-1, 0, examples, FAR, examples - 1, -FAR, 0]).repeat(rows),
    }[kind]
    return index[:rows].contiguous()


def record_stats_calls() -> Iterator[Call]:
    kinds = ("distinct", "repeated", "all the same", "bad")
    layouts = ("contiguous", "shifted", "aligned rows", "odd rows")
    sizes = ((1, 10), (7, 2), (7, 10), (7, 33), (7, 1000), (7, 1025), (7, 1032), (256, 100), (1100, 4))
    for n, ((rows, classes), kind) in enumerate(itertools.product(sizes, kinds)):
        dtype, layout = LOGIT_DTYPES[n // 4 % 3], layouts[(n + n // 4) % 4]
        index = indices_of(rows, 300, kind)
        logits, labels = logits_of(rows, classes, dtype, layout), labels_of_examples(index, classes)
        spoil_rows(logits)
        if rows > 7:
            mask_classes(logits, labels)
        labels[2::50], labels[4::50], labels[6::50] = -1, classes, FAR
        labels[3::9] = IGNORED
        options = Options((None, IGNORED)[n % 2], 100, (71, 0)[n // 3 % 2], steps_of(300) if n % 5 else None)
        name = f"{rows} rows, {kind}, {classes} classes, {dtype}, {layout}, ignored: {options.ignore}"
        yield record_stats_call(name, logits, labels, index, 300, options)
    nothing = torch.zeros(0, dtype=torch.int64)
    yield record_stats_call("0 rows", torch.zeros(0, 3), nothing, nothing, 2, Options(steps=steps_of(2)))


def record_given_stats_call(
    name: str,
    stats: Tensor,
    labels: Tensor,
    index: Tensor,
    examples: int,
    options: Options = Options(),
    table: Tensor | None = None,
) -> Call:
    classes = 10
    table = records_of(examples, classes) if table is None else table
    skipped = torch.tensor([10, 20, 30, 40])
    steps = [] if options.steps is None else [options.steps]

    def expect() -> list[Tensor]:
        after, count, seen = table.clone(), skipped.clone(), [t.clone() for t in steps]
        numbers = (options.right_percent / 100, options.decay)
        reference.record_given_stats_(after, index, stats, labels, classes, count, *numbers, *seen)
        return [after, count, *seen]

    arguments = (table, examples, index, stats, labels, len(stats), classes, *options.arguments, skipped)
    return Call(name, "record_given_stats", arguments, [table, skipped, *steps], expect, states=1)


def record_given_stats_calls() -> Iterator[Call]:
    """Of one column after the other a value is not finite."""
    kinds = ("distinct", "repeated", "all the same", "bad")
    for n, ((rows, kind), shift) in enumerate(itertools.product(itertools.product((0, 1, 9, 256), kinds), (0, 1))):
        index = indices_of(rows, 300, kind)
        labels = labels_of_examples(index, 10)
        stats = reference.softmax_stats(logits_of(rows, 10, torch.float32, "contiguous"), labels)
        for column, row in enumerate(range(1, min(rows, 9))):
            stats[row, column] = (torch.nan, torch.inf, -torch.inf)[column % 3]
        stats[9::10, STAT["logit_margin"]] = torch.inf  # a margin alone may be infinite
        stats[8::10, STAT["p_max"]] = 0
        stats[10::12, STAT["loss"]] = -torch.inf  # no row
        stats[11::13, STAT["correct"]] = 0.5
        labels[2::50], labels[4::50], labels[6::50], labels[12::25] = -1, 10, FAR, NO_LABEL
        index[7::20] = PADDING
        stats = place(stats, (len(STATS), 1), shift)
        options = Options(None, (100, 50)[n % 2], 71, steps_of(300) if n % 3 else None)
        yield record_given_stats_call(f"{rows} rows, {kind}, shift {shift}", stats, labels, index, 300, options)


def record_temporal_call(
    name: str,
    logits: Tensor,
    labels: Tensor,
    index: Tensor,
    examples: int,
    window: int,
    decay: float,
    changes: bool,
    records: Tensor | None = None,
    ignore: int | None = None,
    count: int | None = None,
) -> Call:
    """The table holds what some presentations may have left: `count` of them, or any number."""
    width = temporal_width(window, logits.shape[1] if changes else None)
    g = generator(examples, width)
    table = torch.randn(examples, width, generator=g)
    table[:, 0] = torch.randint(2 * window, (examples,), generator=g).float() if count is None else count
    table *= table[:, :1] > 0
    skipped = torch.tensor([10, 20, 30, 40])

    def expect() -> list[Tensor]:
        after, count = table.clone(), skipped.clone()
        reference.record_temporal_(after, index, logits, labels, window, decay, count, records, ignore)
        return [after, count]

    numbers = (examples, width, window, round(100 * decay), int(changes))
    arguments = (table, *numbers, index, *logits_view(logits), labels, records, ignored(ignore), skipped)
    return Call(name, "record_temporal", arguments, [table, skipped], expect, atol=3e-5, states=1)


def record_temporal_calls() -> Iterator[Call]:
    kinds = ("distinct", "repeated", "all the same", "bad")
    layouts = ("contiguous", "shifted", "aligned rows", "odd rows")
    sizes = ((1, 10), (7, 1), (7, 2), (7, 10), (7, 33), (7, 1000), (7, 1032), (3, 9001), (40, 10), (256, 100))
    for n, ((rows, classes), kind) in enumerate(itertools.product(sizes, kinds)):
        dtype, layout = LOGIT_DTYPES[n % 3], layouts[(n + n // 4) % 4]
        window, decay, changes = (3, 10, 10, 50)[(n + n // 3) % 4], (0.9, 0.25, 1.0)[n // 4 % 3], n % 5 != 0
        index = indices_of(rows, 300, kind)
        logits, labels = logits_of(rows, classes, dtype, layout), labels_of_examples(index, classes)
        spoil_rows(logits)
        if rows > 7:
            mask_classes(logits, labels)
        labels[2::50], labels[4::50], labels[6::50] = -1, classes, FAR
        labels[3::9] = IGNORED
        records, ignore = records_of(300, classes) if n % 3 else None, (None, IGNORED)[n % 2]
        name = f"{rows} rows, {kind}, {classes} classes, {dtype}, {layout}, windows of {window}, decay {decay}"
        name += ", changes" * changes + ", records" * (records is not None)
        yield record_temporal_call(name, logits, labels, index, 300, window, decay, changes, records, ignore)
    largest = torch.finfo(torch.float32).max
    extremes = torch.tensor([[largest, -largest], [-largest, largest], [0, -largest], [100, -100], [0, 0]])
    index, labels = torch.zeros(5, dtype=torch.int64), torch.tensor([0, 1, 0, 1, 0])
    yield record_temporal_call("extremes", extremes, labels, index, 1, 3, 0.9, True)
    yield record_temporal_call("0 rows", torch.zeros(0, 3), labels[:0], labels[:0], 2, 3, 0.9, True)


class State:
    """Moments that some gradients may have left, of `examples` examples and `pixels` pixels."""

    def __init__(self, examples: int, pixels: int, m2_dtype: torch.dtype, shift: int = 0, seed: object = 0) -> None:
        g = generator(examples, pixels, seed)
        self.count = torch.randint(4, (examples,), generator=g).int()
        some = self.count[:, None] > 0
        self.mean = place(some * torch.randn(examples, pixels, generator=g), (pixels, 1), shift)
        self.m2 = place((some * torch.rand(examples, pixels, generator=g)).to(m2_dtype), (pixels, 1), shift)

    @property
    def tensors(self) -> list[Tensor]:
        return [self.count, self.mean, self.m2]

    @property
    def view(self) -> tuple[int | Tensor, ...]:
        return int(self.m2.dtype == torch.bfloat16), *self.mean.shape, *self.tensors


def gradients_of(shape: Sequence[int], dtype: torch.dtype, layout: str) -> Tensor:
    """[B, C, P] or, with a first dimension of checkpoints, [K, B, C, P]."""
    rows, channels, pixels = shape[-3:]
    values = torch.randn(*shape, generator=generator(*shape)).to(dtype)
    if layout == "one row for all":
        return values[:1].clone().expand(*shape)
    size = channels * pixels
    stride, shift = {
        "contiguous": ((size, pixels, 1), 0),
        "channels_last": ((size, 1, channels), 0),
        "shifted": ((size, pixels, 1), 1),
        "shifted channels_last": ((size, 1, channels), 1),
        "aligned rows": ((size + 16 - size % 8, pixels, 1), 0),
        "odd rows": ((size + 1 + size % 2, pixels, 1), 0),
        "odd channels": ((size + 16 - size % 8 + 16 * channels, pixels + 1, 1), 0),
        "odd checkpoints": ((size, pixels, 1), 0),
        "every other pixel": ((2 * size, 2 * pixels, 2), 0),
    }[layout]
    if len(shape) == 4:
        stride = (rows * stride[0] + (layout == "odd checkpoints"), *stride)
    return place(values, stride, shift)


def gradients_view(gradients: Tensor) -> tuple[int | Tensor, ...]:
    shape, stride = gradients.shape[-3:], gradients.stride()[-3:]
    return ELEMENT_TYPES[gradients.dtype], *shape, *stride, gradients


def record_gradients_call(
    name: str,
    state: State,
    gradients: Tensor,
    index: Tensor,
    scale: Tensor | None = None,
    subset: Tensor | None = None,
) -> Call:
    skipped = torch.tensor([10, 20, 30, 40])

    def expect() -> list[Tensor]:
        after = [t.clone() for t in (*state.tensors, skipped)]
        reference.record_gradients_(*after[:3], index, gradients, scale, subset, after[3])
        return after

    arguments = (*state.view, index, *gradients_view(gradients), scale, subset, skipped)
    return Call(name, "record_gradients", arguments, [*state.tensors, skipped], expect, states=3)


def record_gradients_calls() -> Iterator[Call]:
    examples = 9
    m2_dtypes = (torch.float32, torch.bfloat16)

    def call(
        rows: int, channels: int, pixels: int, dtype: torch.dtype, layout: str, m2: torch.dtype, kind: str
    ) -> Call:
        gradients = gradients_of((rows, channels, pixels), dtype, layout)
        if layout != "one row for all":
            spoil_rows(gradients)
        scale = None
        if (rows + channels + len(layout)) % 2:
            scale = torch.rand(rows, generator=generator(rows))
            scale[::4] = 0
            scale[2::8] = torch.nan
        name = f"{rows} x {channels} x {pixels}, {dtype}, {layout}, M2 {m2}, {kind}" + ", scaled" * (scale is not None)
        index = indices_of(rows, examples, kind)
        return record_gradients_call(name, State(examples, pixels, m2), gradients, index, scale)

    layouts = ("contiguous", "channels_last", "shifted", "shifted channels_last", "aligned rows", "odd rows")
    layouts += ("odd channels", "every other pixel", "one row for all")
    for layout, dtype, m2 in itertools.product(layouts, GRADIENT_DTYPES, m2_dtypes):
        yield call(7, 3, 264, dtype, layout, m2, "repeated")
    for pixels, channels, layout in itertools.product((1, 3, 255, 1024), (1, 3, 4), ("contiguous", "channels_last")):
        dtype = GRADIENT_DTYPES[(pixels + channels) % 4]
        yield call(7, channels, pixels, dtype, layout, m2_dtypes[pixels % 2], "bad")
    for layout, dtype in itertools.product(("contiguous", "channels_last", "shifted"), (torch.float32, torch.bfloat16)):
        yield call(3, 3, 3072, dtype, layout, torch.float32, "all the same")
        # More than a block may hold in shared memory, unless the device has much of it.
        yield call(2, 3, 50176, dtype, layout, torch.bfloat16, "distinct")
    for rows, kind in itertools.product((0, 1, 256), ("distinct", "repeated", "all the same", "bad")):
        yield call(rows, 3, 20, torch.float32, "contiguous", torch.float32, kind)

    for shift, m2 in itertools.product((0, 1), m2_dtypes):
        gradients = gradients_of((7, 3, 64), torch.float32, "contiguous")
        index = indices_of(7, examples, "repeated")
        yield record_gradients_call(f"state shifted by {shift}, {m2}", State(examples, 64, m2, shift), gradients, index)
    for dtype, layout, pixels in itertools.product(GRADIENT_DTYPES, layouts[:2], (1, 17, 256)):
        gradients = gradients_of((7, 3, 1024), dtype, layout)
        subset = torch.randint(1024, (pixels,), generator=generator(pixels))
        index, state = indices_of(7, examples, "repeated"), State(examples, pixels, m2_dtypes[pixels % 2])
        yield record_gradients_call(f"{pixels} pixels, {dtype}, {layout}", state, gradients, index, None, subset)
    for pixel in (-1, 1024, FAR, -FAR):
        gradients = gradients_of((3, 3, 1024), torch.float32, "contiguous")
        subset = torch.tensor([0, 5, pixel, 1023])
        state, index = State(examples, 4, torch.float32), indices_of(3, examples, "distinct")
        yield record_gradients_call(f"no such pixel: {pixel}", state, gradients, index, None, subset)
    for dtype, value in ((torch.float32, 3e38), (torch.float64, 1e300)):
        gradients = gradients_of((3, 3, 16), dtype, "contiguous")
        gradients[1, :, 5] = value  # finite, but not so its sum over channels or not so as float32
        state, index = State(examples, 16, torch.float32), indices_of(3, examples, "distinct")
        yield record_gradients_call(f"overflow of {dtype}", state, gradients, index)


def merge_moments_calls() -> Iterator[Call]:
    dtypes = (torch.float32, torch.bfloat16)
    for pixels, m2, other_m2, shift in itertools.product((1, 3, 255, 1024), dtypes, dtypes, (0, 1)):
        state, other = State(9, pixels, m2, seed="a"), State(9, pixels, other_m2, shift, seed="b")
        yield merge_moments_call(f"{pixels} pixels, {m2} and {other_m2}, shifted by {shift}", state, other)
    yield merge_moments_call("no examples", State(0, 4, dtypes[0]), State(0, 4, dtypes[0]))


def merge_moments_call(name: str, state: State, other: State) -> Call:
    def expect() -> list[Tensor]:
        after = [t.clone() for t in state.tensors]
        reference.merge_moments_(*after, *other.tensors)
        return after

    return Call(name, "merge_moments", (*state.view, *other.view), state.tensors, expect, states=3)


def gradient_variance_calls() -> Iterator[Call]:
    layouts = ("contiguous", "channels_last", "shifted", "shifted channels_last", "aligned rows", "odd rows")
    layouts += ("odd channels", "odd checkpoints")
    for layout, dtype in itertools.product(layouts, GRADIENT_DTYPES):
        yield gradient_variance_call(3, 5, 3, 1024, dtype, layout)
    for checkpoints, channels, pixels in itertools.product((1, 2), (1, 3, 4), (1, 3, 255, 3072)):
        yield gradient_variance_call(checkpoints, 2, channels, pixels, torch.float32, layouts[channels % 2])
    for rows in (0, 1, 256):
        yield gradient_variance_call(3, rows, 3, 20, torch.float32, "contiguous")
    yield gradient_variance_call(2, 1, 3, 50176, torch.bfloat16, "channels_last")


def gradient_variance_call(
    checkpoints: int, rows: int, channels: int, pixels: int, dtype: torch.dtype, layout: str
) -> Call:
    gradients = gradients_of((checkpoints, rows, channels, pixels), dtype, layout)
    statistic = ("std", "variance")[(checkpoints + pixels) % 2]
    out = torch.randn(rows, generator=generator("out"))
    arguments = (*gradients_view(gradients), checkpoints, gradients.stride(0), int(statistic == "std"), out)
    name = f"{checkpoints} x {rows} x {channels} x {pixels}, {dtype}, {layout}, {statistic}"
    return Call(
        name, "gradient_variance", arguments, [out], lambda: [reference.gradient_variance(gradients, statistic)]
    )


def all_calls() -> list[Call]:
    return [
        *chain_rows_calls(),
        *softmax_stats_calls(),
        *strided_stats_calls(),
        *soft_stats_calls(),
        *sigmoid_stats_calls(),
        *reduce_rows_calls(),
        *record_stats_calls(),
        *record_given_stats_calls(),
        *record_temporal_calls(),
        *record_gradients_calls(),
        *merge_moments_calls(),
        *gradient_variance_calls(),
    ]
