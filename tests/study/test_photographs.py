"""Image folders: files of which RGB would leave nothing, or too little, are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difficulty_prune.study.photographs import open_rgb
from difficulty_prune.study.study_data import load_data

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def image(mode: str, alpha: int = 255) -> Image.Image:
    found = Image.fromarray(PIXELS)
    if mode in ("RGBA", "LA"):
        found = found.convert(mode)
        found.putalpha(Image.fromarray(np.full((8, 8), alpha, np.uint8)))
        return found
    return found.convert(mode)


@pytest.mark.parametrize(
    ("array", "suffix", "mode"),
    [
        (PIXELS[..., 0].astype(np.uint16) * 257, "png", "I"),
        (PIXELS[..., 0].astype(np.uint16) * 257, "tiff", "I;16"),
        (PIXELS[..., 0].astype(np.int32) * 1000, "tiff", "I"),
        (PIXELS[..., 0].astype(np.float32) / 255, "tiff", "F"),
    ],
)
def test_pixels_of_more_than_8_bits_are_refused(array: np.ndarray, suffix: str, mode: str, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.fromarray(PIXELS).save(tmp_path / name / "0.png")
    Image.fromarray(array).save(tmp_path / "dog" / f"1.{suffix}")
    message = (
        rf"data: image .*1\.{suffix} has mode {mode}.*more than 8 bits.*save them anew, or .*your\.module:function"
    )
    with pytest.raises(ValueError, match=message):
        load_data(f"imagefolder:{tmp_path}")


def test_transparency_is_refused_and_an_opaque_alpha_channel_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for mode in ("RGBA", "LA"):
        image(mode).save(path)
        np.testing.assert_array_equal(np.asarray(open_rgb(str(path))), np.asarray(image(mode).convert("RGB")))
        for alpha in (0, 254):
            image(mode, alpha).save(path)
            with pytest.raises(ValueError, match=r"data: image .*a\.png is transparent in places, .*a background"):
                open_rgb(str(path))


def test_transparency_of_a_palette_or_a_colour_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    palette = image("P")
    used = int(np.asarray(palette)[0, 0])
    for transparency in (used, bytes(128 if i == used else 255 for i in range(256))):
        palette.save(path, transparency=transparency)
        with pytest.raises(ValueError, match="transparent in places"):
            open_rgb(str(path))
    palette.save(path, transparency=bytes([255] * 256))
    np.testing.assert_array_equal(np.asarray(open_rgb(str(path))), np.asarray(palette.convert("RGB")))
    image("RGB").save(path, transparency=tuple(map(int, PIXELS[3, 3])))
    with pytest.raises(ValueError, match="transparent in places"):
        open_rgb(str(path))


@pytest.mark.parametrize(
    ("mode", "suffix"), [("1", "png"), ("L", "png"), ("P", "png"), ("RGB", "png"), ("CMYK", "jpg")]
)
def test_other_files_are_read_as_ever(mode: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    image(mode).save(path)
    with Image.open(path) as expected:
        np.testing.assert_array_equal(np.asarray(open_rgb(str(path))), np.asarray(expected.convert("RGB")))
