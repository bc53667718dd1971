"""Distances to prototypes against a loop over examples in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from feature_cases import LABELS, NAN, ROWS, Case, cases, clustered, same, seeded
from hypothesis import given, settings

from difficulty_prune.scores.prototype_distance import prototype_distance

pytestmark = pytest.mark.usefixtures("one_thread")


def oracle_distance(x: np.ndarray, centre: np.ndarray, metric: str) -> float:
    if metric == "euclidean":
        return float(np.sqrt(((x - centre) ** 2).sum()))
    lengths = np.sqrt((x**2).sum() * (centre**2).sum())
    return 1.0 if lengths == 0 else float(1 - (x * centre).sum() / lengths)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@settings(max_examples=100)
@given(cases())
def test_supervised_prototype_distance_equals_its_definition(metric: str, case: Case) -> None:
    layers, labels, _, _ = case
    x, y = layers[0].double().numpy(), labels.numpy()
    expected = [
        oracle_distance(x[i], np.mean([x[j] for j in range(len(y)) if y[j] == y[i]], 0), metric) for i in range(len(y))
    ]
    got = prototype_distance(layers[0], labels, metric=metric)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_self_prototype_distance_finds_the_middle_of_clear_clusters_without_labels(metric: str) -> None:
    g = seeded(0)
    cluster = torch.randint(3, (3000,), generator=g)
    features = 100 * torch.eye(3, 8)[cluster] + torch.randn(3000, 8, generator=g)
    got = prototype_distance(features, prototypes="self", clusters=3, metric=metric, seed=1)
    expected = prototype_distance(features, cluster, metric=metric)
    assert np.corrcoef(got.numpy(), expected.numpy())[0, 1] > 0.98
    same(prototype_distance(features, cluster % 3, prototypes="self", metric=metric, seed=1), got)


def test_k_means_depends_on_its_seed_and_on_nothing_else() -> None:
    features = torch.randn(2000, 5, generator=seeded(0))
    state = torch.get_rng_state()
    np.random.seed(0)  # noqa: NPY002 - the state that must not be used
    first, again, other = (prototype_distance(features, prototypes="self", clusters=7, seed=s) for s in (3, 3, 4))
    same(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.randint(10**6) == np.random.RandomState(0).randint(10**6)  # noqa: NPY002


def test_distances_far_from_zero_keep_their_digits() -> None:
    features = torch.tensor([[0.0, 0.0], [0.0, 2.0], [1.0, 1.0]]) + 2.0**18
    same(
        prototype_distance(features, torch.tensor([0, 0, 0])),
        torch.tensor([1.0, 1.0, 1.0]) * torch.tensor([10.0, 10.0, 4.0]).sqrt() / 3,
    )


def test_equal_examples_have_distance_0_to_their_k_means_centre() -> None:
    """And scikit-learn does not warn that there are fewer distinct examples than centres."""
    assert prototype_distance(torch.ones(50, 3), prototypes="self", clusters=4).tolist() == [0] * 50


@pytest.mark.parametrize("prototypes", ["supervised", "self"])
def test_examples_not_shown_belong_to_no_prototype(prototypes: str) -> None:
    (features,), labels, _ = clustered(200, [6])
    shown = torch.rand(200, generator=seeded(3)) < 0.7
    got = prototype_distance(
        torch.where(shown[:, None], features, NAN), torch.where(shown, labels, -1), prototypes=prototypes
    )
    same(got[shown], prototype_distance(features[shown], labels[shown], prototypes=prototypes))
    assert got[~shown].isnan().all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((ROWS,), {}, "labels: got none"),
        ((ROWS,), {"prototypes": "self"}, "clusters: got none"),
        ((ROWS,), {"prototypes": "self", "clusters": 4}, r"clusters: got 4, expected 1\.\.3"),
        ((ROWS, LABELS), {"clusters": 2}, "clusters: got 2"),
        ((ROWS, LABELS), {"prototypes": "labels"}, "prototypes: got 'labels'"),
        ((ROWS, LABELS), {"metric": "l1"}, "metric: got 'l1'"),
        ((ROWS, LABELS[:2]), {}, "labels: got"),
        ((ROWS / 0, LABELS), {}, "features: example 0"),
        ((ROWS[0], LABELS), {}, "features: got"),
    ],
)
def test_prototype_distance_refuses(arguments, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prototype_distance(*arguments, **options)
