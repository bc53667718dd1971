"""What a card of the audit page shows of a sample: an image, a text, or a row of numbers."""

from __future__ import annotations

import dataclasses
import io
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..data import IndexedDataset
from ..support.files import MALFORMED

_LONGEST_TEXT: Final = 2_000  # characters
_LONGEST_ROW: Final = 64  # numbers
_CHANNELS: Final = (1, 3, 4)
_PIXEL_ART: Final = 32  # an image of no larger side is kept as it is, pixel by pixel
_IMAGE_KEYS: Final = ("image", "img", "pixel_values", "pixels")
_NO_CONTENT: Final = ("label", "labels")


class UnreadableError(Exception):
    """The dataset gave no sample, or not the one asked for."""


@dataclasses.dataclass(frozen=True)
class Content:
    """What a card shows.

    Attributes:
        kind: "image", "text", "row" or "unreadable".
        image: a PIL image, for an image.
        text: the text; for what cannot be read, why.
        row: (name, value) of each number.
    """

    kind: str
    image: Any = None
    text: str = ""
    row: tuple[tuple[str, str], ...] = ()


def read_content(dataset: IndexedDataset, position: int, side: int) -> Content:
    """What the sample of a position looks like; why not, if it cannot be read.

    Args:
        side: an image is made smaller until neither side has more pixels.
    """
    try:
        return content_of(_fetch(dataset, position), side)
    except UnreadableError as error:
        return Content("unreadable", text=str(error))


def _fetch(dataset: IndexedDataset, position: int) -> Any:
    """The sample without its index; `UnreadableError` if there is none, or another one came."""
    try:
        indexed = dataset[position]
    except (*MALFORMED, OSError, EOFError, RuntimeError, MemoryError) as error:
        raise UnreadableError(f"cannot be read: {type(error).__name__}: {error}"[:300]) from error
    if isinstance(indexed, Mapping):
        sample: Any = {name: value for name, value in indexed.items() if name != dataset.index_key}
        came = indexed[dataset.index_key]
    else:
        sample, came = indexed[:-1], indexed[-1]
    if came != position:
        raise UnreadableError(f"cannot be read: the dataset returned its example {came} in place of {position}")
    return sample


def content_of(sample: Any, side: int) -> Content:
    """What a sample looks like.

    A tuple or list shows its first element. A mapping shows its image, else its texts, else its numbers.

    >>> content_of(("a text", 3), side=64)
    Content(kind='text', image=None, text='a text', row=())
    >>> content_of({"height": 1.5, "label": 0}, side=64).row
    (('height', '1.5'),)
    """
    if isinstance(sample, tuple | list) and len(sample):
        sample = sample[0]
    if isinstance(sample, Mapping):
        return _of_mapping(sample, side)
    if isinstance(sample, str | bytes):
        return Content("text", text=_short(sample))
    image = _as_image(sample, side)
    if image is not None:
        return Content("image", image=image)
    values = _as_numbers(sample)
    cells = _as_cells(sample) if values is None else values.tolist()
    if cells is not None:
        return Content("row", row=_row((f"[{place}]", value) for place, value in enumerate(cells)))
    return Content("unreadable", text=f"a sample of type {type(sample).__name__} is no image, text or row of numbers")


def _of_mapping(sample: Mapping[Any, Any], side: int) -> Content:
    names = [name for name in sample if name not in _NO_CONTENT]
    for name in sorted(names, key=lambda name: str(name) not in _IMAGE_KEYS):
        image = _as_image(sample[name], side)
        if image is not None:
            return Content("image", image=image)
    texts = {str(name): sample[name] for name in names if isinstance(sample[name], str | bytes)}
    fields = [(str(name), sample[name]) for name in names]
    if "text" in texts or (len(texts) == 1 and len(fields) <= 2):  # a number beside a text is that of its row
        return Content("text", text=_short(texts.get("text") or next(iter(texts.values()))))
    if texts and len(texts) == len(fields):
        return Content("text", text=_short("\n".join(f"{name}: {_short(text)}" for name, text in texts.items())))
    row = [(name, value) for name, value in fields if isinstance(value, str | bytes) or _as_numbers(value) is not None]
    if not row:
        return Content("unreadable", text=f"a sample with {', '.join(map(repr, sample))} has no image, text or number")
    return Content("row", row=_row(row))


