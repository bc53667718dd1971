"""Prediction depth against a loop over examples in float64, and against scikit-learn's neighbours."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from feature_cases import CLASSES, LABELS, NAN, ROWS, Case, cases, clustered, same, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from difficulty_prune.scores import prediction_depth

pytestmark = pytest.mark.usefixtures("one_thread")


def oracle_probe(features: np.ndarray, labels: np.ndarray, example: int, k: int) -> int:
    others = [j for j in range(len(features)) if j != example]
    distance = {j: ((features[j] - features[example]) ** 2).sum() for j in others}
    farthest = sorted(distance.values())[k - 1]
    near = [labels[j] for j in others if distance[j] <= farthest]
    return int(np.bincount(near).argmax())


def oracle_depth(layers: list[Tensor], labels: Tensor, predictions: Tensor, k: int) -> Tensor:
    result = []
    for example, prediction in enumerate(predictions.tolist()):
        depth = len(layers)
        for features in reversed(layers):
            if oracle_probe(features.double().numpy(), labels.numpy(), example, k) != prediction:
                break
            depth -= 1
        result.append(float(depth))
    return torch.tensor(result)


@settings(max_examples=200)
@given(cases())
def test_prediction_depth_equals_its_definition_also_among_copies_and_equal_distances(case: Case) -> None:
    layers, labels, predictions, k = case
    same(prediction_depth(layers, labels, predictions, k=k), oracle_depth(layers, labels, predictions, k))


@settings(max_examples=100)
@given(cases(whole=False))
def test_prediction_depth_equals_its_definition_far_from_zero(case: Case) -> None:
    layers, labels, predictions, k = case
    same(prediction_depth(layers, labels, predictions, k=k), oracle_depth(layers, labels, predictions, k))


@settings(max_examples=100)
@given(cases(), st.integers(1, 20), st.randoms(use_true_random=False))
def test_neither_block_nor_order_of_the_examples_changes_prediction_depth(case: Case, block: int, random) -> None:
    layers, labels, predictions, k = case
    depth = prediction_depth(layers, labels, predictions, k=k)
    same(prediction_depth(layers, labels, predictions, k=k, block=block), depth)
    order = torch.tensor(random.sample(range(len(labels)), len(labels)))
    permuted = prediction_depth([x[order] for x in layers], labels[order], predictions[order], k=k)
    same(permuted, depth[order])


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_the_size_of_a_block_does_not_matter_to_ordinary_features(block: int) -> None:
    layers, labels, predictions = clustered(500, [3, 17, 64])
    depth = prediction_depth(layers, labels, predictions)
    same(prediction_depth(layers, labels, predictions, block=block), depth)
    assert depth.unique().tolist() == [0, 1, 2, 3]


def test_copies_of_rows_of_any_numbers_are_equally_near() -> None:
    """A matrix product may round the same two rows differently in different places."""
    g = seeded(0)
    features = torch.randn(77, 7, generator=g).repeat(3, 1)
    labels = torch.randint(CLASSES, (231,), generator=g)
    order = torch.randperm(231, generator=g)
    depth = prediction_depth([features], labels, labels, k=1)
    same(depth, oracle_depth([features], labels, labels, 1))
    for block in (1, 2, 5, 64):
        same(prediction_depth([features[order]], labels[order], labels[order], k=1, block=block), depth[order])


@pytest.mark.parametrize("k", [1, 5, 30])
def test_scikit_learn_has_the_same_neighbours(k: int) -> None:
    (features,), labels, _ = clustered(400, [20], seed=1)
    features = features + 3 * F.one_hot(labels, 20)
    expected = []
    for example in range(400):
        others = np.arange(400) != example
        probe = KNeighborsClassifier(k, algorithm="brute").fit(features[others].numpy(), labels[others].numpy())
        expected.append(int(probe.predict(features[[example]].numpy())[0]))
    agrees = torch.tensor(expected) == labels
    assert 0.5 < agrees.float().mean() < 1
    same(prediction_depth([features], labels, labels, k=k), (~agrees).float())


def test_an_example_is_not_asked_about_itself() -> None:
    two = torch.tensor([[0.0], [1.0]])
    labels = torch.tensor([0, 1])
    assert prediction_depth([two], labels, labels, k=1).tolist() == [1, 1]
    assert prediction_depth([two], labels, labels.flip(0), k=1).tolist() == [0, 0]


def test_an_exact_copy_elsewhere_is_asked() -> None:
    features = torch.tensor([[0.0], [0.0], [1.0]])
    assert prediction_depth([features], torch.tensor([0, 1, 2]), torch.tensor([1, 0, 0]), k=1).tolist() == [0, 0, 0]


def test_agreement_in_between_does_not_count() -> None:
    right, wrong = torch.tensor([[0.0], [0.1], [5.0], [5.1]]), torch.tensor([[0.0], [5.0], [0.1], [5.1]])
    labels = torch.tensor([0, 0, 1, 1])
    for layers, depth in [
        ([right, right, right], 0),
        ([wrong, right, right], 1),
        ([right, wrong, right], 2),
        ([right, right, wrong], 3),
    ]:
        assert prediction_depth(layers, labels, labels, k=1).tolist() == [depth] * 4


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_neighbours_survive_a_large_common_offset_and_any_scale(shift: float, scale: float) -> None:
    (features,), labels, predictions = clustered(200, [16])
    features = (features * 64).round() / 64  # so that adding the offset is exact
    expected = prediction_depth([features], labels, predictions)
    same(prediction_depth([(features + shift) * scale], labels, predictions), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_features_of_any_floating_point_dtype_are_understood(dtype: torch.dtype) -> None:
    layers, labels, predictions = clustered(100, [2, 8])
    layers = [x.bfloat16().to(torch.float16).to(dtype) for x in layers]
    depth = prediction_depth([x.float() for x in layers], labels, predictions)
    same(prediction_depth(layers, labels, predictions), depth)


def test_the_arguments_of_prediction_depth_are_not_changed() -> None:
    layers, labels, predictions = clustered(50, [4, 4])
    before = [x.clone() for x in layers]
    prediction_depth(dict(enumerate(layers)), labels, predictions)
    for layer, copy in zip(layers, before, strict=True):
        same(layer, copy)


def test_a_layer_that_is_the_same_for_all_examples_says_the_most_frequent_label() -> None:
    labels = torch.tensor([2] * 5 + [0] * 3)
    assert prediction_depth([torch.ones(8, 3)], labels, labels, k=2).tolist() == [0] * 5 + [1] * 3


def test_examples_not_shown_are_nobodys_neighbour() -> None:
    layers, labels, predictions = clustered(120, [3, 9])
    shown = torch.rand(120, generator=seeded(3)) < 0.7
    with_gaps = [torch.where(shown[:, None], x, NAN) for x in layers]
    labels_known = torch.where(shown, labels, -1)
    depth = prediction_depth(with_gaps, labels_known, torch.where(shown, predictions, -1), k=9)
    same(depth[shown], prediction_depth([x[shown] for x in layers], labels[shown], predictions[shown], k=9))
    assert depth[~shown].isnan().all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([ROWS], LABELS, LABELS), {"k": 3}, r"k: got 3, expected 1\.\.2"),
        (([ROWS], LABELS, LABELS), {"k": 0}, "k: got 0"),
        (([ROWS], LABELS, LABELS), {"k": 1, "block": 0}, "block: got 0"),
        (([], LABELS, LABELS), {}, "layers: got none"),
        (([ROWS, ROWS[:2]], LABELS, LABELS), {}, "{0: 3, 1: 2} examples"),
        (([ROWS[0]], LABELS, LABELS), {}, r"layer 0: got torch.float32 \(2,\)"),
        (([ROWS.long()], LABELS, LABELS), {}, "layer 0: got torch.int64"),
        (([ROWS], LABELS[:2], LABELS), {}, r"labels: got torch.int64 \(2,\), expected int64 \[3\]"),
        (([ROWS], LABELS, LABELS.float()), {}, "predictions: got torch.float32"),
        (([ROWS], LABELS - 1, LABELS), {}, "labels: example 0 has -1"),
        (({"conv": ROWS.clone().index_fill(0, torch.tensor(1), torch.inf)}, LABELS, LABELS), {}, "'conv': example 1"),
        (([torch.tensor([[0.0, NAN], [1, 1], [2, 2]])], LABELS, LABELS), {}, "layer 0: example 0 has features"),
    ],
)
def test_prediction_depth_refuses(arguments, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prediction_depth(*arguments, **options)


PEAK_OF_PREDICTION_DEPTH = """
import torch
from pathlib import Path
from difficulty_prune.scores import prediction_depth
torch.set_num_threads(1)
status = Path("/proc/self/status")  # getrusage has the peak of the process that started this one
peak = lambda: int(next(l for l in status.read_text().splitlines() if l.startswith("VmHWM")).split()[1]) / 1024
features = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
labels = features[:, 0].gt(0).long()
prediction_depth([features[:500]], labels[:500], labels[:500])
before = peak()
prediction_depth([features], labels, labels)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is in Linux's /proc")
def test_prediction_depth_needs_memory_for_a_block_and_not_for_all_pairs() -> None:
    """All pairs would be 20,000^2 x 4 bytes = 1,526 MiB."""
    command = [sys.executable, "-c", PEAK_OF_PREDICTION_DEPTH]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert float(output) < 300
