"""Which example, and which class, a mixed image counts for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

_UNKNOWN: Final = -100  # the default ignore_index of PyTorch's losses
_NEAR: Final = 0.01  # how far labels may be from what mixing gives; timm's lambda in bfloat16 is off by 0.002
_PAIRS: Final = 8  # of rows do not agree on a lambda by chance, even where CutMix has few areas to choose from
_PARTNERS: Final = {"roll": "the row before it", "flip": "the row as far from the other end"}


def dominant(
    index: Tensor,
    labels: Tensor,
    mixed_labels: Tensor,
    *,
    partner: Literal["roll", "flip"] | None = None,
    one_lambda: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Of each mixed image, index and class of the image that makes up most of it, for `tracker.update`.

    For batches mixed by torchvision's `MixUp`, `CutMix` (of `transforms.v2`) or a `RandomChoice` of these, or by timm's
    `Mixup`. Everything is read from the labels, without waiting for the device. So a CutMix of timm with
    `correct_lam=False`, whose labels do not say what is in the image, is taken at its word.

    The label is -100 where the labels do not tell: both images make up a half, or both have one class, no other row
    tells their proportion, and they are not the same example.

    Args:
        index: [B] int64, positions in the dataset.
        labels: [B] int64, the classes before mixing, 0..C-1.
        mixed_labels: [B, C] floating point, as the transform gave them, with or without label smoothing; [B / 2, C]
            from timm's `FastCollateMixup(mode="half")`; or int64 [B], the labels of a batch that was not mixed.
        partner: the image that was mixed into that of row i: "roll" of row i - 1 (torchvision), "flip" of row B - 1 - i
            (timm). Default: the one that explains the labels; a row on which both do, and differ, has the label -100.
        one_lambda: whether all rows are mixed in one proportion: True for torchvision and timm's `mode="batch"`, False
            for timm's other modes. Default: True for "roll"; for "flip" where at least eight pairs of two classes agree
            on a proportion in which each image has more than 1 %.

    Returns:
        index and labels, int64, one per row of `mixed_labels` and on its device. On an accelerator all labels are -100
        where the CPU would raise ValueError for what the tensors hold.

    Raises:
        TypeError: no tensors, or a wrong dtype.
        ValueError: a wrong shape or argument; on the CPU also a label that is no class, and mixed labels that no such
            mixing explains.

    Source: Zhang et al. 2018, arXiv 1710.09412 (mixup); Yun et al. 2019, arXiv 1905.04899 (CutMix).

    >>> mixed = torch.tensor([[0.25, 0.0, 0.75], [0.75, 0.25, 0.0], [0.0, 0.75, 0.25]])  # 1/4 own, 3/4 the row before
    >>> dominant(torch.tensor([40, 41, 42]), torch.tensor([0, 1, 2]), mixed)
    (tensor([42, 40, 41]), tensor([2, 0, 1]))
    """
    _check(index, labels, mixed_labels, partner, one_lambda)
    index, labels = (x.to(mixed_labels.device, non_blocking=True) for x in (index, labels))
    if not mixed_labels.is_floating_point():
        unmixed = (mixed_labels == labels).all()
        _refuse_unless(unmixed, "got whole numbers that differ from labels, expected the same, of a batch not mixed")
        return index, torch.where(unmixed, labels, _UNKNOWN)
    rows, classes = mixed_labels.shape
    if rows == 0:
        return index, labels

    valid = ((labels >= 0) & (labels < classes)).all()
    _refuse_unless(valid, f"got {classes} classes, but labels has one outside 0..{classes - 1}")
    labels = labels.clamp(0, classes - 1)  # which an accelerator can look up, valid or not
    wide = mixed_labels.to(torch.promote_types(mixed_labels.dtype, torch.float32))
    rounding = max(torch.finfo(mixed_labels.dtype).eps, torch.finfo(torch.float32).eps)
    tried = [partner] if partner else ["flip"] if rows < len(index) else ["roll", "flip"]
    readings = [_read(way, index, labels, wide, rounding, one_lambda) for way in tried]
    reading = readings[0] if len(readings) == 1 else _both(*readings)
    expected = " or ".join(_PARTNERS[way] for way in tried)
    _refuse_unless(reading.explained, f"got labels that no mixing of each row with {expected} explains")
    known = reading.explained & valid & (reading.labels != _UNKNOWN)
    return torch.where(known, reading.index, index[:rows]), torch.where(known, reading.labels, _UNKNOWN)


@dataclass(frozen=True)
class _Reading:
    """What the labels say if images were mixed with one kind of partner."""

    explained: Tensor  # bool, of the whole batch
    index: Tensor  # [R] int64
    labels: Tensor  # [R] int64, -100 where the labels do not tell


