"""Images that stay in their files: workers read each one when it is needed, and cut it to size."""

from __future__ import annotations

import functools
import hashlib
import math
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ..support.randomness import generator_from
from .read_sample import bring_to, check_shape, cut_out, name_of, read_sample

PHOTOGRAPHS_FROM: Final = 97  # pixels a side
LEAST_AREA: Final = 0.35  # of a photograph, that a random part of it has
WIDEST: Final = 4 / 3  # ratio of the sides of such a part
CENTRE: Final = 7 / 8  # of the shorter side, that is shown to the model for a test
_INSTEAD: Final = "or read the data by a function of your own, --data your.module:function"
_LARGEST_BATCH: Final = 32  # of a test: with larger ones it would take more memory than the training
_MOST_WORKERS: Final = 16
_STATISTICS_FROM: Final = 1_000  # photographs
_PART: Final = 5  # the purpose of a generator
_TRIES: Final = 10

Key = tuple[int, int]
"""Epoch and position: what a photograph is drawn by."""


def are_photographs(side: int | None) -> bool:
    """Whether images that are brought to so many pixels a side are cut out of the originals again and again."""
    return side is not None and side >= PHOTOGRAPHS_FROM


def open_rgb(path: str, side: int | None = None) -> Any:
    """The image in a file, a PIL image in mode RGB.

    Args:
        side: a JPEG file that has several times as many pixels is decoded smaller at once, which is much faster; parts
            of it still have `side` pixels a side.

    Raises:
        ValueError: pixels of more than 8 bits, which PIL would cut off, or an image that is transparent somewhere,
            whose colours there nobody has seen.
        OSError, SyntaxError: no image, or a damaged one.
    """
    from PIL import Image

    with Image.open(path) as image:
        if side is not None:
            image.draft(None, (2 * side, 2 * side))  # in any mode
        return as_rgb(image, path)


def as_rgb(image: Any, name: str) -> Any:
    """A PIL image in mode RGB; ValueError as `open_rgb` says."""
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(
            f"data: image {name} has mode {image.mode}, pixels of more than 8 bits, expected 8 bits per channel: "
            f"scale the values to 0 to 255 and save them anew, {_INSTEAD}"
        )
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image.convert("RGB")
    whole = image.convert("RGBA")
    if np.asarray(whole)[..., 3].min() < 255:
        raise ValueError(
            f"data: image {name} is transparent in places, expected an opaque one: put it on a background, such as "
            f"white, and save it anew, {_INSTEAD}"
        )
    return whole.convert("RGB")


