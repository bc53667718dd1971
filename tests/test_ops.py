"""The compiled operators: their registration, their agreement with the reference, layouts, threads and bad rows."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from difficulty_prune import ops
from difficulty_prune.ops import reference
from difficulty_prune.ops.layout import FIELD, RECORD, RECORD_WIDTH, STAT, STATS

kernels = torch.ops.difficulty_prune

LOGIT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GRADIENT_DTYPES = (*LOGIT_DTYPES, torch.float64)
M2_DTYPES = (torch.float32, torch.bfloat16)

close = partial(torch.testing.assert_close, rtol=1e-5, atol=2e-6, equal_nan=True)
identical = partial(torch.testing.assert_close, rtol=0, atol=0, equal_nan=True)


def random_logits(rows: int, classes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=generator)
    logits[::3] = logits[::3].round()  # ties
    return logits.to(dtype)


def random_labels(rows: int, classes: int, seed: int = 1) -> Tensor:
    labels = torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))
    labels[: min(rows, 2)] = torch.tensor([0, classes - 1])[: min(rows, 2)]  # both ends of the row
    return labels


def random_gradients(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


class Moments:
    """State of `record_gradients_` for `examples` examples of `pixels` pixels."""

    def __init__(self, examples: int, pixels: int, m2_dtype: torch.dtype = torch.float32) -> None:
        self.count = torch.zeros(examples, dtype=torch.int32)
        self.mean = torch.zeros(examples, pixels)
        self.m2 = torch.zeros(examples, pixels, dtype=m2_dtype)
        self.skipped = ops.new_skipped()

    def add(
        self,
        operator: Callable[..., None],
        index: Tensor,
        gradients: Tensor,
        scale: Tensor | None = None,
        pixels: Tensor | None = None,
    ):
        operator(self.count, self.mean, self.m2, index, gradients, scale, pixels, self.skipped)
        return self

    @property
    def tensors(self) -> list[Tensor]:
        return [self.count, self.mean, self.m2, self.skipped]


def assert_equal_moments(got: Moments, expected: Moments, compare=close) -> None:
    for a, b in zip(got.tensors, expected.tensors, strict=True):
        compare(a, b)


# Registration with PyTorch


# opcheck reads .grad of the tensors that it derives from the arguments, and PyTorch warns of that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_softmax_stats(dtype, requires_grad: bool) -> None:
    logits = random_logits(6, 5, dtype).requires_grad_(requires_grad)
    torch.library.opcheck(kernels.softmax_stats.default, (logits, random_labels(6, 5)))


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
def test_opcheck_record_stats(dtype) -> None:
    index = torch.tensor([0, 3, 3, 1, 0, 2])
    arguments = (ops.new_table(4), index, random_logits(6, 5, dtype), random_labels(6, 5), ops.new_skipped())
    torch.library.opcheck(kernels.record_stats_.default, arguments)


def test_opcheck_record_given_stats() -> None:
    index, labels = torch.tensor([0, 3, 3, ops.PADDING, 0, 2]), random_labels(6, 5)
    stats = ops.softmax_stats(random_logits(6, 5), labels)
    arguments = (ops.new_table(4), index, stats, labels, 5, ops.new_skipped())
    torch.library.opcheck(kernels.record_given_stats_.default, arguments)


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("classes", [None, 5])
def test_opcheck_record_temporal(dtype, classes: int | None) -> None:
    table, index = ops.new_temporal_table(4, 3, classes), torch.tensor([0, 3, 3, 1, 0, 3])
    arguments = (table, index, random_logits(6, 5, dtype), random_labels(6, 5), 3, 0.9, ops.new_skipped())
    torch.library.opcheck(kernels.record_temporal_.default, arguments)


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("m2_dtype", M2_DTYPES)
@pytest.mark.parametrize("scale", [None, torch.tensor([1.0, 0.0, 2.5])])
@pytest.mark.parametrize("pixels", [None, torch.tensor([3, 0, 19])])
def test_opcheck_record_gradients(dtype, m2_dtype, scale, pixels) -> None:
    m = Moments(4, 20 if pixels is None else 3, m2_dtype)
    gradients = random_gradients(3, 3, 4, 5, dtype=dtype)
    arguments = (m.count, m.mean, m.m2, torch.tensor([2, 0, 2]), gradients, scale, pixels, m.skipped)
    torch.library.opcheck(kernels.record_gradients_.default, arguments)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("m2_dtype", M2_DTYPES)
@pytest.mark.parametrize("other_dtype", M2_DTYPES)
def test_opcheck_merge_moments(m2_dtype, other_dtype) -> None:
    m, other = Moments(4, 20, m2_dtype), Moments(4, 20, other_dtype)
    for state in (m, other):
        state.add(ops.record_gradients_, torch.tensor([2, 0, 2]), random_gradients(3, 1, 20))
    arguments = (m.count, m.mean, m.m2, other.count, other.mean, other.m2)
    torch.library.opcheck(kernels.merge_moments_.default, arguments)


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("statistic", ["std", "variance"])
def test_opcheck_gradient_variance(dtype, statistic: str) -> None:
    gradients = random_gradients(3, 2, 3, 4, 5, dtype=dtype)
    torch.library.opcheck(kernels.gradient_variance.default, (gradients, statistic))


BATCH = (torch.tensor([3, 0]), torch.zeros(2, 5), torch.tensor([4, 0]))
RIGHT = {  # arguments that fit together
    "record_stats_": (ops.new_table(4), *BATCH),
    "record_temporal_": (ops.new_temporal_table(4, 3, 5), *BATCH),
    "record_gradients_": (
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(4, 2),
        torch.zeros(4, 2),
        torch.tensor([3, 0]),
        torch.zeros(2, 3, 2, 2),
        torch.ones(2),
        torch.tensor([0, 3]),
    ),
}
WRONG = {
    "dtype": lambda t: t.to(torch.int16),
    "rows": lambda t: torch.cat([t, t]),
    "dimension": lambda t: t.unsqueeze(0),
    "device": lambda t: t.to("meta"),
    "strides": lambda t: torch.stack([t, t], -1)[..., 0],
    "width": lambda t: torch.cat([t, t[..., :1]], -1),
    "below": lambda t: t - 5,
    "above": lambda t: t + 5,
}


# With the arguments that are no tensors.
LOOKS = {
    "record_stats_": (kernels.accepts_stats,),
    "record_temporal_": (kernels.accepts_temporal, 3),
    "record_gradients_": (kernels.accepts_gradients,),
}
RECORDERS = {
    "record_stats_": ops.record_stats_,
    "record_temporal_": lambda *arguments: ops.record_temporal_(*arguments[:4], 3, 0.9, arguments[4]),
    "record_gradients_": ops.record_gradients_,
}


def right_arguments(name: str) -> list[Tensor]:
    arguments = [*(t.clone() for t in RIGHT[name]), ops.new_skipped()]
    if name == "record_stats_":
        arguments[0] = ops.new_table(4)  # a clone need not start at a cache line
    return arguments


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", LOOKS)
def test_opcheck_of_the_looks(name: str) -> None:
    """Without the checks of tracing: a look at values is never traced."""
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    look, *first = LOOKS[name]
    torch.library.opcheck(look.default, [*first, *right_arguments(name)], test_utils=checks)


def refuses(function: Callable[..., None], arguments: tuple[Tensor, ...]) -> bool:
    try:
        function(*arguments)
    except (TypeError, ValueError, IndexError):
        return True
    return False


@pytest.mark.parametrize("fault", [None, *WRONG])
@pytest.mark.parametrize(("name", "position"), [(name, i) for name in RIGHT for i in range(len(RIGHT[name]) + 1)])
def test_the_compiled_look_accepts_what_the_checks_accept(name: str, position: int, fault: str | None) -> None:
    """Every argument in turn is made wrong: the quick look and the checks in Python, which a look that is content
    bypasses, have to agree."""
    arguments = right_arguments(name)
    if fault is not None:
        arguments[position] = WRONG[fault](arguments[position])
    look, *first = LOOKS[name]
    content = look(*first, *arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "_accepts", lambda *_: False)
        assert content == (not refuses(RECORDERS[name], tuple(arguments)))


def test_the_kernels_are_compiled_and_serve_the_cpu() -> None:
    """Without them the rest of this file would compare the reference with itself."""
    assert ops.missing_kernels() is None
    recorders = ("record_stats_", "record_given_stats_", "record_temporal_", "record_gradients_")
    for name in ("softmax_stats", *recorders, "merge_moments_", "gradient_variance"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"difficulty_prune::{name}", "CPU")


# Kernels and reference


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 3, 15, 16, 17, 33, 100, 1000])
def test_softmax_stats_equals_the_reference(dtype, classes: int) -> None:
    logits, labels = random_logits(64, classes, dtype), random_labels(64, classes)
    got, expected = kernels.softmax_stats(logits, labels), reference.softmax_stats(logits, labels)
    assert got.dtype == torch.float32
    assert got.shape == (64, len(STATS))
    for name in STATS:
        close(got[:, STAT[name]], expected[:, STAT[name]], msg=lambda text, name=name: f"{name}: {text}")
    identical(ops.softmax_stats(logits, labels), got)


@pytest.mark.parametrize("label", [0, 1, 15, 16, 31, 32, 39])
def test_the_lowest_class_wins_a_tie_wherever_the_label_stands(label: int) -> None:
    """The kernel looks at the classes before and after the label apart, in groups of lanes."""
    for rival in range(40):
        logits = torch.zeros(1, 40)
        logits[0, [label, rival]] = 2.0
        stats = ops.softmax_stats(logits, torch.tensor([label]))[0]
        assert stats[STAT["correct"]].item() == (label <= rival)
        assert stats[STAT["logit_margin"]].item() == (0.0 if rival != label else 2.0)


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 10, 40])
def test_record_stats_equals_the_reference(dtype, classes: int) -> None:
    got, expected = ops.new_table(11), ops.new_table(11)
    skipped = [ops.new_skipped(), ops.new_skipped()]
    for step in range(5):
        logits, labels = random_logits(30, classes, dtype, seed=step), random_labels(30, classes, seed=step)
        logits[step, 0] = torch.nan
        index = torch.randint(10, (30,), generator=torch.Generator().manual_seed(step))  # example 10 is never seen
        kernels.record_stats_(got, index, logits, labels, skipped[0])
        reference.record_stats_(expected, index, logits, labels, skipped[1])
    for name in RECORD:
        close(got[:, FIELD[name]], expected[:, FIELD[name]], msg=lambda text, name=name: f"{name}: {text}")
    identical(got[10], torch.zeros(16))
    assert skipped[0].tolist() == skipped[1].tolist() == [0, 0, 5]


@pytest.mark.parametrize("namespace", [kernels, reference])
@settings(max_examples=50)
@given(st.data(), st.sampled_from(LOGIT_DTYPES), st.sampled_from([1, 2, 10, 40]))
def test_statistics_recorded_later_are_record_stats_bit_for_bit(namespace, data, dtype, classes: int) -> None:
    """Whatever the batch: repeated examples, rows that cannot be recorded for one reason or several, and padding."""
    largest = torch.finfo(dtype).max
    values = st.sampled_from([0.0, 1.0, torch.nan, torch.inf, -torch.inf, largest, -largest])
    row = st.tuples(st.integers(-2, 5), st.integers(-1, classes), st.integers(0, classes - 1), values)
    rows = data.draw(st.lists(row, min_size=1, max_size=40))
    index, labels = torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])
    logits = random_logits(len(rows), classes, dtype)
    for i, (_, _, column, value) in enumerate(rows):
        logits[i, column] = value

    present = index != ops.PADDING
    table, expected = ops.new_table(5), ops.new_table(5)
    skipped, expected_skipped = ops.new_skipped(), ops.new_skipped()
    for _ in range(2):  # into new records, and on top of others
        stats = namespace.softmax_stats(logits, labels)
        namespace.record_given_stats_(table, index, stats, labels, classes, skipped)
        namespace.record_stats_(expected, index[present], logits[present], labels[present], expected_skipped)
    identical(table, expected)
    identical(skipped, expected_skipped)


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("classes", [2, 10, 40])
def test_the_bits_of_a_row_do_not_depend_on_the_batch_around_it(dtype, classes: int) -> None:
    """Rows are worked on in groups, of which the last one of a batch may not be full."""
    logits, labels, index = random_logits(300, classes, dtype), random_labels(300, classes), torch.arange(300)
    table, alone = ops.new_table(300), ops.new_table(300)
    ops.record_stats_(table, index, logits, labels)
    for row in zip(index.split(1), logits.split(1), labels.split(1), strict=True):
        ops.record_stats_(alone, *row)
    identical(table, alone)


def test_record_given_stats_equals_the_reference() -> None:
    got, expected = ops.new_table(11), ops.new_table(11)
    skipped = [ops.new_skipped(), ops.new_skipped()]
    for step in range(5):
        labels = random_labels(30, 10, seed=step)
        stats = kernels.softmax_stats(random_logits(30, 10, seed=step), labels)
        for column in range(len(STATS)):
            stats[column, column] = (torch.nan, torch.inf, -torch.inf)[step % 3]
        index = torch.randint(-1, 10, (30,), generator=torch.Generator().manual_seed(step))
        kernels.record_given_stats_(got, index, stats, labels, 10, skipped[0])
        reference.record_given_stats_(expected, index, stats, labels, 10, skipped[1])
    close(got, expected)
    assert skipped[0].tolist() == skipped[1].tolist()
    assert skipped[0][2] > 30


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 7), (2, 1, 1), (4, 33), (5, 2, 3, 4)])
def test_record_gradients_equals_the_reference(dtype, shape: tuple[int, ...]) -> None:
    pixels = int(np.prod(shape[1:]))
    got, expected = Moments(6, pixels), Moments(6, pixels)
    for step in range(4):
        index = torch.tensor([0, 5, 2, 0, 0, 3])
        gradients = random_gradients(6, *shape, dtype=dtype, seed=step)
        gradients[step] = torch.inf
        scale = None if step == 0 else torch.tensor([1.0, 0.5, 2.0, 0.0, -1.0, 128.0])
        got.add(kernels.record_gradients_, index, gradients, scale)
        expected.add(reference.record_gradients_, index, gradients, scale)
    assert_equal_moments(got, expected, partial(torch.testing.assert_close, rtol=1e-5, atol=1e-4))
    assert got.skipped[2] == 3  # the row of scale 0 was passed over before it was looked at


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("statistic", ["std", "variance"])
@pytest.mark.parametrize("shape", [(1, 5, 3, 4, 4), (4, 5, 3, 20, 20), (3, 2, 1, 7)])
def test_gradient_variance_equals_the_reference(dtype, statistic: str, shape: tuple[int, ...]) -> None:
    gradients = random_gradients(*shape, dtype=dtype)
    got = kernels.gradient_variance(gradients, statistic)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, reference.gradient_variance(gradients, statistic), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("namespace", [kernels, reference])
def test_gradients_without_pixel_dimensions_have_one_pixel(namespace) -> None:
    """[B, C] and [K, B, C] are allowed: the product of no dimensions is 1."""
    gradients = random_gradients(4, 6, 3)
    close(namespace.gradient_variance(gradients), gradients.double().mean(2).std(0, correction=0).float())
    m = Moments(6, 1).add(namespace.record_gradients_, torch.arange(6), gradients[0])
    close(m.mean[:, 0], gradients[0].mean(1))


@pytest.mark.parametrize("namespace", [kernels, reference])
def test_an_empty_batch_has_no_variance_and_no_warning(namespace) -> None:
    assert namespace.gradient_variance(torch.empty(3, 0, 2, 4)).shape == (0,)


def test_an_unknown_statistic_is_refused_by_the_kernel_itself() -> None:
    with pytest.raises(RuntimeError, match="'std' or 'variance', got 'median'"):
        kernels.gradient_variance(torch.zeros(2, 1, 1, 1), "median")


def test_a_repeated_example_counts_twice_in_batch_order() -> None:
    right, wrong = [2.0, 0.0], [0.0, 2.0]
    table = ops.new_table(3)
    index = torch.tensor([1, 2, 1, 1, 2, 1])
    ops.record_stats_(table, index, torch.tensor([wrong, right, right, wrong, right, right]), torch.zeros(6).long())
    record = {name: table[1, column].item() for name, column in FIELD.items()}
    assert (record["count"], record["correct"], record["forgotten"]) == (4, 2, 1)
    assert (record["first_correct"], record["last_wrong"]) == (2, 3)
    assert table[2, FIELD["last_wrong"]] == 0


@pytest.mark.parametrize("operator", [kernels.record_gradients_, reference.record_gradients_])
def test_repeated_rows_of_gradients_are_separate_observations(operator) -> None:
    gradients = random_gradients(40, 2, 3, 3)
    index = torch.randint(4, (40,), generator=torch.Generator().manual_seed(0))
    m = Moments(5, 9).add(operator, index, gradients)
    for example in range(4):
        signal = gradients[index == example].double().mean(1).flatten(1)
        assert m.count[example] == len(signal) > 1
        close(m.mean[example], signal.mean(0).float())
        close(m.m2[example], (signal.var(0, correction=0) * len(signal)).float())
    assert m.count[4] == 0


# Memory layouts

LOGIT_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "row-strided": lambda z: torch.cat([z, torch.full_like(z, torch.nan)], 1)[:, : z.shape[1]],
    "every second row": lambda z: torch.stack([z, torch.full_like(z, torch.nan)], 1)[:, 0],
    "transposed": lambda z: z.t().contiguous().t(),
    "every second column": lambda z: torch.stack([z, torch.full_like(z, torch.nan)], 2)[:, :, 0],
    "offset": lambda z: torch.cat([torch.full_like(z[:, :1], torch.nan), z], 1)[:, 1:],
    "negated lazily": lambda z: torch._neg_view(-z),
}


@pytest.mark.parametrize("layout", LOGIT_LAYOUTS)
@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("classes", [1, 5, 40])
def test_the_layout_of_logits_does_not_matter(layout: str, dtype, classes: int) -> None:
    logits, labels = random_logits(12, classes, dtype), random_labels(12, classes)
    laid_out = LOGIT_LAYOUTS[layout](logits)
    identical(laid_out, logits)
    identical(kernels.softmax_stats(laid_out, labels), kernels.softmax_stats(logits, labels))

    index = torch.arange(12).remainder(7)
    tables = [ops.new_table(7), ops.new_table(7)]
    for table, z in zip(tables, (laid_out, logits), strict=True):
        ops.record_stats_(table, index, z, labels)
    identical(*tables)


def test_expanded_logits_and_strided_integers() -> None:
    row = random_logits(1, 5)
    labels, index = random_labels(16, 5), torch.arange(16).remainder(6)
    expected = kernels.softmax_stats(row.repeat(8, 1), labels[::2].contiguous())
    identical(kernels.softmax_stats(row.expand(8, 5), labels[::2]), expected)
    tables = [ops.new_table(6), ops.new_table(6)]
    ops.record_stats_(tables[0], index[::2], row.expand(8, 5), labels[::2])
    ops.record_stats_(tables[1], index[::2].contiguous(), row.repeat(8, 1), labels[::2].contiguous())
    identical(*tables)


def test_strided_statistics() -> None:
    labels, index = random_labels(16, 5), torch.arange(16).remainder(6)
    wide = torch.full((17, 9), torch.nan)
    wide[1:, 1:] = kernels.softmax_stats(random_logits(16, 5), labels)
    tables = [ops.new_table(6), ops.new_table(6)]
    ops.record_given_stats_(tables[0], index[::2], wide[1::2, 1:], labels[::2], 5)
    ops.record_given_stats_(tables[1], index[::2].clone(), wide[1::2, 1:].clone(), labels[::2].clone(), 5)
    identical(*tables)
    assert tables[0][:, FIELD["count"]].sum() == 8


def gradient_layouts(dtype: torch.dtype) -> dict[str, Tensor]:
    """Gradients [6, 3, 4, 5] in memory orders that autograd and users produce."""
    g = random_gradients(6, 3, 4, 5, dtype=dtype)
    wide = random_gradients(12, 5, 9, 11, dtype=dtype)
    return {
        "contiguous": g,
        "channels last": g.contiguous(memory_format=torch.channels_last),
        "pixels transposed": g.transpose(2, 3).contiguous().transpose(2, 3),
        "batch last": g.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        "sliced everywhere": wide[::2, 1:4, 2:6, 3:8],
        "every second pixel": wide[:6, :3, 1:9:2, ::2][..., :5],
        "sliced channels": wide.narrow(0, 0, 6)[:, ::2, :4, :5],
        "expanded to pixels": g[:, :, :1, :1].expand(6, 3, 4, 5),
        "expanded to rows of pixels": g[:, :, :1].expand(6, 3, 4, 5),
        "expanded to columns of pixels": g[..., :1].expand(6, 3, 4, 5),
        "expanded to channels": g[:, :1].expand(6, 3, 4, 5),
        "expanded to the batch": g[:1].expand(6, 3, 4, 5),
        "one number": g[0, 0, 0, 0].expand(6, 3, 4, 5),
    }


@pytest.mark.parametrize("layout", gradient_layouts(torch.float32))
@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
def test_the_layout_of_gradients_does_not_matter(layout: str, dtype) -> None:
    gradients = gradient_layouts(dtype)[layout]
    assert gradients.shape == (6, 3, 4, 5)
    index = torch.tensor([3, 1, 3, 0, 2, 3])
    got = Moments(5, 20).add(kernels.record_gradients_, index, gradients)
    expected = Moments(5, 20).add(reference.record_gradients_, index, gradients.contiguous())
    assert_equal_moments(got, expected)

    checkpoints = gradients.unflatten(0, (3, 2))
    for statistic in ("std", "variance"):
        torch.testing.assert_close(
            kernels.gradient_variance(checkpoints, statistic),
            reference.gradient_variance(checkpoints.contiguous(), statistic),
            rtol=1e-6,
            atol=1e-12,
        )


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
def test_permuted_checkpoints_give_the_same_variance(dtype) -> None:
    gradients = random_gradients(4, 6, 3, 5, 7, dtype=dtype)
    expected = kernels.gradient_variance(gradients)
    for order in [(1, 0, 2, 3, 4), (4, 3, 2, 1, 0), (0, 1, 3, 4, 2), (2, 0, 1, 4, 3)]:
        inverse = [order.index(d) for d in range(5)]
        laid_out = gradients.permute(order).contiguous().permute(inverse)
        torch.testing.assert_close(kernels.gradient_variance(laid_out), expected, rtol=1e-6, atol=0)


def test_an_empty_batch_changes_nothing() -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    assert ops.softmax_stats(torch.empty(0, 4), nothing).shape == (0, len(STATS))
    table, skipped = ops.new_table(3), ops.new_skipped()
    ops.record_stats_(table, nothing, torch.empty(0, 4), nothing, skipped)
    ops.record_given_stats_(table, nothing, torch.empty(0, len(STATS)), nothing, 4, skipped)
    m = Moments(3, 6).add(ops.record_gradients_, nothing, torch.empty(0, 2, 6))
    assert ops.gradient_variance(torch.empty(2, 0, 3, 4)).shape == (0,)
    for untouched in (table, skipped, *m.tensors):
        assert not untouched.any()


def test_one_class_has_no_rival() -> None:
    stats = ops.softmax_stats(torch.tensor([[5.0], [-7.0]]), torch.tensor([0, 0]))
    expected = {"p_label": 1.0, "p_max": 1.0, "correct": 1.0}
    for name in STATS:
        identical(stats[:, STAT[name]], torch.full((2,), expected.get(name, 0.0)))


# Threads


@pytest.fixture
def with_threads():
    """Runs a function with a given number of threads; the number is restored afterwards."""
    before = torch.get_num_threads()

    def run(threads: int, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        torch.set_num_threads(threads)
        return function()

    yield run
    torch.set_num_threads(before)


def test_the_number_of_threads_changes_no_bit(with_threads) -> None:
    """Duplicates of an example are far apart here, so that rows of one example fall to different threads."""
    rows, classes = 3000, 64
    logits, labels = random_logits(rows, classes), random_labels(rows, classes)
    logits[::97, 0] = torch.nan
    gradients = random_gradients(rows, 3, 8, 8)
    index = torch.arange(rows).remainder(700)
    few = torch.arange(rows).remainder(350)  # so few that windows of presentations become complete
    checkpoints = gradients.unflatten(0, (5, 600))

    def all_operators() -> list[Tensor]:
        table, skipped = ops.new_table(700), ops.new_skipped()
        ops.record_stats_(table, index, logits, labels, skipped)
        given = ops.new_table(700)
        ops.record_given_stats_(given, index - 1, ops.softmax_stats(logits, labels), labels, classes, skipped)
        windows = ops.new_temporal_table(350, 4, classes)
        ops.record_temporal_(windows, few, logits, labels, 4, 0.9, skipped)
        m = Moments(700, 64).add(ops.record_gradients_, index, gradients, torch.linspace(-1, 1, rows))
        return [
            ops.softmax_stats(logits, labels),
            table,
            given,
            windows,
            skipped,
            *m.tensors,
            ops.gradient_variance(checkpoints),
            ops.gradient_variance(checkpoints, "variance"),
        ]

    one = with_threads(1, all_operators)
    for several in (2, 3):
        for a, b in zip(with_threads(several, all_operators), one, strict=True):
            identical(a, b)


# State of more than 2^31 elements, of which only the pages in use take memory


@pytest.fixture
def sparse_zeros(tmp_path: Path) -> Callable[..., Tensor]:
    """Zeros in a file of holes: what is never written takes no room."""

    def make(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        name = tmp_path / str(len(list(tmp_path.iterdir())))
        words = np.memmap(name, np.uint8, "w+", shape=(math.prod(shape) * dtype.itemsize,))
        return torch.from_numpy(words).view(dtype).view(shape)

    return make


def test_records_beyond_2_31_elements(sparse_zeros) -> None:
    examples = 2**27 + 5
    table, small = sparse_zeros(examples, RECORD_WIDTH), ops.new_table(2)
    logits, labels = random_logits(2, 10), random_labels(2, 10)
    kernels.record_stats_(table, torch.tensor([examples - 1, 2**27]), logits, labels, ops.new_skipped())
    kernels.record_stats_(small, torch.tensor([1, 0]), logits, labels, ops.new_skipped())
    identical(table[[2**27, examples - 1]], small)
    assert table[:2].count_nonzero() == 0  # where 32-bit offsets would have wrapped to


def test_windows_of_presentations_beyond_2_31_elements(sparse_zeros) -> None:
    examples, window, classes = 2**25 + 5, 10, 44  # rows of 66
    table, small = sparse_zeros(examples, 66), ops.new_temporal_table(2, window, classes)
    logits, labels = random_logits(2, classes), random_labels(2, classes)
    kernels.record_temporal_(table, torch.tensor([examples - 1, 2**25]), logits, labels, window, 0.9, ops.new_skipped())
    kernels.record_temporal_(small, torch.tensor([1, 0]), logits, labels, window, 0.9, ops.new_skipped())
    identical(table[[2**25, examples - 1]], small)
    assert table[:2].count_nonzero() == 0


@pytest.mark.parametrize("m2_dtype", M2_DTYPES)
def test_moments_beyond_2_31_elements(sparse_zeros, m2_dtype) -> None:
    examples, pixels = 50_000, 50_176
    count = torch.zeros(examples, dtype=torch.int32)
    mean, m2 = sparse_zeros(examples, pixels), sparse_zeros(examples, pixels, dtype=m2_dtype)
    gradients = random_gradients(4, 1, pixels)
    index = torch.tensor([examples - 1, 43_000, examples - 1, 43_000])  # 43,000 x 50,176 > 2^31
    kernels.record_gradients_(count, mean, m2, index, gradients, None, None, ops.new_skipped())
    for row in (0, 1):
        expected = gradients[[row, row + 2], 0]
        close(mean[index[row]], expected.mean(0))
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if m2_dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-5}
        torch.testing.assert_close(m2[index[row]].float(), 2 * expected.var(0, correction=0), **tolerance)
    assert mean[0].count_nonzero() == mean[200].count_nonzero() == 0


# Autograd


@pytest.mark.parametrize("namespace", [kernels, reference, ops])
def test_statistics_of_logits_in_a_graph_carry_no_gradient_and_leave_the_loss_alone(namespace) -> None:
    weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    x, labels, index = torch.eye(4), torch.tensor([0, 4, 2, 2]), torch.tensor([1, 0, 1, 2])
    table, skipped = ops.new_table(3), ops.new_skipped()

    logits = x @ weight
    stats = namespace.softmax_stats(logits, labels)
    namespace.record_stats_(table, index, logits, labels, skipped)
    assert not stats.requires_grad
    assert not table.requires_grad
    assert table[:, FIELD["count"]].tolist() == [1, 2, 1]

    torch.nn.functional.cross_entropy(logits, labels).backward()
    expected = weight.detach().clone().requires_grad_()
    torch.nn.functional.cross_entropy(x @ expected, labels).backward()
    identical(weight.grad, expected.grad)


@pytest.mark.parametrize("namespace", [kernels, reference, ops])
def test_gradients_that_are_in_a_graph_themselves_are_recorded_without_it(namespace) -> None:
    """A second-order method (create_graph=True) hands over gradients that require grad."""
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    m = Moments(2, 4).add(namespace.record_gradients_, torch.tensor([0, 1]), gradient)
    assert not m.mean.requires_grad
    assert not namespace.gradient_variance(gradient[None]).requires_grad
    close(m.mean, (3 * x**2).mean(1).detach())
    gradient.sum().backward()
    close(x.grad, 6 * x.detach())


def test_losses_in_a_graph_are_recorded_without_it() -> None:
    """Else the table would keep the graph of every training step alive."""
    table = ops.new_table(2)
    ops.record_losses_(table, torch.tensor([1]), torch.ones(1, requires_grad=True) * 2)
    assert not table.requires_grad
    assert table[1, FIELD["loss"]].item() == 2.0


def test_losses_of_padding_are_passed_over() -> None:
    table, skipped = ops.new_table(2), ops.new_skipped()
    ops.record_losses_(
        table, torch.tensor([1, ops.PADDING, 1]), torch.tensor([1.0, torch.nan, 2.0]), skipped, padding=True
    )
    assert table[:, : FIELD["loss"] + 1].tolist() == [[0, 0], [2, 3]]
    assert not skipped.any()


def test_operators_run_under_inference_mode() -> None:
    table, skipped, m = ops.new_table(3), ops.new_skipped(), Moments(3, 4)
    logits, labels, index = random_logits(4, 5), random_labels(4, 5), torch.tensor([0, 2, 2, 1])
    gradients = random_gradients(4, 2, 4)
    with torch.inference_mode():
        stats = ops.softmax_stats(logits.clone(), labels)
        ops.record_stats_(table, index, logits.clone(), labels, skipped)
        m.add(ops.record_gradients_, index, gradients.clone())
        variance = ops.gradient_variance(gradients.clone()[None])
    close(stats, reference.softmax_stats(logits, labels))
    assert table[:, FIELD["count"]].tolist() == [1, 1, 2]
    assert m.count.tolist() == [1, 1, 2]
    identical(variance, torch.zeros(4))


# Rows that cannot be recorded. Called directly, the operators meet values that the Python checks would refuse.

WILD_INDICES = [-1, 5, -(2**63), 2**63 - 1, 2**31, -5]


@pytest.mark.parametrize("operator", [kernels.record_stats_, reference.record_stats_])
def test_bad_rows_of_logits_are_left_out_counted_and_harm_nothing(operator) -> None:
    surroundings = torch.full((9, 16), 7.0)  # the table lies in the middle: a row too far would show
    table = surroundings[2:7]
    table.zero_()
    skipped = torch.tensor([100, 200, 300])

    bad = len(WILD_INDICES)
    index = torch.tensor([0, *WILD_INDICES, 1, 1, 1, 1, 2, 2, 2, 4, -1])
    rows = len(index)
    logits, labels = random_logits(rows, 3), random_labels(rows, 3)
    labels[bad + 1 : bad + 5] = torch.tensor([-1, 3, 2**62, -(2**62)])
    logits[bad + 5, 0], logits[bad + 6, 2], logits[bad + 7, 1] = torch.nan, torch.inf, -torch.inf
    labels[-1] = -1  # a bad index and a bad label: one reason is enough
    operator(table, index, logits, labels, skipped)

    assert skipped.tolist() == [100 + bad + 1, 200 + 4, 300 + 3]
    expected = ops.new_table(5)
    good = torch.tensor([0, rows - 2])
    reference.record_stats_(expected, index[good], logits[good], labels[good], ops.new_skipped())
    close(table, expected)
    assert (surroundings[:2] == 7).all()
    assert (surroundings[7:] == 7).all()


@pytest.mark.parametrize("operator", [kernels.record_gradients_, reference.record_gradients_])
def test_bad_rows_of_gradients_are_left_out_counted_and_harm_nothing(operator) -> None:
    around_count = torch.full((9,), 7, dtype=torch.int32)
    around_mean, around_m2 = torch.full((9, 4), 7.0), torch.full((9, 4), 7.0)
    state = [around_count[2:7], around_mean[2:7], around_m2[2:7]]
    for tensor in state:
        tensor.zero_()
    skipped = torch.tensor([100, 200, 300])

    index = torch.tensor([0, *WILD_INDICES, 1, 1, 2, 2, 3])
    gradients = random_gradients(len(index), 2, 4)
    gradients[[-2, -3, -4, -5], [0, 1, 0, 1], [0, 3, 2, 1]] = torch.tensor(
        [torch.nan, torch.inf, -torch.inf, torch.nan]
    )
    operator(*state, index, gradients, None, None, skipped)

    assert skipped.tolist() == [100 + len(WILD_INDICES), 200, 300 + 4]
    assert state[0].tolist() == [1, 0, 0, 1, 0]
    close(state[1][[0, 3]], gradients[[0, -1]].mean(1))
    assert not state[1][[1, 2, 4]].any()
    assert not state[2].any()
    for surroundings in (around_count, around_mean, around_m2):
        assert (surroundings[[0, 1, 7, 8]] == 7).all()


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("function", [kernels.softmax_stats, reference.softmax_stats])
@pytest.mark.parametrize("classes", [3, 50])
def test_statistics_of_bad_rows_are_nan_and_others_are_not(dtype, function, classes: int) -> None:
    logits, labels = random_logits(9, classes, dtype), random_labels(9, classes)
    for row, (column, value) in enumerate([(0, torch.nan), (-1, torch.inf), (1, -torch.inf), (2, torch.nan)]):
        logits[row, column] = value
    labels[4:7] = torch.tensor([-1, classes, 2**62])
    stats = function(logits, labels)
    assert stats[:7].isnan().all()
    assert stats[7:].isfinite().all()


@pytest.mark.parametrize("function", [kernels.softmax_stats, reference.softmax_stats])
@pytest.mark.parametrize("position", range(34))
def test_a_value_that_is_not_finite_is_noticed_at_every_position(function, position: int) -> None:
    for bad in (torch.nan, torch.inf, -torch.inf):
        logits = torch.zeros(1, 34)
        logits[0, position] = bad
        assert function(logits, torch.tensor([17])).isnan().all()


@pytest.mark.parametrize("position", range(34))
def test_a_gradient_that_is_not_finite_is_noticed_at_every_position(position: int) -> None:
    for bad in (torch.nan, torch.inf, -torch.inf):
        gradients = torch.zeros(1, 2, 34)
        gradients[0, 1, position] = bad
        m = Moments(1, 34).add(kernels.record_gradients_, torch.tensor([0]), gradients)
        assert m.skipped.tolist() == [0, 0, 1]
        assert not m.count.any()


@pytest.mark.parametrize("operator", [kernels.record_gradients_, reference.record_gradients_])
def test_rows_of_scale_zero_are_passed_over_and_others_are_scaled(operator) -> None:
    gradients = random_gradients(5, 2, 4)
    gradients[1] = torch.nan  # nothing arrived for it: not even worth counting
    scale = torch.tensor([2.0, 0.0, -0.5, 0.0, 64.0])
    m = Moments(4, 4).add(operator, torch.tensor([0, 0, 1, 2, 3]), gradients, scale)
    assert m.count.tolist() == [1, 1, 0, 1]
    assert not m.skipped.any()
    close(m.mean[[0, 1, 3]], (gradients * scale[:, None, None]).mean(1)[[0, 2, 4]])


def test_a_scale_that_is_not_finite_is_counted() -> None:
    scale = torch.tensor([torch.nan, torch.inf, 1.0])
    m = Moments(3, 4).add(kernels.record_gradients_, torch.arange(3), random_gradients(3, 2, 4), scale)
    assert m.count.tolist() == [0, 0, 1]
    assert m.skipped.tolist() == [0, 0, 2]


# Arguments that do not fit together: the kernels refuse them even without the Python checks.


def test_kernels_refuse_arguments_that_do_not_fit_together() -> None:
    logits, labels, index = torch.zeros(2, 3), torch.zeros(2).long(), torch.arange(2)
    table, skipped, m = ops.new_table(4), ops.new_skipped(), Moments(4, 6)
    stats = torch.zeros(2, len(STATS))
    narrow, wide = ops.new_temporal_table(4, 3), ops.new_temporal_table(4, 3, 3)
    gradients = torch.zeros(2, 1, 6)
    wrong: list[Callable[[], object]] = [
        lambda: kernels.softmax_stats(logits, labels[:1]),
        lambda: kernels.softmax_stats(logits, labels.int()),
        lambda: kernels.softmax_stats(logits.double(), labels),
        lambda: kernels.softmax_stats(logits.long(), labels),
        lambda: kernels.softmax_stats(logits[0], labels),
        lambda: kernels.record_stats_(table, index[:1], logits, labels, skipped),
        lambda: kernels.record_stats_(table, index.int(), logits, labels, skipped),
        lambda: kernels.record_stats_(table[:, :15], index, logits, labels, skipped),
        lambda: kernels.record_stats_(table.double(), index, logits, labels, skipped),
        lambda: kernels.record_stats_(table.t().contiguous().t(), index, logits, labels, skipped),
        lambda: kernels.record_stats_(table, index, logits, labels, skipped[:2]),
        lambda: kernels.record_given_stats_(table, index[:1], stats, labels, 3, skipped),
        lambda: kernels.record_given_stats_(table, index, stats, labels[:1], 3, skipped),
        lambda: kernels.record_given_stats_(table, index, stats[:, :7], labels, 3, skipped),
        lambda: kernels.record_given_stats_(table, index, stats[0], labels, 3, skipped),
        lambda: kernels.record_given_stats_(table, index, stats.double(), labels, 3, skipped),
        lambda: kernels.record_given_stats_(table[:, :15], index, stats, labels, 3, skipped),
        lambda: kernels.record_given_stats_(table, index, stats, labels, 3, skipped[:2]),
        lambda: kernels.record_temporal_(narrow, index, logits, labels, 4, 0.9, skipped),
        lambda: kernels.record_temporal_(wide, index, logits[:, :2], labels, 3, 0.9, skipped),
        lambda: kernels.record_temporal_(wide[:, :0], index, logits, labels, 3, 0.9, skipped),
        lambda: kernels.record_temporal_(wide[0], index, logits, labels, 3, 0.9, skipped),
        lambda: kernels.record_temporal_(wide[:, 2:], index, logits, labels, 2, 0.9, skipped),
        lambda: kernels.record_temporal_(wide[:, :1], index, logits, labels, -1, 0.9, skipped),
        lambda: kernels.record_temporal_(wide, index, logits, labels, 3, 0.0, skipped),
        lambda: kernels.record_temporal_(wide, index, logits, labels, 3, math.nan, skipped),
        lambda: kernels.record_temporal_(wide.double(), index, logits, labels, 3, 0.9, skipped),
        lambda: kernels.record_temporal_(wide, index[:1], logits, labels, 3, 0.9, skipped),
        lambda: kernels.record_temporal_(wide, index, logits, labels, 3, 0.9, skipped[:2]),
        lambda: kernels.record_gradients_(m.count, m.mean[:, :5], m.m2, index, gradients, None, None, skipped),
        lambda: kernels.record_gradients_(m.count, m.mean, m.m2[:3], index, gradients, None, None, skipped),
        lambda: kernels.record_gradients_(m.count.long(), m.mean, m.m2, index, gradients, None, None, skipped),
        lambda: kernels.record_gradients_(m.count, m.mean, m.m2, index, gradients, torch.ones(1), None, skipped),
        lambda: kernels.record_gradients_(m.count, m.mean, m.m2, index, gradients.long(), None, None, skipped),
        lambda: kernels.gradient_variance(torch.zeros(2, 3)),
    ]
    for number, call in enumerate(wrong):
        with pytest.raises(RuntimeError):
            print("call", number, call())
    assert not table.any()
    assert not wide.any()
    assert not m.count.any()


@pytest.mark.parametrize(
    ("error", "message", "changes"),
    [
        (ValueError, r"table: .*expected contiguous torch.float32 \[N, 16\]", {"table": torch.zeros(4, 15)}),
        (TypeError, "index: got torch.int32, expected int64", {"index": torch.arange(3).int()}),
        (IndexError, "index: got -2, expected 0..3 for 4 examples, or -1", {"index": torch.tensor([0, -1, -2])}),
        (IndexError, "index: got 4, expected 0..3", {"index": torch.tensor([0, -1, 4])}),
        (TypeError, "stats: got list", {"stats": [0.0]}),
        (ValueError, r"stats: got .*\(3, 5\), expected float32 \[3, 8\]", {"stats": torch.zeros(3, 5)}),
        (ValueError, "stats: got torch.float64", {"stats": torch.zeros(3, 8).double()}),
        (ValueError, r"labels: got shape \(2,\), expected \[3\]", {"labels": torch.zeros(2).long()}),
        (ValueError, "labels: got 5, expected 0..4 for 5 classes", {"labels": torch.tensor([5, 9, 0])}),
        (ValueError, "num_classes: got 0", {"num_classes": 0}),
        (ValueError, "num_classes: got 5.0", {"num_classes": 5.0}),
        (ValueError, "stats on meta", {"stats": torch.zeros(3, 8, device="meta")}),
        (ValueError, "skipped: got", {"skipped": torch.zeros(3)}),
    ],
)
def test_statistics_that_do_not_fit_are_refused_with_what_to_do(error, message: str, changes: dict) -> None:
    right = {
        "table": ops.new_table(4),
        "index": torch.tensor([0, ops.PADDING, 3]),
        "stats": torch.zeros(3, 8),
        "labels": torch.tensor([4, 9, 0]),  # of padding any
        "num_classes": 5,
        "skipped": ops.new_skipped(),
    }
    ops.record_given_stats_(**right)
    assert right["table"][:, FIELD["count"]].tolist() == [1, 0, 0, 1]
    with pytest.raises(error, match=message):
        ops.record_given_stats_(**{**right, **changes})
    assert right["table"][:, FIELD["count"]].sum() == 2


UNUSUAL_CALLS = {
    "none, to see that the child processes work": """
        assert call(ops.record_stats_, torch.zeros(4, 16), index, torch.zeros(2, 3), index, skipped)
        assert not call(ops.softmax_stats, torch.zeros(2, 3), index.int())
    """,
    "record_gradients_ without channels": """
        m, gradients = torch.zeros(4, 50_000), torch.zeros(2, 0, 50_000)
        call(ops.record_gradients_, torch.zeros(4).int(), m, m.clone(), index, gradients, None, None, skipped)
    """,
    "gradient_variance without channels": """
        call(ops.gradient_variance, torch.zeros(3, 2, 0, 50_000))
    """,
    "record_gradients_ with counts of two dimensions": """
        m, gradients = torch.zeros(2, 4), torch.zeros(2, 1, 4)
        call(ops.record_gradients_, torch.zeros(2, 0).int(), m, m.clone(), index, gradients, None, None, skipped)
    """,
    "record_stats_ into a table that does not start at a cache line": """
        for offset in range(1, 16):  # as a memory-mapped file or a slice of a larger buffer may begin
            table = torch.zeros(5 * 16)[offset : offset + 64].view(4, 16)
            if call(ops.record_stats_, table, index, torch.zeros(2, 3), index, skipped):
                assert table[:, 0].tolist() == [1, 1, 0, 0]
    """,
}

IN_CHILD_PROCESSES = """
import json, os, sys, textwrap
import torch, difficulty_prune
torch.set_num_threads(1)  # a forked child has no thread pool
ops = torch.ops.difficulty_prune
index, skipped = torch.arange(2), torch.zeros(3, dtype=torch.int64)

