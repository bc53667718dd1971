"""The operators in plain PyTorch: the definition to read, and the fallback for devices without a kernel.

Same arguments and results as the compiled operators (see `difficulty_prune.ops`), without checks of the arguments.
Nothing here is tuned; duplicates in a batch are found by comparing all pairs of rows.

>>> import torch
>>> softmax_stats(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))[0, STAT["correct"]].item()
1.0
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .layout import DECAY, FIELD, NO_LABEL, NO_ROW, PADDING, SKIPPED, STAT, STATS, temporal_parts

__all__ = [
    "dual_of_window",
    "gradient_variance",
    "log_probabilities",
    "merge_moments_",
    "record_dual_",
    "record_given_stats_",
    "record_gradients_",
    "record_means_",
    "record_stats_",
    "record_temporal_",
    "reduce_probabilities",
    "reduce_rows",
    "sigmoid_stats",
    "soft_stats",
    "softmax_stats",
    "spread",
]


@torch.no_grad()
def softmax_stats(logits: Tensor, labels: Tensor, ignore_index: int | None = None) -> Tensor:
    """Eight statistics of each row: logits [B, C, ...], labels [B, ...] -> [B, ..., 8] float32, columns `STATS`.

    A row with a label outside 0..C-1 or with a loss that is not finite is NaN: that is one with a logit of NaN or +inf,
    with all at -inf, or with that of the label at -inf. A class at -inf has probability 0, and 0 log 0 = 0. The logit
    margin is +inf where all other classes are at -inf. With a single class the two margins are 0, for want of a rival.
    A row whose label is `ignore_index` is none: its loss is `NO_ROW`, and the rest is 0.
    """
    z, y = _rows_of_classes(logits), labels.reshape(-1)
    valid = (y >= 0) & (y < z.shape[1])
    own = torch.arange(z.shape[1], device=z.device) == torch.where(valid, y, 0)[:, None]
    log_p = z.log_softmax(1)
    p = log_p.exp()
    result = _stats_of_class(z, p, own)
    result[:, STAT["loss"]] = -log_p[own]
    result[:, STAT["el2n"]] = (p - own.float()).norm(dim=1)
    result[:, STAT["entropy"]] = _entropy(p, log_p)
    result[:, STAT["p_label"]] = p[own]
    result = _known(result, valid)
    return (result if ignore_index is None else _without(result, y == ignore_index)).view(*labels.shape, len(STATS))


@torch.no_grad()
def soft_stats(logits: Tensor, targets: Tensor, unnormalised: Tensor | None = None) -> Tensor:
    """The same for targets that are probabilities: logits and targets q [B, C, ...] -> [B, ..., 8] float32.

    loss: -sum q log p; el2n: the norm of p - q; p_label: sum q p; margins and correct: those of the largest q, the
    lowest class of several. Where q is 0, the class may be masked. unnormalised [1] int64 counts rows whose q is no
    distribution: it does not add up to 1 within 0.01, or a part is negative.
    """
    z, q = _rows_of_classes(logits), _rows_of_classes(targets)
    own = torch.arange(z.shape[1], device=z.device) == (q == q.amax(1, keepdim=True)).int().argmax(1)[:, None]
    log_p = z.log_softmax(1)
    p = log_p.exp()
    result = _stats_of_class(z, p, own)
    result[:, STAT["loss"]] = -(q * torch.where((q == 0) & (log_p == -torch.inf), 0.0, log_p)).sum(1)
    result[:, STAT["el2n"]] = (p - q).norm(dim=1)
    result[:, STAT["entropy"]] = _entropy(p, log_p)
    result[:, STAT["p_label"]] = (q * p).sum(1)
    if unnormalised is not None:
        unnormalised += (~(((q.sum(1) - 1).abs() <= 0.01) & (q.amin(1) >= 0))).sum()
    return _known(result, own.any(1)).view(logits.shape[0], *logits.shape[2:], len(STATS))


@torch.no_grad()
def sigmoid_stats(logits: Tensor, labels: Tensor, ignore_index: int | None = None) -> Tensor:
    """The same for labels of 0 or 1: each element of logits [...] is that of class 1, beside 0 for class 0.

    labels [...] are bool, whole or floating; one that is NaN or `ignore_index` is not known, and its row none.
    """
    z, y = logits.float().reshape(-1), labels.reshape(-1)
    unknown = y.isnan() if y.is_floating_point() else torch.zeros_like(y, dtype=torch.bool)
    if ignore_index is not None:
        unknown = unknown | (y == ignore_index)
    label = torch.where(y == 1, 1, torch.where(y == 0, 0, -1))
    stats = softmax_stats(torch.stack([torch.zeros_like(z), z], 1), label)
    return _without(stats, unknown).view(*logits.shape, len(STATS))


def _rows_of_classes(values: Tensor) -> Tensor:
    """[B, C, ...] -> [rows, C] float32."""
    return values.float().movedim(1, -1).reshape(-1, values.shape[1])


def _entropy(p: Tensor, log_p: Tensor) -> Tensor:
    return -(p * torch.where(p > 0, log_p, 0.0)).sum(1)


def _stats_of_class(z: Tensor, p: Tensor, own: Tensor) -> Tensor:
    """What is known of the class that `own` [rows, C] names in each row of z and p, [rows, 8]; the rest is 0."""
    result = z.new_zeros(len(z), len(STATS))
    result[:, STAT["p_max"]] = p.amax(1)
    if z.shape[1] > 1:
        result[:, STAT["logit_margin"]] = z[own] - z.masked_fill(own, -torch.inf).amax(1)
        result[:, STAT["p_margin"]] = p[own] - p.masked_fill(own, -torch.inf).amax(1)
    is_top = z == z.amax(1, keepdim=True)
    lowest_top = is_top.int().argmax(1, keepdim=True)  # argmax of equal values: the first on every device
    result[:, STAT["correct"]] = own.gather(1, lowest_top)[:, 0].float()
    return result


def _known(stats: Tensor, valid: Tensor) -> Tensor:
    """NaN in rows that are not valid, or whose loss is not finite."""
    return torch.where((valid & stats[:, STAT["loss"]].isfinite())[:, None], stats, torch.nan)


def _without(stats: Tensor, ignored: Tensor) -> Tensor:
    none = torch.zeros_like(stats)
    none[:, STAT["loss"]] = NO_ROW
    return torch.where(ignored[:, None], none, stats)


@torch.no_grad()
def reduce_rows(
    stats: Tensor,
    examples: int,
    owner: Tensor | None = None,
    weight: Tensor | None = None,
    labels: Tensor | None = None,
    skipped: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The weighted mean over the rows of each example: stats [..., 8] -> [examples, 8], and labels [examples] int64.

    owner, weight and labels have one value for each row, in any shape. Without owners every example has the same number
    of adjacent rows. A row of weight 0, of owner -1 or with the loss `NO_ROW` is none; a negative weight makes the mean
    NaN. An example without a row has the loss `NO_ROW`; one with a single row its label, any other `NO_LABEL`. Owners
    outside are counted in `skipped`.
    """
    wide = torch.float32 if stats.device.type == "mps" else torch.float64
    rows = stats.reshape(-1, len(STATS)).to(wide)
    each = len(rows) // max(examples, 1)
    owner = torch.arange(len(rows), device=rows.device) // max(each, 1) if owner is None else owner.reshape(-1)
    _count(skipped, {"bad index": (owner < PADDING) | (owner >= examples)})
    counts = (owner >= 0) & (owner < examples) & (rows[:, STAT["loss"]] != NO_ROW)
    share = torch.ones(len(rows), dtype=rows.dtype, device=rows.device)
    if weight is not None:
        share = weight.reshape(-1).to(rows.dtype)
        share = torch.where(share < 0, torch.nan, share)
        counts &= share != 0
    owner, rows, share = owner[counts], rows[counts], share[counts]
    total = rows.new_zeros(examples).index_add_(0, owner, share)
    means = rows.new_zeros(examples, len(STATS)).index_add_(0, owner, rows * share[:, None]) / total[:, None]
    number = torch.zeros(examples, dtype=torch.int64, device=rows.device).index_add_(0, owner, torch.ones_like(owner))
    result = _without(means.float(), number == 0)
    label = torch.full((examples,), NO_LABEL, dtype=torch.int64, device=rows.device)
    if labels is not None:
        label[owner] = labels.reshape(-1)[counts]
        label.masked_fill_(number != 1, NO_LABEL)
    return result, label


