"""The operators, typed and checked. `reference` holds the same in plain PyTorch.

Arguments are checked on the host before anything runs, except values that live on an accelerator: reading
those would stop the training step, so the kernels leave such rows out and count them in `skipped`.
"""

from __future__ import annotations

from types import NoneType
from typing import Final

import torch
from torch import Tensor

from . import library
from .checks import (
    check_binary_labels,
    check_decay,
    check_given_stats,
    check_gradients,
    check_index,
    check_labels,
    check_labels_of_rows,
    check_logits,
    check_logits_of_rows,
    check_losses,
    check_moments,
    check_pixels,
    check_reduction,
    check_right_from,
    check_same_device,
    check_scale,
    check_skipped,
    check_steps,
    check_table,
    check_targets,
    check_temporal,
    check_temporal_table,
    check_width,
)
from .layout import (
    DECAY,
    NO_ROW,
    PADDING,
    RECORD_WIDTH,
    SKIPPED,
    STAT,
    STATS,
    temporal_width,
)

_ops = torch.ops.difficulty_prune
_REQUIRED: Final = frozenset((Tensor,))
_OPTIONAL: Final = frozenset((Tensor, NoneType))


def missing_kernels() -> str | None:
    """Why the compiled kernels are not in use, or None when they are."""
    return library.missing


def new_table(num_examples: int, device: torch.device | str | None = None) -> Tensor:
    """An empty table of records, [num_examples, 16] float32: 64 bytes per example, columns `RECORD`.

    >>> new_table(3).shape
    torch.Size([3, 16])
    """
    return new_state((num_examples, RECORD_WIDTH), torch.float32, device)


def new_temporal_table(
    num_examples: int, window: int = 10, classes: int | None = None, device: torch.device | str | None = None
) -> Tensor:
    """An empty table of presentations for `record_temporal_`, [num_examples, width] float32.

    Without `classes`, 4 (window + 2) bytes per example, enough for dynamic uncertainty. With them, changes from one
    presentation to the next are kept as well, for TDDS: 4 (2 window + classes + 2) bytes. See `temporal_parts`.

    >>> new_temporal_table(3, window=10).shape, new_temporal_table(3, window=10, classes=10).shape
    (torch.Size([3, 12]), torch.Size([3, 32]))
    """
    return new_state((num_examples, temporal_width(window, classes)), torch.float32, device)


def new_skipped(device: torch.device | str | None = None) -> Tensor:
    """Counters of presentations that were left out, [4] int64, in the order of `SKIPPED`."""
    return new_state((len(SKIPPED),), torch.int64, device)


def new_state(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str | None = None) -> Tensor:
    """Zeros that can be changed in place anywhere, also where they are made in inference mode."""
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=dtype, device="cpu" if device is None else device)


def new_steps(num_examples: int, device: torch.device | str | None = None) -> Tensor:
    """Steps at which examples were last seen, [num_examples + 1] int32: 0 for never; then the steps so far."""
    return new_state((num_examples + 1,), torch.int32, device)


def softmax_stats(logits: Tensor, labels: Tensor, ignore_index: int | None = None) -> Tensor:
    """One pass over each row of logits: what the logit scores are made of.

    Args:
        logits: [B, C, ...] float32, bfloat16 or float16, of any strides: read in place.
        labels: [B, ...] int64, in 0..C-1, on the device of the logits.
        ignore_index: the label of rows that count for nothing.

    Returns:
        [B, ..., 8] float32, columns `STATS`: loss, el2n, entropy, p of the label, largest p, logit margin, p margin,
        correct (0 or 1). A class at -inf is masked: its probability is 0. The logit margin is +inf where all other
        classes are masked. A row whose loss is not finite in float32 is NaN. One of the label `ignore_index` has the
        loss `NO_ROW`, -inf, and 0 elsewhere.

    Raises:
        TypeError, ValueError: wrong type, dtype, shape, device or label.

    >>> stats = softmax_stats(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    >>> [round(x, 4) for x in stats[0].tolist()]
    [0.6931, 0.7071, 0.6931, 0.5, 0.5, 0.0, 0.0, 0.0]
    >>> softmax_stats(torch.tensor([[0.0, 0.0, -torch.inf]]), torch.tensor([1])).equal(stats)
    True
    """
    check_logits_of_rows(logits)
    check_labels_of_rows(labels, logits, ignore_index)
    return _ops.softmax_stats(logits, labels, ignore_index)  # type: ignore[no-any-return]


