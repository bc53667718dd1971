"""What a shell offers for data that is named by text."""

from __future__ import annotations

import os
from typing import Any


def complete_data(prefix: str, **_: Any) -> list[str]:
    """What a shell offers for a `--data` argument that begins so: its forms, and the folders of an image folder.

    >>> complete_data("")
    ['datasets:', 'digits', 'imagefolder:', 'sklearn:', 'table:', 'torchvision:']
    """
    form, colon, path = prefix.partition(":")
    if not colon or form != "imagefolder":
        return ["datasets:", "digits", "imagefolder:", "sklearn:", "table:", "torchvision:"]
    above, name = os.path.split(path)
    try:
        found = sorted(entry.name for entry in os.scandir(above or ".") if entry.is_dir())
    except OSError:  # no such folder
        return []
    seen = [each for each in found if each.startswith(name) and (name.startswith(".") or not each.startswith("."))]
    return [f"imagefolder:{os.path.join(above, each)}/" for each in seen]
