"""Maps side by side: what several methods say of some images."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

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
    cells = len(columns) + 1
    across = ceil(cells / ceil(cells / MOST))
    page = Page(2 * MARGIN + max(across, LEAST) * (SIDE + SPACE))
    width = page.width - 2 * MARGIN
    top = end = _place_legend(page, columns, units)
    for image, maps, row, under in zip(images, heats, rows, notes, strict=True):
        picture = image_of(image)
        end = page.write(row, MARGIN, end, width, FONT, weight="bold")
        size = size_of(picture, SIDE, SIDE)
        blended = [_blended(picture, *one) for one in zip(maps, units, strict=True)]
        shown = zip(["image", *columns], [picture, *blended], ["", *under], strict=True)
        for i, (name, pixels, note) in enumerate(shown):
            if i % across == 0:
                top = end
            left = MARGIN + i % across * (SIDE + SPACE)
            below = page.write(name, left, top, SIDE) + 0.03
            if pixels is not None:
                page.show(pixels, left, below, *size)
            end = max(end, page.write(note, left, below + size[1], SIDE) + SPACE)
        end += GAP / 2
    return page.finished(page.write(caption, MARGIN, end, width) + MARGIN)


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