def call(op, *arguments):
    try:
        op(*arguments)
    except RuntimeError:  # refused: fine
        return False
    return True

results = {}
for name, code in json.loads(sys.argv[1]).items():
    child = os.fork()
    if child == 0:
        exec(textwrap.dedent(code))
        os._exit(0)
    results[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def exit_status() -> dict[str, int]:
    command = [sys.executable, "-c", IN_CHILD_PROCESSES, json.dumps(UNUSUAL_CALLS)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("case", UNUSUAL_CALLS)
def test_unusual_arguments_are_served_or_refused_but_do_not_crash(case: str, exit_status: dict[str, int]) -> None:
    """In a process of its own, because what is tested for is a segmentation fault."""
    assert exit_status[case] == 0


# Merging


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 40), (4, 33)])
def test_only_the_named_pixels_are_read(dtype, shape: tuple[int, ...]) -> None:
    gradients = random_gradients(6, *shape, dtype=dtype)
    size = gradients[0, 0].numel()
    pixels = torch.randperm(size, generator=torch.Generator().manual_seed(0))[: size // 2]
    unread = torch.ones(size, dtype=torch.bool)
    unread[pixels] = False
    gradients.flatten(2)[:, :, unread] = torch.nan  # a pixel that was read would spoil its row
    index = torch.tensor([4, 0, 4, 1, 4, 1])
    got, expected = Moments(5, len(pixels)), Moments(5, len(pixels))
    got.add(kernels.record_gradients_, index, gradients, None, pixels)
    expected.add(reference.record_gradients_, index, gradients.flatten(2)[:, :, pixels])
    assert_equal_moments(got, expected)
    by_reference = Moments(5, len(pixels)).add(reference.record_gradients_, index, gradients, None, pixels)
    assert_equal_moments(by_reference, expected)


@pytest.mark.parametrize("operator", [kernels.record_gradients_, reference.record_gradients_])
@pytest.mark.parametrize("outside", [-1, 12, 2**40])
def test_a_pixel_that_does_not_exist_leaves_the_row_out(operator, outside: int) -> None:
    pixels = torch.tensor([0, outside])
    m = Moments(3, 2).add(operator, torch.tensor([1]), random_gradients(1, 2, 12), None, pixels)
    assert m.count.tolist() == [0, 0, 0]
    assert m.skipped.tolist() == [0, 0, 1]


@pytest.mark.parametrize("dtype", GRADIENT_DTYPES)
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1), (1, 4000)])
def test_narrow_m2_is_rounded_as_the_reference_rounds(dtype, shape: tuple[int, ...]) -> None:
    size = math.prod(shape[1:])
    got, expected = (Moments(5, size, torch.bfloat16) for _ in range(2))
    for step in range(4):
        gradients = random_gradients(6, *shape, dtype=dtype, seed=step)
        index = torch.tensor([4, 0, 4, 1, 4, 1])
        got.add(kernels.record_gradients_, index, gradients)
        expected.add(reference.record_gradients_, index, gradients)
        # The sums before rounding may differ in the last bit, which now and then tips the rounding over.
        same = got.m2 == expected.m2
        assert same.float().mean() > 0.995
        torch.testing.assert_close(got.m2, expected.m2, rtol=2**-7, atol=0)
        got.m2.copy_(expected.m2)
    close(got.mean, expected.mean)
    assert got.count.tolist() == expected.count.tolist()


