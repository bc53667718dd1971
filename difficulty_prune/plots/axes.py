"""Axes to draw on, and PNG files of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..support.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES: Final = (6, 4)  # a column of text wide, so that fonts of 8 to 10 points stay legible in it
_DOTS_PER_INCH: Final = 120  # 720 x 480 pixels: sharp on a screen, and tens of kilobytes


def new_unless_given(ax: Axes | None) -> Axes:
    """The given Axes, or those of a new figure that pyplot does not know."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=_INCHES, layout="constrained").add_subplot()


def count_in_integers(ax: Axes) -> None:
    """Whole numbers along x, few enough to be legible."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def save_png(axes: Axes, path: Path) -> None:
    """Writes the whole figure that the Axes belong to; the file is complete or not there."""
    buffer = io.BytesIO()
    axes.get_figure().savefig(buffer, format="png", dpi=_DOTS_PER_INCH)  # type: ignore[union-attr]
    write_atomically(path, buffer.getvalue())
