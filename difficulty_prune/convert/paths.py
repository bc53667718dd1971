"""Plans as lists of files, which YOLO and others train on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..policies.plan import Plan
from ..support.files import atomic_file


def to_paths(
    plan: Plan, paths: Sequence[Any], path: str | os.PathLike[str], *, root: str | os.PathLike[str] = ""
) -> None:
    """Writes the path of each example that the plan keeps, one a line, as Ultralytics takes it for `train:`.

    Args:
        plan: its examples are kept; such a list has no place for weights.
        paths: [N] of the files, such as the ids of an image folder.
        path: of the list.
        root: what goes before each path.

    Raises:
        ValueError: a plan with weights other than 1, a position outside 0..N-1, or a path with a line break.
        OSError: it cannot be written; the message names the file and says what to do.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_paths(Plan(torch.tensor([1]), torch.ones(1)), ["a.png", "b.png"], Path(folder, "train.txt"))
    ...     Path(folder, "train.txt").read_text()
    'b.png\\n'
    """
    if bool((plan.weight != 1).any()):
        weight = float(plan.weight[plan.weight != 1][0])
        raise ValueError(f"plan: got the weight {weight:g}, which a list of paths cannot hold; see to_weights")
    if int(plan.index[-1]) >= len(paths):
        raise ValueError(
            f"plan: got position {int(plan.index[-1])}, expected 0..{len(paths) - 1}: is it of other data?"
        )
    kept = [os.fspath(Path(root, str(paths[i]))) for i in plan.index.tolist()]
    broken = [name for name in kept if name.splitlines() != [name]]
    if broken:
        raise ValueError(f"paths: got {broken[0]!r} with a line break, which a list of paths cannot hold")
    with atomic_file(path) as file:
        file.writelines(f"{name}\n".encode() for name in kept)
