"""Pictures of attributions: each function returns a Figure and changes no data."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from captum_mi.maps import TokenScores

COLOURS = "RdBu_r"
SPECIAL_COLOUR = "#dddddd"
LINE_WIDTH = 30  # characters of coloured tokens on a line


def heat_map(heat: Tensor | ArrayLike, *, title: str = "") -> Figure:
    """Draws a signed map, white at zero, red for and blue against the target, with its colour bar.

    Args:
        heat: (H, W), (1, H, W) or (1, 1, H, W).
        title: title of the picture.

    Returns:
        the figure.

    Example:
        >>> figure = heat_map(torch.randn(8, 8), title="a red circle")
    """
    figure, axes = _figure(4.4, 3.6)
    _draw_map(figure, axes, _plane(heat))
    axes.set_title(title)
    return figure


def overlay(image: ArrayLike, heat: Tensor | ArrayLike, *, title: str = "") -> Figure:
    """Draws a signed map over the grey image; the further from zero, the less shows through.

    Args:
        image: (H, W, 3) uint8, or floats in [0, 1].
        heat: (H, W), (1, H, W) or (1, 1, H, W), of the same H and W.
        title: title of the picture.

    Returns:
        the figure.

    Raises:
        ValueError: if the sizes differ.
    """
    figure, axes = _figure(4.4, 3.6)
    _draw_map(figure, axes, _plane(heat), _image(image))
    axes.set_title(title)
    return figure


def coloured_tokens(scores: TokenScores, *, title: str = "") -> Figure:
    """Draws the words of a text, coloured by their scores; special tokens stay grey.

    Args:
        scores: the tokens and their scores; the colours' scale is set by the words alone.
        title: title of the picture.

    Returns:
        the figure.
    """
    figure, axes = _figure(6, 1.2 + 0.5 * len(_lines(scores)))
    _draw_tokens(figure, axes, scores)
    axes.set_title(title)
    return figure


def explanation(
    image: ArrayLike,
    heats: Sequence[Tensor | ArrayLike],
    tokens: Sequence[TokenScores],
    titles: Sequence[str],
    *,
    caption: str = "",
) -> Figure:
    """Draws a row per text: the image, where in it the evidence lies, and which words carry it.

    Args:
        image: (H, W, 3) uint8, or floats in [0, 1].
        heats: one signed map per text, as in :func:`overlay`.
        tokens: one text's scores per text.
        titles: one title per text.
        caption: a line below the picture.

    Returns:
        the figure.
    """
    heights = [max(3.1, 0.8 + 0.5 * len(_lines(scores))) for scores in tokens]
    figure = Figure(figsize=(13, sum(heights) + 0.5), layout="constrained")
    grid = figure.subplots(
        len(titles), 3, squeeze=False, width_ratios=(1, 1.25, 2), height_ratios=heights
    )
    for axes, heat, scores, title in zip(grid, heats, tokens, titles, strict=True):
        axes[0].imshow(_image(image), interpolation="nearest")
        axes[0].set_axis_off()
        axes[0].set_title("image")
        _draw_map(figure, axes[1], _plane(heat), _image(image))
        axes[1].set_title(title, wrap=True)
        _draw_tokens(figure, axes[2], scores)
        axes[2].set_title("words of the text")
    figure.supxlabel(caption, fontsize="small")
    return figure


def gallery(
    images: Sequence[ArrayLike],
    heats: Sequence[Sequence[Tensor | ArrayLike | None]],
    *,
    columns: Sequence[str],
    rows: Sequence[str],
) -> Figure:
    """Draws maps side by side: the image first, then one map per column, each in its own scale.

    Args:
        images: one (H, W, 3) image per row, uint8 or floats in [0, 1].
        heats: for each row one signed map (h, w) per column, of the image's size; None stays empty.
        columns: titles of the columns of maps.
        rows: titles of the rows.

    Returns:
        the figure.

    Example:
        >>> gallery([np.zeros((8, 8, 3))], [[np.eye(8)]], columns=["nib"], rows=["a"]).axes[0]
        <Axes: title={'center': 'image'}, ylabel='a'>
    """
    figure = Figure(figsize=(1.5 * (len(columns) + 1) + 0.5, 1.6 * len(rows) + 0.7))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(rows), len(columns) + 1, squeeze=False)
    for line, image, maps, title in zip(grid, images, heats, rows, strict=True):
        line[0].imshow(_image(image), interpolation="nearest")
        line[0].set_ylabel("\n".join(wrap(title, 18)), fontsize="small")
        for axes, heat in zip(line[1:], maps, strict=True):
            if heat is not None:
                axes.imshow(_blend(_plane(heat), _image(image)), interpolation="nearest")
        for axes in line:
            axes.set(xticks=[], yticks=[])
            for side in axes.spines.values():
                side.set_visible(False)
    grid[0, 0].set_title("image", fontsize="small")
    for axes, title in zip(grid[0, 1:], columns, strict=True):
        axes.set_title(title, fontsize="small")
    figure.supxlabel("red: for the text, blue: against it; each map in its own scale", fontsize=8)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _plane(heat: Tensor | ArrayLike) -> NDArray[np.float64]:
    values = heat.detach().double().cpu().numpy() if isinstance(heat, Tensor) else heat
    plane = np.squeeze(np.asarray(values, dtype=float))
    if plane.ndim != 2:
        raise ValueError(f"`heat` must be one map (H, W), got shape {np.shape(values)}")
    return plane


def _image(image: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"`image` must have shape (H, W, 3), got {array.shape}")
    return array / 255 if array.dtype == np.uint8 else array.astype(float)


def _extent(values: ArrayLike) -> float:
    """Largest magnitude, where the colours end on both sides of zero; 1 for a map of zeros."""
    return float(np.max(np.abs(np.asarray(values, dtype=float)), initial=0.0)) or 1.0


def _draw_map(
    figure: Figure,
    axes: Axes,
    plane: NDArray[np.float64],
    image: NDArray[np.float64] | None = None,
) -> None:
    extent = _extent(plane)
    scale = Normalize(-extent, extent)
    if image is None:
        axes.imshow(plane, cmap=COLOURS, norm=scale, interpolation="nearest")
    else:
        if image.shape[:2] != plane.shape:
            raise ValueError(
                f"`heat` has size {plane.shape}, but `image` {image.shape[:2]}; draw it over what"
                " the model saw, maps.image_seen(pixels, processor), or put it back on the"
                " photograph with maps.on_original(heat, image, processor)"
            )
        axes.imshow(_blend(plane, image), interpolation="nearest")
    axes.set_axis_off()
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), ax=axes, shrink=0.85)
    bar.set_label("against        for", fontsize="small")


def _blend(plane: NDArray[np.float64], image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours a grey image where the map is strong."""
    extent = _extent(plane)
    colours = colormaps[COLOURS](Normalize(-extent, extent)(plane))[..., :3]
    strength = 0.75 * np.abs(plane / extent)[..., None]
    grey = image.mean(axis=2, keepdims=True)
    blended: NDArray[np.float64] = strength * colours + (1 - strength) * grey
    return blended


