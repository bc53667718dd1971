"""The study's parts: data sources, models, and the training loop that scores."""

from __future__ import annotations

import math
import struct
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import TensorDataset

import difficulty_prune as dp
from difficulty_prune.policies.base import Choice
from difficulty_prune.study import train
from difficulty_prune.study.hold_out import held_out
from difficulty_prune.study.models import MODELS, build_model
from difficulty_prune.study.settings import Settings
from difficulty_prune.study.study import agreement_with_mean, check_all_scored, together
from difficulty_prune.study.study_data import Images, StudyData, load_data, open_data
from difficulty_prune.study.tasks import DataSource, ScoringTask
from difficulty_prune.study.train import Batches, Recipe, in_order, number_of_batches, predict


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
    together = sorted([*data.train.ids, *data.test.ids])
    assert together == sorted(f"{animal}/{number}.png" for animal in ("cat", "dog") for number in range(10))
    assert [name.startswith("dog") for name in data.train.ids] == data.train.labels.tolist()


def test_data_are_opened_for_their_ids_without_reading_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image_folder(tmp_path / "all", per_class=2)
    (tmp_path / "all" / "cat" / "0.png").write_bytes(b"no image")
    data = open_data(f"imagefolder:{tmp_path / 'all'}")
    assert data.ids.tolist() == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert (data.labels.tolist(), data.class_names) == ([0, 0, 1, 1], ("cat", "dog"))
    assert open_data("digits").ids.tolist() == list(range(1797))
    (tmp_path / "named_data.py").write_text(
        "import difficulty_prune as dp\ndef make():\n    return dp.IndexedDataset([(0, 0), (1, 1)], ids=['a', 'b'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert open_data("named_data:make").ids.tolist() == ["a", "b"]
    sys.modules.pop("named_data")
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        open_data(f"imagefolder:{tmp_path / 'none'}")
    with pytest.raises(ValueError, match="got 'cifar', expected digits"):
        open_data("cifar")


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
    with pytest.raises(ValueError, match=r"9.png has shape \(3, 8, 9\)"):
        load_data(f"imagefolder:{tmp_path / 'a'}")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_models_map_images_to_logits(name: str, shape: tuple[int, int, int]) -> None:
    model = build_model(name, shape, 7)
    assert model(torch.randn(2, *shape)).shape == (2, 7)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'vgg', expected cnn, mlp, resnet8, resnet18, vit"):
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
    # 65 = 4 * 16 + 1: a last batch of one could not be normalised, so it joins the one before.
    assert steps == [1] * 12
    assert outcome.steps == 12
    assert tracker.presentations == 3 * 65
    assert all((score >= 0).all() for score in tracker.compute().values())


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


class Heavy(dp.policies.Random):
    """All examples, each eight times as heavy."""

    def choose(self, difficulty: torch.Tensor, kept: int, generator: torch.Generator) -> Choice:
        index, weight = super().choose(difficulty, kept, generator)
        return index, 8 * weight


def test_steps_are_no_larger_where_weights_are() -> None:
    data = tiny_data()

    def trained(policy: dp.policies.Policy) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        tracker = dp.DifficultyTracker(65, scores=("el2n", "vog_loss"))
        sampler = dp.PruneSampler(policy, torch.zeros(65))
        model = train(data, "mlp", sampler, Recipe(epochs=3, batch_size=16), 0, tracker).model
        return torch.cat([p.detach().flatten() for p in model.parameters()]), tracker.compute()

    usual, scores = trained(dp.policies.Random(1.0))
    heavy, scores_of_heavy = trained(Heavy(1.0))
    assert torch.equal(heavy, usual)
    assert all(torch.equal(scores_of_heavy[name], score) for name, score in scores.items())


def test_among_the_examples_kept_weights_count_as_they_are() -> None:
    """One step on all that is kept is the step on the mean loss of the whole data set, if what stands in is equal."""
    images = Images(torch.ones(64, 3, 8, 8), torch.arange(64) % 2)
    data = StudyData(images, images, num_classes=2)
    easy = torch.arange(64.0).remainder(2)  # class 0 is easy, and 16 of its 32 examples are kept

    def trained(policy: dp.policies.Policy) -> torch.Tensor:
        model = train(data, "mlp", dp.PruneSampler(policy, easy), Recipe(epochs=1, batch_size=64), 0).model
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    torch.testing.assert_close(trained(dp.policies.SoftPrune(0.75, easy_keep=0.5)), trained(dp.policies.Random(1.0)))


def test_a_data_set_of_tensors_has_the_fingerprint_of_its_content() -> None:
    data = load_data("digits").train
    same = TensorDataset(data.images, data.labels)
    assert dp.dataset_fingerprint(data) == dp.dataset_fingerprint(same)


@given(st.integers(1, 40), st.integers(2, 9), st.integers(0, 3))
def test_batches_hold_each_position_once_and_are_never_of_a_single_one(examples: int, size: int, epoch: int) -> None:
    sampler = dp.PruneSampler(dp.policies.Random(1.0), torch.zeros(examples))
    sampler.set_epoch(epoch)
    batches = list(Batches(sampler, size))
    assert [i for batch in batches for i in batch] == list(sampler)
    assert len(batches) == len(Batches(sampler, size)) == number_of_batches(examples, size)
    assert all(len(batch) == size for batch in batches[:-1])
    assert examples == 1 or 2 <= len(batches[-1]) <= size + 1
    if examples % size != 1:
        assert len(batches) == math.ceil(examples / size)


# What the trained model says of each example


def test_predictions_are_of_the_trained_model_in_evaluation_mode_without_augmentation() -> None:
    data = tiny_data()
    sampler = dp.PruneSampler(dp.policies.Random(1.0), torch.zeros(65))
    outcome = train(data, "mlp", sampler, Recipe(epochs=2, batch_size=16), 0)
    p = predict(outcome.model, data, data.train)
    assert (p.shape, p.dtype) == ((65, 4), torch.float32)
    torch.testing.assert_close(p.sum(1), torch.ones(65))
    assert torch.equal(predict(outcome.model, data, data.train), p), "nothing random, and no statistic moves"
    few = [predict(outcome.model, data, Images(data.train.images[i : i + 1], p[:1])) for i in range(5)]
    torch.testing.assert_close(torch.cat(few), p[:5], rtol=1e-3, atol=1e-4)
    assert outcome.test_accuracy == (p.argmax(1) == data.test.labels).double().mean().item()
    correct = p.argmax(1) == data.test.labels
    right = [int(correct[data.test.labels == c].sum()) for c in range(4)]
    assert outcome.class_accuracy == [hits / int((data.test.labels == c).sum()) for c, hits in enumerate(right)]
    assert outcome.facts() == {
        "test_accuracy": outcome.test_accuracy,
        "class_accuracy": outcome.class_accuracy,
        "steps": 8,
        "seconds": outcome.seconds,
    }


@pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning")
def test_grand_is_scored_after_each_epoch_for_what_is_trained_on() -> None:
    data = tiny_data()
    kept = dp.policies.Hardest(0.6)(torch.arange(65.0)).index
    sampler = dp.PruneSampler(dp.policies.Hardest(0.6), torch.arange(65.0))
    tracker = dp.DifficultyTracker(65, scores=("el2n", "grand"))
    recipe = Recipe(epochs=1, batch_size=16)
    model = train(data, "mlp", sampler, recipe, 0, tracker).model
    fresh = dp.DifficultyTracker(65, scores=("grand",))
    dp.score_checkpoint(model, in_order(kept, data, torch.device("cpu")), fresh)
    expected = fresh.compute()["grand"]
    torch.testing.assert_close(tracker.compute()["grand"], expected, equal_nan=True)
    assert (~expected.isnan()).nonzero()[:, 0].tolist() == kept.tolist()
    assert tracker.presentations == len(kept), "a checkpoint is no presentation for the scores of the step"


# Hold-out

shares = st.integers(0, 19).map(lambda twentieths: twentieths / 20)


@settings(max_examples=200)
@given(st.integers(1, 12), st.integers(1, 40), shares, st.integers(0, 5))
def test_after_any_number_of_runs_each_example_was_held_out_as_often_as_any_other(
    runs: int, size: int, share: float, seed: int
) -> None:
    times = sum(held_out(run, size, share, seed).astype(int) for run in range(runs))
    exact = runs * Fraction(round(share * 20), 20)
    assert set(times.tolist()) <= {math.floor(exact), math.ceil(exact)}


@given(st.integers(0, 12), st.integers(1, 40), shares, st.integers(0, 5))
def test_a_run_holds_out_its_share_and_always_the_same(run: int, size: int, share: float, seed: int) -> None:
    left_out = held_out(run, size, share, seed)
    assert left_out.dtype == bool
    assert left_out.shape == (size,)
    exact = size * Fraction(round(share * 20), 20)
    assert left_out.sum() in (math.floor(exact), math.ceil(exact))
    np.testing.assert_array_equal(held_out(run, size, share, seed), left_out)


def test_each_run_by_itself_holds_out_a_random_part() -> None:
    """Also the run that ends one deck and begins the next: every pair of examples is left out equally often."""
    seeds, size, share = 1500, 5, 0.4
    for run in range(4):
        drawn = np.stack([held_out(run, size, share, seed) for seed in range(seeds)]).astype(int)
        together = drawn.T @ drawn / seeds
        expected = np.where(np.eye(size, dtype=bool), 2 / 5, (2 / 5) * (1 / 4))
        assert np.abs(together - expected).max() < 4 * math.sqrt(0.25 / seeds)


def test_decks_are_shuffled_anew() -> None:
    sets = [tuple(held_out(run, 40, 0.25).tolist()) for run in range(12)]
    assert len(set(sets)) == 12
    assert all(not np.array_equal(a, b) for a, b in pairwise(sets))


@pytest.mark.parametrize(
    ("share", "runs", "error", "message"),
    [
        (1.0, 4, ValueError, r"hold_out: got 1\.0, expected a number in \[0, 1\)"),
        (-0.1, 4, ValueError, r"got -0\.1"),
        (float("nan"), 4, ValueError, "got nan"),
        ("0.3", 4, TypeError, "got '0.3'"),
        (True, 4, TypeError, "got True"),
        (0.1, 1, ValueError, r"got 0\.1 with runs 1, so that no run would train on some.* at most 0\.0"),
        (0.51, 2, ValueError, r"at most 0\.5, or more runs"),
        (0.667, 3, ValueError, r"at most 0\.666"),
    ],
)
def test_a_hold_out_that_makes_no_sense_is_refused(share, runs: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Settings(hold_out=share, runs=runs)


@given(st.integers(1, 8), shares, st.integers(1, 30))
def test_settings_accept_a_hold_out_just_when_each_example_is_seen_by_a_run(runs: int, share: float, size: int) -> None:
    try:
        Settings(hold_out=share, runs=runs)
    except ValueError:
        large = 20 * runs  # where no rounding hides it
        assert np.all([held_out(run, large, share) for run in range(runs)], axis=0).any()
    else:
        assert not np.all([held_out(run, size, share) for run in range(runs)], axis=0).any()


@pytest.mark.parametrize("name", dp.score_names())
def test_every_tracked_score_can_be_asked_for_and_no_other(name: str) -> None:
    if dp.SCORES[name].needs in ("features", "runs"):
        with pytest.raises(ValueError, match=rf"'{name}' is (not tracked|a score of several runs).*see dp\."):
            Settings(scores=(name,))
    else:
        assert Settings(scores=(name,)).scores == (name,)


def tasks(folder: Path, runs: int = 4, **changes) -> list[ScoringTask]:
    source = DataSource.of("digits")
    recipe = Recipe(epochs=1, batch_size=64)
    settings = {"recipe": recipe, "scores": ("el2n",), "hold_out": 0.3, "first_seed": 3, **changes}
    first = settings["first_seed"]
    return [
        ScoringTask(source, "mlp", seed, path=str(folder / f"{seed}.safetensors"), **settings)
        for seed in range(first, first + runs)
    ]


@pytest.fixture(scope="module")
def hold_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ScoringTask], dp.RunSet]:
    """Four finished scoring runs on the digits, each without 30 % of them."""
    done = tasks(tmp_path_factory.mktemp("runs"))
    for task in done:
        task.run(lambda steps: None)
    return done, dp.RunSet.load(task.path for task in done)


