"""What a skilled user would write in eager PyTorch: vectorised over the batch, without a loop.

The results equal those of the operators if the batch has no duplicates, all labels and indices are valid, no example's
label changes, and all values are finite. Unlike the operators, this code does not check for anything else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.layout import DECAY, FIELD

Stats = Callable[[Tensor, Tensor], dict[str, Tensor]]

SUMS = ("loss", "el2n", "entropy", "p_max", "logit_margin", "p_margin", "correct")


def softmax_stats(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The eight statistics of each row, straight from their definitions."""
    label = labels[:, None]
    p, log_p = logits.softmax(1), logits.log_softmax(1)
    one_hot = F.one_hot(labels, logits.shape[1])
    top, classes = logits.topk(2, 1)
    p_top = p.gather(1, classes)
    p_label = p.gather(1, label)[:, 0]
    correct = classes[:, 0] == labels
    return {
        "loss": -log_p.gather(1, label)[:, 0],
        "el2n": (p - one_hot).norm(dim=1),
        "entropy": -(p * log_p).sum(1),
        "p_label": p_label,
        "p_max": p_top[:, 0],
        "logit_margin": logits.gather(1, label)[:, 0] - torch.where(correct, top[:, 1], top[:, 0]),
        "p_margin": p_label - torch.where(correct, p_top[:, 1], p_top[:, 0]),
        "correct": correct.float(),
    }


def tuned_softmax_stats(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The same in as few and as fast passes as eager PyTorch allows: log p differs from the logits by a constant."""
    label = labels[:, None]
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    own = log_p.gather(1, label)[:, 0]
    rival = log_p.scatter(1, label, -torch.inf).amax(1)
    p_label, p_rival = own.exp(), rival.exp()
    error = p.scatter_add(1, label, p.new_full(label.shape, -1.0))
    return {
        "loss": -own,
        "el2n": torch.linalg.vector_norm(error, dim=1),
        "entropy": -torch.linalg.vecdot(p, log_p),
        "p_label": p_label,
        "p_max": torch.maximum(p_label, p_rival),
        "logit_margin": own - rival,
        "p_margin": p_label - p_rival,
        "correct": (own > rival).float(),
    }


@torch.no_grad()
def record_stats_(table: Tensor, index: Tensor, logits: Tensor, labels: Tensor, stats_of: Stats) -> None:
    """`difficulty_prune.ops.record_stats_`, with the statistics of one of the functions above."""
    stats = stats_of(logits, labels)
    old = dict(zip(FIELD, table.index_select(0, index).unbind(1), strict=True))
    count, correct = old["count"] + 1, stats["correct"]
    was_correct = (old["count"] > 0) & (old["last_wrong"] != old["count"])
    deviation = stats["p_label"] - old["p_label_mean"]
    mean = old["p_label_mean"] + deviation / count
    new = {name: old[name] + stats[name] for name in SUMS} | {
        "count": count,
        "p_label_mean": mean,
        "p_label_m2": torch.addcmul(old["p_label_m2"], deviation, stats["p_label"] - mean),
        "forgotten": old["forgotten"] + was_correct * (1 - correct),
        "first_correct": torch.where((correct > 0) & (old["first_correct"] == 0), count, old["first_correct"]),
        "last_wrong": torch.where(correct > 0, old["last_wrong"], count),
        "label": labels.float(),
        "unrivalled": old["unrivalled"],  # no class is masked
        "recent_loss": old["recent_loss"].lerp(stats["loss"], 1 - DECAY),
    }
    table.index_copy_(0, index, torch.stack([new[name] for name in FIELD], 1))


@torch.no_grad()
def record_gradients_(count: Tensor, mean: Tensor, m2: Tensor, index: Tensor, gradients: Tensor) -> None:
    """`difficulty_prune.ops.record_gradients_` of all pixels, in float32, in place where possible."""
    signal = gradients.mean(1).flatten(1)
    new_count = count.index_select(0, index) + 1
    new_mean = mean.index_select(0, index)
    deviation = signal - new_mean
    new_mean.addcdiv_(deviation, new_count[:, None])
    new_m2 = m2.index_select(0, index).addcmul_(deviation, signal.sub_(new_mean))
    count.index_copy_(0, index, new_count)
    mean.index_copy_(0, index, new_mean)
    m2.index_copy_(0, index, new_m2)


def gradient_variance(gradients: Tensor) -> Tensor:
    """`difficulty_prune.ops.gradient_variance`."""
    return gradients.mean(2).std(0, correction=0).flatten(1).mean(1)