def soft_stats(logits: Tensor, targets: Tensor, unnormalised: Tensor | None = None) -> Tensor:
    """The statistics of `softmax_stats` for targets that are probabilities q of the classes.

    Args:
        logits: [B, C, ...] float32, bfloat16 or float16, of any strides.
        targets: [B, C, ...] floating point, of any strides: soft labels, smoothing, distillation, mixup.
        unnormalised: [1] int64, to which the rows are added whose q is no distribution: it does not add up to 1 within
            0.01, or a part is negative.

    Returns:
        [B, ..., 8] float32: loss -sum q log p; el2n, the norm of p - q; p of the label, sum q p; margins and correct
        are those of the largest q, the lowest class of several. With q of one class, what `softmax_stats` says of it.

    Raises:
        TypeError, ValueError: wrong type, dtype, shape or device.

    >>> stats = soft_stats(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.25, 0.75]]))
    >>> [round(x, 4) for x in stats[0].tolist()]
    [0.6931, 0.3536, 0.6931, 0.5, 0.5, 0.0, 0.0, 0.0]
    """
    check_logits_of_rows(logits)
    check_targets(targets, logits)
    return _ops.soft_stats(logits, targets, unnormalised)  # type: ignore[no-any-return]


def sigmoid_stats(logits: Tensor, labels: Tensor, ignore_index: int | None = None) -> Tensor:
    """The statistics of rows of two classes, of which each has one logit: multi-label and binary tasks.

    The logit is that of class 1; class 0 has the logit 0, so that p of class 1 is the sigmoid.

    Args:
        logits: [...] float32, bfloat16 or float16, of any strides.
        labels: [...] of 0 or 1: bool, uint8, int32, int64 or floating point. NaN: not known.
        ignore_index: a label that is not known either.

    Returns:
        [..., 8] float32, as of `softmax_stats`. A label that is not known makes no row.

    Raises:
        TypeError, ValueError: wrong type, dtype, shape, device or label.

    >>> stats = sigmoid_stats(torch.tensor([0.0, 2.0]), torch.tensor([1, 1]))
    >>> stats[:, STAT["correct"]].tolist(), round(stats[1, STAT["p_label"]].item(), 4)
    ([0.0, 1.0], 0.8808)
    """
    check_logits_of_rows(logits, classes=False)
    check_binary_labels(labels, logits, ignore_index)
    return _ops.sigmoid_stats(logits, labels, ignore_index)  # type: ignore[no-any-return]


