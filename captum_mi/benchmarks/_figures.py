"""Figures of estimates against a known mutual information."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes

TWO_SIGMA = 1.96
LOWEST = -4.0  # nats, of the panels; a curve that falls below says how far
PALETTE = tuple(
    f"tab:{color}"
    for color in ("blue", "orange", "green", "red", "purple", "brown", "pink", "gray", "olive")
)

T = TypeVar("T")


class Point(NamedTuple):
    """An estimate of a figure; ``size`` is the images' side in pixels, None for vectors."""

    data: str
    size: int | None
    code: str
    estimator: str
    samples: int
    truth: float
    estimate: float
    std_error: float


class MeanSquare(NamedTuple):
    """An estimator's mean squared error over the informations, nats squared."""

    size: int
    code: str
    estimator: str
    samples: int
    mse: float


def panels(points: list[Point]) -> Figure:
    """Draws a panel per size and code, a curve per estimator."""
    sizes, codes = _distinct(p.size for p in points), _distinct(p.code for p in points)
    figure = Figure(figsize=(4 * len(codes), 3.6 * len(sizes)), layout="constrained")
    grid = figure.subplots(len(sizes), len(codes), squeeze=False, sharex=True, sharey=True)
    for line, size in zip(grid, sizes, strict=True):
        for axes, code in zip(line, codes, strict=True):
            here = [p for p in points if (p.size, p.code) == (size, code)]
            for name, color in zip(_distinct(p.estimator for p in here), PALETTE, strict=False):
                _curve(axes, [p for p in here if p.estimator == name], name, color)
            _diagonal(axes, here, f"{here[0].data} {size}x{size}, {code}")
            axes.set_ylim(LOWEST, max(p.truth for p in points) + 1)
            axes.label_outer()
            least = min(here, key=lambda point: point.estimate)
            if least.estimate < LOWEST:
                text = f"{least.estimator} falls to {least.estimate:.1f}"
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                axes.text(0.98, 0.03, text, ha="right", transform=axes.transAxes, bbox=box)
    for axes in grid[0, [0, -1]]:  # those of the last may be others
        axes.legend(fontsize="small")
    _explained(figure, points)
    return figure


def by_code(points: list[Point]) -> Figure:
    """Draws a panel per data set, a curve per code."""
    kinds = _distinct(p.data for p in points)
    figure = Figure(figsize=(4.2 * len(kinds), 3.8), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds)), kinds, strict=True):
        here = [p for p in points if p.data == kind]
        for code, color in zip(_distinct(p.code for p in here), PALETTE, strict=False):
            _curve(axes, [p for p in here if p.code == code], code, color)
        size = here[0].size
        _diagonal(axes, here, f"{kind} {size}x{size}, WKL" if size else f"{kind}, WKL")
        axes.legend()
    _explained(figure, points)
    return figure


def bars(means: list[MeanSquare]) -> Figure:
    """Draws a group of bars per code and size, a bar per estimator."""
    samples = {(mean.code, mean.size): mean.samples for mean in means}
    groups = sorted(samples, key=lambda group: (group[0] != "raw", group[1]))
    names = _distinct(mean.estimator for mean in means)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(yscale="log", ylabel="mean squared error, nats$^2$")
    width = 0.8 / len(names)
    for shift, (name, color) in enumerate(zip(names, PALETTE, strict=False)):
        mine = [mean for mean in means if mean.estimator == name]
        places = [groups.index((mean.code, mean.size)) + shift * width for mean in mine]
        axes.bar(places, [mean.mse for mean in mine], width, label=name, color=color)
    labels = [f"{code} {size}x{size}\n{samples[code, size]:,} pairs" for code, size in groups]
    axes.set_xticks([i + 0.4 - width / 2 for i in range(len(groups))], labels)
    axes.set_title(
        "2-D Gaussians: raw images, and two principal components\n"
        "(raw images have too many dimensions for WKL)",
        fontsize="medium",
    )
    axes.legend()
    return figure


def _distinct(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _curve(axes: Axes, points: list[Point], label: str, color: str) -> None:
    """Draws estimates against truth with 95 % intervals."""
    axes.errorbar(
        [point.truth for point in points],
        [point.estimate for point in points],
        yerr=[TWO_SIGMA * point.std_error for point in points],
        label=label,
        color=color,
        marker="o",
        markersize=3,
        linewidth=1,
        capsize=2,
    )


def _explained(figure: Figure, points: list[Point]) -> None:
    """Says above the panels what a point is."""
    figure.suptitle(
        f"{points[0].samples:,} pairs a point; normals behind images are rotated at random anew"
        " for each point; bars: 95 % intervals of sampling",
        fontsize="medium",
    )


def _diagonal(axes: Axes, points: list[Point], title: str) -> None:
    most = max(point.truth for point in points)
    axes.plot([0, most], [0, most], color="black", linestyle="--", linewidth=1, label="truth")
    axes.set_title(title)
    axes.set_xlabel("true mutual information, nats")
    axes.set_ylabel("estimate, nats")
