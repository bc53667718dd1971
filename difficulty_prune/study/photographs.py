"""Image files as RGB, and no file of which that would leave nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

_INSTEAD = "or read the data by a function of your own, --data your.module:function"


def open_rgb(path: str) -> Any:
    """The image in a file, a PIL image in mode RGB.

    Raises:
        ValueError: pixels of more than 8 bits, which PIL would cut off, or an image that is transparent somewhere,
            whose colours there nobody has seen.
        OSError, SyntaxError: no image, or a damaged one.
    """
    from PIL import Image

    with Image.open(path) as image:
        if image.mode == "F" or image.mode.startswith("I"):
            raise ValueError(
                f"data: image {path} has mode {image.mode}, pixels of more than 8 bits, expected 8 bits per channel: "
                f"scale the values to 0 to 255 and save them anew, {_INSTEAD}"
            )
        if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
            return image.convert("RGB")
        whole = image.convert("RGBA")
        if np.asarray(whole)[..., 3].min() < 255:
            raise ValueError(
                f"data: image {path} is transparent in places, expected an opaque one: put it on a background, such as "
                f"white, and save it anew, {_INSTEAD}"
            )
        return whole.convert("RGB")
