"""The means over the rows of each example, beside a loop, in any order and with any number of threads."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import close, identical, kernels
from torch import Tensor

from difficulty_prune import ops
from difficulty_prune.ops import NO_LABEL, NO_ROW, STAT, reference

pytestmark = pytest.mark.usefixtures("one_thread")
BOTH = pytest.mark.parametrize("namespace", [kernels, reference], ids=["compiled", "reference"])
Rows = tuple[Tensor, Tensor, Tensor, Tensor]


def some_rows(rows: int, examples: int, seed: int = 0) -> Rows:
    """Statistics, of which some are no row, owners, of which some are nobody, weights, of which some are 0, labels."""
    g = torch.Generator().manual_seed(seed)
    stats = torch.randn(rows, 8, generator=g)
    none = torch.rand(rows, generator=g) < 0.2
    stats[none] = 0
    stats[none, STAT["loss"]] = NO_ROW
    owner = torch.randint(-1, examples, (rows,), generator=g)
    weight = torch.randint(4, (rows,), generator=g) * torch.rand(rows, generator=g)
    return stats, owner, weight, torch.randint(9, (rows,), generator=g)


def loop(stats: Tensor, examples: int, owner: list[int], weight: list[float], labels: list[int]):
    means, labels_of = [], []
    for example in range(examples):
        own = [
            row
            for row, whose in enumerate(owner)
            if whose == example and weight[row] != 0 and stats[row, 0].item() != -math.inf
        ]
        total = sum(weight[row] for row in own)
        if not own:
            means.append([NO_ROW] + [0.0] * 7)
        else:
            means.append([sum(weight[row] * stats[row, s].item() for row in own) / total for s in range(8)])
        labels_of.append(labels[own[0]] if len(own) == 1 else NO_LABEL)
    return torch.tensor(means, dtype=torch.float64).view(-1, 8), labels_of


@BOTH
@settings(max_examples=40)
@given(rows=st.integers(0, 30), examples=st.integers(0, 6), seed=st.integers(0, 10_000))
def test_a_mean_is_that_of_a_loop(namespace, rows, examples, seed) -> None:
    stats, owner, weight, labels = some_rows(rows, examples, seed)
    owner = owner if examples else torch.full_like(owner, -1)
    for weights in (weight, None):
        got, label = namespace.reduce_rows(stats, examples, owner, weights, labels)
        shares = [1.0] * rows if weights is None else weights.tolist()
        expected, expected_label = loop(stats, examples, owner.tolist(), shares, labels.tolist())
        torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-6)
        assert label.tolist() == expected_label


@BOTH
@pytest.mark.parametrize("weighted", [False, True])
def test_without_owners_adjacent_rows_belong_together(namespace, weighted) -> None:
    stats, _, weight, labels = some_rows(24, 1)
    weight = weight if weighted else None
    for examples in (1, 2, 6, 24):
        owner = torch.arange(24) // (24 // examples)
        expected = namespace.reduce_rows(stats, examples, owner, weight, labels)
        shaped = stats.view(examples, -1, 8), examples, None, weight, labels.view(examples, -1)
        for got, of_owners in zip(namespace.reduce_rows(*shaped), expected, strict=True):
            identical(got, of_owners)


@BOTH
def test_of_any_shape_and_layout(namespace) -> None:
    stats, owner, weight, labels = some_rows(24, 5)
    expected = namespace.reduce_rows(stats, 5, owner, weight, labels)

    def as_columns(values: Tensor) -> Tensor:
        return values.view(4, 6, *values.shape[1:]).transpose(0, 1).contiguous().transpose(0, 1)

    strided = torch.stack([stats, torch.full_like(stats, torch.nan)], 2)[:, :, 0].view(4, 6, 8)
    got = namespace.reduce_rows(strided, 5, as_columns(owner), as_columns(weight), as_columns(labels))
    identical(got[0], expected[0])
    identical(got[1], expected[1])
    everyone = namespace.reduce_rows(stats, 5, torch.tensor(2).expand(24), torch.tensor(0.25).expand(24))
    close(everyone[0][2], namespace.reduce_rows(stats, 1)[0][0])


@pytest.mark.parametrize("examples", [1, 7, 3000])
def test_the_number_of_threads_changes_no_bit(examples) -> None:
    stats, owner, weight, labels = some_rows(60_000, examples)
    skipped = ops.new_skipped()
    owner[::1000] = examples
    arguments = stats, examples, owner, weight, labels, skipped
    expected = kernels.reduce_rows(*arguments)
    torch.set_num_threads(3)
    try:
        got = kernels.reduce_rows(*arguments)
    finally:
        torch.set_num_threads(1)
    identical(got[0], expected[0])
    identical(got[1], expected[1])
    assert skipped.tolist() == [120, 0, 0, 0]
    again = kernels.reduce_rows(*arguments)
    identical(again[0], expected[0])


@BOTH
def test_the_order_of_the_rows_changes_nothing_but_rounding(namespace) -> None:
    stats, owner, weight, labels = some_rows(500, 8)
    expected = namespace.reduce_rows(stats, 8, owner, weight, labels)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    got = namespace.reduce_rows(stats[order], 8, owner[order], weight[order], labels[order])
    torch.testing.assert_close(got[0], expected[0], rtol=2e-7, atol=1e-9)
    identical(got[1], expected[1])


@BOTH
def test_sums_of_many_rows_do_not_lose_the_small_ones(namespace) -> None:
    stats = torch.ones(2**17 + 1, 8)
    stats[0] = 2.0**26
    means, _ = namespace.reduce_rows(stats, 1)
    assert means.unique().item() == pytest.approx((2**26 + 2**17) / (2**17 + 1), rel=1e-7)


@BOTH
@pytest.mark.parametrize("examples", [0, 3])
def test_owners_that_do_not_exist_are_counted_and_harm_nothing(namespace, examples) -> None:
    owner = torch.tensor([-2, 3, -1, 2**62, -(2**63), 3])
    stats = torch.ones(6, 8)
    skipped = torch.tensor([10, 20, 30, 40])
    for counters in (skipped, None):
        means, label = namespace.reduce_rows(stats, examples, owner, None, None, counters)
        assert (means[:, STAT["loss"]] == NO_ROW).all()
        assert (label == NO_LABEL).all()
    assert skipped.tolist() == [15, 20, 30, 40]


@BOTH
def test_what_is_not_finite_shows_in_the_mean_and_what_does_not_count_does_not(namespace) -> None:
    stats = torch.ones(6, 8)
    stats[0, STAT["loss"]] = stats[2, STAT["el2n"]] = torch.nan
    stats[4, STAT["logit_margin"]] = torch.inf
    owner = torch.tensor([0, 0, 1, 1, 2, 2])
    means, _ = namespace.reduce_rows(stats, 3, owner)
    assert means.isfinite().logical_not().nonzero().tolist() == [
        [0, STAT["loss"]],
        [1, STAT["el2n"]],
        [2, STAT["logit_margin"]],
    ]
    means, _ = namespace.reduce_rows(stats, 3, owner, torch.tensor([0.0, 1, 0, 1, 0, 1]))
    assert (means == 1).all()


@BOTH
@pytest.mark.parametrize("wrong", [-1.0, torch.nan, torch.inf])
def test_a_weight_that_nobody_has_looked_at_shows_in_the_mean(namespace, wrong) -> None:
    """As on an accelerator, where a look would stop the training step: the example is then left out, and counted."""
    weight = torch.tensor([wrong, 3.0, 1.0])
    means, _ = namespace.reduce_rows(torch.ones(3, 8), 2, torch.tensor([0, 0, 1]), weight)
    assert means[0].isnan().all()
    assert (means[1] == 1).all()


@BOTH
def test_a_weight_scales_away(namespace) -> None:
    stats, owner, weight, _ = some_rows(60, 4)
    expected, _ = namespace.reduce_rows(stats, 4, owner, weight)
    for scale in (2.0**-120, 2.0**100):
        identical(namespace.reduce_rows(stats, 4, owner, weight * scale)[0], expected)


# What records make of the means


@BOTH
def test_records_take_means_with_a_label_of_no_example_and_pass_over_examples_without_rows(namespace) -> None:
    table, steps, skipped = ops.new_table(4), ops.new_steps(4), ops.new_skipped()
    stats = torch.full((4, 8), 0.5)
    stats[2] = torch.tensor([NO_ROW] + [0] * 7)
    labels = torch.tensor([1, NO_LABEL, 7, 0])
    index = torch.tensor([0, 1, 2, ops.PADDING])
    namespace.record_given_stats_(table, index, stats, labels, 3, skipped, 0.5, 0.25, steps)
    assert not skipped.any()  # nor is the label of an example without rows looked at
    field = ops.FIELD
    assert table[:, field["count"]].tolist() == [1, 1, 0, 0]
    assert table[:, field["label"]].tolist() == [1, -1, 0, 0]
    assert table[:, field["last_wrong"]].tolist() == [0] * 4
    assert table[:2, field["recent_loss"]].tolist() == [0.375, 0.375]
    assert steps.tolist()[:5] == [1, 1, 0, 0, 1]

    namespace.record_given_stats_(table, index, stats, torch.tensor([2, 2, 0, 0]), 3, skipped, 0.6, 0.25, steps)
    assert skipped.tolist() == [0, 0, 0, 1]  # of example 0; of example 1 no label is known from now on
    assert table[:, field["count"]].tolist() == [1, 2, 0, 0]
    assert table[:, field["label"]].tolist() == [1, -1, 0, 0]
    assert table[1, [field["forgotten"], field["first_correct"], field["last_wrong"]]].tolist() == [1, 1, 2]
    assert table[1, field["recent_loss"]].item() == 0.25 * 0.375 + 0.375
    assert steps.tolist()[:5] == [1, 2, 0, 0, 2]

    namespace.record_given_stats_(table, index, stats, torch.full((4,), NO_LABEL), 3, skipped, 1.0, 0.25, steps)
    assert table[:, field["label"]].tolist() == [-1, -1, 0, 0]


@BOTH
@pytest.mark.parametrize("right_from", [1 / 3, 0.3, 0.1, 0.7, 1.0])
def test_a_fraction_that_equals_right_from_is_right(namespace, right_from) -> None:
    rows = {1 / 3: 3, 0.3: 10, 0.1: 10, 0.7: 10, 1.0: 7}[right_from]
    right = round(rows * right_from)
    stats = torch.zeros(2, rows, 8)
    stats[0, :right, STAT["correct"]] = stats[1, : right - 1, STAT["correct"]] = 1
    means, labels = namespace.reduce_rows(stats, 2)
    table = ops.new_table(2)
    namespace.record_given_stats_(table, torch.arange(2), means, labels, 2, ops.new_skipped(), right_from)
    assert table[:, ops.FIELD["first_correct"]].tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(4))
def test_compiled_records_of_means_are_those_of_the_reference(seed) -> None:
    g = torch.Generator().manual_seed(seed)
    compiled, plain = [(ops.new_table(30), ops.new_skipped(), ops.new_steps(30)) for _ in range(2)]
    for _ in range(12):
        stats, owner, weight, labels = some_rows(30, 20, int(torch.randint(999, (), generator=g)))
        stats = stats.abs().copysign(torch.where(stats == NO_ROW, -1.0, 1.0))
        stats[torch.rand(30, generator=g) < 0.05, STAT["el2n"]] = torch.nan
        index = torch.randint(-1, 30, (20,), generator=g)
        for namespace, (table, skipped, steps) in ((kernels, compiled), (reference, plain)):
            means, label = namespace.reduce_rows(stats, 20, owner, weight, labels // 2)
            namespace.record_given_stats_(table, index, means, label, 4, skipped, 0.5, 0.6, steps)
    close(compiled[0], plain[0])
    identical(compiled[1], plain[1])
    identical(compiled[2], plain[2])
    assert compiled[1][1:].all()  # labels of 4, statistics that are not finite, changed labels