def test_stochastic_rounding_is_unbiased_where_rounding_to_nearest_stands_still() -> None:
    """A small increment on a large sum: half an ulp of 256 in bfloat16 is 1."""
    pixels, steps = 4096, 200
    m = Moments(1, pixels, torch.bfloat16)
    exact = Moments(1, pixels)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        spread = 30.0 if step < 20 else 1.0
        gradients = spread * torch.randn(1, 1, pixels, generator=generator)
        for state in (m, exact):
            state.add(kernels.record_gradients_, torch.tensor([0]), gradients)
    assert (m.m2.float() / exact.m2).mean().item() == pytest.approx(1, abs=2e-3)
    assert torch.equal(m.mean, exact.mean)


def test_the_random_bits_of_rounding_do_not_depend_on_the_order_of_work() -> None:
    gradients, index = random_gradients(40, 1, 64), torch.arange(40)
    forward = Moments(40, 64, torch.bfloat16).add(kernels.record_gradients_, index, gradients)
    backward = Moments(40, 64, torch.bfloat16).add(kernels.record_gradients_, index.flip(0), gradients.flip(0))
    torch.manual_seed(123)  # no generator takes part
    for _ in range(2):
        gradients = random_gradients(40, 1, 64, seed=9)
        forward.add(kernels.record_gradients_, index, gradients)
        for row in range(39, -1, -1):
            backward.add(kernels.record_gradients_, index[row, None], gradients[row, None])
    assert_equal_moments(forward, backward, compare=identical)


