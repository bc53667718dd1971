"""Distance to a prototype: how far an example lies from the centre of its class or cluster."""

from __future__ import annotations

from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.checks import check_same_device
from ..support.randomness import generator_from

Metric = Literal["euclidean", "cosine"]

_ROWS: Final = 4096


@torch.no_grad()
def prototype_distance(
    features: Tensor,
    labels: Tensor | None = None,
    *,
    prototypes: Literal["supervised", "self"] = "supervised",
    clusters: int | None = None,
    metric: Metric = "euclidean",
    seed: int = 0,
) -> Tensor:
    """Distance in feature space to the class mean, or to the nearest k-means centre (arXiv 2206.14486).

    Args:
        features: [N, D] floating point, such as `Features.embedding`. A row of NaN is an example that was not shown.
        labels: [N] int64, 0 or more where features are known.
        prototypes: "supervised" measures to the mean of the example's class. The mean includes the example, so the
            only example of a class has distance 0. "self" measures to the nearest centre of scikit-learn's
            MiniBatchKMeans and ignores the labels.
        clusters: number of centres for "self"; default: the number of classes among the labels.
        metric: how distance is measured. "cosine" is 1 - cos of the angle between example and prototype, and 1 where
            either is 0. The prototypes do not depend on the metric.
        seed: seed of k-means.

    Returns:
        [N] float32, in units of the features, or within 0..2 for "cosine"; NaN where not shown.

    Raises:
        ValueError: shapes do not match, features are not finite, labels are needed and missing, there are more
            clusters than examples, or an option is unknown.

    >>> features = torch.tensor([[0.0, 0.0], [0.0, 2.0], [5.0, 5.0]])
    >>> prototype_distance(features, torch.tensor([0, 0, 1]))
    tensor([1., 1., 0.])
    >>> prototype_distance(torch.ones(3, 2), prototypes="self", clusters=1)
    tensor([0., 0., 0.])
    """
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric: got {metric!r}, expected 'euclidean' or 'cosine'")
    shown = shown_examples(features, "features")
    if labels is not None:
        check_classes(labels, shown, "labels")
    known = features[shown]
    if prototypes == "supervised":
        if labels is None:
            raise ValueError("labels: got none; prototypes='supervised' needs them, prototypes='self' does not")
        if clusters is not None:
            raise ValueError(f"clusters: got {clusters}, but prototypes='supervised' has one per class")
        distance = _to_class_mean(known, labels[shown], metric)
    elif prototypes == "self":
        if clusters is None:
            if labels is None:
                raise ValueError("clusters: got none, and no labels whose classes could be counted; say how many")
            clusters = len(labels[shown].unique())
        distance = _to_nearest(known, _k_means(known, clusters, seed), metric)
    else:
        raise ValueError(f"prototypes: got {prototypes!r}, expected 'supervised' or 'self'")
    result = torch.full(shown.shape, torch.nan, dtype=torch.float32, device=features.device)
    result[shown] = distance.float()
    return result


def _to_class_mean(features: Tensor, labels: Tensor, metric: Metric) -> Tensor:
    distance = torch.zeros(len(features), dtype=torch.float64, device=features.device)
    for label in labels.unique():
        members = features[labels == label].double()
        distance[labels == label] = _distances(members, members.mean(0, keepdim=True), metric)[:, 0]
    return distance


def _to_nearest(features: Tensor, centres: Tensor, metric: Metric) -> Tensor:
    rows = [_distances(some.double(), centres, metric).amin(1) for some in features.split(_ROWS)]
    return torch.cat(rows)


def _distances(features: Tensor, centres: Tensor, metric: Metric) -> Tensor:
    """[n, D] and [K, D] to [n, K], float64."""
    if metric == "cosine":
        tiny = torch.finfo(torch.float64).tiny
        return (1 - F.normalize(features, eps=tiny) @ F.normalize(centres, eps=tiny).T).clamp(min=0)
    # By differences: a matrix product leaves only rounding error for two long vectors that are close together.
    return torch.cdist(features, centres, compute_mode="donot_use_mm_for_euclid_dist")


def _k_means(features: Tensor, clusters: int, seed: int) -> Tensor:
    """Centres [clusters, D] float64."""
    from sklearn.cluster import MiniBatchKMeans

    if not 1 <= clusters <= len(features):
        raise ValueError(f"clusters: got {clusters}, expected 1..{len(features)}, the number of examples shown")
    random_state = int(torch.randint(2**31, (), generator=generator_from(seed), device="cpu"))
    fitted = MiniBatchKMeans(clusters, random_state=random_state).fit(features.float().cpu().numpy())
    return torch.from_numpy(fitted.cluster_centers_).double().to(features.device)


def shown_examples(features: Tensor, name: str) -> Tensor:
    """Which rows of features [N, D] are known, [N] bool; ValueError for a row that is partly NaN, or infinite."""
    if not isinstance(features, Tensor) or features.dim() != 2 or not features.is_floating_point():
        got = f"{features.dtype} {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"{name}: got {got}, expected a floating-point tensor [examples, features]")
    shown = ~features.isnan().all(1)
    bad = shown & ~features.isfinite().all(1)
    if bad.any():
        raise ValueError(
            f"{name}: example {int(bad.nonzero()[0])} has features that are not finite: the model may have diverged "
            "(only an example that was not shown may have NaN, in all its features)"
        )
    return shown


def check_classes(classes: Tensor, shown: Tensor, name: str) -> None:
    """ValueError unless classes are [N] int64, and 0 or more where `shown` [N] bool says so."""
    if not isinstance(classes, Tensor) or classes.dtype != torch.int64 or classes.shape != shown.shape:
        got = f"{classes.dtype} {tuple(classes.shape)}" if isinstance(classes, Tensor) else type(classes).__name__
        raise ValueError(f"{name}: got {got}, expected int64 [{len(shown)}], one per row of the features")
    check_same_device(**{name: classes, "features": shown})
    negative = classes[shown] < 0
    if negative.any():
        example = int(shown.nonzero()[:, 0][negative][0])
        raise ValueError(f"{name}: example {example} has {int(classes[example])}, expected 0 or more")
