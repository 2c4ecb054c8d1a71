"""The figure of the suite: every task beside every estimator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isnan, nan
from statistics import fmean
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from captum_mi.benchmarks._suite_results import (
    GROUPS,
    Result,
    absolute_errors,
    mean_absolute_error,
    mean_error,
    names,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

FULL_COLOR = 0.5
"""Nats from the truth at which the colors end."""
DARK = 0.6
"""Share of the full color, from which on its text is white."""


def heat_map(results: Sequence[Result], labels: Mapping[str, str]) -> Figure:
    """Draws the error of each estimator (column) on each task (row), and their absolute means.

    Args:
        results: of the tasks, in their order.
        labels: long names of the estimators, by their short one.
    """
    estimators = names(one.estimator for one in results)
    tasks = {one.task: f"{one.title}:  {one.truth:.2f}" for one in results}
    by_task = [
        [
            [one for one in results if (one.task, one.estimator) == (task, name)]
            for name in estimators
        ]
        for task in tasks
    ]
    groups = {name: holds for name, holds in GROUPS.items() if any(map(holds, results))}
    by_group = [
        [[one for one in results if one.estimator == name and holds(one)] for name in estimators]
        for holds in groups.values()
    ]
    size = 4.6 + 1.2 * len(estimators), 2.2 + 0.23 * (len(tasks) + len(groups))
    figure = Figure(figsize=size, layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=[len(tasks), len(groups)])
    errors = [[mean_error(cell) for cell in row] for row in by_task]
    texts = [["refused" if isnan(error) else f"{error:+.2f}" for error in row] for row in errors]
    image = _cells(upper, errors, texts, list(tasks.values()))
    upper.xaxis.tick_top()
    heads = [re.sub("(?<=[a-z])(?=[A-Z])", "\n", f"{name}\n{labels[name]}") for name in estimators]
    upper.set_xticks(range(len(estimators)), heads, fontsize="small")
    means = [[_mean(absolute_errors(cell)) for cell in row] for row in by_group]
    texts = [[mean_absolute_error(cell) for cell in row] for row in by_group]
    _cells(lower, means, texts, [f"mean absolute error, {group}" for group in groups])
    lower.set_xticks([])
    bar = figure.colorbar(image, ax=[upper, lower], extend="both", aspect=50, pad=0.02)
    bar.set_label("nats")
    seeds = len({one.seed for one in results})
    over = f", mean error of {seeds} draws" if seeds > 1 else ""
    figure.suptitle(
        "Estimated less true mutual information, nats, on the tasks of benchmark-mi\n"
        f"{results[0].samples:,} samples of each{over}; on the left, each task and its truth",
        fontsize="medium",
    )
    return figure


def _mean(errors: Sequence[float]) -> float:
    return fmean(errors) if errors else nan


def _cells(
    axes: Axes, values: list[list[float]], texts: list[list[str]], rows: Sequence[str]
) -> AxesImage:
    """Draws values as colored cells, gray where they are NaN, with texts on them."""
    axes.set_facecolor("lightgray")
    image = axes.imshow(values, cmap="RdBu_r", vmin=-FULL_COLOR, vmax=FULL_COLOR, aspect="auto")
    axes.set_yticks(range(len(rows)), rows, fontsize="small")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, (line, words) in enumerate(zip(values, texts, strict=True)):
        for column, (value, text) in enumerate(zip(line, words, strict=True)):
            color = "white" if abs(value) > DARK * FULL_COLOR else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize="small", color=color)
    return image
