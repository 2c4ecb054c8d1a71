"""Pictures of the information plane: the paths of layers, and their informations by epochs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import AsinhNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from captum_mi._checks import check_positive
from captum_mi.visualization.page import GAP, GRAY, SMALL, broken, width_of
from captum_mi.visualization.paths import ORDER, LayerPath, paths_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

ACROSS = 3
"""Panels side by side, at most."""

OF_INPUT, OF_TARGET = "I(X; L), nats", "I(L; Y), nats"

LOSSES = ListedColormap(colormaps["plasma"](np.linspace(0, 0.87, 256)), "losses")
"""From dark blue, the loss falls fast, to orange; what is paler is hard to see on white."""

BESIDE = 0.6
"""Inches that a legend's entry takes beside its text."""

START, END = ("o", "white"), ("s", "black")
"""Marker and color of a path's ends."""

PALE = "#c4c4c4"
"""Of what lies behind the paths."""


def information_plane(
    rows: Iterable[object] | pd.DataFrame,
    *,
    together: bool = False,
    smooth: int | None = None,
    level: float = 0.95,
    caption: str = "",
) -> Figure:
    """Draws the path of each layer through the information plane while its network trains.

    Across lies I(X; L), upwards I(L; Y). A path's color is the change of the loss from a record to
    the next, per epoch, on a scale that is linear up to the median change and logarithmic beyond.
    Behind the path lie the intervals of each estimate; an estimate that failed leaves a gap.

    Args:
        rows: of ``InformationPlane.rows`` or its ``frame()``.
        together: all layers in one panel, whose names stand at their ends; else each has its own,
            with its own axes.
        smooth: draw the path smoothed by polynomials of degree two over windows of so many records,
            which are taken as evenly spaced (Savitzky-Golay); the legend says so, and the estimates
            themselves stay as dots.
        level: of the intervals.
        caption: title of the picture.

    Returns:
        the figure.

    Raises:
        ValueError: if there are no rows, fields are missing, or records are too few to smooth.

    Source: Butakov et al., ICLR 2024, figure 5.

    Example:
        >>> from captum_mi.infoplane import Row
        >>> path = [(0, 2.3, 1.0, 0.5), (1, 1.1, 2.0, 1.4), (2, 0.9, 1.6, 1.9)]
        >>> rows = [Row(e, loss, "1", x, 0.1, y, 0.1, 1.0, 500) for e, loss, x, y in path]
        >>> figure = information_plane(rows)
    """
    paths = paths_of(rows, smooth=smooth, level=level)
    panels = [paths] if together else [[path] for path in paths]
    across = min(len(panels), ACROSS)
    down = math.ceil(len(panels) / across)
    size = (7.0, 5.5) if together else (3.1 * across + 1.2, 2.9 * down + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).flatten()
    scale = _scale_of(paths)
    for axes, shown in zip(grid, panels, strict=False):
        for path in shown:
            _draw_path(axes, path, scale, smooth=smooth is not None)
            if together:
                _write_name(axes, path)
        axes.set(xlabel=OF_INPUT, ylabel=OF_TARGET)
        if not together:
            axes.set_title(f"layer {shown[0].layer}", fontsize="medium")
    for axes in grid[len(panels) :]:
        axes.remove()
    if scale is not None:
        colors = ScalarMappable(scale, LOSSES)
        bar = figure.colorbar(colors, ax=grid[: len(panels)].tolist(), aspect=30)
        ticks = [float(scale.inverse(share)) for share in np.linspace(0, 1, 5)]
        bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
        bar.minorticks_off()
        bar.set_label("change of the loss per epoch")
        bar.outline.set_visible(False)
    epochs = [epoch for path in paths for epoch in path.epochs[path.known].tolist()]
    first, last = (f"{pick(epochs):g}" if epochs else "-" for pick in (min, max))
    handles = [
        _mark(START, f"epoch {first}"),
        _mark(END, f"epoch {last}"),
        Line2D([], [], color=PALE, marker="+", markersize=9, label=_interval(level)),
    ]
    _write_legend(figure, handles, smooth)
    _write_caption(figure, caption, paths)
    return figure


