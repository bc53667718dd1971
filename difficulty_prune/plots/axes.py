"""Where a figure is drawn, and how it gets into a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ..support.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def new_unless_given(ax: Axes | None) -> Axes:
    """The given Axes, or those of a new figure that no global state knows."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(6, 4), layout="constrained").add_subplot()


def count_in_integers(ax: Axes) -> None:
    """Whole numbers along x, and few enough to be read."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def save_png(axes: Axes, path: Path) -> None:
    """Writes the figure of the Axes, whole or not at all."""
    buffer = io.BytesIO()
    axes.get_figure().savefig(buffer, format="png", dpi=120)  # type: ignore[union-attr]
    write_atomically(path, buffer.getvalue())
