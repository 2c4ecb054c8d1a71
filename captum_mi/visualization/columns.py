"""Maps side by side: what several methods say of some images."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from captum_mi._checks import check_choice, enumerated
from captum_mi.visualization.heat import blend, image_of, plane_of
from captum_mi.visualization.page import FONT, GAP, MARGIN, Page, size_of
from captum_mi.visualization.scale import LOOKS, Scale, Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

LEAST, MOST = 4, 7
"""Pictures that a band has room for at least, and that it holds at most."""

SIDE, SPACE = 1.45, 0.1
"""Inches: the most that a picture takes of either side, and what lies between pictures."""


def gallery(
    images: Sequence[ArrayLike],
    heats: Sequence[Sequence[Tensor | ArrayLike | None]],
    *,
    columns: Sequence[str],
    rows: Sequence[str],
    units: Sequence[Unit] | None = None,
    notes: Sequence[Sequence[str]] | None = None,
    caption: str = "",
) -> Figure:
    """Draws maps of images side by side, each in its own scale, in bands that a page can hold.

    Args:
        images: one (H, W, 3) image per row, uint8 or floats in [0, 1].
        heats: for each row one map (h, w) per column, of the image's size; None stays empty.
        columns: titles of the maps, such as methods.
        rows: titles of the images, such as texts.
        units: what the numbers of each column are, see :func:`heat_map`; by default parts of a
            cosine.
        notes: for each row one short line below each map, such as a quality of it.
        caption: a line below the picture, such as what the notes are.

    Returns:
        the figure.

    Raises:
        ValueError: if the sizes or the numbers of images or columns differ, or there is no such
            unit.

    Example:
        >>> figure = gallery([torch.zeros(8, 8, 3)], [[torch.eye(8)]], columns=["nib"], rows=["a"])
    """
    units = units or ["cosine"] * len(columns)
    notes = notes or [[""] * len(columns)] * len(rows)
    across = in_a_band(len(columns) + 1)
    page = Page(2 * MARGIN + max(across, LEAST) * (SIDE + SPACE))
    width = page.width - 2 * MARGIN
    end = _place_legend(page, columns, units)
    for image, maps, row, under in zip(images, heats, rows, notes, strict=True):
        picture = image_of(image)
        end = page.write(row, MARGIN, end, width, FONT, weight="bold")
        size = size_of(picture, SIDE, SIDE)
        blended = [_blended(picture, *one) for one in zip(maps, units, strict=True)]
        shown = zip(["image", *columns], [picture, *blended], ["", *under], strict=True)
        cells = [Cell(name, pixels, size, note) for name, pixels, note in shown]
        end = place_cells(page, cells, end, across)
        end += GAP / 2
    return page.finished(page.write(caption, MARGIN, end, width) + MARGIN)


class Cell(NamedTuple):
    """A picture among others.

    Attributes:
        name: what stands above it.
        pixels: what it shows; None leaves its place empty.
        size: its width and height in inches, at most :data:`SIDE`.
        note: what stands below it.
    """

    name: str
    pixels: NDArray[np.float64] | None
    size: tuple[float, float]
    note: str = ""


def in_a_band(count: int) -> int:
    """Returns how many of so many pictures a band holds where the bands are as equal as can be."""
    return ceil(count / ceil(count / MOST))


def place_cells(page: Page, cells: Sequence[Cell], top: float, across: int) -> float:
    """Places pictures side by side, in bands of at most ``across``; returns where they end."""
    for first in range(0, len(cells), across):
        band = cells[first : first + across]
        placed = [(MARGIN + i * (SIDE + SPACE), cell) for i, cell in enumerate(band)]
        below = max(page.write(cell.name, left, top, SIDE) for left, cell in placed) + 0.03
        ends = []
        for left, cell in placed:
            if cell.pixels is not None:
                page.show(cell.pixels, left, below, *cell.size)
            ends.append(page.write(cell.note, left, below + cell.size[1], SIDE))
        top = max(ends) + SPACE
    return top


def _blended(
    picture: NDArray[np.float64], heat: Tensor | ArrayLike | None, unit: Unit
) -> NDArray[np.float64] | None:
    """Returns a map in its own scale over its image; None if there is none."""
    if heat is None:
        return None
    plane = plane_of(heat)
    return blend(plane, picture, Scale.of(unit, plane))


def _place_legend(page: Page, columns: Sequence[str], units: Sequence[Unit]) -> float:
    """Places what the colors mean in the columns of each unit; returns where it ends."""
    top = MARGIN
    for unit in dict.fromkeys(units):
        look = LOOKS[check_choice("units", unit, LOOKS)]
        names = [name for name, own in zip(columns, units, strict=True) if own == unit]
        page.show(np.linspace(0, 1, 64)[None], MARGIN, top + 0.03, SIDE, 0.14, cmap=look.colors)
        text = f"{look.meaning}: {enumerated(names)}"
        left = MARGIN + SIDE + SPACE
        top = page.write(text, left, top, page.width - left - MARGIN) + 0.04
    return page.write("each map has a scale of its own", MARGIN, top, page.width) + GAP / 2
