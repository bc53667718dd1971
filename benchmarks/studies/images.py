"""Images to study: some of an image folder, and their positions in the original dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from difficulty_prune.study.study_data import Images, StudyData, load_data, split_positions

Positions = np.ndarray[Any, np.dtype[np.int64]]


def original_positions(folder: Path) -> Positions:
    """The position of each example in the original training set, in the order of torchvision's ImageFolder.

    The files are named by that position.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    return np.array([int(file.stem) for path in classes for file in sorted(path.iterdir())])


def some_images(folder: Path, size: int) -> tuple[StudyData, Positions]:
    """`size` images to train on, the same fraction of each class, and a few others to test on.

    Also returns the positions of the training images in the order of torchvision's ImageFolder, [size].
    """
    images = load_data(f"imagefolder:{folder}").train  # four fifths of the folder
    sizes = [len(list(path.iterdir())) for path in sorted(folder.iterdir()) if path.is_dir()]
    in_folder, _ = split_positions(np.repeat(np.arange(len(sizes)), sizes))
    chosen, rest = train_test_split(
        np.arange(len(images)), train_size=size, stratify=images.labels, random_state=0, shuffle=True
    )
    chosen = np.sort(chosen)
    parts = [Images(images.images[part], images.labels[part]) for part in (chosen, np.sort(rest)[::20])]
    return StudyData(parts[0], parts[1], num_classes=int(images.labels.max()) + 1), in_folder[chosen]
