"""Photographs that stay in their files: read by workers, cut to size, the same whatever reads them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

import difficulty_prune as dp
from difficulty_prune.cli.main import main
from difficulty_prune.study import photographs, study_data
from difficulty_prune.study.images import Images
from difficulty_prune.study.photographs import Photographs, centre, open_rgb, random_part
from difficulty_prune.study.study_data import StudyData, load_data
from difficulty_prune.study.tasks import DataSource
from difficulty_prune.study.train import Batches, Recipe, in_order, predict, train
from difficulty_prune.support.randomness import generator_from

SIDE = 100


def write_photographs(folder: Path, per_class: int = 5) -> Path:
    """JPEG files of different sizes; those of dogs are darker."""
    generator = np.random.default_rng(0)
    for name, light in (("cat", 255), ("dog", 100)):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = generator.integers(0, light, (12 + i, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((160 + 10 * i, 120 + i)).save(folder / name / f"{i}.jpg")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs") / "all")


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "loading_workers", lambda: 2)


def drawn(data: Photographs, epoch: int, seed: int = 0) -> torch.Tensor:
    sampler = dp.PruneSampler(dp.policies.Random(1.0), torch.zeros(len(data)), shuffle=False)
    sampler.set_epoch(epoch)
    return torch.cat([images for images, _, _ in data.drawn(Batches(sampler, 3), seed)])


def test_large_images_stay_in_their_files_and_small_ones_do_not(folder: Path) -> None:
    large, small = load_data(f"imagefolder:{folder}", None, SIDE), load_data(f"imagefolder:{folder}", None, 96)
    assert isinstance(large.train, Photographs)
    assert isinstance(small.train, Images)
    assert (large.shape, small.shape) == ((3, 100, 100), (3, 96, 96))
    for name in ("labels", "ids", "class_names"):
        assert np.array_equal(getattr(large.train, name), getattr(small.train, name))
        assert np.array_equal(getattr(large.test, name), getattr(small.test, name))
    assert (len(large.train), len(large.test)) == (8, 2)


def test_too_many_small_images_are_read_when_needed_and_are_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = load_data(f"imagefolder:{folder}", None, 8).train
    monkeypatch.setattr(study_data, "_MEMORY_LIMIT", 3 * 8 * 8 * 8)
    read = load_data.__wrapped__(f"imagefolder:{folder}", None, 8).train
    assert isinstance(held, Images)
    assert isinstance(read, Photographs)
    assert torch.equal(read.at(range(8)), held.images)
    assert torch.equal(torch.cat([*read.batches(3)]), held.images)
    assert dp.dataset_fingerprint(read) == dp.dataset_fingerprint(held)
    assert torch.equal(drawn(read, 1), held.images), "what is not cut is shifted and flipped by the training"
    for found, expected in zip(read.moments(), held.moments(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


@pytest.mark.usefixtures("two_workers")
def test_what_workers_draw_depends_on_seed_epoch_and_position_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data(f"imagefolder:{folder}", None, SIDE).train
    before = torch.get_rng_state()
    first = drawn(data, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn(data, 0), first)
    assert not torch.equal(drawn(data, 1), first)
    assert not torch.equal(drawn(data, 0, seed=1), first)
    some = np.array([5, 2])
    part = data.select(some)
    assert torch.equal(drawn(part, 0), first[some]), "positions are those of the files"
    monkeypatch.setattr(photographs, "loading_workers", lambda: 0)
    assert torch.equal(drawn(data, 0), first)


def test_a_pass_has_the_images_labels_and_positions_of_the_sampler(folder: Path) -> None:
    data = load_data(f"imagefolder:{folder}", None, SIDE).train
    sampler = dp.PruneSampler(dp.policies.Hardest(0.5), torch.arange(8.0), seed=3)
    for random in (True, False):
        loader = data.drawn(Batches(sampler, 2), 0, random=random)
        for epoch in range(2):  # with the same workers
            sampler.set_epoch(epoch)
            found = list(loader)
            assert [index.tolist() for _, _, index in found] == [*Batches(sampler, 2)]
            assert all(torch.equal(labels, data.labels[index]) for _, labels, index in found)
            same = [torch.equal(images, data.at(index)) for images, _, index in found]
            assert same == [not random] * len(found)


def test_batches_have_every_image_once_and_in_order() -> None:
    numbered = [(torch.full((1, 2, 2), float(i)), i % 2) for i in range(300)]
    read = Photographs(numbered, torch.arange(300) % 2)
    chosen = torch.arange(299, -1, -2)
    for size in (7, 128, 1000):
        for positions, expected in ((None, torch.arange(300)), (chosen, chosen)):
            batches = list(read.batches(size, positions))
            assert torch.cat(batches)[:, 0, 0, 0].long().tolist() == expected.tolist()
            assert max(map(len, batches)) <= size
    data = StudyData(read, read, num_classes=2)
    found = list(in_order(chosen, data, torch.device("cpu"), size=1000))
    assert torch.cat([index for _, _, index in found]).tolist() == chosen.tolist()
    assert all(len(images) == len(labels) == len(index) for images, labels, index in found)


def test_random_parts_are_inside_large_enough_and_of_the_stated_shape() -> None:
    rows, columns = torch.meshgrid(torch.arange(120), torch.arange(200), indexing="ij")
    image = torch.stack([rows, columns, rows]).float()
    flipped, areas = 0, []
    for draw in range(300):
        part = random_part(image, 32, generator_from(0, draw))
        assert part.shape == (3, 32, 32)
        height, width = (float(part[c].max() - part[c].min()) * 32 / 31 for c in (0, 1))
        assert height <= 122
        assert width <= 202
        areas.append(height * width / image[0].numel())
        assert 0.7 < width / height < 1.42
        flipped += bool(part[1, 0, 0] > part[1, 0, -1])
    assert 110 < flipped < 190
    assert min(areas) > 0.33
    assert 0.45 < np.mean(areas) < 0.65, "the largest squarish parts do not fit into a wide image"


def test_the_widest_part_that_fits_is_taken_of_a_strip_and_its_middle_is_tested() -> None:
    strip = torch.arange(1000.0).repeat(3, 10, 1)
    part = random_part(strip, 4, generator_from(0))
    assert part.min() > 490
    assert part.max() < 510
    assert part.max() - part.min() > 8
    square = centre(strip, 4)
    assert float(square.mean()) == pytest.approx(499.5, abs=1)
    assert float(square.max() - square.min()) == pytest.approx(9 * 3 / 4, abs=0.5)


def test_large_jpegs_are_decoded_smaller_but_never_too_small(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((900, 1600, 3), np.uint8)).save(path)
    assert open_rgb(str(path)).size == (1600, 900)
    assert open_rgb(str(path), side=100).size == (400, 225)
    assert open_rgb(str(path), side=300).size == (1600, 900)


@pytest.mark.usefixtures("two_workers")
def test_reading_all_finds_what_cannot_be_used_by_name(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "a")
    data = load_data(f"imagefolder:{folder}", f"imagefolder:{folder}", SIDE).train
    done: list[int] = []
    data.read_all(done.append)
    assert done[-1] == len(data) == 10
    whole = (folder / "cat" / "1.jpg").read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], r"data: image .*dog/1\.jpg cannot be read \(.*truncated.*; replace or remove it$"),
        (b"text", r"data: image .*dog/1\.jpg cannot be read"),
    ):
        (folder / "dog" / "1.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_data.__wrapped__(f"imagefolder:{folder}", f"imagefolder:{folder}", SIDE).train.read_all()


def test_a_digest_is_of_every_image_and_label(folder: Path, tmp_path: Path) -> None:
    spec = f"imagefolder:{folder}"
    data = load_data(spec, spec, SIDE).train
    assert data.digest == load_data.__wrapped__(spec, spec, SIDE).train.digest
    other = write_photographs(tmp_path / "a")
    found = {data.digest, load_data(spec, spec, SIDE + 1).train.digest, data.with_labels(1 - data.labels).digest}
    Image.new("RGB", (160, 120)).save(other / "dog" / "4.jpg")
    found.add(load_data(f"imagefolder:{other}", f"imagefolder:{other}", SIDE).train.digest)
    assert len(found) == 4


def test_a_worker_of_a_study_refuses_other_photographs(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "a")
    source = DataSource.of(f"imagefolder:{folder}", None, SIDE)
    load_data.cache_clear()
    assert len(source.load().train) == 8
    Image.new("RGB", (160, 120)).save(folder / "dog" / "3.jpg")
    load_data.cache_clear()
    with pytest.raises(ValueError, match=r"data: the (training|test) data of .* in a worker, expected"):
        source.load()


class Stored(Dataset):
    """Large arrays, by a class of the user's own."""

    def __init__(self, targets: list[int] | None = None, wrong: int = -1) -> None:
        self.wrong = wrong
        if targets is not None:
            self.targets = targets

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.full((120, 130 + index, 3), 20 * index, np.uint8), index % 2 ^ (index == self.wrong)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Dataset]]:
    (tmp_path / "my_photographs.py").write_text("made = {}\ndef data():\n    return made['data'], made['data']\n")
    monkeypatch.syspath_prepend(tmp_path)
    import my_photographs

    yield my_photographs.made
    sys.modules.pop("my_photographs")