def _lines(scores: TokenScores) -> list[list[int]]:
    """Breaks the tokens into lines; each is a list of positions."""
    lines: list[list[int]] = [[]]
    column = 0
    for i, token in enumerate(scores.tokens):
        if lines[-1] and column + _width(token) > LINE_WIDTH:
            lines.append([])
            column = 0
        lines[-1].append(i)
        column += _width(token)
    return lines


def _width(token: str) -> int:
    return max(len(token), 6) + 2


def _draw_tokens(figure: Figure, axes: Axes, scores: TokenScores) -> None:
    words = [
        score for score, special in zip(scores.scores, scores.special, strict=True) if not special
    ]
    extent = _extent(words)
    scale = Normalize(-extent, extent)
    lines = _lines(scores)
    for line, positions in enumerate(lines):
        column = 0
        for i in positions:
            token, score, special = scores.tokens[i], scores.scores[i], scores.special[i]
            dark = not special and abs(score) > 0.6 * extent
            axes.text(
                column + _width(token) / 2,
                -line,
                f"{token}\n{score:+.3f}",
                family="monospace",
                fontsize=9,
                ha="center",
                va="center",
                color="white" if dark else "#777777" if special else "black",
                bbox={
                    "boxstyle": "round,pad=0.3",
                    "facecolor": SPECIAL_COLOUR if special else colormaps[COLOURS](scale(score)),
                    "edgecolor": "none",
                },
            )
            column += _width(token)
    axes.set_xlim(0, LINE_WIDTH)
    axes.set_ylim(-max(len(lines) - 1, 1) - 0.8, 0.8)
    axes.set_axis_off()
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), ax=axes, shrink=0.85)
    bar.set_label("against        for", fontsize="small")
