"""The pass that gathers features of a frozen model."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from feature_cases import CLASSES, NAN, close, same, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune.scores import prediction_depth
from difficulty_prune.scores.prototype_distance import prototype_distance
from difficulty_prune.study.models import build_model

pytestmark = pytest.mark.usefixtures("one_thread")


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
