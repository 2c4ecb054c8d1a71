"""The words of a text, colored by their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib import colormaps
from matplotlib.colors import Normalize

from captum_mi.visualization.heat import COLOR_MAP, draw_color_bar, extent_of, figure_with_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_mi.maps import TokenScores

SPECIAL_COLOR = "#dddddd"
LINE_WIDTH = 30  # characters of colored tokens on a line


def colored_tokens(scores: TokenScores, *, title: str = "") -> Figure:
    """Draws the words of a text, colored by their scores; special tokens stay gray.

    Args:
        scores: the tokens and their scores; the colors' scale is set by the words alone.
        title: title of the picture.

    Returns:
        the figure.

    Example:
        >>> from captum_mi.maps import TokenScores
        >>> scores = TokenScores(("a", "heart"), (-0.1, 0.9), special=(False, False))
        >>> figure = colored_tokens(scores, title="a heart")
    """
    figure, axes = figure_with_axes(6, 1.2 + 0.5 * len(token_lines(scores)))
    draw_tokens(figure, axes, scores)
    axes.set_title(title)
    return figure


def token_lines(scores: TokenScores) -> list[list[int]]:
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


def draw_tokens(figure: Figure, axes: Axes, scores: TokenScores) -> None:
    """Draws the words of a text in colored boxes, line by line, with their color bar."""
    words = [
        score for score, special in zip(scores.scores, scores.special, strict=True) if not special
    ]
    extent = extent_of(words)
    scale = Normalize(-extent, extent)
    lines = token_lines(scores)
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
                    "facecolor": SPECIAL_COLOR if special else colormaps[COLOR_MAP](scale(score)),
                    "edgecolor": "none",
                },
            )
            column += _width(token)
    axes.set_xlim(0, LINE_WIDTH)
    axes.set_ylim(-max(len(lines) - 1, 1) - 0.8, 0.8)
    axes.set_axis_off()
    draw_color_bar(figure, axes, scale)


def _width(token: str) -> int:
    return max(len(token), 6) + 2