def _short(text: str | bytes) -> str:
    whole = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return whole if len(whole) <= _LONGEST_TEXT else f"{whole[:_LONGEST_TEXT]} …"


def _row(fields: Iterable[tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
    listed = list(fields)
    row = [(name, _value(value)) for name, value in listed[:_LONGEST_ROW]]
    if len(listed) > _LONGEST_ROW:
        row.append(("…", f"{len(listed) - _LONGEST_ROW:,} more"))
    return tuple(row)


def _value(value: Any) -> str:
    if isinstance(value, str | bytes):
        return _short(value)
    values = _as_numbers(value)
    if values is None:
        return str(value)
    shown = ", ".join(f"{number:.4g}" if isinstance(number, float) else str(number) for number in values[:8].tolist())
    return f"{shown}, …" if len(values) > 8 else shown


def _as_array(value: Any) -> NDArray[Any] | None:
    """Numbers of any kind as an array; None for what is none."""
    if isinstance(value, torch.Tensor):
        dense = value.detach().cpu()
        value = (dense.float() if dense.is_floating_point() else dense).numpy()
    if isinstance(value, numbers.Real | np.generic) or (
        isinstance(value, list | tuple) and value and all(isinstance(item, numbers.Real) for item in value)
    ):
        value = np.asarray(value)
    return value if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size else None


def _as_numbers(value: Any) -> NDArray[Any] | None:
    """[n] numbers, of one or of a list."""
    array = _as_array(value)
    return array.reshape(-1) if array is not None and array.ndim <= 1 else None


def _as_cells(value: Any) -> list[Any] | None:
    """Of a row of a table, its numbers and texts; None for what is none."""
    if not isinstance(value, list | tuple) or not value:
        return None
    return list(value) if all(isinstance(cell, numbers.Real | str) for cell in value) else None


def _as_image(value: Any, side: int) -> Any:
    """A PIL image in mode RGB, no larger than `side`; None for what is no image."""
    from PIL import Image

    if isinstance(value, Image.Image):
        image = value
    else:
        pixels = _pixels(_as_array(value))
        if pixels is None:
            return None
        image = Image.fromarray(pixels)
    image = _on_white(image)
    image.thumbnail((side, side))
    return image


def _on_white(image: Any) -> Any:
    """In mode RGB; more than 8 bits a channel are scaled, and what is transparent shows white."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        scaled = _pixels(np.asarray(image).astype(np.float64))
        assert scaled is not None
        return Image.fromarray(scaled).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        whole = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _pixels(array: NDArray[Any] | None) -> NDArray[np.uint8] | None:
    """[H, W] or [H, W, C] uint8 of [H, W], [C, H, W] or [H, W, C]; others than uint8 from their least to their most."""
    if array is None or array.ndim not in (2, 3):
        return None
    if array.ndim == 3:
        if array.shape[0] in _CHANNELS and array.shape[2] not in _CHANNELS[1:]:
            array = array.transpose(1, 2, 0)
        if array.shape[2] not in _CHANNELS:
            return None
        array = array[:, :, 0] if array.shape[2] == 1 else array
    if array.dtype != np.uint8:
        wide = np.nan_to_num(array.astype(np.float64))
        low, high = float(wide.min()), float(wide.max())
        if array.dtype.kind == "f" and low >= 0 and 0 < high <= 1:
            low, high = 0.0, 1.0
        array = ((wide - low) * (255 / (high - low) if high > low else 0)).round().astype(np.uint8)
    return np.ascontiguousarray(array)


def encode_image(image: Any) -> tuple[str, bytes]:
    """Media type and file of a PIL image: WebP, without loss if it is tiny; JPEG where this PIL lacks WebP."""
    from PIL import features

    file = io.BytesIO()
    if features.check("webp"):
        exact = max(image.size) <= _PIXEL_ART
        image.save(file, "WEBP", lossless=exact, quality=70 if exact else 82, method=2)
        return "image/webp", file.getvalue()
    image.save(file, "JPEG", quality=85)
    return "image/jpeg", file.getvalue()