def reduce_rows(
    stats: Tensor,
    examples: int,
    owner: Tensor | None = None,
    weight: Tensor | None = None,
    labels: Tensor | None = None,
    skipped: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """From rows to examples: the weighted mean of the statistics over each example's rows.

    Args:
        stats: [..., 8] float32, of R rows.
        examples: B, how many there are.
        owner: [R] int64 in any shape: the example of each row in 0..B-1, or -1 for nobody. Default: R / B adjacent rows
            belong to each.
        weight: [R] float32 in any shape, at least 0; default: 1. A row of weight 0 is none.
        labels: [R] int64 in any shape, of which an example with one row keeps its own.
        skipped: [4] int64 from `new_skipped`, to which rows of owners that do not exist are added, as bad indices.

    Returns:
        The means [B, 8] float32, summed in double precision; the loss of an example without a row is `NO_ROW`. And
        labels [B] int64: of an example with one row its label, else `NO_LABEL`. Both for `record_given_stats_`.

    Raises:
        TypeError, ValueError, IndexError: wrong type, dtype, shape, device, owner or weight.

    >>> stats = softmax_stats(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    >>> from difficulty_prune.ops import NO_LABEL
    >>> means, labels = reduce_rows(stats, 2, torch.tensor([0, 0, 1]), labels=torch.tensor([0, 1, 1]))
    >>> means[:, STAT["correct"]].tolist(), labels[1].item(), labels[0].item() == NO_LABEL
    ([0.5, 0.0], 1, True)
    """
    check_reduction(stats, examples, owner, weight, labels)
    if skipped is not None:
        check_skipped(skipped)
        check_same_device(stats=stats, skipped=skipped)
    return _ops.reduce_rows(stats, examples, owner, weight, labels, skipped)  # type: ignore[no-any-return]


def record_stats_(
    table: Tensor,
    index: Tensor,
    logits: Tensor,
    labels: Tensor,
    skipped: Tensor | None = None,
    ignore_index: int | None = None,
    decay: float = DECAY,
    steps: Tensor | None = None,
) -> None:
    """`softmax_stats` fused with the update of each example's record, in place.

    An example that occurs twice in the batch counts twice, in batch order. A row whose loss is not finite is left out,
    and so is one whose label is not that of the example's earlier presentations: it is of another example, or of
    another dataset.

    Args:
        table: [N, 16] float32 from `new_table`, changed in place.
        index: [B] int64, positions in the dataset, 0..N-1.
        logits: [B, C] float32, bfloat16 or float16. -inf masks a class.
        labels: [B] int64, in 0..C-1.
        skipped: [4] int64 from `new_skipped`, to which rows that could not be recorded are added by reason, see
            `SKIPPED`. Without it, such rows are left out and not counted.
        ignore_index: the label of rows that count for nothing.
        decay: what a loss weighs in `recent_loss` beside that of the next presentation, in [0, 1).
        steps: [N + 1] int32 from `new_steps`: one step more, at which the examples recorded were last seen.

    Raises:
        TypeError, ValueError, IndexError: wrong type, dtype, shape, device, label or index.

    >>> from difficulty_prune.ops import FIELD
    >>> table, skipped = new_table(10), new_skipped()
    >>> record_stats_(table, torch.tensor([3, 3, 3]), torch.zeros(3, 5), torch.tensor([0, 0, 1]), skipped)
    >>> table[3, FIELD["count"]].item(), table[3, FIELD["correct"]].item(), dict(zip(SKIPPED, skipped.tolist()))
    (2.0, 2.0, {'bad index': 0, 'bad label': 0, 'not finite': 0, 'changed label': 1})
    """
    options = (ignore_index, decay, steps)
    can_try = skipped is not None and _can_try(table, index, logits, labels, skipped, optional=(steps,))
    if can_try and _ops.try_record_stats_.default(table, index, logits, labels, skipped, *options):
        return
    check_logits(logits)
    check_labels(labels, logits, ignore_index)
    check_table(table)
    check_index(index, logits.shape[0], table.shape[0])
    skipped = _checked_options(table, skipped, decay, steps)
    check_same_device(table=table, index=index, logits=logits)
    _ops.record_stats_(table, index, logits, labels, skipped, *options)


def _checked_options(table: Tensor, skipped: Tensor | None, decay: float, steps: Tensor | None) -> Tensor:
    """Checks what goes beside a table of records; returns the counters to use."""
    check_decay(decay)
    if steps is not None:
        check_steps(steps, table.shape[0])
        check_same_device(table=table, steps=steps)
    skipped = new_skipped(table.device) if skipped is None else check_skipped(skipped)
    check_same_device(table=table, skipped=skipped)
    return skipped


def try_record_stats_(
    table: Tensor,
    index: Tensor,
    logits: Tensor,
    labels: Tensor,
    skipped: Tensor,
    ignore_index: int | None = None,
    decay: float = DECAY,
    steps: Tensor | None = None,
) -> bool:
    """`record_stats_`, if a compiled look finds its arguments right; else nothing is done, and False returned.

    Not for code that is traced, which cannot look.

    >>> try_record_stats_(new_table(2), torch.tensor([9]), torch.zeros(1, 5), torch.tensor([0]), new_skipped())
    False
    """
    tensors = type(index) in _REQUIRED and type(logits) in _REQUIRED and type(labels) in _REQUIRED
    return tensors and _ops.try_record_stats_.default(table, index, logits, labels, skipped, ignore_index, decay, steps)


def record_given_stats_(
    table: Tensor,
    index: Tensor,
    stats: Tensor,
    labels: Tensor,
    num_classes: int,
    skipped: Tensor | None = None,
    right_from: float = 1.0,
    decay: float = DECAY,
    steps: Tensor | None = None,
) -> None:
    """The second half of `record_stats_`: updates the records from what `softmax_stats` gave, in place.

    So a batch of many processes, gathered, is recorded where the table lives; table and counters become what
    `record_stats_` would make them of the logits, bit for bit. Processes whose batches are not of one size fill them up
    with rows of index `PADDING`, -1: these are passed over and not counted, whatever their statistics and labels. So
    are examples without a row, with a loss of `NO_ROW`.

    Args:
        table: [N, 16] float32 from `new_table`, changed in place.
        index: [B] int64, positions in the dataset, 0..N-1, or `PADDING`.
        stats: [B, 8] float32 from `softmax_stats` or `reduce_rows`.
        labels: [B] int64, in 0..num_classes-1, or `NO_LABEL`: labels of that example are not compared from then on.
        num_classes: columns of the logits.
        skipped: as for `record_stats_`. A row with a statistic that is not finite, other than a logit margin of +inf,
            counts as one without a finite loss.
        right_from: an example is right where `correct`, the fraction of its rows that are, is at least this.
        decay, steps: as for `record_stats_`.

    Raises:
        TypeError, ValueError, IndexError: wrong type, dtype, shape, device, label or index.

    >>> from difficulty_prune.ops import FIELD
    >>> stats = softmax_stats(torch.zeros(2, 5), torch.tensor([0, 1]))
    >>> table = new_table(10)
    >>> record_given_stats_(table, torch.tensor([3, PADDING]), stats, torch.tensor([0, 1]), num_classes=5)
    >>> table[:, FIELD["count"]].sum().item(), table[3, FIELD["correct"]].item()
    (1.0, 1.0)
    """
    check_table(table)
    check_index(index, None, table.shape[0], padding=True)
    check_given_stats(stats, labels, num_classes, index)
    check_right_from(right_from)
    skipped = _checked_options(table, skipped, decay, steps)
    check_same_device(table=table, index=index)
    _ops.record_given_stats_(table, index, stats, labels, num_classes, skipped, right_from, decay, steps)


def record_temporal_(
    table: Tensor,
    index: Tensor,
    logits: Tensor,
    labels: Tensor,
    window: int = 10,
    decay: float = 0.9,
    skipped: Tensor | None = None,
    records: Tensor | None = None,
    ignore_index: int | None = None,
) -> None:
    """Adds a presentation of each row to its example's windows of presentations, in place.

    The windows are those of dynamic uncertainty (arXiv 2306.05175) and TDDS (arXiv 2311.13613). An example that occurs
    twice in the batch counts twice, in batch order. The log-probability of a class that -inf masks counts as -1e16, as
    any lower one does; what a row without a finite loss says is left out.

    Args:
        table: [N, width] float32 from `new_temporal_table`, changed in place. Whether it has room for the changes that
            TDDS needs shows in its width.
        index: [B] int64, positions in the dataset, 0..N-1.
        logits: [B, C] float32, bfloat16 or float16.
        labels: [B] int64, in 0..C-1.
        window: presentations in a window, at least 3; that of the table.
        decay: weight of the newest window in the moving average of TDDS, in (0, 1].
        skipped: as for `record_stats_`.
        records: [N, 16] float32, in which `record_stats_` has recorded the same batch just before. A row that it left
            out because the example's label had changed is left out here too; without records nobody can know.
        ignore_index: the label of rows that count for nothing.

    Raises:
        TypeError, ValueError, IndexError: wrong type, dtype, shape, device, window, decay, label or index.

    >>> from difficulty_prune.ops import temporal_parts
    >>> table = new_temporal_table(2, window=3)
    >>> logits = torch.tensor([[0.0, 0.0], [0.0, 50.0], [0.0, 0.0]])
    >>> record_temporal_(table, torch.tensor([1, 1, 1]), logits, torch.tensor([1, 1, 1]), window=3)
    >>> {name: part[1].tolist() for name, part in temporal_parts(table, window=3).items()}["p_label"]
    [0.5, 1.0, 0.5]
    """
    check_temporal(window, decay)
    arguments = (table, index, logits, labels, window, decay)
    can_try = _can_try(table, index, logits, labels, skipped, optional=(records,))
    if can_try and _ops.try_record_temporal_.default(*arguments, skipped, records, ignore_index):
        return
    check_logits(logits)
    check_labels(labels, logits, ignore_index)
    check_temporal_table(table, window, logits.shape[1])
    check_index(index, logits.shape[0], table.shape[0])
    skipped = new_skipped(table.device) if skipped is None else check_skipped(skipped)
    check_same_device(table=table, index=index, logits=logits, skipped=skipped)
    if records is not None:
        check_table(records, table.shape[0], "records")
        check_same_device(table=table, records=records)
    _ops.record_temporal_(*arguments, skipped, records, ignore_index)


def _can_try(*required: Tensor | None, optional: tuple[Tensor | None, ...] = ()) -> bool:
    """Whether one compiled call, which looks at its arguments first, may try to do all the work.

    It leaves undone what it has something to complain of; the checks in Python then say what is wrong. Looking from
    Python at arguments that are right, as nearly all are, would take longer than the work itself. But what is no tensor
    PyTorch would refuse in its own words.
    """
    tensors = _REQUIRED.issuperset(map(type, required)) and _OPTIONAL.issuperset(map(type, optional))
    return tensors and not torch.compiler.is_compiling()


def record_gradients_(
    count: Tensor,
    mean: Tensor,
    m2: Tensor,
    index: Tensor,
    gradients: Tensor,
    scale: Tensor | None = None,
    pixels: Tensor | None = None,
    skipped: Tensor | None = None,
) -> None:
    """Mean over channels, then one Welford step per pixel of each example's running moments, in place.

    Args:
        count: [N] int32, gradients seen per example.
        mean: [N, P] float32, running mean per pixel.
        m2: [N, P] float32 or bfloat16, running sum of squared deviations. bfloat16 is rounded stochastically, from
            a counter and not from a generator.
        index: [B] int64, positions in the dataset, 0..N-1.
        gradients: [B, C, ...] floating point, any strides; P is the product of the dimensions after C.
        scale: [B] float32, multiplies each row; a row of scale 0 is passed over.
        pixels: [P] int64, positions among the flattened dimensions after C; only these are read. Default: all.
        skipped: as for `record_stats_`.

    Raises:
        TypeError, ValueError, IndexError: wrong type, dtype, shape, device, index or pixel.

    >>> count, mean, m2 = torch.zeros(4, dtype=torch.int32), torch.zeros(4, 6), torch.zeros(4, 6)
    >>> record_gradients_(count, mean, m2, torch.tensor([2]), torch.ones(1, 3, 2, 3))
    >>> count.tolist(), mean[2].sum().item()
    ([0, 0, 1, 0], 6.0)
    """
    arguments = (count, mean, m2, index, gradients, scale, pixels)
    can_try = _can_try(count, mean, m2, index, gradients, skipped, optional=(scale, pixels))
    if not can_try or not _ops.try_record_gradients_.default(*arguments, skipped):
        _ops.record_gradients_(*arguments, _check_record_gradients(*arguments, skipped))


def _check_record_gradients(
    count: Tensor,
    mean: Tensor,
    m2: Tensor,
    index: Tensor,
    gradients: Tensor,
    scale: Tensor | None,
    pixels: Tensor | None,
    skipped: Tensor | None,
) -> Tensor:
    """Raises for what is wrong; returns the counters to use."""
    width = check_gradients(gradients, leading=1)
    if pixels is not None:
        width = check_pixels(pixels, width)
        check_same_device(gradients=gradients, pixels=pixels)
    check_width(mean, width, gradients)
    check_moments(count, mean, m2, width)
    check_index(index, gradients.shape[0], count.shape[0])
    if scale is not None:
        check_scale(scale, gradients)
    skipped = new_skipped(count.device) if skipped is None else check_skipped(skipped)
    check_same_device(count=count, mean=mean, m2=m2, index=index, gradients=gradients, skipped=skipped)
    return skipped


def merge_moments_(
    count: Tensor, mean: Tensor, m2: Tensor, other_count: Tensor, other_mean: Tensor, other_m2: Tensor
) -> None:
    """Adds another state of the same shape (another run's, another process's) to `count`, `mean` and `m2`, in place.

    Chan, Golub and LeVeque (1979): the result is that of one state which saw all gradients.

    Args:
        count, other_count: [N] int32.
        mean, other_mean: [N, P] float32.
        m2, other_m2: [N, P] float32 or bfloat16, independently.

    Raises:
        TypeError, ValueError: wrong type, dtype, shape or device.

    >>> count, mean, m2 = torch.tensor([1], dtype=torch.int32), torch.zeros(1, 1), torch.zeros(1, 1)
    >>> merge_moments_(count, mean, m2, count.clone(), torch.full((1, 1), 2.0), torch.zeros(1, 1))
    >>> count.item(), mean.item(), m2.item()
    (2, 1.0, 2.0)
    """
    check_moments(count, mean, m2, None)
    check_moments(other_count, other_mean, other_m2, mean.shape[1], count.shape[0], "other_")
    check_same_device(count=count, mean=mean, m2=m2)
    check_same_device(count=count, other_count=other_count, other_mean=other_mean, other_m2=other_m2)
    _ops.merge_moments_(count, mean, m2, other_count, other_mean, other_m2)


def gradient_variance(gradients: Tensor, statistic: str = "std") -> Tensor:
    """Variance of Gradients (arXiv 2008.11600) of K stacked checkpoints, without state.

    Args:
        gradients: [K, B, C, ...] floating point, any strides; C = 1 for inputs without channels.
        statistic: "std" as the paper defines VoG, or "variance".

    Returns:
        [B] float32: the mean over pixels of the deviation over checkpoints (ddof 0) of the signed channel mean.

    Raises:
        TypeError, ValueError: wrong type, dtype, shape or statistic.

    >>> gradient_variance(torch.tensor([0.0, 2.0]).view(2, 1, 1, 1))
    tensor([1.])
    """
    check_gradients(gradients, leading=2)
    if gradients.shape[0] == 0:
        raise ValueError(
            f"gradients: no checkpoints in shape {tuple(gradients.shape)}; expected [K, B, C, ...], K >= 1"
        )
    if statistic not in ("std", "variance"):
        raise ValueError(f"statistic: got {statistic!r}, expected 'std' or 'variance'")
    return _ops.gradient_variance(gradients, statistic)  # type: ignore[no-any-return]


def record_losses_(
    table: Tensor, index: Tensor, loss: Tensor, skipped: Tensor | None = None, *, padding: bool = False
) -> None:
    """Adds one loss per row to the records, for tasks without class logits, in place.

    Of what else a record holds, nothing is known: probabilities and margins stay 0, no prediction counts as right, and
    the label is neither compared nor changed. An example that occurs twice in the batch counts twice, in batch order.

    Args:
        table: [N, 16] float32 from `new_table`, changed in place.
        index: [B] int64, positions in the dataset, 0..N-1.
        loss: [B] floating point, kept in float32. One beyond float32 counts as not finite.
        skipped: as for `record_stats_`.
        padding: rows of index `PADDING` are passed over and not counted.

    Raises:
        TypeError, ValueError, IndexError: wrong type, dtype, shape, device or index.

    >>> from difficulty_prune.ops import FIELD
    >>> table = new_table(2)
    >>> record_losses_(table, torch.tensor([1, 1]), torch.tensor([0.5, 1.5]))
    >>> table[1, FIELD["loss"]].item()
    2.0
    """
    check_table(table)
    check_losses(loss)
    check_index(index, loss.shape[0], table.shape[0], padding=padding)
    skipped = new_skipped(table.device) if skipped is None else check_skipped(skipped)
    check_same_device(table=table, index=index, loss=loss, skipped=skipped)
    if not padding and not index.is_cpu:  # where nobody has looked, -1 is a bad index like any other
        index = index.where(index != PADDING, torch.iinfo(index.dtype).max)
    _ops.record_given_stats_(table, index, given_stats(loss=loss), torch.zeros_like(index), 1, skipped)


def given_stats(
    *,
    loss: Tensor | None = None,
    entropy: Tensor | None = None,
    correct: Tensor | None = None,
    log_loss: bool = False,
) -> Tensor:
    """Statistics of rows of which only these are known, as a fused loss gives them: [..., 8] float32.

    Args:
        loss, entropy, correct: [...] floating point, or bool; at least one of them.
        log_loss: the loss is -log p of the label, whose p is then known too.

    Returns:
        [..., 8] float32. The rest is 0, and so is the largest p, by which a record knows that there was no class.

    >>> given_stats(loss=torch.tensor([0.0, 0.5]))[:, STAT["loss"]]
    tensor([0.0000, 0.5000])
    """
    given = next(values for values in (loss, entropy, correct) if values is not None)
    stats = torch.zeros(*given.shape, len(STATS), dtype=torch.float32, device=given.device)
    if loss is not None:
        loss = loss.detach().float()
        stats[..., STAT["loss"]] = loss.where(loss != NO_ROW, torch.nan)  # no loss that a row may have
        if log_loss:
            stats[..., STAT["p_label"]] = (-loss).exp()
    if entropy is not None:
        stats[..., STAT["entropy"]] = entropy.detach()
    if correct is not None:
        stats[..., STAT["correct"]] = correct.detach()
    return stats