def test_a_run_scores_just_what_it_trained_on_and_predicts_everything(hold_out) -> None:
    done, runs = hold_out
    size = runs.num_examples
    for task, run in zip(done, runs, strict=True):
        np.testing.assert_array_equal(run.seen, task.seen(size))
        np.testing.assert_array_equal(run.seen, ~held_out(task.seed - 3, size, 0.3, seed=3))
        np.testing.assert_array_equal(np.isnan(run.scores["el2n"]), ~run.seen)
        assert run.probabilities.shape == (size, 10)
        assert run.metadata["hold_out"] == 0.3
        assert run.metadata["presentations"] == run.seen.sum()
    assert set(runs.seen.sum(0).tolist()) == {2, 3}
    assert not np.isnan(runs.difficulty("el2n")).any()
    check_all_scored(runs, "el2n")


def test_models_of_the_same_seed_see_the_examples_in_different_orders(tmp_path: Path) -> None:
    task, again = tasks(tmp_path, runs=1)[0], tasks(tmp_path, runs=1)[0]
    assert task.order_seed == again.order_seed
    assert len({replace(task, model=model, seed=seed).order_seed for model in MODELS for seed in range(5)}) == 25


def test_the_summary_tells_memorization_and_for_how_many_examples_runs_are_too_few(hold_out) -> None:
    _, runs = hold_out
    summary = together(runs)
    once = int(((~runs.seen).sum(0) == 1).sum())
    assert once > 0
    assert summary["runs"] == 4
    assert summary["memorization"]["too_few_runs"] == summary["held_out_consistency"]["too_few_runs"] == once
    assert summary["memorization"]["without_value"] == 0
    assert summary["model_accuracy"] == runs.dichotomy().to_dict()
    assert runs.held_out_consistency().value.mean() > 0.5, "digits are learned in one epoch"
    assert runs.memorization().value.mean() > -0.05


