"""A signed map as a picture: white at zero, red for and blue against the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

COLOR_MAP = "RdBu_r"


def heat_map(heat: Tensor | ArrayLike, *, title: str = "") -> Figure:
    """Draws a signed map, white at zero, red for and blue against the target, with its color bar.

    Args:
        heat: (H, W), (1, H, W) or (1, 1, H, W).
        title: title of the picture.

    Returns:
        the figure.

    Example:
        >>> figure = heat_map(torch.randn(8, 8), title="a red circle")
    """
    figure, axes = figure_with_axes(4.4, 3.6)
    draw_map(figure, axes, plane_of(heat))
    axes.set_title(title)
    return figure


def overlay(image: ArrayLike, heat: Tensor | ArrayLike, *, title: str = "") -> Figure:
    """Draws a signed map over the gray image; the further from zero, the less shows through.

    Args:
        image: (H, W, 3) uint8, or floats in [0, 1].
        heat: (H, W), (1, H, W) or (1, 1, H, W), of the same H and W.
        title: title of the picture.

    Returns:
        the figure.

    Raises:
        ValueError: if the sizes differ.

    Example:
        >>> figure = overlay(torch.zeros(8, 8, 3), torch.eye(8), title="a red circle")
    """
    figure, axes = figure_with_axes(4.4, 3.6)
    draw_map(figure, axes, plane_of(heat), image_of(image))
    axes.set_title(title)
    return figure


def figure_with_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns a figure of a size in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def plane_of(heat: Tensor | ArrayLike) -> NDArray[np.float64]:
    """Returns one map as an array (H, W); raises ValueError where there is not one."""
    values = heat.detach().double().cpu().numpy() if isinstance(heat, Tensor) else heat
    plane = np.squeeze(np.asarray(values, dtype=float))
    if plane.ndim != 2:
        raise ValueError(f"`heat` must be one map (H, W), got shape {np.shape(values)}")
    return plane


def image_of(image: ArrayLike) -> NDArray[np.float64]:
    """Returns the image (H, W, 3) in [0, 1]; raises ValueError for another shape."""
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"`image` must have shape (H, W, 3), got {array.shape}")
    return array / 255 if array.dtype == np.uint8 else array.astype(float)


def extent_of(values: ArrayLike) -> float:
    """Returns the largest magnitude, where the colors end; 1 for a map of zeros."""
    return float(np.max(np.abs(np.asarray(values, dtype=float)), initial=0.0)) or 1.0


def draw_map(
    figure: Figure,
    axes: Axes,
    plane: NDArray[np.float64],
    image: NDArray[np.float64] | None = None,
) -> None:
    """Draws a signed map with its color bar, over the image if there is one."""
    extent = extent_of(plane)
    scale = Normalize(-extent, extent)
    if image is None:
        axes.imshow(plane, cmap=COLOR_MAP, norm=scale, interpolation="nearest")
    else:
        if image.shape[:2] != plane.shape:
            raise ValueError(
                f"`heat` has size {plane.shape}, but `image` {image.shape[:2]}; draw it over what"
                " the model saw, maps.image_seen(pixels, processor), or put it back on the"
                " photograph with maps.on_original(heat, image, processor)"
            )
        axes.imshow(blend(plane, image), interpolation="nearest")
    axes.set_axis_off()
    draw_color_bar(figure, axes, scale)


def draw_color_bar(figure: Figure, axes: Axes, scale: Normalize) -> None:
    """Draws the color bar of a signed scale beside the axes."""
    bar = figure.colorbar(ScalarMappable(scale, COLOR_MAP), ax=axes, shrink=0.85)
    bar.set_label("against        for", fontsize="small")


def blend(plane: NDArray[np.float64], image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colors a gray image where the map is strong."""
    extent = extent_of(plane)
    colors = colormaps[COLOR_MAP](Normalize(-extent, extent)(plane))[..., :3]
    strength = 0.75 * np.abs(plane / extent)[..., None]
    gray = image.mean(axis=2, keepdims=True)
    blended: NDArray[np.float64] = strength * colors + (1 - strength) * gray
    return blended