def try_record_stats_(*arguments: Tensor | float | None) -> bool:
    """Does nothing and says so: the quick way is for compiled kernels, and the caller then checks and records."""
    return False


try_record_temporal_ = try_record_gradients_ = try_record_stats_


@torch.no_grad()
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
    """Adds one presentation of each row to the record of its example.

    table [N, 16] float32, skipped [4] int64 and steps [N + 1] int32 are changed in place. Rows that cannot be recorded
    are left out and counted in `skipped`, by the reasons of `SKIPPED`; those of the label `ignore_index` are none.
    """
    stats = softmax_stats(logits, labels, ignore_index)
    _record(table, index, stats, labels, logits.shape[1], skipped, 1.0, decay, steps)


@torch.no_grad()
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
    """`record_stats_` from stats [B, 8] float32 of `softmax_stats`, or of `reduce_rows`.

    Rows of index `PADDING` and those that are none are passed over. A label of `NO_LABEL` is neither kept nor compared.
    An example is right where `correct` is at least `right_from`.
    """
    used = index != PADDING
    _record(table, index[used], stats[used], labels[used], num_classes, skipped, right_from, decay, steps)


def _record(
    table: Tensor,
    index: Tensor,
    stats: Tensor,
    labels: Tensor,
    classes: int,
    skipped: Tensor | None,
    right_from: float,
    decay: float,
    steps: Tensor | None,
) -> None:
    is_row = stats[:, STAT["loss"]] != NO_ROW
    index, stats, labels = index[is_row], stats[is_row], labels[is_row]
    bounded = stats.clone()
    bounded[:, STAT["logit_margin"]].masked_fill_(stats[:, STAT["logit_margin"]] == torch.inf, 0)
    loss, has_label = stats[:, STAT["loss"]], stats[:, STAT["p_max"]] > 0  # which a loss alone leaves at 0
    if steps is not None:
        steps[len(table)] += 1
    valid_or_none = torch.where(labels == NO_LABEL, 0, labels)
    for rows in _recordable(len(table), index, bounded.isfinite().all(1), valid_or_none, classes, skipped):
        records = table[index[rows]]
        overflows = ~(records[:, FIELD["loss"]] + loss[rows]).isfinite()
        changed = ~overflows & has_label[rows] & _has_other_label(records, labels[rows])
        _count(skipped, {"not finite": overflows, "changed label": changed})
        kept = ~(overflows | changed)
        rows = rows[kept]
        table[index[rows]] = _updated_records(records[kept], stats[rows], labels[rows], right_from, decay)
        if steps is not None:
            steps[index[rows]] = steps[len(table)].clone()


