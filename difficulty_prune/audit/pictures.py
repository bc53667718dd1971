"""Images of the audit page: within it, or in sheets of many beside it, of which a browser loads those that it shows."""

from __future__ import annotations

import base64
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from ..support.digest import digest_of_array
from ..support.file_errors import errors_name
from .content import Content, encode_image

TILES: Final = 8  # a side of a sheet: 64 images, about 1,000 pixels a side, which is 4 MB once decoded


class Pictures(Protocol):
    """Takes image after image, in the order of the page."""

    def add(self, content: Content) -> list[Any]:
        """What the page says of the content."""

    def close(self) -> list[Any]:
        """What the page says of its sheets."""


class Embedded:
    """Each image is in the page itself."""

    def add(self, content: Content) -> list[Any]:
        media, data = encode_image(content.image)
        return ["image", f"data:{media};base64,{base64.b64encode(data).decode()}", *content.image.size]

    def close(self) -> list[Any]:
        return []


class Sheets:
    """Many images are in one file of a folder, which takes its place beside the page with `publish`.

    The name of the folder says what it holds, so that a page never shows the images of another.

    Args:
        path: of the page.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with errors_name(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}-", dir=path.parent))
        self._waiting: list[Any] = []
        self._sheets: list[list[Any]] = []
        self._digests: list[str] = []

    def add(self, content: Content) -> list[Any]:
        if len(self._waiting) == TILES**2:
            self._write()
        self._waiting.append(content.image)
        return ["sheet", len(self._sheets), len(self._waiting) - 1, *content.image.size]

    def _write(self) -> None:
        from PIL import Image

        cell = max(max(image.size) for image in self._waiting)
        rows = -(-len(self._waiting) // TILES)
        sheet = Image.new("RGB", (TILES * cell, rows * cell), "white")
        for place, image in enumerate(self._waiting):
            sheet.paste(image, (place % TILES * cell, place // TILES * cell))
        media, data = encode_image(sheet)
        name = f"{len(self._sheets):05d}.{media.removeprefix('image/')}"
        with errors_name(self._path):
            (self._folder / name).write_bytes(data)
        self._digests.append(digest_of_bytes(data))
        self._sheets.append([name, cell, TILES, rows])
        self._waiting = []

    def close(self) -> list[Any]:
        if self._waiting:
            self._write()
        name = f"{self._path.stem}-images-{digest_of_bytes(' '.join(self._digests).encode())[:12]}"
        return [[f"{name}/{sheet}", *more] for sheet, *more in self._sheets]

    def publish(self, sheets: list[Any]) -> None:
        """Gives the folder its name; call it before the page is written."""
        with errors_name(self._path):
            if not sheets:
                self._folder.rmdir()
                return
            target = self._path.parent / Path(sheets[0][0]).parent
            if target.exists():  # of the same content
                shutil.rmtree(self._folder)
            else:
                self._folder.chmod(0o755)
                self._folder.rename(target)

    def discard(self) -> None:
        """Leaves nothing of what was not published."""
        shutil.rmtree(self._folder, ignore_errors=True)


def remove_old_sheets(path: Path, sheets: Sequence[Any]) -> None:
    """Removes the folders of images that earlier pages of this name had; call it once the new page is written."""
    keep = Path(sheets[0][0]).parent.name if sheets else None
    pattern = re.compile(re.escape(f"{path.stem}-images-") + "[0-9a-f]{12}")
    for folder in path.parent.iterdir():
        if pattern.fullmatch(folder.name) and folder.name != keep and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def digest_of_bytes(data: bytes) -> str:
    """32 hexadecimal digits."""
    import numpy as np

    return digest_of_array(np.frombuffer(data, np.uint8))
