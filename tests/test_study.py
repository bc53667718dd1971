"""The study's parts: data sources, models, and the training loop that scores."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

import difficulty_prune as dp
from difficulty_prune.study import Recipe, train
from difficulty_prune.study.data import Images, StudyData, load_data
from difficulty_prune.study.models import MODELS, build_model


def write_image_folder(folder: Path, per_class: int, size: int = 8) -> None:
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def write_mnist(root: Path) -> None:
    """Files in the original format of MNIST, with other images."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in (("train", 30), ("t10k", 10)):
        labels = bytes(i % 10 for i in range(count))
        pixels = np.random.default_rng(1).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, count) + labels)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, count, 28, 28) + pixels.tobytes())


def test_the_digits_are_split_by_class_and_always_alike() -> None:
    data = load_data("digits")
    assert (len(data.train), len(data.test), data.num_classes, data.shape) == (1437, 360, 10, (1, 8, 8))
    counts = torch.bincount(data.test.labels)
    assert counts.min() >= 35
    assert data.test.labels[:5].tolist() == load_data.__wrapped__("digits", None).test.labels[:5].tolist()


def test_an_image_folder_is_read_in_torchvisions_order(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "train", per_class=10)
    data = load_data(f"imagefolder:{tmp_path / 'train'}", f"imagefolder:{tmp_path / 'train'}")
    assert data.train.images.shape == (20, 3, 8, 8)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.tolist() == [0] * 10 + [1] * 10
    expected = np.asarray(Image.open(tmp_path / "train" / "dog" / "0.png"))
    assert np.array_equal(data.train.images[10].numpy().transpose(1, 2, 0), expected)


def test_without_test_data_a_fifth_is_set_aside(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "all", per_class=10)
    data = load_data(f"imagefolder:{tmp_path / 'all'}")
    assert (len(data.train), len(data.test)) == (16, 4)


def test_a_torchvision_data_set_is_read_with_its_own_test_set(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = load_data(f"torchvision:MNIST:{tmp_path}")
    assert (len(data.train), len(data.test), data.shape) == (30, 10, (1, 28, 28))


def test_a_function_gives_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_images.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\n"
        "def make():\n"
        "    x = torch.rand(20, 3, 8, 8)\n"
        "    return TensorDataset(x, torch.arange(20) % 2), TensorDataset(x[:4], torch.arange(4) % 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = load_data("my_images:make")
    assert (len(data.train), len(data.test), data.shape) == (20, 4, (3, 8, 8))
    sys.modules.pop("my_images")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("cifar", ValueError, r"'cifar', expected digits, imagefolder:DIR"),
        ("imagefolder:", ValueError, r"expected digits"),
        ("imagefolder:/nowhere", FileNotFoundError, r"/nowhere: no such folder"),
        ("torchvision:Nope:x", ValueError, r"no 'Nope'"),
        ("torchvision:CIFAR10:/nowhere", ValueError, r"CIFAR10\('/nowhere'"),
        ("no_such_module:make", ValueError, r"no_such_module:make cannot be imported"),
    ],
)
def test_bad_data_is_refused(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_data(spec)


def test_images_of_different_shapes_are_refused(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "a", per_class=2, size=8)
    Image.new("RGB", (9, 8)).save(tmp_path / "a" / "dog" / "9.png")
    with pytest.raises(ValueError, match=r"image 4 has shape \(3, 8, 9\)"):
        load_data(f"imagefolder:{tmp_path / 'a'}")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_models_map_images_to_logits(name: str, shape: tuple[int, int, int]) -> None:
    model = build_model(name, shape, 7)
    assert model(torch.randn(2, *shape)).shape == (2, 7)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'vgg', expected cnn, mlp, resnet18"):
        build_model("vgg", (3, 32, 32), 10)


def tiny_data() -> StudyData:
    generator = torch.Generator().manual_seed(0)
    images = Images(torch.rand(65, 3, 8, 8, generator=generator), torch.arange(65) % 4)
    return StudyData(images, images, num_classes=4)


def test_training_scores_every_example_once_per_epoch_and_leaves_the_global_generator_alone() -> None:
    data = tiny_data()
    tracker = dp.DifficultyTracker(65, scores=("el2n", "vog", "vog_loss"))
    sampler = dp.PruneSampler(dp.policies.Random(1.0), torch.zeros(65))
    before = torch.get_rng_state()
    steps: list[int] = []
    outcome = train(data, "cnn", sampler, Recipe(epochs=3, batch_size=16), 0, tracker, steps.append)
    assert torch.equal(torch.get_rng_state(), before)
    # 65 = 4 * 16 + 1: the last batch of one cannot be normalised, so each epoch leaves out one example.
    assert steps == [4, 4, 4]
    assert outcome.steps == 12
    assert tracker.presentations == 3 * 64
    assert all((score[~score.isnan()] >= 0).all() for score in tracker.compute().values())


def test_equal_seeds_train_equal_models_and_others_do_not() -> None:
    data = tiny_data()

    def el2n(seed: int) -> torch.Tensor:
        tracker = dp.DifficultyTracker(65, scores=("el2n",))
        sampler = dp.PruneSampler(dp.policies.Random(1.0), torch.zeros(65), seed=seed)
        train(data, "mlp", sampler, Recipe(epochs=2, batch_size=32), seed, tracker)
        return tracker.compute()["el2n"]

    assert torch.equal(el2n(0), el2n(0))
    assert not torch.equal(el2n(0), el2n(1))


def test_training_on_a_plan_visits_only_what_it_keeps() -> None:
    data = tiny_data()
    tracker = dp.DifficultyTracker(65, scores=("el2n",))
    sampler = dp.PruneSampler(dp.policies.Hardest(0.5), torch.arange(65.0))
    train(data, "mlp", sampler, Recipe(epochs=2, batch_size=16), 0, tracker)
    seen = ~tracker.compute()["el2n"].isnan()
    assert seen.nonzero()[:, 0].tolist() == sampler.plan.index.tolist() == list(range(32, 65))


def test_a_data_set_of_tensors_has_the_fingerprint_of_its_content() -> None:
    data = load_data("digits").train
    same = TensorDataset(data.images, data.labels)
    assert dp.dataset_fingerprint(data) == dp.dataset_fingerprint(same)
