"""Scores from features, and the pass that gathers them."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune.scores import prediction_depth
from difficulty_prune.scores.prototype_distance import prototype_distance
from difficulty_prune.study.models import build_model

CLASSES = 4
NAN = float("nan")

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6, equal_nan=True, check_dtype=False)


# The oracles: loops over examples, in float64


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


Case = tuple[list[Tensor], Tensor, Tensor, int]


@st.composite
def cases(draw: st.DrawFn, whole: bool = True) -> Case:
    """Layers, labels, predictions and k. Whole numbers on a small grid make many copies and many equal distances."""
    examples = draw(st.integers(2, 14))
    g = seeded(draw(st.integers(0, 10**6)))
    layers = []
    for _ in range(draw(st.integers(1, 4))):
        shape = (examples, draw(st.integers(1, 3)))
        grid = torch.randint(-2, 3, shape, generator=g) * 10.0 ** draw(st.integers(-3, 3))
        layers.append(grid if whole else torch.randn(shape, generator=g) + draw(st.sampled_from([0.0, 1000.0])))
    labels, predictions = torch.randint(CLASSES, (2, examples), generator=g)
    return layers, labels, predictions, draw(st.integers(1, examples - 1))


def clustered(examples: int, widths: list[int], seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    """Layers in which the classes part more and more, labels, and predictions of which a tenth is wrong."""
    g = seeded(seed)
    labels = torch.randint(CLASSES, (examples,), generator=g)
    layers = [
        position * torch.randn(CLASSES, width, generator=g)[labels] + torch.randn(examples, width, generator=g)
        for position, width in enumerate(widths)
    ]
    wrong = torch.rand(examples, generator=g) < 0.1
    return layers, labels, torch.where(wrong, (labels + 1) % CLASSES, labels)


# Prediction depth


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


ROWS = torch.arange(6.0).reshape(3, 2)
LABELS = torch.tensor([0, 1, 0])


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


# Prototype distance


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


# Gathering features


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x).relu()


class Network(nn.Module):
    """Blocks in a Sequential, one layer used twice, one that returns a tuple, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace=True)
        self.trunk = nn.Sequential(Block(6), Block(6))
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unused = nn.Linear(6, 6)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(x)))
        x = self.act(self.trunk(x))
        return self.head(self.drop(self.pool(x)[0].mean((2, 3))))


N = 10


@pytest.fixture
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Network()
        model(torch.randn(64, 3, 8, 8))  # so that the normalisation has something to do
    return model


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    return torch.randn(N, 3, 8, 8, generator=seeded(1)), torch.randint(CLASSES, (N,), generator=seeded(2))