def information_by_epoch(
    rows: Iterable[object] | pd.DataFrame,
    *,
    classes: int | None = None,
    smooth: int | None = None,
    level: float = 0.95,
    caption: str = "",
) -> Figure:
    """Draws I(X; L) and I(L; Y) of each layer over the epochs, with their intervals.

    Args:
        rows: of ``InformationPlane.rows`` or its ``frame()``.
        classes: number of the targets' classes, whose logarithm is the most that I(L; Y) can be; it
            is drawn as a line.
        smooth: as in :func:`information_plane`.
        level: of the intervals.
        caption: title of the picture.

    Returns:
        the figure.

    Raises:
        ValueError: if there are no rows, fields are missing, or records are too few to smooth.

    Example:
        >>> from captum_mi.infoplane import Row
        >>> rows = [Row(e, 2.3 - e, "1", 1.0 + e, 0.1, 0.6 * e, 0.1, 1.0, 500) for e in range(3)]
        >>> figure = information_by_epoch(rows, classes=10)
    """
    paths = paths_of(rows, smooth=smooth, level=level)
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, path in enumerate(paths):
        color = colormaps["tab10"](number % 10)
        for axes, quantity in ((left, path.of_input), (right, path.of_target)):
            axes.fill_between(
                path.epochs,
                quantity.values - quantity.margins,
                quantity.values + quantity.margins,
                color=color,
                alpha=0.15,
                linewidth=0,
            )
            alone = {"marker": "."} if smooth is None else {}
            axes.plot(path.epochs, quantity.line, color=color, label=path.layer, **alone)
            if smooth is not None:
                axes.plot(path.epochs, quantity.values, ".", color=color, alpha=0.4, markersize=3)
    for axes, label in ((left, OF_INPUT), (right, OF_TARGET)):
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles: list[Artist] = [*left.get_lines()[:: 1 if smooth is None else 2]]
    handles.append(Patch(color=PALE, label=_interval(level)))
    if classes is not None:
        most = math.log(check_positive("classes", classes))
        label = f"log {classes}"
        handles.append(right.axhline(most, color="black", ls="--", lw=1, label=label))
    _write_legend(figure, handles, smooth)
    _write_caption(figure, caption, paths)
    return figure


def _draw_path(axes: Axes, path: LayerPath, scale: AsinhNorm | None, *, smooth: bool) -> None:
    """Draws the intervals, the path over them, and its ends over both."""
    across, upwards = path.of_input, path.of_target
    axes.errorbar(
        across.values,
        upwards.values,
        xerr=across.margins,
        yerr=upwards.margins,
        fmt="none",
        ecolor=PALE,
        elinewidth=0.6,
        zorder=1,
    )
    if smooth:
        axes.plot(across.values, upwards.values, ".", color=GRAY, markersize=3, zorder=2)
    points = np.stack([across.line, upwards.line], 1)
    pieces = np.stack([points[:-1], points[1:]], 1)
    whole = np.isfinite(pieces).all((1, 2))
    drawn = LineCollection(list(pieces[whole]), linewidths=2, capstyle="round", zorder=3)
    if scale is None:
        drawn.set_color(GRAY)
    else:
        drawn.set(cmap=LOSSES, norm=scale, array=path.steps[whole])
    axes.add_collection(drawn)
    ends = points[path.known][[0, -1]] if path.known.any() else points[:0]
    for (x, y), (marker, color) in zip(ends, (START, END), strict=False):
        axes.scatter([x], [y], 36, color, marker=marker, edgecolor="black", zorder=4)


def _write_name(axes: Axes, path: LayerPath) -> None:
    """Writes a layer's name where its path ends."""
    known = path.known
    if known.any():
        end = path.of_input.line[known][-1], path.of_target.line[known][-1]
        axes.annotate(path.layer, end, (6, 6), textcoords="offset points", weight="bold", zorder=5)


def _scale_of(paths: Sequence[LayerPath]) -> AsinhNorm | None:
    """Returns the colors of the changes of the loss; None where no loss is known."""
    steps = np.concatenate([path.steps for path in paths])
    steps = steps[np.isfinite(steps)]
    if not len(steps):
        return None
    linear = float(np.median(np.abs(steps))) or float(np.abs(steps).max()) or 1.0
    low, high = float(steps.min()), float(steps.max())
    if low == high:
        low, high = low - linear, high + linear
    return AsinhNorm(linear, vmin=low, vmax=high)


def _mark(look: tuple[str, str], label: str) -> Line2D:
    marker, color = look
    return Line2D([], [], ls="", marker=marker, mfc=color, mec="black", markersize=6, label=label)


def _interval(level: float) -> str:
    return f"{100 * level:g} % interval"


def _write_legend(figure: Figure, handles: Sequence[Artist], smooth: int | None) -> None:
    """Writes the legend below the picture, and above it whether the lines are smoothed."""
    widths = [width_of(str(handle.get_label()), SMALL) + BESIDE for handle in handles]
    room = figure.get_figwidth()
    columns = len(handles) if sum(widths) < room else max(int(room / max(widths)), 1)
    title = ""
    if smooth is not None:
        title = (
            f"lines: smoothed over {smooth} records (Savitzky-Golay, order {ORDER}); dots: as"
            " estimated"
        )
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(columns, len(handles)),
        fontsize=SMALL,
        title="\n".join(broken(title, figure.get_figwidth() - GAP, SMALL)) or None,
        title_fontsize=SMALL,
    )


def _write_caption(figure: Figure, caption: str, paths: Sequence[LayerPath]) -> None:
    """Writes the caption, and how many estimates are missing, above the picture."""
    failed = sum(
        int((~np.isfinite(quantity.values)).sum())
        for path in paths
        for quantity in (path.of_input, path.of_target)
    )
    words = [caption] if caption else []
    if failed:
        words.append(f"{failed} estimate{'s' * (failed > 1)} failed and left a gap")
    if words:
        figure.suptitle("; ".join(words), fontsize="medium", parse_math=False)