@torch.no_grad()
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
    """Adds one presentation of each row to what the scores that look at changes over time keep of its example.

    table [N, width] float32 (see `temporal_parts`) and skipped [4] int64 are changed in place. Rows that cannot be
    recorded are left out and counted in `skipped`, by the reasons of `SKIPPED`. records [N, 16] are those in which
    `record_stats_` has recorded the same batch: a row of another label was left out there. Rows of the label
    `ignore_index` are none.
    """
    classes = logits.shape[1]
    if ignore_index is not None:
        kept = labels != ignore_index
        index, logits, labels = index[kept], logits[kept], labels[kept]
    finite = softmax_stats(logits, labels)[:, STAT["loss"]].isfinite()
    log_p = log_probabilities(logits)
    for rows in _recordable(len(table), index, finite, labels, classes, skipped):
        if records is not None:
            changed = _has_other_label(records[index[rows]], labels[rows])
            _count(skipped, {"changed label": changed})
            rows = rows[~changed]
        table[index[rows]] = _updated_temporal(table[index[rows]], log_p[rows], labels[rows], window, decay)


@torch.no_grad()
def record_dual_(
    sums: Tensor,
    table: Tensor,
    index: Tensor,
    logits: Tensor,
    labels: Tensor,
    window: int = 10,
    records: Tensor | None = None,
    ignore_index: int | None = None,
) -> None:
    """Adds the windows that a batch completes to what DUAL sums up; call it before `record_temporal_` of the batch.

    sums [N] float32 is changed in place; table [N, width] is only read. Which rows are left out `record_temporal_` says
    and counts. Nothing here waits for the device, and so an example that occurs twice takes no turns: its rows become
    neighbours, and a place of its ring holds what the latest of them put there, or what was there before.
    """
    if len(index) == 0 or len(sums) == 0:
        return
    example, y = index.clamp(0, len(sums) - 1), labels.clamp(0, logits.shape[1] - 1)
    log_p = logits.float().log_softmax(1).gather(1, y[:, None])[:, 0]
    used = (example == index) & (y == labels) & log_p.isfinite()
    if ignore_index is not None:
        used = used & (labels != ignore_index)
    if records is not None:
        used = used & ~_has_other_label(records[example], labels)
    places, rows = torch.arange(window, device=index.device), torch.arange(len(index), device=index.device)
    of, order = torch.where(used, example, -1).sort(stable=True)
    is_first = torch.cat([of.new_ones(1, dtype=torch.bool), of[1:] != of[:-1]])
    earlier = rows - torch.where(is_first, rows, 0).cummax(0).values  # of the example, in the batch
    part = temporal_parts(table[example[order], : 2 + window], window)
    presented = part["count"][:, 0].long() + earlier + 1
    back = (presented[:, None] - 1 - places) % window  # how many presentations ago a place was written
    p_label = log_p.exp()[order]
    values = torch.where(back <= earlier[:, None], p_label[(rows[:, None] - back).clamp(min=0)], part["p_label"])
    complete = used[order] & (presented >= window)
    added = torch.where(complete, dual_of_window(values), 0)
    sums.index_put_((example[order],), added, accumulate=True)


