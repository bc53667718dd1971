"""Axes to draw on, the colours of all figures, and PNG files of them."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..support.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES: Final = (6, 4)  # a column of text wide, so that fonts of 8 to 10 points stay legible in it
_DOTS_PER_INCH: Final = 120  # 720 x 480 pixels: sharp on a screen, and tens of kilobytes
_BELOW: Final = 4.5  # lines of a legend's text from the axis: the numbers and the label of the axis stand between
_MARGIN: Final = 0.06  # of the range of the data

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Those of Okabe and Ito (2008) that are dark enough on white: people of every colour vision tell them apart."""

GREY: Final = "#666666"
"""Of what others are compared with: a random choice, noise, the rest."""

MARKERS: Final = "os^vPX"
"""A form beside each colour, for print without colours."""


def new_unless_given(ax: Axes | None) -> Axes:
    """The given Axes, or those of a new figure that pyplot does not know."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=_INCHES, layout="constrained").add_subplot()


def style(place: int, name: str) -> dict[str, Any]:
    """How the series of that place is drawn: each in its own colour and form, a random choice apart from all."""
    if name == "random":
        return {"color": GREY, "marker": "D", "linestyle": "--"}
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)], "linestyle": "-"}


def offset(place: int, number: int, room: float) -> float:
    """How far the series of that place stands beside its true x, so that none hides another."""
    return (place - (number - 1) / 2) * room


def y_near(ax: Axes, low: float, high: float, least: float = -math.inf, most: float = math.inf) -> None:
    """The y axis from a little below the data to a little above, and not beyond what the numbers can be.

    Where the data touch that end, the axis goes a little further, or lines along it would be cut.
    """
    margin = _MARGIN * ((high - low) or abs(high) or 1.0)
    ax.set_ylim(max(low - margin, least - margin / 2), min(high + margin, most + margin / 2))


def legend_below(ax: Axes, columns: int, title: str | None = None) -> None:
    """The legend under the label of the x axis, where it hides nothing."""
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=_BELOW,
        ncols=columns,
        title=title,
        fontsize=8,
        title_fontsize=8,
    )


def count_in_integers(ax: Axes) -> None:
    """Whole numbers along x, few enough to be legible."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def save_png(axes: Axes, path: Path) -> None:
    """Writes the whole figure that the Axes belong to; the file is complete or not there."""
    buffer = io.BytesIO()
    axes.get_figure().savefig(buffer, format="png", dpi=_DOTS_PER_INCH)  # type: ignore[union-attr]
    write_atomically(path, buffer.getvalue())
