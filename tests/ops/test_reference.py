"""The compiled kernels equal the reference."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import (
    GRADIENT_DTYPES,
    LOGIT_DTYPES,
    Moments,
    assert_equal_moments,
    close,
    identical,
    kernels,
    labels_of,
    random_gradients,
    random_labels,
    random_logits,
)

from difficulty_prune import ops
from difficulty_prune.ops import reference
from difficulty_prune.ops.layout import FIELD, RECORD, STAT, STATS


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
        logits = random_logits(30, classes, dtype, seed=step)
        logits[step, 0] = torch.nan
        index = torch.randint(10, (30,), generator=torch.Generator().manual_seed(step))  # example 10 is never seen
        labels = labels_of(index, classes)
        labels[20] = (labels[20] + 1) % classes
        kernels.record_stats_(got, index, logits, labels, skipped[0])
        reference.record_stats_(expected, index, logits, labels, skipped[1])
    for name in RECORD:
        close(got[:, FIELD[name]], expected[:, FIELD[name]], msg=lambda text, name=name: f"{name}: {text}")
    identical(got[10], torch.zeros(16))
    assert skipped[0].tolist() == skipped[1].tolist() == [0, 0, 5, 5 if classes > 1 else 0]


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
        index = torch.randint(-1, 10, (30,), generator=torch.Generator().manual_seed(step))
        labels = labels_of(index, 10)
        labels[20] = (labels[20] + 1) % 10
        stats = kernels.softmax_stats(random_logits(30, 10, seed=step), labels)
        for column in range(len(STATS)):
            stats[column, column] = (torch.nan, torch.inf, -torch.inf)[step % 3]
        kernels.record_given_stats_(got, index, stats, labels, 10, skipped[0])
        reference.record_given_stats_(expected, index, stats, labels, 10, skipped[1])
    close(got, expected)
    assert skipped[0].tolist() == skipped[1].tolist()
    assert skipped[0][2] > 30
    assert skipped[0][3] > 0
    assert got[:, FIELD["unrivalled"]].sum() > 0


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


def test_one_class_has_no_rival() -> None:
    stats = ops.softmax_stats(torch.tensor([[5.0], [-7.0]]), torch.tensor([0, 0]))
    expected = {"p_label": 1.0, "p_max": 1.0, "correct": 1.0}
    for name in STATS:
        identical(stats[:, STAT[name]], torch.full((2,), expected.get(name, 0.0)))