def test_runs_agree_over_what_each_of_them_scored(hold_out) -> None:
    _, runs = hold_out
    assert not runs.seen.all(0).any(), "no example was seen by all"
    mean = runs.mean("el2n")
    expected = []
    for run in runs:
        row = run.scores["el2n"][run.seen]
        ranks = [np.argsort(np.argsort(values)) for values in (row, mean[run.seen])]
        expected.append(np.corrcoef(*ranks)[0, 1])
    assert agreement_with_mean(runs)["el2n"] == pytest.approx(expected, abs=2e-4)


def test_a_finished_run_is_recognised_with_its_hold_out_and_no_other(hold_out) -> None:
    done, _ = hold_out
    assert all(task.is_done() for task in done)
    for changes, message in (
        ({"hold_out": 0.0}, r"hold_out is 0\.3 there and 0\.0 now"),
        ({"hold_out": 0.4}, r"hold_out is 0\.3 there and 0\.4 now"),
        ({"first_seed": 2}, "seen is other examples there and those of a study whose first seed is 2 now"),
    ):
        with pytest.raises(ValueError, match=f"of another study.*{message}"):
            replace(done[1], **changes).is_done()


def test_run_files_of_an_older_version_are_used_and_what_they_lack_is_left_out(tmp_path: Path) -> None:
    new, old = tasks(tmp_path, runs=2, hold_out=0.0)
    new.run(lambda steps: None)
    run = dp.Run.load(new.path)
    facts = {key: value for key, value in run.metadata.items() if key != "hold_out"}
    dp.Run(run.scores, labels=run.labels, **{**facts, "seed": old.seed}).save(old.path)
    assert new.is_done()
    assert old.is_done()
    runs = dp.RunSet.load([new.path, old.path])
    assert run.seen is None
    summary = together(runs)
    assert list(summary) == ["left_out"]
    assert "1 of 2 run files come from an older version and have no predictions" in summary["left_out"]
    assert f"mlp with seed {old.seed}" in summary["left_out"]
    assert list(together(dp.RunSet([run]))) == ["runs", "model_accuracy"]
    with pytest.raises(ValueError, match="of another study"):
        replace(old, hold_out=0.3).is_done()


def test_examples_without_a_score_are_named_before_anything_is_pruned() -> None:
    runs = dp.RunSet(dp.Run({"el2n": [0.5, np.nan, np.nan]}, architecture="mlp", seed=s) for s in range(2))
    with pytest.raises(ValueError, match=r"el2n: 2 of 3 examples have no value in any of the 2 runs, the first is 1"):
        check_all_scored(runs, "el2n")
