"""A page on which things are placed in inches from its top left corner."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from captum_mi.visualization.scale import Scale

MARGIN = 0.15
GAP = 0.3
BAR = 2.3
"""Inches: around the page, between its parts, the width of a color bar."""

FONT, SMALL = 11.0, 9.0
"""Sizes of text in points."""

GRAY = "#777777"


class Page:
    """A figure that grows downwards; what is placed on it returns where it ends.

    Attributes:
        width: in inches.
        sheet: axes as large as the page, on which a unit is an inch, downwards.
    """

    def __init__(self, width: float) -> None:
        """Begins a page of a width in inches."""
        self.width = width
        self._figure = Figure()
        self._placed: list[tuple[Axes, float, float, float, float]] = []
        self.sheet = self._figure.add_axes((0, 0, 1, 1))
        self.sheet.set_axis_off()

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Returns axes of a size at a place."""
        axes = self._figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        self._placed.append((axes, left, top, width, height))
        return axes

    def show(
        self, image: ArrayLike, left: float, top: float, width: float, height: float, **options: Any
    ) -> float:
        """Shows an image; returns where it ends."""
        axes = self.axes(left, top, width, height)
        axes.imshow(image, interpolation="nearest", aspect="auto", **options)
        return top + height

    def write(
        self, text: str, left: float, top: float, width: float, size: float = SMALL, **font: Any
    ) -> float:
        """Writes a text in lines of a width; returns where it ends."""
        height = 1.5 * size / 72
        for line in broken(text, width, size, font.get("weight", "normal")):
            top += height
            at = top - 0.3 * height
            self.sheet.text(left, at, line, fontsize=size, parse_math=False, **font)
        return top

    def bar(self, scale: Scale, title: str, left: float, top: float) -> float:
        """Draws a color bar with a title; returns where it ends."""
        below = self.write(title, left, top, BAR, FONT, weight="bold")
        axes = self.axes(left, below, BAR, 0.1)
        scale.draw_bar(self._figure, cax=axes)
        axes.set_axis_on()
        return below + 0.6

    def finished(self, height: float) -> Figure:
        """Returns the figure, of a height in inches."""
        self._figure.set_size_inches(self.width, height)
        self.sheet.set(xlim=(0, self.width), ylim=(height, 0))
        for axes, left, top, width, own in self._placed:
            bottom = 1 - (top + own) / height
            axes.set_position((left / self.width, bottom, width / self.width, own / height))
        return self._figure


def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Returns the width in inches of a text in a size in points."""
    font = FontProperties(size=size, weight=weight)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return 1.03 * float(width) / 72  # letters fitted to a screen's pixels are a little wider


def broken(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Breaks a text into lines of at most a width in inches, between its words if it can."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in _pieces(paragraph.split(), width, size, weight):
            longer = f"{line} {word}".strip()
            if line and width_of(longer, size, weight) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def _pieces(words: Sequence[str], width: float, size: float, weight: str) -> Iterator[str]:
    """Yields words, cut where a line of their own is too narrow: behind a sign if there is one."""
    for word in words:
        rest = word
        while len(rest) > 1 and width_of(rest, size, weight) > width:
            ends = range(1, len(rest))
            fits = bisect_right(ends, width, key=lambda end: width_of(rest[:end], size, weight))
            signs = (end for end in range(fits, 0, -1) if not rest[end - 1].isalnum())
            end = next(signs, max(fits, 1))
            yield rest[:end]
            rest = rest[end:]
        yield rest


def size_of(image: ArrayLike, width: float, height: float) -> tuple[float, float]:
    """Returns the width and height of an image that fits a width and a height."""
    rows, columns = np.shape(image)[:2]
    pixel = min(width / columns, height / rows)
    return columns * pixel, rows * pixel