@pytest.mark.parametrize("m2_dtype", M2_DTYPES)
@pytest.mark.parametrize("other_dtype", M2_DTYPES)
@pytest.mark.parametrize("pixels", [1, 7, 64, 1000])
def test_merge_moments_equals_the_reference(m2_dtype, other_dtype, pixels: int) -> None:
    states = []
    for merge in (kernels.merge_moments_, reference.merge_moments_):
        m, other = Moments(6, pixels, m2_dtype), Moments(6, pixels, other_dtype)
        m.add(ops.record_gradients_, torch.tensor([0, 1, 1, 2, 1]), random_gradients(5, 1, pixels))
        other.add(ops.record_gradients_, torch.tensor([1, 3, 1, 2, 2]), 1 + random_gradients(5, 1, pixels, seed=5))
        merge(m.count, m.mean, m.m2, other.count, other.mean, other.m2)
        states.append(m)
    got, expected = states
    assert got.count.tolist() == expected.count.tolist() == [1, 5, 3, 1, 0, 0]
    close(got.mean, expected.mean)
    if m2_dtype == torch.bfloat16:
        torch.testing.assert_close(got.m2, expected.m2, rtol=2**-7, atol=1e-6)
        assert (got.m2 == expected.m2).float().mean() > 0.99
    else:
        torch.testing.assert_close(got.m2, expected.m2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("split", [0, 1, 20, 39, 40])
def test_merging_moments_equals_one_pass(split: int) -> None:
    gradients = 5 + random_gradients(40, 2, 6)
    index = torch.randint(5, (40,), generator=torch.Generator().manual_seed(3))
    index[:20] = index[:20].clamp(max=3)  # example 4 is seen only in the second half, example 5 never
    index[20:] = index[20:].clamp(min=1)
    whole = Moments(6, 6).add(ops.record_gradients_, index, gradients)
    first = Moments(6, 6).add(ops.record_gradients_, index[:split], gradients[:split])
    second = Moments(6, 6).add(ops.record_gradients_, index[split:], gradients[split:])
    ops.merge_moments_(first.count, first.mean, first.m2, second.count, second.mean, second.m2)
    assert first.count.dtype == torch.int32
    assert_equal_moments(first, whole, partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5))
