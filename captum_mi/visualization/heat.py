"""A map as a picture, alone or over its image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from captum_mi.visualization.scale import Scale, Unit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def heat_map(heat: Tensor | ArrayLike, *, unit: Unit = "cosine", title: str = "") -> Figure:
    """Draws a map, white at zero, with its color bar.

    Args:
        heat: (H, W), (1, H, W) or (1, 1, H, W).
        unit: what the numbers are, see ``METHODS[name].unit``: those of a signed unit, "cosine",
            "score" or "pointwise nats", are red above and blue below zero, for and against the
            target; others, "nats", "bits" or None, begin at zero.
        title: title of the picture.

    Returns:
        the figure.

    Raises:
        ValueError: if ``heat`` is not one map, or there is no such unit.

    Example:
        >>> figure = heat_map(torch.randn(8, 8), title="a red circle")
    """
    plane = plane_of(heat)
    scale = Scale.of(unit, plane)
    figure = Figure(figsize=(4.4, 3.6), layout="constrained")
    axes = figure.add_subplot(title=title)
    axes.imshow(plane, cmap=scale.look.colors, norm=scale.norm, interpolation="nearest")
    axes.set_axis_off()
    scale.draw_bar(figure, ax=axes)
    return figure


def overlay(
    image: ArrayLike, heat: Tensor | ArrayLike, *, unit: Unit = "cosine", title: str = ""
) -> Figure:
    """Draws a map over the gray image; the further from zero, the less shows through.

    Args:
        image: (H, W, 3) uint8, or floats in [0, 1].
        heat: (H, W), (1, H, W) or (1, 1, H, W), of the same H and W.
        unit: what the numbers are, see :func:`heat_map`.
        title: title of the picture.

    Returns:
        the figure.

    Raises:
        ValueError: if the sizes differ, or there is no such unit.

    Example:
        >>> figure = overlay(torch.zeros(8, 8, 3), torch.eye(8), title="a red circle")
    """
    plane = plane_of(heat)
    scale = Scale.of(unit, plane)
    figure = Figure(figsize=(4.4, 3.6), layout="constrained")
    axes = figure.add_subplot(title=title)
    axes.imshow(blend(plane, image_of(image), scale), interpolation="nearest")
    axes.set_axis_off()
    scale.draw_bar(figure, ax=axes)
    return figure


def plane_of(heat: Tensor | ArrayLike) -> NDArray[np.float64]:
    """Returns one map as an array (H, W); raises ValueError where there is not one."""
    values = heat.detach().double().cpu().numpy() if isinstance(heat, Tensor) else heat
    plane = np.asarray(values, dtype=float)
    while plane.ndim > 2 and len(plane) == 1:
        plane = plane[0]
    if plane.ndim != 2:
        raise ValueError(f"`heat` must be one map (H, W), got shape {np.shape(values)}")
    return plane


def image_of(image: ArrayLike) -> NDArray[np.float64]:
    """Returns the image (H, W, 3) in [0, 1]; raises ValueError for another shape."""
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"`image` must have shape (H, W, 3), got {array.shape}")
    return array / 255 if array.dtype == np.uint8 else array.astype(float)


def blend(
    plane: NDArray[np.float64], image: NDArray[np.float64], scale: Scale
) -> NDArray[np.float64]:
    """Colors a gray, pale image where the map is strong; raises ValueError if the sizes differ."""
    if image.shape[:2] != plane.shape:
        raise ValueError(
            f"`heat` has size {plane.shape}, but `image` {image.shape[:2]}; draw it over what"
            " the model saw, maps.image_seen(pixels, processor), or put it back on the"
            " photograph with maps.on_original(heat, image, processor)"
        )
    strength = 0.9 * (1 - (1 - scale.strength(plane)[..., None]) ** 2)
    gray = PALEST + (1 - PALEST) * image.mean(axis=2, keepdims=True)
    blended: NDArray[np.float64] = strength * scale.colors(plane) + (1 - strength) * gray
    return blended


PALEST = 0.35
"""The gray that black becomes: on it a color looks as it does in the color bar."""
