"""Runs of a study name their examples: through splitting, holding out, workers, and files of earlier versions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import ConcatDataset, Subset

import difficulty_prune as dp
from difficulty_prune.study.study_data import StudyData, load_data
from difficulty_prune.study.tasks import DataSource, ScoringTask, unfinished_runs
from difficulty_prune.study.train import Recipe

ImageFolder = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed").ImageFolder

CLASSES = ("cat", "dog")
EACH = 20


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images, each of which has a gray of its own, so that its pixels tell which file they are of."""
    for number, name in enumerate(CLASSES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(EACH):
            gray = np.full((8, 8, 3), number * EACH + i, np.uint8)
            Image.fromarray(gray).save(tmp_path / "photos" / name / f"{i:02}.png")
    return tmp_path / "photos"


def paths_by_gray(photos: Path) -> NDArray[np.object_]:
    return np.array([f"{name}/{i:02}.png" for name in CLASSES for i in range(EACH)], object)


def task(photos: Path, seed: int = 0, **changes: object) -> ScoringTask:
    load_data.cache_clear()  # as in a new process
    source = DataSource.of(f"imagefolder:{photos}")
    path = photos.parent / "runs" / f"mlp-{seed}.safetensors"
    path.parent.mkdir(exist_ok=True)
    return replace(ScoringTask(source, "mlp", seed, Recipe(1, batch_size=8), ("el2n",), str(path)), **changes)


def test_a_split_and_a_resized_image_keep_their_names(photos: Path) -> None:
    data = load_data(f"imagefolder:{photos}", size=4)
    for part in (data.train, data.test):
        assert part.ids is not None
        grays = part.images[:, 0, 0, 0].numpy()
        assert part.ids.tolist() == paths_by_gray(photos)[grays].tolist()
        assert part.class_names == CLASSES
    assert len(data.test) == 8
    assert not set(data.train.ids) & set(data.test.ids)


def test_a_run_names_its_examples_and_classes_also_with_some_left_out(photos: Path) -> None:
    one = task(photos, hold_out=0.5)
    one.run(lambda steps: None)
    run, data = dp.Run.load(one.path), load_data(one.source.spec)
    assert run.ids is not None
    assert run.ids.tolist() == data.train.ids.tolist()
    assert run.class_names == CLASSES
    assert [name.split("/")[0] for name in run.ids] == [CLASSES[label] for label in run.labels]
    assert np.isnan(run.scores["el2n"]).tolist() == (~run.seen).tolist()
    whole = dp.IndexedDataset(ImageFolder(photos))
    report = dp.RunSet([run]).match(whole).report
    assert (report.matched, report.vanished, report.new, report.moved_class) == (32, 0, 8, 0)
    assert one.is_done()


def test_a_run_of_an_earlier_version_without_ids_is_reused(photos: Path) -> None:
    old, new = task(photos), task(photos, 1)
    for each in (old, new):
        each.run(lambda steps: None)
    run = dp.Run.load(old.path)
    facts = {"seen": run.seen, "labels": run.labels, "probabilities": run.probabilities, **run.metadata}
    dp.Run(run.scores, **facts).save(old.path)
    assert dp.Run.load(old.path).ids is None
    assert unfinished_runs([old, new]) == []
    runs = dp.RunSet.load([old.path, new.path])
    assert runs.ids.tolist() == dp.Run.load(new.path).ids.tolist()
    assert [each.has("ids") for each in runs] == [False, True]


def test_runs_of_files_that_were_renamed_are_refused(photos: Path) -> None:
    """Pixels and labels, in their order, are the same."""
    before = task(photos)
    before.run(lambda steps: None)
    assert before.is_done()
    (photos / "dog" / "19.png").rename(photos / "dog" / "20.png")
    after, another = task(photos), task(photos, 1)
    assert after.source.train_digest == before.source.train_digest
    for wanted in ([after], [another]):
        with pytest.raises(ValueError, match=r"mlp-0\.safetensors is of another study.*ids is .*another --out"):
            unfinished_runs(wanted)
    load_data.cache_clear()
    with pytest.raises(ValueError, match=r"training examples of imagefolder:.* have other names in a worker"):
        before.source.load()


# Data from functions

Load = Callable[[object], StudyData]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    (tmp_path / "made_here.py").write_text("found = []\ndef train():\n    return found[0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_here", raising=False)

    def read(dataset: object) -> StudyData:
        import made_here

        made_here.found[:] = [dataset]
        return load_data.__wrapped__("made_here:train")

    return read


def tensors(sample: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(sample)).permute(2, 0, 1)


def test_data_of_functions_keep_the_names_that_they_know(photos: Path, load: Load) -> None:
    folder = ImageFolder(photos, tensors)
    part = [*range(0, 2 * EACH, 2)]
    for dataset, number in ((folder, 40), (Subset(folder, part), 20), (dp.IndexedDataset(Subset(folder, part)), 20)):
        data = load(dataset)
        assert data.train.ids is not None
        assert data.train.ids.tolist() == paths_by_gray(photos)[data.train.images[:, 0, 0, 0].numpy()].tolist()
        assert len(data.train) + len(data.test) == number
        assert data.train.class_names == CLASSES
    keys = [f"k{gray}" for gray in range(2 * EACH)]
    data = load(dp.IndexedDataset(folder, key=lambda sample: f"k{int(sample[0][0, 0, 0])}", ids=keys))
    assert data.train.ids.tolist() == [f"k{gray}" for gray in data.train.images[:, 0, 0, 0].tolist()]
    for without in (ConcatDataset([folder]), dp.IndexedDataset(folder, key=False)):
        assert load(without).train.ids is None


def test_examples_that_occur_twice_have_no_names_and_must_say_so(photos: Path, load: Load) -> None:
    twice = Subset(ImageFolder(photos, tensors), [0, 0, *range(1, 40)])
    with pytest.raises(ValueError, match=r"data: path: 'cat/00.png' names both example 0 and example 1.*key=False"):
        load(twice)
    assert load(dp.IndexedDataset(twice, key=False)).train.ids is None


class Lenient(ImageFolder):
    """Returns the next image where one cannot be read."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        try:
            return super().__getitem__(index)
        except OSError:
            return self[index + 1]


def test_an_image_in_place_of_another_is_refused(photos: Path, load: Load) -> None:
    (photos / "cat" / "03.png").write_bytes(b"no image")
    folder = Lenient(photos, tensors)
    for dataset in (folder, dp.IndexedDataset(folder)):
        with pytest.raises(ValueError, match=r"data: image .*3.* cannot be read, .* returned image .*4.* in its place"):
            load(dataset)


def test_class_names_of_other_labels_are_left_out(photos: Path, load: Load) -> None:
    relabelled = ImageFolder(photos, tensors, target_transform=lambda label: 1 - label)
    assert load(relabelled).train.class_names is None
    more = ImageFolder(photos, tensors)
    more.samples = [(path, label + (path[-5] == "9")) for path, label in more.samples]
    assert load(more).train.class_names is None, "three classes, two names"