@pytest.mark.usefixtures("two_workers")
def test_data_of_the_users_own_are_read_like_a_folder(own: dict[str, Dataset]) -> None:
    for known in ([i % 2 for i in range(10)], None):
        own["data"] = Stored(known)
        data = load_data.__wrapped__("my_photographs:data", None, SIDE).train
        data.read_all()
        assert data.labels.tolist() == [0, 1] * 5
        assert data.at([3]).unique().tolist() == [60]
    own["data"] = Stored([i % 2 for i in range(10)], wrong=7)
    with pytest.raises(ValueError, match="image 7 comes with label 0, but the dataset says that it has 1"):
        load_data.__wrapped__("my_photographs:data", None, SIDE).train.read_all()


@pytest.mark.usefixtures("two_workers")
def test_a_training_on_photographs_scores_them_and_equal_seeds_give_equal_models(folder: Path) -> None:
    data = load_data(f"imagefolder:{folder}", None, SIDE)

    def trained(augment: bool = True, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        tracker = dp.DifficultyTracker(8, scores=("el2n", "vog_loss"))
        sampler = dp.PruneSampler(dp.policies.Random(1.0), torch.zeros(8), seed=1)
        recipe = Recipe(epochs=2, batch_size=4, augment=augment)
        model = train(data, "cnn", sampler, recipe, seed, tracker).model
        assert tracker.presentations == 16
        assert bool((tracker.compute()["vog_loss"] > 0).all())
        return tracker.compute()["el2n"], predict(model, data, data.train)

    first, again = trained(), trained()
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], trained(augment=False)[0])