def batches(data: tuple[Tensor, Tensor], *indices: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    x, y = data
    return [(x[index], y[index], index) for index in indices]


def in_one_batch(data: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    return batches(data, torch.arange(N))


def assert_same_features(got: dp.Features, expected: dp.Features, compare=close) -> None:
    assert list(got.layers) == list(expected.layers)
    for name in got.layers:
        compare(got.layers[name], expected.layers[name])
    compare(got.embedding, expected.embedding)
    compare(got.logits, expected.logits)
    same(got.labels, expected.labels)


def test_features_are_what_the_layers_give_in_evaluation_mode(network, data) -> None:
    features = dp.score_features(
        network, in_one_batch(data), layers=("head", "norm", "trunk.0", "trunk"), max_features=None
    )
    network.eval()
    with torch.no_grad():
        norm = network.norm(network.stem(data[0]))
        first = network.trunk[0](norm.relu())
        trunk = network.trunk[1](first)
        embedding = F.max_pool2d(trunk.relu(), 2).mean((2, 3))
        logits = network.head(embedding)
    assert list(features.layers) == ["norm", "trunk.0", "trunk", "head"]  # as they run
    same(features.layers["norm"], norm.flatten(1))  # not what the ReLU in place made of it
    same(features.layers["trunk.0"], first.flatten(1))
    same(features.layers["trunk"], trunk.flatten(1))
    close(features.embedding, embedding)
    close(features.logits, logits)
    close(features.probabilities, logits.softmax(1))
    same(features.predictions, logits.argmax(1))
    same(features.labels, data[1])


@settings(max_examples=30)
@given(st.permutations(range(N)), st.sets(st.integers(1, N - 1), max_size=5))
def test_neither_batches_nor_their_order_change_the_features(order: list[int], cuts: set[int]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Network()
    data = torch.randn(N, 3, 8, 8, generator=seeded(1)), torch.randint(CLASSES, (N,), generator=seeded(2))
    split = torch.tensor(order).tensor_split(sorted(cuts))
    expected = dp.score_features(model, in_one_batch(data))
    assert_same_features(dp.score_features(model, batches(data, *split)), expected)
    assert_same_features(dp.score_features(model, batches(data, *split), num_examples=N), expected)


def test_a_loader_of_an_indexed_dataset_and_one_of_mappings_are_the_same(network, data) -> None:
    expected = dp.score_features(network, in_one_batch(data))
    loader = DataLoader(dp.IndexedDataset(TensorDataset(*data)), batch_size=3, shuffle=True, generator=seeded(5))
    assert_same_features(dp.score_features(network, loader), expected)
    mappings = [{"input": data[0], "label": data[1], "index": torch.arange(N)}]
    assert_same_features(dp.score_features(network, mappings), expected, same)


def test_examples_not_shown_are_nan_and_have_no_label(network, data) -> None:
    index = torch.tensor([7, 2, 5])
    features = dp.score_features(network, batches(data, index), num_examples=N)
    missing = torch.ones(N, dtype=torch.bool)
    missing[index] = False
    for table in (*features.layers.values(), features.embedding, features.logits, features.probabilities):
        assert len(table) == N
        same(table.isnan().all(1), missing)
        same(table.isnan().any(1), missing)
    for table in (features.labels, features.predictions):
        same(table == -1, missing)
    scores = features.scores(dp.score_names("features"), k=2, clusters=2)
    assert list(scores) == ["prototype_distance", "self_prototype_distance", "prediction_depth"]
    for score in scores.values():
        same(score.isnan(), missing)
    assert len(dp.score_features(network, batches(data, index)).labels) == 8  # the largest index + 1


def test_scores_are_those_of_the_functions(network, data) -> None:
    features = dp.score_features(network, in_one_batch(data))
    scores = features.scores(dp.score_names("features"), k=3, clusters=2, metric="cosine", seed=5)
    same(scores["prediction_depth"], prediction_depth(features.layers, data[1], features.predictions, k=3))
    same(scores["prototype_distance"], prototype_distance(features.embedding, data[1], metric="cosine"))
    expected = prototype_distance(features.embedding, prototypes="self", clusters=2, metric="cosine", seed=5)
    same(scores["self_prototype_distance"], expected)
    with pytest.raises(ValueError, match="'el2n' is no score of features"):
        features.scores(("el2n",))


def test_no_layers_leave_the_scores_that_need_none(network, data) -> None:
    features = dp.score_features(network, in_one_batch(data), layers=())
    assert features.layers == {}
    assert features.scores(("prototype_distance",))["prototype_distance"].isfinite().all()
    with pytest.raises(ValueError, match="layers: got none"):
        features.scores(("prediction_depth",))


def tiny_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, num_layers=9, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=CLASSES)


LAYER = "encoder.layers.encoder_layer_"
CHOSEN = {
    "mlp": ["3", "6", "logits"],
    "cnn": ["3", "7", "11", "17", "logits"],
    "resnet18": ["maxpool", "layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer4.0", "avgpool", "logits"],
    "vit": ["encoder.dropout", LAYER + "1", LAYER + "2", LAYER + "3", LAYER + "5", LAYER + "7", "encoder.ln", "logits"],
}
HEADS = {"mlp": "7", "cnn": "18", "resnet18": "fc", "vit": "heads.head"}


@pytest.mark.parametrize("name", CHOSEN)
def test_layers_are_chosen_at_the_ends_of_blocks(name: str) -> None:
    model = tiny_vit() if name == "vit" else build_model(name, (3, 32, 32), CLASSES)
    x, y, index = torch.randn(2, 3, 32, 32, generator=seeded(0)), torch.tensor([0, 1]), torch.arange(2)
    features = dp.score_features(model, [(x, y, index)])
    assert list(features.layers) == CHOSEN[name]
    assert max(layer.shape[1] for layer in features.layers.values()) <= 512
    assert features.layers["logits"] is features.logits
    head = model.eval().get_submodule(HEADS[name])
    close(head(features.embedding), model(x))


def test_a_layer_that_runs_several_times_or_gives_no_tensor_is_not_chosen(network, data) -> None:
    assert list(dp.score_features(network, in_one_batch(data)).layers) == ["norm", "trunk.0", "drop", "logits"]


def test_of_a_layer_that_runs_several_times_the_last_time_is_kept(network, data) -> None:
    features = dp.score_features(network, in_one_batch(data), layers=("act", "trunk", "logits"), max_features=None)
    assert list(features.layers) == ["trunk", "act", "logits"]
    same(features.layers["act"], features.layers["trunk"].relu())


def test_a_model_without_layers_has_its_input_as_embedding() -> None:
    x = torch.randn(3, CLASSES, generator=seeded(0))
    features = dp.score_features(nn.Identity(), [(x, torch.tensor([0, 1, 2]), torch.arange(3))])
    same(features.embedding, x)
    assert list(features.layers) == ["logits"]


class Give(nn.Module):
    """A layer that gives what it was made with, whatever comes in, beside a classifier of the same width."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Linear(2, CLASSES)
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        self.layer(self.value)
        return self.head(x)


def gathered(value: Tensor, max_features: int | None) -> Tensor:
    rows = len(value)
    loader = [(torch.zeros(rows, 2), torch.zeros(rows, dtype=torch.int64), torch.arange(rows))]
    return dp.score_features(Give(value), loader, layers=("layer",), max_features=max_features).layers["layer"]


@pytest.mark.parametrize(
    ("shape", "max_features", "pooled"),
    [
        ((8, 16, 16), 512, (8, 8)),
        ((64, 32, 32), 512, (2, 2)),
        ((64, 4, 4), 64, (1, 1)),
        ((64, 4, 4), 10, (1, 1)),  # a number per channel is the least
        ((4, 2, 50), 40, (2, 3)),
        ((8, 8, 8), 512, (8, 8)),  # fits
        ((3, 9, 9), None, (9, 9)),
    ],
)
def test_images_are_averaged_over_areas_until_they_fit(shape, max_features, pooled) -> None:
    value = torch.randn(3, *shape, generator=seeded(0))
    same(gathered(value, max_features), F.adaptive_avg_pool2d(value, pooled).flatten(1))


def test_sequences_and_volumes_are_averaged_and_vectors_are_not() -> None:
    g = seeded(0)
    tokens, volume, vector = (torch.randn(2, *s, generator=g) for s in ((50, 16), (4, 6, 6, 6), (1000,)))
    same(gathered(tokens, 64), F.adaptive_avg_pool1d(tokens.transpose(1, 2), 4).flatten(1))
    same(gathered(tokens, 16), F.adaptive_avg_pool1d(tokens.transpose(1, 2), 1).flatten(1))
    same(gathered(volume, 32), F.adaptive_avg_pool3d(volume, 2).flatten(1))
    same(gathered(vector, 32), vector)
    same(gathered(vector[:, 0], 32), vector[:, :1])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((torch.zeros(3, 2),), "layer 'layer': got tuple"),
        (torch.zeros(2, 3), r"layer 'layer': got torch.float32 \(2, 3\), expected .* with 3 rows"),
        (torch.zeros(3, 2, dtype=torch.int64), "layer 'layer': got torch.int64"),
        (torch.tensor([[0.0], [1.0], [NAN]]), "layer: example 2 has values that are not finite"),
    ],
)
def test_a_layer_without_a_finite_row_per_example_is_refused(value, message: str) -> None:
    loader = [(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), torch.arange(3))]
    with pytest.raises(ValueError, match=message):
        dp.score_features(Give(value), loader, layers=("layer",))


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("fails", [False, True])
def test_modes_hooks_parameters_and_gradients_are_as_before_also_after_an_exception(network, data, fails: bool) -> None:
    network.train()
    network.norm.eval()
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    wrong = torch.arange(N) + N * fails
    loader = [(data[0], data[1], torch.arange(N)), *([(data[0][:, :2], data[1], wrong)] if fails else [])]
    if fails:
        with pytest.raises(RuntimeError, match="channels"):
            dp.score_features(network, loader)
    else:
        assert not dp.score_features(network, loader).embedding.requires_grad
    assert [module.training for module in network.modules()] == modes
    assert hooks_of(network) == 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    for name, value in network.state_dict().items():
        same(value, state[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ("trunk.2", "stem")}, r"Network has no layer 'trunk.2'; did you mean 'trunk.\d', 'trunk.\d'"),
        ({"layers": ("zzz",)}, "Network has no layer 'zzz'; see model.named_modules"),
        ({"layers": ("unused",)}, "layer 'unused' did not run"),
        ({"layers": ("pool",)}, "layer 'pool': got tuple"),
        ({"max_features": 0}, "max_features: got 0"),
        ({"num_examples": 0}, "num_examples: got 0"),
    ],
)
def test_score_features_refuses(network, data, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dp.score_features(network, in_one_batch(data), **options)
    assert hooks_of(network) == 0


def test_score_features_refuses_batches_that_it_cannot_use(network, data) -> None:
    x, y = data
    with pytest.raises(ValueError, match="example 4 was shown twice"):
        dp.score_features(network, batches(data, torch.tensor([4, 1]), torch.tensor([0, 4])))
    with pytest.raises(ValueError, match="example 4 was shown twice"):
        dp.score_features(network, batches(data, torch.tensor([4, 1, 4])))
    with pytest.raises(IndexError, match=re.escape("got 9, expected 0..8")):
        dp.score_features(network, in_one_batch(data), num_examples=9)
    with pytest.raises(IndexError, match="got -1"):
        dp.score_features(network, [(x, y, torch.arange(N) - 1)])
    with pytest.raises(ValueError, match="loader: got a batch of"):
        dp.score_features(network, [(x, y)])
    with pytest.raises(ValueError, match="loader: got no batches"):
        dp.score_features(network, [])
    with pytest.raises(ValueError, match="without labels"):
        dp.score_features(network, [{"input": x, "label": None, "index": torch.arange(N)}])
    with pytest.raises(ValueError, match="index: got shape"):
        dp.score_features(network, [(x, y, torch.arange(N - 1))])
    with pytest.raises(TypeError, match="layers: got the string 'stem'"):
        dp.score_features(network, in_one_batch(data), layers="stem")
    larger = torch.randn(2, 3, 10, 10, generator=seeded(0))
    with pytest.raises(ValueError, match=r"stem: got \(600,\) features per example, \(384,\) in earlier batches"):
        dp.score_features(
            network,
            [*in_one_batch(data), (larger, y[:2], torch.tensor([N, N + 1]))],
            layers=("stem",),
            max_features=None,
        )
