"""Several pictures on one page: an image explained with its texts, maps side by side."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from captum_mi.visualization.heat import blend, draw_map, image_of, plane_of
from captum_mi.visualization.tokens import draw_tokens, token_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor

    from captum_mi.maps import TokenScores


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

    Example:
        >>> from captum_mi.maps import TokenScores
        >>> scores = TokenScores(("a", "heart"), (-0.1, 0.9), special=(False, False))
        >>> figure = explanation(torch.zeros(8, 8, 3), [torch.eye(8)], [scores], ["a heart"])
    """
    heights = [max(3.1, 0.8 + 0.5 * len(token_lines(scores))) for scores in tokens]
    figure = Figure(figsize=(13, sum(heights) + 0.5), layout="constrained")
    grid = figure.subplots(
        len(titles), 3, squeeze=False, width_ratios=(1, 1.25, 2), height_ratios=heights
    )
    for axes, heat, scores, title in zip(grid, heats, tokens, titles, strict=True):
        axes[0].imshow(image_of(image), interpolation="nearest")
        axes[0].set_axis_off()
        axes[0].set_title("image")
        draw_map(figure, axes[1], plane_of(heat), image_of(image))
        axes[1].set_title(title, wrap=True)
        draw_tokens(figure, axes[2], scores)
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
        >>> gallery([torch.zeros(8, 8, 3)], [[torch.eye(8)]], columns=["nib"], rows=["a"]).axes[0]
        <Axes: title={'center': 'image'}, ylabel='a'>
    """
    figure = Figure(figsize=(1.5 * (len(columns) + 1) + 0.5, 1.6 * len(rows) + 0.7))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(rows), len(columns) + 1, squeeze=False)
    for line, image, maps, title in zip(grid, images, heats, rows, strict=True):
        line[0].imshow(image_of(image), interpolation="nearest")
        line[0].set_ylabel("\n".join(wrap(title, 18)), fontsize="small")
        for axes, heat in zip(line[1:], maps, strict=True):
            if heat is not None:
                axes.imshow(blend(plane_of(heat), image_of(image)), interpolation="nearest")
        for axes in line:
            axes.set(xticks=[], yticks=[])
            for side in axes.spines.values():
                side.set_visible(False)
    grid[0, 0].set_title("image", fontsize="small")
    for axes, title in zip(grid[0, 1:], columns, strict=True):
        axes.set_title(title, fontsize="small")
    figure.supxlabel("red: for the text, blue: against it; each map in its own scale", fontsize=8)
    return figure