def _read(way: str, index: Tensor, labels: Tensor, mixed: Tensor, rounding: float, one_lambda: bool | None) -> _Reading:
    """Compares what each row has of its own class and of its partner's."""
    rows = len(mixed)
    own, own_index = labels[:rows], index[:rows]
    turned, turned_index = (x.roll(1, 0) if way == "roll" else x.flip(0)[:rows] for x in (labels, index))
    sources = torch.stack((own, turned), 1)
    share = mixed.gather(1, sources)  # [R, 2]
    least = mixed.scatter(1, sources, torch.inf).amin()  # of the other classes, which all have the smoothing's part
    most = mixed.scatter(1, sources, -torch.inf).amax()  # these are infinite where there are no other classes
    near = max(_NEAR, 2 * rounding)
    explained = (
        (most - least <= near)
        & (least >= -near)
        & (share.amin() >= most - near)
        & ((mixed.sum(1) - 1).abs().amax() <= near)
    )

    telling = own != turned
    lead = share[:, 0] - share[:, 1]  # (2 lambda - 1) (1 - smoothing), where the classes differ
    lowest = lead.masked_fill(~telling, torch.inf).amin()
    highest = lead.masked_fill(~telling, -torch.inf).amax()
    if one_lambda or (one_lambda is None and way == "roll"):
        explained &= highest - lowest <= near
        shared = telling.any()
    elif one_lambda is None:
        enough = telling.sum() >= (_PAIRS if rows < len(index) else 2 * _PAIRS)  # a pair has two rows
        inside = (
            share.masked_fill(~telling[:, None], torch.inf).amin() > most + 0.01
        )  # a small alpha often gives 0 and 1
        shared = enough & inside & (highest - lowest <= 4 * rounding)
    else:
        shared = torch.zeros_like(explained)
    lead = torch.where(telling, lead, torch.where(shared, lowest, 0))

    same = own_index == turned_index
    known = same | (lead.abs() > 2 * rounding)
    theirs = lead < 0
    found = torch.where(theirs, turned, own).masked_fill(~known, _UNKNOWN)
    return _Reading(explained, torch.where(theirs, turned_index, own_index), found)


def _both(first: _Reading, second: _Reading) -> _Reading:
    """The reading that explains the labels; where both do, that on which they agree."""
    index = torch.where(first.explained, first.index, second.index)
    labels = torch.where(first.explained, first.labels, second.labels)
    differ = (first.index != second.index) | (first.labels != second.labels)
    both = first.explained & second.explained
    return _Reading(first.explained | second.explained, index, labels.masked_fill(both & differ, _UNKNOWN))


def _check(index: Tensor, labels: Tensor, mixed_labels: Tensor, partner: object, one_lambda: object) -> None:
    for name, value in (("index", index), ("labels", labels), ("mixed_labels", mixed_labels)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
    if index.dim() != 1 or index.shape != labels.shape:
        raise ValueError(
            f"got index {tuple(index.shape)} and labels {tuple(labels.shape)}, expected [B] for both: the batch as it "
            "was before mixing"
        )
    if index.dtype != torch.int64 or labels.dtype != torch.int64:
        raise TypeError(f"got index of {index.dtype} and labels of {labels.dtype}, expected int64 for both")
    size = len(index)
    if mixed_labels.is_floating_point():
        fits = mixed_labels.dim() == 2 and len(mixed_labels) in (size, size / 2) and mixed_labels.shape[1] > 0
    elif mixed_labels.dtype == torch.int64:
        fits = mixed_labels.shape == labels.shape
    else:
        raise TypeError(f"mixed_labels: got {mixed_labels.dtype}, expected floating point (int64 of a batch not mixed)")
    if not fits:
        raise ValueError(
            f"mixed_labels: got {mixed_labels.dtype} of shape {tuple(mixed_labels.shape)}, expected floating point "
            f"[{size}, classes], as the transform returned them, or the labels themselves, int64 [{size}]"
        )
    if partner is not None and partner not in _PARTNERS:
        raise ValueError(f"partner: got {partner!r}, expected 'roll' (torchvision), 'flip' (timm) or None")
    if partner == "roll" and len(mixed_labels) < size:
        raise ValueError(f"partner: got 'roll' and {len(mixed_labels)} rows from {size}, expected 'flip' there")
    if one_lambda not in (True, False, None):
        raise ValueError(f"one_lambda: got {one_lambda!r}, expected True, False or None")


def _refuse_unless(fine: Tensor, message: str) -> None:
    """ValueError on the CPU, where looking at a value waits for nobody."""
    if fine.is_cpu and not torch.compiler.is_compiling() and not fine:
        raise ValueError(f"mixed_labels: {message}; dp.dominant reads MixUp and CutMix of torchvision, Mixup of timm")
