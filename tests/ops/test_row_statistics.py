"""The statistics of one row, for every kind of target: compiled, in plain PyTorch, and in a float64 loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import row_oracle
import torch
from operator_inputs import LOGIT_DTYPES, close, identical, kernels
from row_batches import LAYOUTS, laid_out
from torch import Tensor

from difficulty_prune import ops
from difficulty_prune.ops import reference
from difficulty_prune.ops.layout import NO_ROW, STAT, STATS

pytestmark = pytest.mark.usefixtures("one_thread")
BOTH = pytest.mark.parametrize("namespace", [kernels, reference], ids=["compiled", "reference"])
SHAPES = [
    (7, 1),
    (7, 2),
    (9, 3),
    (5, 8),
    (4, 17),
    (3, 70),
    (4, 5, 3),
    (3, 40, 2, 3),
    (2, 3, 2, 2, 3),
    (3, 1, 4),
    (1, 9, 33),
]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_logits(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    z = 3 * torch.randn(shape, generator=generator(seed))
    z = torch.where(torch.rand(shape, generator=generator(seed + 1)) < 0.3, z.round(), z)  # ties
    return torch.where(torch.rand(shape, generator=generator(seed + 2)) < 0.1, -torch.inf, z).to(dtype)


def some_labels(shape: tuple[int, ...], ignore: int | None, seed: int = 3) -> Tensor:
    rows = (shape[0], *shape[2:])
    labels = torch.randint(shape[1], rows, generator=generator(seed))
    return labels if ignore is None else labels.where(torch.rand(rows, generator=generator(seed + 1)) > 0.2, ignore)


def some_targets(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 5) -> Tensor:
    q = torch.rand(shape, generator=generator(seed)).masked_fill(torch.rand(shape, generator=generator(9)) < 0.3, 0)
    q = q + 1e-3 * (q.sum(1, keepdim=True) == 0)
    return (q / q.sum(1, keepdim=True)).to(dtype)


def by_loop(logits: Tensor, of_row: Callable[[np.ndarray, tuple[int, ...]], dict[str, float] | None]) -> Tensor:
    """What a loop over rows says, as the operators say it: NaN where the loss is not finite."""
    z = logits.detach().double().resolve_neg().numpy()
    rows = (z.shape[0], *z.shape[2:])
    result = torch.zeros(*rows, len(STATS), dtype=torch.float64)
    for at in np.ndindex(rows):
        stats = of_row(z[(at[0], slice(None), *at[1:])], at)
        if stats is None:
            result[(*at, STAT["loss"])] = NO_ROW
        else:
            known = np.isfinite(stats["loss"])
            result[at] = torch.tensor([stats[s] if known else torch.nan for s in STATS], dtype=torch.float64)
    return result


def of_classes(logits: Tensor, labels: Tensor, ignore: int | None) -> Tensor:
    y = labels.numpy()
    return by_loop(logits, lambda z, at: None if y[at] == ignore else row_oracle.stats_of_class(z, y[at]))


def of_targets(logits: Tensor, targets: Tensor) -> Tensor:
    q = targets.double().resolve_neg().numpy()
    return by_loop(logits, lambda z, at: row_oracle.stats_of_targets(z, q[(at[0], slice(None), *at[1:])]))


def agree(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got.double(), expected, rtol=2e-5, atol=5e-6, equal_nan=True)


# Classes


@BOTH
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
def test_of_classes(namespace, shape, dtype) -> None:
    for ignore in (None, -100, 0):
        logits, labels = some_logits(shape, dtype), some_labels(shape, ignore)
        agree(namespace.softmax_stats(logits, labels, ignore), of_classes(logits, labels, ignore))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
def test_the_layout_of_logits_and_labels_does_not_matter(layout, dtype) -> None:
    for seed, shape in enumerate([(4, 5), (3, 40, 4), (3, 4, 2, 3), (2, 17, 3, 3)]):
        logits, labels = some_logits(shape, dtype, seed), some_labels(shape, -100)
        targets, binary = some_targets(shape, dtype), some_labels((shape[0], 2, *shape[1:]), None)
        z, y, q, b = (laid_out(values, layout, generator(seed)) for values in (logits, labels, targets, binary))
        close(ops.softmax_stats(z, y, -100), reference.softmax_stats(z.clone(), y.clone(), -100))
        close(ops.soft_stats(z, q), reference.soft_stats(z.clone(), q.clone()))
        close(ops.soft_stats(z, targets), reference.soft_stats(z.clone(), targets))
        close(ops.sigmoid_stats(z, b), reference.sigmoid_stats(z.clone(), b.clone()))


def test_a_language_model_and_channels_last_are_read_in_place() -> None:
    of_text = some_logits((3, 6, 50), torch.bfloat16)
    labels = some_labels((3, 50, 6), -100)
    in_place = ops.softmax_stats(of_text.transpose(1, 2), labels, -100)
    identical(in_place, ops.softmax_stats(of_text.reshape(18, 50), labels.reshape(18), -100).view(3, 6, 8))
    images = some_logits((2, 5, 3, 4), torch.float32).contiguous(memory_format=torch.channels_last)
    labels = some_labels((2, 5, 3, 4), -100)
    close(ops.softmax_stats(images, labels, -100), reference.softmax_stats(images.contiguous(), labels, -100))


@BOTH
def test_a_label_of_no_class_is_not_known_and_an_ignored_one_is_no_row(namespace) -> None:
    labels = torch.tensor([[0, 3], [-1, -100], [2, 2**40]])
    stats = namespace.softmax_stats(torch.zeros(3, 3, 2), labels, -100)
    assert stats[labels.eq(-1) | labels.gt(2)].isnan().all()
    assert stats[1, 1].tolist() == [NO_ROW, *[0] * 7]
    assert stats[0, 0].isfinite().all()


# Probabilities


@BOTH
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("target_dtype", [*LOGIT_DTYPES, torch.float64])
def test_of_probabilities(namespace, shape, dtype, target_dtype) -> None:
    logits, targets = some_logits(shape, dtype), some_targets(shape, target_dtype)
    agree(namespace.soft_stats(logits, targets), of_targets(logits, targets.float()))


@BOTH
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_of_one_class_they_say_what_a_label_says(namespace, shape) -> None:
    logits, labels = some_logits(shape, torch.float32), some_labels(shape, None)
    one_hot = torch.nn.functional.one_hot(labels, shape[1]).movedim(-1, 1).float()
    close(namespace.soft_stats(logits, one_hot), namespace.softmax_stats(logits, labels))


@BOTH
def test_a_masked_class_without_probability_is_none_and_with_it_makes_the_loss_infinite(namespace) -> None:
    logits = torch.tensor([[1.0, -torch.inf, 0.5]]).expand(2, 3)
    targets = torch.tensor([[0.25, 0.0, 0.75], [0.25, 0.25, 0.5]])
    stats = namespace.soft_stats(logits, targets)
    agree(stats[:1], of_targets(logits[:1], targets[:1]))
    close(stats[0], namespace.soft_stats(logits[:1, [0, 2]], targets[:1, [0, 2]])[0])
    assert stats[1].isnan().all()


@BOTH
def test_targets_that_are_no_distribution_are_counted_and_count_all_the_same(namespace) -> None:
    targets = torch.tensor([[0.5, 0.5], [0.5, 0.505], [0.5, 0.52], [1.5, -0.5], [0.0, 0.0], [torch.nan, 1.0]])
    unnormalised = torch.tensor([10])
    logits = some_logits((6, 2), torch.float32).clamp(min=-5)
    stats = namespace.soft_stats(logits, targets, unnormalised)
    assert unnormalised.tolist() == [14]
    agree(stats[:5], of_targets(logits[:5], targets[:5]))
    assert stats[5].isnan().all()


@BOTH
def test_of_equal_probabilities_the_lowest_class_is_the_label(namespace) -> None:
    stats = namespace.soft_stats(torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]), torch.tensor([[0, 0.5, 0.5]] * 2))
    assert stats[:, STAT["logit_margin"]].tolist() == [-1, 2]
    assert stats[:, STAT["correct"]].tolist() == [0, 1]


# Labels of 0 and 1


BINARY = [
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
]


@BOTH
@pytest.mark.parametrize("shape", [(9,), (4, 3), (2, 1, 3, 5), (1, 37)], ids=str)
@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
def test_of_labels_each_logit_is_a_row_of_two_classes(namespace, shape, dtype) -> None:
    logits = (20 * torch.randn(shape, generator=generator(0))).to(dtype)
    logits.view(-1)[:9:2] = torch.tensor([0.0, torch.nan, torch.inf, -torch.inf, -0.0]).to(dtype)[
        : len(logits.view(-1)[:9:2])
    ]
    labels = torch.randint(2, shape, generator=generator(1))
    as_two = torch.stack([torch.zeros_like(logits), logits], 1)
    expected = reference.softmax_stats(as_two, labels)
    for kind in BINARY:
        close(namespace.sigmoid_stats(logits, labels.to(kind)), expected)
    agree(expected, of_classes(as_two, labels, None))


@BOTH
def test_labels_that_are_not_known_make_no_row_and_others_that_are_none_are_not_known(namespace) -> None:
    logits = torch.zeros(2, 3)
    floating = torch.tensor([[torch.nan, 1.0, -1.0], [0.5, 2.0, 0.0]])
    stats = namespace.sigmoid_stats(logits, floating, -1)
    none, known = torch.tensor([NO_ROW] + [0] * 7), torch.tensor([[False, True, False], [False, False, True]])
    identical(stats[0, 0], none)
    identical(stats[0, 2], none)
    assert stats[1, :2].isnan().all()
    assert stats[known].isfinite().all()
    whole = torch.tensor([[-100, 1, 7], [0, -100, 2**31 - 1]])
    for kind in (torch.int32, torch.int64):
        stats = namespace.sigmoid_stats(logits, whole.to(kind), -100)
        identical(stats[0, 0], none)
        identical(stats[1, 1], none)
        assert stats[[0, 1], [2, 2]].isnan().all()
    for label in (0, 1, 255):  # where only the positive labels, or the negative ones, are known; a border of a mask
        for kind in (torch.uint8, torch.int64, torch.float32):
            identical(
                namespace.sigmoid_stats(logits, torch.full((2, 3), label, dtype=kind), label), none.expand(2, 3, 8)
            )
    assert namespace.sigmoid_stats(logits, torch.full((2, 3), 255, dtype=torch.uint8)).isnan().all()


@BOTH
@pytest.mark.parametrize("z", [0.0, 1e-4, 15.0, 90.0, 120.0, 1e4, 3e38])
def test_certain_logits_neither_overflow_nor_lose_what_is_small(namespace, z) -> None:
    stats = namespace.sigmoid_stats(torch.tensor([z, z, -z, -z]), torch.tensor([1, 0, 1, 0]))
    expected = torch.tensor([np.log1p(np.exp(-z)), z + np.log1p(np.exp(-z))], dtype=torch.float64)
    rounding = 1e-37 if namespace is kernels else 1e-7
    torch.testing.assert_close(stats[:, STAT["loss"]].double(), expected[[0, 1, 1, 0]], rtol=1e-5, atol=rounding)
    assert stats.isfinite().all()


@pytest.mark.parametrize("scale", [0.5, 8])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_large_vocabulary_loses_nothing(scale, in_place) -> None:
    """Relative to statistics that are themselves small, and also where the classes are not next to each other."""
    logits = scale * torch.randn(4, 50_257, generator=generator(0))
    labels, targets = logits.shape[1] - 1 - torch.arange(4), torch.rand(4, 50_257, generator=generator(1))
    targets /= targets.sum(1, keepdim=True)
    z, q = (values.t().contiguous().t() if in_place else values for values in (logits, targets))
    columns = [STAT[name] for name in ("loss", "el2n", "entropy", "p_label", "p_max")]
    for got, wanted in (
        (ops.softmax_stats(z, labels), torch.nn.functional.one_hot(labels, 50_257)),
        (ops.soft_stats(z, q), targets),
    ):
        log_p, wanted = logits.double().log_softmax(1), wanted.double()
        p = log_p.exp()
        of = [-(wanted * log_p).sum(1), (p - wanted).norm(dim=1), -(p * log_p).sum(1), (wanted * p).sum(1), p.amax(1)]
        torch.testing.assert_close(got[:, columns].double(), torch.stack(of, 1), rtol=5e-5, atol=1e-12)


# Sizes that need no loop


@BOTH
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2), (2, 3, 0)], ids=str)
def test_no_row(namespace, shape) -> None:
    rows = (shape[0], *shape[2:])
    labels = torch.zeros(rows, dtype=torch.int64)
    assert namespace.softmax_stats(torch.zeros(shape), labels).shape == (*rows, 8)
    assert namespace.soft_stats(torch.zeros(shape), torch.zeros(shape)).shape == (*rows, 8)
    assert namespace.sigmoid_stats(torch.zeros(rows), labels).shape == (*rows, 8)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(threads) -> None:
    shape = (5, 30, 700)
    logits, labels, targets = (
        some_logits(shape, torch.float32),
        some_labels(shape, -100),
        some_targets(shape, torch.float16),
    )

    def all_stats() -> list[Tensor]:
        unnormalised = torch.zeros(1, dtype=torch.int64)
        found = [
            ops.softmax_stats(logits, labels, -100),
            ops.softmax_stats(logits.transpose(1, 2).contiguous().transpose(1, 2), labels, -100),
            ops.soft_stats(logits, 2 * targets, unnormalised),
            ops.sigmoid_stats(logits, targets > 0.02),
        ]
        return [*found, unnormalised]

    expected = all_stats()
    assert expected[-1].item() == 3500
    torch.set_num_threads(threads)
    try:
        got = all_stats()
    finally:
        torch.set_num_threads(1)
    for a, b in zip(got, expected, strict=True):
        identical(a, b)
