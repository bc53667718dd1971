"""Prediction depth: the layer at which a network has made up its mind about an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from .prototype_distance import check_classes, shown_examples

_BLOCK_BYTES: Final = 2**27


@torch.no_grad()
def prediction_depth(
    layers: Sequence[Tensor] | Mapping[str, Tensor],
    labels: Tensor,
    predictions: Tensor,
    *,
    k: int = 30,
    block: int | None = None,
) -> Tensor:
    """First layer from which all k-nearest-neighbour probes agree with the final prediction (arXiv 2106.09647).

    The probe of a layer gives an example the most frequent label (the lowest class wins a tie) among its k nearest
    other examples in that layer, by Euclidean distance. The example itself does not vote; an exact copy of it at
    another position does. Distances are float32: neighbours as near as the k-th, to float32 precision, all vote.

    Args:
        layers: L floating-point tensors [N, D_l], from the first layer to the last. A row of NaN is an example that
            was not shown; it is no neighbour of any other.
        labels: [N] int64, 0 or more where features are known.
        predictions: [N] int64, the classes that the model predicts in the end, 0 or more where features are known.
        k: number of neighbours that vote.
        block: number of examples whose distances are in memory at a time, N x 4 bytes each; default: as many as fit
            128 MiB. The result does not depend on it. One layer at a time is copied as well.

    Returns:
        [N] float32: the smallest l in 0..L-1 such that the probes l, l+1, ..., L-1 all agree; L if the last one does
        not; NaN where not shown.

    Raises:
        ValueError: shapes do not match, features are not finite, there are no layers, or k is not less than the
            number of examples shown.

    >>> first, second = torch.tensor([[0.0], [9.0], [1.0], [8.0]]), torch.tensor([[0.0], [1.0], [8.0], [9.0]])
    >>> labels = predictions = torch.tensor([0, 0, 1, 1])
    >>> prediction_depth([first, second], labels, predictions, k=1)
    tensor([1., 1., 1., 1.])
    >>> prediction_depth({"block": second, "logits": second}, labels, torch.tensor([0, 0, 1, 0]), k=1)
    tensor([0., 0., 0., 2.])
    """
    named = dict(layers) if isinstance(layers, Mapping) else dict(enumerate(layers))
    shown = _shown_in_all(named)
    check_classes(labels, shown, "labels")
    check_classes(predictions, shown, "predictions")
    known, size = labels[shown], int(shown.sum())
    if not 1 <= k < size:
        raise ValueError(
            f"k: got {k}, expected 1..{size - 1}: {size} examples have features, and none votes for itself"
        )
    if block is None:
        block = max(1, _BLOCK_BYTES // (4 * size))
    if block < 1:
        raise ValueError(f"block: got {block}, expected 1 or more")

    depth = torch.zeros(size, dtype=torch.float32, device=shown.device)
    for position, features in enumerate(named.values()):
        agrees = _probe(features[shown], known, k, block) == predictions[shown]
        depth[~agrees] = position + 1
    result = torch.full(shown.shape, torch.nan, dtype=torch.float32, device=shown.device)
    result[shown] = depth
    return result


def _shown_in_all(layers: Mapping[str, Tensor] | Mapping[int, Tensor]) -> Tensor:
    if not layers:
        raise ValueError("layers: got none, expected the features of at least one layer")
    shown = [shown_examples(features, f"layer {name!r}") for name, features in layers.items()]
    sizes = {name: len(rows) for name, rows in zip(layers, shown, strict=True)}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"layers: got {sizes} examples, expected the same examples in every layer")
    return torch.stack(shown).all(0)


def _probe(features: Tensor, labels: Tensor, k: int, block: int) -> Tensor:
    """The most frequent label [n] among the k nearest others of n examples; overwrites the features [n, D]."""
    points = _centred(features)
    squares = points.square().sum(1)
    size, classes = len(points), int(labels.max()) + 1
    result = torch.empty_like(labels)
    buffer = points.new_empty(min(block, size), size)
    for start in range(0, size, block):
        rows = slice(start, min(start + block, size))
        # Squared distances minus the example's own square: dropping that term does not change their order.
        distances = buffer[: rows.stop - start]
        torch.addmm(squares, points[rows], points.T, alpha=-2, out=distances)
        distances.diagonal(start).fill_(torch.inf)
        result[rows] = _votes(distances, squares[rows], labels, k, classes).argmax(1)
    return result


def _votes(distances: Tensor, squares: Tensor, labels: Tensor, k: int, classes: int) -> Tensor:
    """How many of the k nearest of each row have each label, [rows, classes] int64."""
    nearest, neighbours = distances.topk(k + 1, largest=False)
    votes = labels.new_zeros(len(distances), classes)
    votes.scatter_add_(1, labels[neighbours[:, :k]], torch.ones_like(neighbours[:, :k]))

    last, following = nearest[:, k - 1], nearest[:, k]
    rounding = 8 * torch.finfo(torch.float32).eps * (2 * squares + last).clamp(min=0)
    for row in (following <= last + rounding).nonzero()[:, 0].tolist():
        equally_near = distances[row] <= last[row] + rounding[row]
        votes[row] = torch.bincount(labels[equally_near], minlength=classes)
    return votes


def _centred(features: Tensor) -> Tensor:
    """Features as float32, centred on 0 and within -1..1, where a matrix product rounds least and cannot overflow."""
    if features.dtype != torch.float64:
        features = features.float()
    features -= features.median(0).values  # not the mean: whole numbers stay whole
    largest = features.abs().max()
    return features.ldexp_(-torch.frexp(largest).exponent).float()
