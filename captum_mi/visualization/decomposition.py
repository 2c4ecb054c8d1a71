"""Information in parts: what a layer's places tell of the representation, and what of it decides.

All maps of a figure share one signed scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from captum_mi._checks import check_positive_number
from captum_mi.maps import image_map
from captum_mi.visualization.columns import LEAST, SIDE, SPACE, Cell, in_a_band, place_cells
from captum_mi.visualization.heat import blend, image_of, plane_of
from captum_mi.visualization.page import BAR, FONT, GAP, GRAY, MARGIN, Page, size_of
from captum_mi.visualization.scale import LOOKS, Scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    Pixels = NDArray[np.float64]

SHARE = Scale(None, 1.0)
"""The colors of a mask."""


def decomposition(
    images: Sequence[ArrayLike],
    total: Tensor | ArrayLike,
    decision: Tensor | ArrayLike,
    redundant: Tensor | ArrayLike,
    *,
    cam: Tensor | ArrayLike | None = None,
    mask: Tensor | ArrayLike | None = None,
    cap: float | None = None,
    titles: Sequence[str] | None = None,
    caption: str = "",
) -> Figure:
    """Draws a row per image: its total, decision-related and redundant information.

    Maps lie over the gray image, interpolated linearly; below each stands the mean of its places.
    Those of a token layer, (B, T, 1), become maps by :func:`captum_mi.maps.patch_map`.

    Args:
        images: B images (H, W, 3), uint8 or floats in [0, 1]: what the model saw.
        total: (B, 1, h, w), pointwise nats, signed, of the layer's size or of the image's.
        decision: the part of it that the decision needs, (B, 1, h, w).
        redundant: the part of it that it does not need, (B, 1, h, w).
        cam: Grad-CAM to compare with, (B, 1, h, w); each in a scale of its own, from zero.
        mask: (B, 1, h, w) in [0, 1]: 1 where a place is kept, 0 where noise replaces it.
        cap: the most nats that the estimate gives a place.
        titles: a line above each row, such as the class.
        caption: a line below the picture.

    Returns:
        the figure.

    Raises:
        ValueError: if shapes or numbers of images differ, numbers are not finite, a mask is not in
            [0, 1] or the cap is not positive.

    Source: "Explaining Representation by Mutual Information", figure 2.

    Example:
        >>> total = torch.randn(1, 1, 7, 7)
        >>> figure = decomposition([scene.image], total, total / 3, 2 * total / 3, cap=6.2)
    """
    pictures = _pictures("images", images)
    given = {"total": total, "decision": decision, "redundant": redundant}
    parts = {name: _Maps.of(name, values, pictures) for name, values in given.items()}
    cams = None if cam is None else _Maps.of("cam", cam, pictures)
    masks = None if mask is None else _Maps.of("mask", mask, pictures)
    if masks is not None and not 0 <= masks.places.min() <= masks.places.max() <= 1:
        low, high = masks.places.min(), masks.places.max()
        raise ValueError(f"`mask` must be in [0, 1], got numbers from {low:g} to {high:g}")
    titles = _counted("titles", titles or [""] * len(pictures), pictures)
    scale = Scale.of("pointwise nats", *(maps.places for maps in parts.values()))

    across = 1 + len(parts) + (cams is not None) + (masks is not None)
    page = Page(2 * MARGIN + max(across, LEAST) * (SIDE + SPACE))
    top = _place_scale(page, scale, "total = decision + redundant", cap)
    if cams is not None:
        text = f"Grad-CAM: {LOOKS[None].meaning}; each in a scale of its own"
        top = _place_colors(page, text, top)
    if masks is not None:
        top = _place_colors(page, "mask: from 0, replaced by noise, to 1, kept", top)
    for i, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        size = size_of(picture, SIDE, SIDE)
        cells = [Cell("image", picture, size)]
        if cams is not None:
            own = Scale.of(None, cams.places[i])
            cells.append(Cell("Grad-CAM", blend(cams.planes[i], picture, own), size))
        for name, maps in parts.items():
            cells.append(Cell(name, maps.over(picture, i, scale), size, maps.mean(i, scale)))
        if masks is not None:
            note = f"mean {masks.places[i].mean():.2f}"
            cells.append(Cell("mask", masks.over(picture, i, SHARE), size, note))
        top = page.write(title, MARGIN, top + GAP / 2, page.width - 2 * MARGIN, FONT, weight="bold")
        top = place_cells(page, cells, top, across)
    return _finished(page, caption, top)


def episode(
    support: Sequence[ArrayLike],
    query: Sequence[ArrayLike],
    total: Tensor | ArrayLike,
    decision: Tensor | ArrayLike,
    *,
    support_titles: Sequence[str],
    query_titles: Sequence[str],
    cap: float | None = None,
    caption: str = "",
) -> Figure:
    """Draws a few-shot episode: its support images, and a row per query with its information.

    The total is shown at the resolution of the layer, then it and the decision-related part over
    the query, interpolated linearly; below stands the mean of the places.

    Args:
        support: images (H, W, 3), uint8 or floats in [0, 1].
        query: B images (H, W, 3).
        total: of the queries, (B, 1, h, w), pointwise nats, signed, see :func:`decomposition`.
        decision: the part of it that the decision needs, (B, 1, h, w).
        support_titles: for each support image the name of its way (class).
        query_titles: a line above each query, such as the way that it was given.
        cap: the most nats that the estimate gives a place.
        caption: a line below the picture.

    Returns:
        the figure.

    Raises:
        ValueError: if shapes or numbers of images differ, numbers are not finite or the cap is not
            positive.

    Source: "Explaining Representation by Mutual Information", figures 3 to 6.

    Example:
        >>> total = torch.randn(1, 1, 5, 5)
        >>> figure = episode(
        ...     [scene.image] * 2, [scene.image], total, total / 3,
        ...     support_titles=["a heart", "a star"], query_titles=["taken for a heart"],
        ... )
    """
    known, asked = _pictures("support", support), _pictures("query", query)
    names = _counted("support_titles", support_titles, known)
    titles = _counted("query_titles", query_titles, asked)
    whole, needed = _Maps.of("total", total, asked), _Maps.of("decision", decision, asked)
    scale = Scale.of("pointwise nats", whole.places, needed.places)

    across = in_a_band(len(known))
    page = Page(2 * MARGIN + max(across, LEAST) * (SIDE + SPACE))
    width = page.width - 2 * MARGIN
    top = _place_scale(page, scale, "decision: the part of the total that decides", cap)
    top = page.write("support", MARGIN, top + GAP / 2, width, FONT, weight="bold")
    shown = zip(names, known, strict=True)
    cells = [Cell(name, picture, size_of(picture, SIDE, SIDE)) for name, picture in shown]
    top = place_cells(page, cells, top, across)
    for i, (picture, title) in enumerate(zip(asked, titles, strict=True)):
        size = size_of(picture, SIDE, SIDE)
        cells = [
            Cell("query", picture, size),
            Cell("total", scale.colors(whole.places[i]), size, whole.mean(i, scale)),
            Cell("total on query", whole.over(picture, i, scale), size),
            Cell("decision on query", needed.over(picture, i, scale), size, needed.mean(i, scale)),
        ]
        top = page.write(title, MARGIN, top + GAP / 2, width, FONT, weight="bold")
        top = place_cells(page, cells, top, len(cells))
    return _finished(page, caption, top)


@dataclass(frozen=True)
class _Maps:
    """One map per image.

    Attributes:
        places: (B, h, w), as they were given.
        planes: for each image its map (H, W), interpolated linearly.
    """

    places: Pixels
    planes: list[Pixels]

    @classmethod
    def of(cls, name: str, values: Tensor | ArrayLike, pictures: Sequence[Pixels]) -> _Maps:
        """Returns the maps of images; raises ValueError where they are none."""
        maps = torch.as_tensor(values).detach().double().cpu()
        if maps.ndim != 4 or maps.shape[:2] != (len(pictures), 1) or not maps.numel():
            raise ValueError(
                f"`{name}` must have shape ({len(pictures)}, 1, h, w), one map for each image, got"
                f" {tuple(maps.shape)}; give maps.patch_map({name}, pixels, model=model) of a token"
                " layer"
            )
        if not maps.isfinite().all():
            bad = int((~maps.isfinite()).sum())
            raise ValueError(f"`{name}` must be finite, got NaN or infinity at {bad} places")
        planes = []
        for own, picture in zip(maps, pictures, strict=True):
            height, width = picture.shape[:2]
            try:
                planes.append(plane_of(image_map(own[None], (height, width))))
            except ValueError as error:
                raise ValueError(
                    f"`{name}` of shape {tuple(maps.shape)} is no map of an image of"
                    f" {height}x{width}; draw it over what the model saw, maps.image_seen(pixels,"
                    " processor)"
                ) from error
        return cls(maps[:, 0].numpy(), planes)

    def over(self, picture: Pixels, index: int, scale: Scale) -> Pixels:
        """Returns the map of an image over it."""
        return blend(self.planes[index], picture, scale)

    def mean(self, index: int, scale: Scale) -> str:
        """Writes the mean of the places of an image."""
        return f"mean {scale.number(self.places[index].mean())} nats"


def _pictures(name: str, images: Sequence[ArrayLike]) -> list[Pixels]:
    if not len(images):
        raise ValueError(f"`{name}` must hold an image at least, got none")
    return [image_of(image) for image in images]


def _counted(name: str, titles: Sequence[str], pictures: Sequence[Pixels]) -> Sequence[str]:
    if len(titles) != len(pictures):
        raise ValueError(
            f"`{name}` must hold one for each of {len(pictures)} images, got {len(titles)}"
        )
    return titles


def _place_scale(page: Page, scale: Scale, relation: str, cap: float | None) -> float:
    """Places what the colors mean beside their bar; returns where it ends."""
    left = page.width - 2 * MARGIN - BAR
    lines = [relation, scale.look.meaning, "one scale for all maps in nats; mean: over the places"]
    if cap is not None:
        check_positive_number("cap", cap)
        lines.append(f"cap {cap:.2f} nats: the most that a place can get")
    end = page.write("\n".join(lines), MARGIN, MARGIN, left - MARGIN - GAP)
    return max(end, page.bar(scale, "", left, MARGIN))


def _place_colors(page: Page, text: str, top: float) -> float:
    """Places the colors of numbers without a sign and what they mean; returns where it ends."""
    page.show(np.linspace(0, 1, 64)[None], MARGIN, top + 0.07, SIDE, 0.14, cmap=LOOKS[None].colors)
    left = MARGIN + SIDE + SPACE
    return page.write(text, left, top + 0.04, page.width - left - MARGIN)


def _finished(page: Page, caption: str, top: float) -> Figure:
    end = page.write(caption, MARGIN, top, page.width - 2 * MARGIN, color=GRAY)
    return page.finished(end + MARGIN)