def test_a_study_of_photographs_runs_and_refuses_a_damaged_file_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # or threads that wait take the time of a busy machine
    folder = write_photographs(tmp_path / "a", per_class=10)
    arguments = ["study", "--data", f"imagefolder:{folder}", "--size", str(SIDE), "--epochs", "1", "--runs", "1"]
    arguments += ["--batch-size", "8", "--lr", "0.05", "--no-augment", "--scores", "el2n", "--keep", "--out", "out"]
    assert main(arguments) == 0
    err = capsys.readouterr().err
    assert "reading 1 of 2 (16 training images) finished" in err
    run = dp.Run.load("out/runs/cnn-0.safetensors")
    assert run.metadata["recipe"]["batch_size"] == 8
    assert run.metadata["recipe"]["augment"] is False
    assert set(run.ids) <= {f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(10)}
    assert (tmp_path / "out" / "figures" / "hardest.png").exists()
    (folder / "dog" / "3.jpg").write_bytes(b"text")
    assert main([*arguments[:-1], "other"]) == 2
    message = [line for line in capsys.readouterr().err.splitlines() if "finished after" not in line]
    assert len(message) == 1
    assert "dog/3.jpg cannot be read" in message[0]
    assert not Path("other").exists()


def test_from_a_thread_of_an_executor_no_process_is_made() -> None:
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(photographs.loading_workers).result() == 0
    assert photographs.loading_workers() >= 1