def dual_of_window(p_label: Tensor) -> Tensor:
    """What a window [..., n] of probabilities adds to DUAL, [...]: (1 - mean) times standard deviation (ddof 1)."""
    return spread(p_label) / math.sqrt(p_label.shape[-1] - 1) * (1 - p_label.mean(-1))


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax [..., C] float32 of logits [..., C]; NaN where it has no value.

    Less than -1e16, as of a class at -inf, counts as that, so that no square of a change can overflow.
    """
    return logits.float().log_softmax(-1).clamp(min=-1e16)


def spread(windows: Tensor) -> Tensor:
    """Root of the sum of squared deviations from the mean: [..., n] -> [...]; exactly 0 where all are equal."""
    shifted = windows - windows[..., :1]
    return (shifted - shifted.mean(-1, keepdim=True)).square().sum(-1).sqrt()


@torch.no_grad()
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
    """Welford update of the channel mean of each row's gradient.

    count [N] int32, mean [N, P] float32, m2 [N, P] float32 or bfloat16, skipped [4] int64: changed in place.
    gradients [B, C, ...] with P = product of the dimensions after C, or P = len(pixels) where `pixels` [P] int64
    names the ones to keep. scale [B] float32 multiplies each row; a row of scale 0 carries no gradient and is
    passed over.
    """
    signal = gradients.to(mean.dtype).mean(1).reshape(len(index), math.prod(gradients.shape[2:]))
    if pixels is not None:
        exists = (pixels >= 0) & (pixels < signal.shape[1])
        signal = torch.where(exists, signal[:, torch.where(exists, pixels, 0)], torch.nan)
    used = torch.ones_like(index, dtype=torch.bool)
    if scale is not None:
        used = scale != 0
        signal = signal * scale[:, None]
    bad_index = (index < 0) | (index >= count.shape[0])
    not_finite = ~bad_index & used & ~signal.isfinite().all(1)
    _count(skipped, {"bad index": bad_index, "not finite": not_finite})

    rows = (used & ~(bad_index | not_finite)).nonzero()[:, 0]
    for turn in _turns(index[rows]):
        example = index[rows[turn]]
        value = signal[rows[turn]]
        count[example] += 1
        deviation = value - mean[example]
        mean[example] += deviation / count[example][:, None]
        m2[example] = narrow(m2[example] + deviation * (value - mean[example]), m2.dtype, example, count[example])


@torch.no_grad()
def gradient_variance(gradients: Tensor, statistic: str = "std") -> Tensor:
    """Variance of Gradients of K checkpoints: [K, B, C, ...] -> [B] float32.

    Per pixel the standard deviation (or variance) over the checkpoints, ddof 0, of the signed mean over
    channels; then the mean over pixels (arXiv 2008.11600, section 3).
    """
    if gradients.shape[1] == 0:
        return gradients.new_empty(0, dtype=torch.float32)
    wide = gradients if gradients.device.type == "mps" else gradients.double()
    variance = wide.mean(2).var(0, correction=0).reshape(gradients.shape[1], -1)
    return (variance.sqrt() if statistic == "std" else variance).mean(1).float()


@torch.no_grad()
def merge_moments_(
    count: Tensor, mean: Tensor, m2: Tensor, other_count: Tensor, other_mean: Tensor, other_m2: Tensor
) -> None:
    """Adds another state of the same shape to `count`, `mean`, `m2` (Chan, Golub, LeVeque 1979)."""
    total = count + other_count
    share = (other_count / total.clamp(min=1))[:, None]
    deviation = other_mean - mean
    merged = m2.float() + other_m2.float() + deviation * deviation * share * count[:, None]
    merged = narrow(merged, m2.dtype, torch.arange(len(count), device=count.device), total)
    m2.copy_(torch.where(other_count[:, None] > 0, merged, m2))
    mean += deviation * share
    count.copy_(total)


@torch.no_grad()
def reduce_probabilities(logits: Tensor, examples: int, owner: Tensor, weight: Tensor | None = None) -> Tensor:
    """Softmax of each row, and its weighted mean over the rows of each example: logits [R, C] -> [examples, C] float32.

    owner [R] int64 is the example of a row; one that does not exist, such as `PADDING`, is nobody. weight [R] float32
    is at least 0; default: 1. NaN for an example without a row of any weight. No atomics, and nothing to wait for.
    """
    counts = (owner >= 0) & (owner < examples)
    if weight is not None:
        counts = counts & (weight != 0)
    p = torch.where(counts[:, None], logits.float().softmax(1), 0)
    share = torch.where(counts, torch.ones_like(p[:, 0]) if weight is None else weight, 0)[:, None]
    sums = _sums(torch.cat([p * share, share], 1), torch.where(counts, owner, examples), examples + 1)[:-1]
    return sums[:, :-1] / sums[:, -1:]


@torch.no_grad()
def record_means_(count: Tensor, mean: Tensor, index: Tensor, values: Tensor, used: Tensor) -> None:
    """Adds rows to running means; an example that occurs twice counts twice. No atomics, and nothing to wait for.

    count [N] int32 and mean [N, C] float32 or bfloat16 (rounded at random, see `narrow`) are changed in place. index
    [B] int64; values [B, C] float32; used [B] bool: the rows that count, of those whose index exists.
    """
    if len(index) == 0:
        return
    example = index.clamp(0, len(count) - 1)
    used = (used & (example == index))[:, None]
    total, number = torch.where(used, values, 0), used.to(values.dtype)
    ordered = example.sort().values
    if not example.is_cpu or bool((ordered[1:] == ordered[:-1]).any()):  # on an accelerator nobody looks
        place = torch.searchsorted(ordered, example)  # the same for all rows of an example, and for no others
        sums = _sums(torch.cat([total, number], 1), place, len(index))[place]
        total, number = sums[:, :-1], sums[:, -1:]
    before, after_count = mean[example].float(), count[example] + number[:, 0].to(count.dtype)
    after = before + (total - number * before) / after_count.clamp(min=1)[:, None]
    count[example] = after_count  # all rows of an example write the same
    mean[example] = narrow(after, mean.dtype, example, after_count)


def _sums(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sums of the rows [R, C] of each group, added in the order of the rows: [groups, C]."""
    lengths = torch.zeros(groups, dtype=torch.int64, device=group.device).scatter_add_(0, group, torch.ones_like(group))
    ordered = values[group.argsort(stable=True)]
    return torch.segment_reduce(ordered, "sum", lengths=lengths, axis=0, unsafe=True)


