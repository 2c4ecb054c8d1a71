"""The mutual information of each pair of columns of a table, as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pandas import DataFrame

NUMBERED = 12
"""Columns up to which cells bear their numbers."""
CROSS = "\N{MULTIPLICATION SIGN}"


def information_matrix(
    values: DataFrame, p_values: DataFrame | None = None, *, level: float = 0.05
) -> Figure:
    """Draws a matrix of nats; a cross marks pairs that are not told from independent ones.

    Args:
        values: (d, d), nats, NaN where there is no value, by the columns' names.
        p_values: (d, d), of tests of independence; None marks nothing.
        level: p-values above it are marked.

    Returns:
        the figure.

    Raises:
        ValueError: if the two have different shapes.

    Example:
        >>> import pandas as pd
        >>> nats = pd.DataFrame([[float("nan"), 0.7], [0.7, float("nan")]], ["a", "b"], ["a", "b"])
        >>> figure = information_matrix(nats)
    """
    if p_values is not None and p_values.shape != values.shape:
        raise ValueError(
            f"`p_values` must have the shape of `values`, {values.shape}, got {p_values.shape}"
        )
    count = len(values)
    side = min(max(3.5, 0.62 * count + 1.5), 14)
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axes = figure.add_subplot(title="Mutual information of pairs of columns")
    cells = values.to_numpy(dtype=float)
    top = max(float(np.nanmax(cells, initial=0.0)), 1e-3)
    colors = colormaps["Blues"].with_extremes(bad="0.85")
    image = axes.imshow(cells, cmap=colors, vmin=0, vmax=top)
    axes.set_xticks(range(count), map(str, values.columns), rotation=60, ha="right")
    axes.set_yticks(range(count), map(str, values.index))
    for row, column in np.argwhere(np.isfinite(cells)):
        value = cells[row, column]
        independent = p_values is not None and p_values.iloc[row, column] > level
        dark = "white" if value > 0.6 * top else "black"
        if count <= NUMBERED:
            text = f"{value + 0.0:.2f}".replace("-0.00", "0.00") + (
                f" {CROSS}" if independent else ""
            )
            axes.text(column, row, text, ha="center", va="center", color=dark, fontsize=8)
        elif independent:
            axes.text(column, row, CROSS, ha="center", va="center", color="0.5", fontsize=7)
    figure.colorbar(image, ax=axes, label="nats", shrink=0.8)
    if p_values is not None:
        axes.set_xlabel(
            f"{CROSS}: not told from independence (p > {level:g}, each pair by itself)", color="0.3"
        )
    return figure