def random_part(image: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A part of at least 35 % of the area of an image [C, H, W], in half of all cases flipped; [C, side, side].

    As torchvision's RandomResizedCrop draws it, and RandomHorizontalFlip, but from a generator of one's own.
    """
    top, left, height, width = _part(image.shape[1], image.shape[2], generator)
    part = cut_out(image, top, left, height, width, side)
    return part.flip(2) if float(torch.rand((), generator=generator)) < 0.5 else part


def _part(height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width; the largest part in the centre where no drawn one fits."""
    for _ in range(_TRIES):
        area, ratio, down, right = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        pixels = height * width * (LEAST_AREA + (1 - LEAST_AREA) * area)
        shape = math.exp(math.log(WIDEST) * (2 * ratio - 1))
        h, w = round(math.sqrt(pixels / shape)), round(math.sqrt(pixels * shape))
        if 0 < h <= height and 0 < w <= width:
            return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
    h, w = min(height, round(width * WIDEST)), min(width, round(height * WIDEST))
    return (height - h) // 2, (width - w) // 2, h, w


def centre(image: Tensor, side: int) -> Tensor:
    """The square in the centre of an image [C, H, W], 7/8 of its shorter side; [C, side, side]."""
    height, width = image.shape[1:]
    square = max(1, round(CENTRE * min(height, width)))
    return cut_out(image, (height - square) // 2, (width - square) // 2, square, square, side)


class Photographs(Dataset[tuple[Tensor, int]]):
    """Labelled images that are read when they are asked for. A sample is (image, label).

    Brought to more than 96 pixels a side, an image is cut: at random in training (`random_part`), and in its centre
    otherwise (`centre`). Smaller ones, which only are too many to be held in memory, are squeezed into a square, and
    those of no `side` stay as they are; the training shifts and flips these as it does images in memory.

    Args:
        dataset: map-style, of (image, label).
        labels: [N] int64.
        side: pixels a side; None for as they are.
        positions: [N] of the examples among those of `dataset`; None for all.
        class_names, ids, names_inside: as for `Images`.
    """

    def __init__(
        self,
        dataset: Any,
        labels: Tensor,
        side: int | None = None,
        positions: NDArray[Any] | None = None,
        class_names: tuple[str, ...] | None = None,
        ids: NDArray[Any] | None = None,
        names_inside: tuple[str, ...] | None = None,
    ) -> None:
        self.dataset, self.side = dataset, side
        self.labels = self._stored = labels
        self.positions = np.arange(len(labels)) if positions is None else positions
        self.class_names, self.ids, self.names_inside = class_names, ids, names_inside
        self._digest: str | None = None

    def select(self, positions: NDArray[Any]) -> Photographs:
        """Those at these positions."""
        ids = None if self.ids is None else self.ids[positions]
        names = self.class_names, ids, self.names_inside
        part = Photographs(self.dataset, self.labels[positions], self.side, self.positions[positions], *names)
        part._stored = self._stored[positions]
        return part

    def with_labels(self, labels: Tensor) -> Photographs:
        """The same photographs with other labels."""
        other = Photographs(self.dataset, labels, self.side, self.positions, self.class_names, self.ids)
        other._stored = self._stored
        return other

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._read(index, self._for_test), int(self.labels[index])

    @property
    def cut(self) -> bool:
        """Whether workers cut a part out of each, so that the training need not shift and flip them."""
        return are_photographs(self.side)

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width), of the first one."""
        channels, height, width = self[0][0].shape
        return channels, height, width

    def at(self, positions: Any) -> Tensor:
        """The images at these positions [K], as the model is tested on them: [K, C, H, W]."""
        return torch.stack([self[int(position)][0] for position in positions])

    def batches(self, size: int, positions: Tensor | None = None) -> Iterator[Tensor]:
        """All images, or those at these positions, in order, in batches of `size` or fewer."""
        chosen = range(len(self)) if positions is None else positions.tolist()
        step = min(size, _LARGEST_BATCH)
        parts = [chosen[start : start + step] for start in range(0, len(chosen), step)]
        for images, _ in _loaded(self.__getitem__, parts):
            yield images

    def drawn(self, batches: EpochBatches, seed: int, random: bool = True) -> Drawn:
        """Batches (images, labels, index) of a training, a pass over `batches` at a time.

        Args:
            batches: of positions, by a sampler whose epochs count up.
            seed: of the random parts, which depend on it, the epoch and the position alone.
            random: whether to cut at random.
        """
        return Drawn(functools.partial(self._drawn, seed if random and self.cut else None), batches)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, each [C, 1, 1], of at most about 1,000 photographs."""
        number, total, squares = 0, torch.zeros(self.shape[0]).double(), torch.zeros(self.shape[0]).double()
        for images in self.batches(64, torch.arange(0, len(self), max(1, len(self) // _STATISTICS_FROM))):
            pixels = images.double().movedim(1, 0).flatten(1)
            number += pixels.shape[1]
            total, squares = total + pixels.sum(1), squares + pixels.square().sum(1)
        mean = total / number
        deviation = (squares / number - mean.square()).clamp(min=0).sqrt()
        return mean.float()[:, None, None], deviation.float()[:, None, None]

    @property
    def digest(self) -> str:
        """A hash of all images, as they are tested, and labels, 32 hexadecimal digits; see `read_all`."""
        if self._digest is None:
            self.read_all()
        return str(self._digest)

    def read_all(self, report: Callable[[int], None] = lambda done: None) -> None:
        """Reads every image once, so that what cannot be used is found before any training, and takes the digest.

        Args:
            report: called with the number of images read so far.

        Raises:
            TypeError, ValueError: a sample that is no (image, label), a file that is no image or cannot be used, an
                image of another shape, or a label that is not what the dataset says that it is.
        """
        if self._digest is not None:
            return
        total, done = hashlib.blake2b(digest_size=16), 0
        parts = [range(start, min(start + 64, len(self))) for start in range(0, len(self), 64)]
        for digests, _ in _loaded(functools.partial(self._examined, self.shape), parts, collate=_as_they_are):
            total.update(b"".join(digests))
            done += len(digests)
            report(done)
        total.update(self.labels.numpy().tobytes())
        self._digest = total.hexdigest()

    def _examined(self, shape: tuple[int, int, int], index: int) -> tuple[bytes, int]:
        position = int(self.positions[index])
        image, label = read_sample(self.dataset, position, self._for_test)
        check_shape(self.dataset, position, image, shape)
        stored = int(self._stored[index])
        if label != stored:
            raise ValueError(
                f"data: {name_of(self.dataset, position)} comes with label {label}, but the dataset says that it has "
                f"{stored}, in `targets` or `labels`; make them agree"
            )
        content = image.contiguous().view(-1).view(torch.uint8).numpy()
        return hashlib.blake2b(content.data, digest_size=16, person=str(image.dtype)[-16:].encode()).digest(), label

    def _drawn(self, seed: int | None, key: Key) -> tuple[Tensor, int, int]:
        epoch, index = key
        if seed is None or self.side is None:
            return self._read(index, self._for_test), int(self.labels[index]), index
        generator = generator_from(seed, _PART, epoch, int(self.positions[index]))
        part = functools.partial(random_part, side=self.side, generator=generator)
        return self._read(index, part), int(self.labels[index]), index

    def _read(self, index: int, bring: Any) -> Tensor:
        return read_sample(self.dataset, int(self.positions[index]), bring)[0]

    @property
    def _for_test(self) -> Any:
        side = self.side
        return functools.partial(centre, side=side) if side is not None and self.cut else bring_to(side)


class EpochBatches(Protocol):
    """Batches of positions, and the epoch that they are of."""

    @property
    def epoch(self) -> int: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[int]]: ...


class Drawn:
    """Batches (images, labels, index) that workers read, an epoch at a time; the workers stay from epoch to epoch."""

    def __init__(self, read: Callable[[Key], tuple[Tensor, int, int]], batches: EpochBatches) -> None:
        self._batches = batches
        self._loader = _loader(read, _Keys(batches), default_collate, persistent=True)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        yield from _checked(self._loader)


class _Keys:
    """Batches of (epoch, position)."""

    def __init__(self, batches: EpochBatches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self._batches:
            yield [(self._batches.epoch, position) for position in batch]


def read_labels(dataset: Any) -> Tensor:
    """The label of every example [N] int64, each of which is read for it."""
    parts = [range(start, min(start + 64, len(dataset))) for start in range(0, len(dataset), 64)]
    read = functools.partial(_label_of, dataset)
    return torch.tensor([label for part in _loaded(read, parts, collate=list) for label in part], device="cpu")


def _label_of(dataset: Any, position: int) -> int:
    return read_sample(dataset, position)[1]


# Workers


def loading_workers() -> int:
    """Processes that read images for this one: as many as it has threads, since these are the cores that it may use.

    None for a worker of an executor, which trains in a thread: a process made from there may inherit locks that other
    threads hold, and daemons, as workers of Dask are, can have no children.
    """
    if threading.current_thread() is not threading.main_thread() or multiprocessing.current_process().daemon:
        return 0
    return min(_MOST_WORKERS, torch.get_num_threads())


@dataclass(frozen=True)
class _Refused:
    """An error, as data: raised in a worker, its message would be a traceback."""

    kind: type[Exception]
    message: str


class _Reader(Dataset[Any]):
    """What `read` returns of a key, or why it cannot be had."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._read(key)
        except (TypeError, ValueError) as error:
            return _Refused(TypeError if isinstance(error, TypeError) else ValueError, str(error))


class _Collate:
    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        refused = next((sample for sample in samples if isinstance(sample, _Refused)), None)
        return self._collate(samples) if refused is None else refused


def _as_they_are(samples: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return list(zip(*samples, strict=True))


def _loader(read: Callable[[Any], Any], batches: Any, collate: Callable[..., Any], persistent: bool) -> Any:
    workers = loading_workers()
    return DataLoader(
        _Reader(read),
        batch_sampler=batches,
        num_workers=workers,
        # Trainings run in processes started afresh (spawn), whose children would be started so as well, by default:
        # each would import everything again, and hold it.
        multiprocessing_context="fork" if sys.platform == "linux" and workers else None,
        collate_fn=_Collate(collate),
        persistent_workers=persistent and workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # which the loader draws from, and not from the global one
    )


def _loaded(
    read: Callable[[Any], Any], batches: Iterable[Any], collate: Callable[..., Any] = default_collate
) -> Iterator[Any]:
    """What `read` returns of the keys in each batch, in order, by workers that end with the last one."""
    return _checked(_loader(read, batches, collate, persistent=False))


def _checked(loader: Any) -> Iterator[Any]:
    for batch in loader:
        if isinstance(batch, _Refused):
            raise batch.kind(batch.message)
        yield batch
