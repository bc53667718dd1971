"""Which example is which: ids of datasets of every kind, and samples that come in place of others."""

from __future__ import annotations

import copy
import os
import pickle
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset

import difficulty_prune as dp

ImageFolder = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed").ImageFolder

FILES = ["cat/a.png", "cat/b.png", "dog/a.png", "dog/deep/c.png", "emu/z.png"]
LABELS = [0, 0, 1, 1, 2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shade, name in enumerate(FILES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (shade, 0, 0)).save(tmp_path / name)
    return tmp_path


def spoil(folder: Path, position: int) -> None:
    (folder / FILES[position]).write_bytes(b"no image")


def shade(image: Any) -> int:
    """Which file an image is of."""
    return int(image.getpixel((0, 0))[0])


class Tolerant(ImageFolder):
    """Returns the next sample where one cannot be read, as many datasets of people's own do."""

    failed = 0

    def __getitem__(self, index: int) -> Any:
        try:
            return super().__getitem__(index)
        except OSError:
            self.failed += 1
            return self[(index + 1) % len(self)]


class Lookup(Tolerant):
    """One that also looks through its list of files, and remembers what it found."""

    place = -1

    def __getitem__(self, index: int) -> Any:
        path, _ = self.samples[index]
        self.place = next(i for i, (other, _) in enumerate(self.samples) if other == path)
        return super().__getitem__(copy.copy(self).place)


class Loop(ImageFolder):
    def __getitem__(self, index: int) -> Any:
        while True:
            path, target = self.samples[index]
            try:
                return self.loader(path), target
            except OSError:
                index = (index + 1) % len(self)


def test_image_folder_knows_its_files(folder: Path) -> None:
    train = dp.IndexedDataset(ImageFolder(os.fspath(folder)))
    assert train.ids is not None
    assert train.ids.tolist() == FILES
    assert train.collect_ids() is train.ids
    assert train.labels is not None
    assert train.labels.tolist() == LABELS
    assert train.class_names == ("cat", "dog", "emu")
    assert [train[i][1:] for i in range(5)] == [(label, i) for i, label in enumerate(LABELS)]
    half = dp.IndexedDataset(Subset(train.dataset, [3, 1]))
    assert half.ids is not None
    assert half.ids.tolist() == [FILES[3], FILES[1]]
    assert half.labels is not None
    assert half.labels.tolist() == [1, 0]
    assert half[0][2] == 0


def test_the_root_may_be_written_in_any_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for root in (folder.name, f"{folder.name}/", f"./{folder.name}", os.fspath(folder)):
        ids = dp.IndexedDataset(ImageFolder(root), key="path").ids
        assert ids is not None
        assert ids.tolist() == FILES


def test_other_labels_by_a_transform_are_not_known(folder: Path) -> None:
    train = dp.IndexedDataset(ImageFolder(os.fspath(folder), target_transform=lambda y: y // 2))
    assert train.ids is not None
    assert train.labels is None
    assert train.class_names is None


@pytest.mark.parametrize("kind", [Tolerant, Lookup, Loop])
@pytest.mark.parametrize("part", [None, [1, 2, 4]])
def test_the_index_is_that_of_the_sample_that_came(kind: Any, part: Any, folder: Path) -> None:
    spoil(folder, 1)
    dataset = kind(os.fspath(folder))
    chosen = list(range(5)) if part is None else part
    train = dp.IndexedDataset(dataset if part is None else Subset(dataset, part))
    came = [train[i] for i in range(len(train))]
    for image, label, index in came:
        assert chosen[index] == shade(image)
        assert LABELS[chosen[index]] == label
    assert [index for *_, index in came] == [chosen.index(2 if i == 1 else i) for i in chosen]
    assert train.__getitems__([0, 1])[1][2] == came[1][2]
    again = pickle.loads(pickle.dumps(train))  # noqa: S301 - as workers get it
    assert [again[i][2] for i in range(len(train))] == [index for *_, index in came]


def test_a_dataset_keeps_what_it_remembers_and_its_attributes(folder: Path) -> None:
    spoil(folder, 1)
    dataset = Tolerant(os.fspath(folder))
    train = dp.IndexedDataset(dataset)
    samples, loader = dataset.samples, dataset.loader
    for _ in range(3):
        assert train[1][2] == 2
    assert dataset.failed == 3
    assert dataset.samples is samples
    assert dataset.loader is loader
    train.transform = shade  # on the dataset
    assert train[1] == (2, 1, 2)


def test_a_substitute_outside_the_subset_is_an_error(folder: Path) -> None:
    spoil(folder, 1)
    train = dp.IndexedDataset(Subset(Tolerant(os.fspath(folder)), [0, 1]))
    with pytest.raises(ValueError, match=r"example 1 could not be read.* its example 2 .*not in this subset"):
        train[1]


def test_several_files_for_one_sample(folder: Path) -> None:
    class Pairs(ImageFolder):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index), super().__getitem__(4)

    dataset = Pairs(os.fspath(folder))
    with pytest.raises(ValueError, match=r"for example 1 the files of examples 1, 4 were read.*key=False"):
        dp.IndexedDataset(dataset)[1]
    train = dp.IndexedDataset(dataset, key=False)
    assert train.ids is None
    assert train[1][2] == 1


class Ring:
    """Dict samples with a name; the next one where one is broken."""

    def __init__(self, names: list[Any], broken: tuple[int, ...] = ()) -> None:
        self.names, self.broken = names, broken

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        while index in self.broken:
            index = (index + 1) % len(self)
        return {"__key__": self.names[index], "x": float(index)}


Pair = namedtuple("Pair", ["x", "name"])
NAMES = ["r", "s", "t", "u"]


class Shaped:
    """The same with samples of another kind."""

    def __init__(self, shape: Callable[[dict[str, Any]], Any], broken: tuple[int, ...] = ()) -> None:
        self.ring, self.shape = Ring(NAMES, broken), shape

    def __len__(self) -> int:
        return len(self.ring)

    def __getitem__(self, index: int) -> Any:
        return self.shape(self.ring[index])


def by_name(sample: dict[str, Any]) -> Pair:
    return Pair(sample["x"], sample["__key__"])


def as_tuple(sample: dict[str, Any]) -> tuple[Any, ...]:
    return sample["x"], sample["__key__"]


@pytest.mark.parametrize(
    ("dataset", "key"),
    [
        (Ring(NAMES), "__key__"),
        (Shaped(by_name), "name"),
        (Shaped(as_tuple), 1),
        (Shaped(as_tuple), -1),
        (Shaped(as_tuple), lambda sample: sample[1]),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_the_sample_brings_its_id(dataset: Any, key: Any, workers: int) -> None:
    train = dp.IndexedDataset(dataset, key=key, index_key="i")
    assert train.ids is None
    with pytest.raises(ValueError, match=r"call collect_ids\(\) first"):
        train[0]
    assert train.collect_ids(num_workers=workers if not callable(key) else 0).tolist() == NAMES
    broken = copy.deepcopy(train)
    (broken.dataset if isinstance(dataset, Ring) else broken.dataset.ring).broken = (1, 2)
    came = [broken[i] for i in range(4)]
    index = [sample["i"] if isinstance(sample, dict) else sample[-1] for sample in came]
    assert index == [0, 3, 3, 3]
    assert [sample["x"] if isinstance(sample, dict) else sample[0] for sample in came] == index


def test_ids_that_are_known_need_no_reading() -> None:
    train = dp.IndexedDataset(Ring(NAMES, broken=(1,)), key="__key__", ids=NAMES)
    assert train.collect_ids().tolist() == NAMES
    assert [train[i]["index"] for i in range(4)] == [0, 2, 2, 3]
    tensors = dp.IndexedDataset(TensorDataset(torch.zeros(2)), ids=[7, 5])
    assert tensors.ids is not None
    assert tensors.ids.tolist() == [7, 5]
    assert tensors[1] == (0, 1)
    with pytest.raises(ValueError, match="ids: got 1, expected 2"):
        dp.IndexedDataset(TensorDataset(torch.zeros(2)), ids=[7])


def test_collecting_touches_no_global_generator() -> None:
    before = torch.get_rng_state()
    dp.IndexedDataset(Ring(NAMES), key="__key__").collect_ids()
    assert torch.equal(torch.get_rng_state(), before)


def test_ids_in_a_loader() -> None:
    train = dp.IndexedDataset(Ring([7, 3, 5]), key="__key__")
    train.collect_ids()
    train.dataset.broken = (0,)
    for batch in DataLoader(train, batch_size=3, num_workers=1):
        assert batch["index"].tolist() == [1, 1, 2]
        assert batch["__key__"].tolist() == [3, 3, 5]


@pytest.mark.parametrize(
    ("dataset", "key", "kind", "said"),
    [
        (Ring(["a", "b", "a"]), "__key__", ValueError, "key '__key__': 'a' names both example 0 and example 2"),
        (Ring(["a", "b", "c"], broken=(1,)), "__key__", ValueError, "'c' names both example 1 and example 2"),
        (Ring(["a"]), "name", ValueError, "sample of example 0 is a mapping with '__key__', 'x'"),
        (Shaped(as_tuple), 2, ValueError, "sample of example 0 is a tuple of 2"),
        (Shaped(by_name), "id", ValueError, "a named tuple with x, name"),
        (Ring([1.5]), "__key__", TypeError, "got 1.5 for example 0"),
        (Ring(["a"]), None, ValueError, "names no examples; say how with key="),
        (Ring(["a"]), False, ValueError, "names no examples"),
    ],
)
def test_ids_that_cannot_be_collected(dataset: Any, key: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        dp.IndexedDataset(dataset, key=key).collect_ids()


@pytest.mark.parametrize("key", [1.5, True, ["a"]])
def test_what_is_no_key(key: Any) -> None:
    with pytest.raises(TypeError, match="key: got"):
        dp.IndexedDataset([(1, 2)], key=key)


def test_a_dataset_without_files_has_no_paths() -> None:
    with pytest.raises(ValueError, match="'path', but TensorDataset does not know its files"):
        dp.IndexedDataset(TensorDataset(torch.zeros(2)), key="path")
    plain = dp.IndexedDataset(TensorDataset(torch.zeros(2), torch.tensor([4, 2])))
    assert plain.ids is None
    assert plain.class_names is None
    assert plain.labels is not None
    assert plain.labels.tolist() == [4, 2]
    assert dp.IndexedDataset([("a", 1)]).labels is None  # which only reading would tell


def test_files_that_are_named_twice(folder: Path) -> None:
    dataset = ImageFolder(os.fspath(folder))
    dataset.samples = dataset.samples + dataset.samples[:1]
    with pytest.raises(ValueError, match=r"path: 'cat/a\.png' names both example 0 and example 5"):
        dp.IndexedDataset(dataset, key="path")
    train = dp.IndexedDataset(dataset)  # which works as long as nobody asks for ids
    assert train[5][2] == 5
    with pytest.raises(ValueError, match="names both example 0 and example 5"):
        _ = train.ids


def test_an_id_that_is_unknown() -> None:
    train = dp.IndexedDataset(Ring(["a", "b"]), key="__key__")
    train.collect_ids()
    train.dataset.names[1] = "z"
    with pytest.raises(ValueError, match=r"asked for example 1.* id 'z', which is not among its 2 ids"):
        train[1]


# Libraries


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_timm_returns_the_next_image(folder: Path) -> None:  # and leaves files open
    timm_data = pytest.importorskip("timm.data", reason="timm is not installed")
    spoil(folder, 3)
    spoil(folder, 1)
    dataset = timm_data.ImageDataset(os.fspath(folder))
    order = [Path(name).as_posix() for name in dataset.filenames()]
    train = dp.IndexedDataset(dataset)
    assert train.ids is not None
    assert train.ids.tolist() == order
    assert sorted(order) == FILES
    assert train.class_names is not None
    reader = dataset.reader
    for position in range(5):
        image, label, index = train[position]
        assert order[index] == FILES[shade(image)]
        assert train.labels is not None
        assert train.labels[index] == label
        assert (index == position) == (order[position] not in (FILES[1], FILES[3]))
    assert dataset.reader is reader


def test_columns_of_a_hugging_face_dataset() -> None:
    hf = pytest.importorskip("datasets", reason="datasets is not installed")
    features = hf.Features({"doc": hf.Value("string"), "label": hf.ClassLabel(names=["no", "yes"])})
    dataset = hf.Dataset.from_dict({"doc": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    read: list[Any] = []
    dataset.set_transform(lambda batch: read.append(1) or {"label": batch["label"]})
    train = dp.IndexedDataset(dataset, key="doc")
    assert train.ids is not None
    assert train.ids.tolist() == ["a", "b", "c"]
    assert train.labels is None  # which the transform may change
    assert train.class_names is None
    assert not read
    assert train[1] == {"label": 0, "index": 1}
    plain = dp.IndexedDataset(dataset.with_format(None), key="doc")
    assert plain.labels is not None
    assert plain.labels.tolist() == dp.data.dataset_labels(plain).tolist() == [1, 0, 1]
    assert plain.class_names == ("no", "yes")
    assert plain[[2, 0]]["index"].tolist() == [2, 0]
    assert plain[2] == {"doc": "c", "label": 1, "index": 2}
    assert dp.IndexedDataset(dataset).ids is None
    assert np.array_equal(dp.IndexedDataset(dataset.select([2, 0]), key="doc").ids, np.array(["c", "a"], object))