def narrow(m2: Tensor, dtype: torch.dtype, example: Tensor, count: Tensor) -> Tensor:
    """m2 [B, P] float32 of the examples [B] after `count` [B] gradients, as the dtype that the state has.

    float32 stays. bfloat16 is rounded at random, up with the probability that makes the expectation exact, so
    that many small increments are not lost. The random bits are a hash of example, count and pixel: no generator,
    and the same result in every order and on every device.
    """
    if dtype == torch.float32:
        return m2
    low, high = example & _WORD, example >> 32
    row = _mix(low ^ _mix((high + count) & _WORD))[:, None]
    pixel = torch.arange(m2.shape[1], device=m2.device)
    noise = _mix((row + pixel * 0x9E3779B9) & _WORD) >> 16
    bits = (m2.view(torch.int32).long() + noise) & ~0xFFFF
    return bits.to(torch.int32).view(torch.float32).to(dtype)


_WORD = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """MurmurHash3's 32-bit finaliser, on words held as int64."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _WORD
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _WORD
    return x ^ (x >> 16)


def _count(skipped: Tensor | None, left_out: Mapping[str, Tensor]) -> None:
    """Adds the number of rows [B] bool that were left out for a reason to its counter."""
    if skipped is not None:
        for reason, rows in left_out.items():
            skipped[SKIPPED.index(reason)] += rows.sum()


def _recordable(
    examples: int, index: Tensor, finite: Tensor, labels: Tensor, classes: int, skipped: Tensor | None
) -> Iterator[Tensor]:
    """The rows that can be recorded as far as they themselves tell, in parts as of `_turns`; the others are counted."""
    bad_index = (index < 0) | (index >= examples)
    bad_label = ~bad_index & ((labels < 0) | (labels >= classes))
    not_finite = ~bad_index & ~bad_label & ~finite
    _count(skipped, {"bad index": bad_index, "bad label": bad_label, "not finite": not_finite})
    rows = (~(bad_index | bad_label | not_finite)).nonzero()[:, 0]
    for turn in _turns(index[rows]):
        yield rows[turn]


def _turns(index: Tensor) -> Iterator[Tensor]:
    """Splits rows so that no example occurs twice in a part, and parts keep the order of the batch."""
    occurrence = (index[:, None] == index).tril(-1).sum(1)
    for turn in range(int(occurrence.max()) + 1 if len(index) else 0):
        yield (occurrence == turn).nonzero()[:, 0]


def _has_other_label(records: Tensor, labels: Tensor) -> Tensor:
    """Whether records [B, 16] know another label than labels [B]: not those of losses alone, nor negative ones."""
    known = records[:, FIELD["label"]]
    return (records[:, FIELD["p_max"]] > 0) & (known >= 0) & (known != labels) & (labels != NO_LABEL)


def _updated_records(records: Tensor, stats: Tensor, labels: Tensor, right_from: float, decay: float) -> Tensor:
    """records [B, 16] after one more presentation each, with stats [B, 8]."""
    old = {name: records[:, column] for name, column in FIELD.items()}
    stat = {name: stats[:, column] for name, column in STAT.items()}
    count = old["count"] + 1
    correct = stat["correct"] >= torch.tensor(right_from, dtype=stats.dtype, device=stats.device)
    was_correct = (old["count"] > 0) & (old["last_wrong"] != old["count"])
    deviation = stat["p_label"] - old["p_label_mean"]
    p_label_mean = old["p_label_mean"] + deviation / count
    margins = old["logit_margin"] + stat["logit_margin"]
    shown, label = stat["p_max"] > 0, labels.to(records.dtype)
    label = torch.where(labels == NO_LABEL, -1.0, torch.where(old["label"] >= 0, label, old["label"]))
    new = {
        "count": count,
        "p_label_mean": p_label_mean,
        "p_label_m2": old["p_label_m2"] + deviation * (stat["p_label"] - p_label_mean),
        "forgotten": old["forgotten"] + (was_correct & ~correct),
        "first_correct": torch.where(correct & (old["first_correct"] == 0), count, old["first_correct"]),
        "last_wrong": torch.where(correct, old["last_wrong"], count),
        "label": torch.where(shown, label, old["label"]),
        "logit_margin": torch.where(margins.isfinite(), margins, old["logit_margin"]),
        "unrivalled": old["unrivalled"] + ~margins.isfinite(),
        "recent_loss": torch.where(
            old["recent_loss"].isnan(),  # what was recorded before is to be forgotten
            stat["loss"] * (1 - decay**count),
            old["recent_loss"] + (1 - decay) * (stat["loss"] - old["recent_loss"]),
        ),
    }
    for name in ("loss", "el2n", "entropy", "p_max", "p_margin", "correct"):
        new[name] = old[name] + stat[name]
    return torch.stack([new[name] for name in FIELD], 1)


def _updated_temporal(rows: Tensor, log_p: Tensor, labels: Tensor, window: int, decay: float) -> Tensor:
    """rows [B, width] of a temporal table after one more presentation each, with log_p [B, C]."""
    rows = rows.clone()
    part = temporal_parts(rows, window)  # views: what is written to them is written to the rows
    before = part["count"].long()
    complete = before + 1 >= window
    part["count"] += 1
    part["p_label"].scatter_(1, before % window, log_p.gather(1, labels[:, None]).exp())
    deviation = spread(part["p_label"])[:, None] / math.sqrt(window - 1)
    part["deviations"] += torch.where(complete, deviation, 0)
    if "log_p" in part:
        change = (log_p.exp() * (log_p - part["log_p"]).abs()).sum(1, keepdim=True)
        slot = (before - 1) % (window - 1)
        part["changes"].scatter_(1, slot, torch.where(before > 0, change, part["changes"].gather(1, slot)))
        average = (1 - decay) * part["average"] + decay * spread(part["changes"])[:, None]
        part["average"].copy_(torch.where(complete, average, part["average"]))
        part["log_p"].copy_(log_p)
    return rows
