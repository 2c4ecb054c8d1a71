"""How close do the estimators come to a known mutual information, with and without compression?

Figures 3, 4 and 6 and appendix table 2 of Butakov et al., "Information bottleneck analysis of deep
neural networks via lossy compression", ICLR 2024. As in the authors' code, the parameters' normals
are rotated at random; a compressor is fitted once on fresh images of independent parameters and
used for X, for Y and for every mutual information.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure
from tqdm.auto import tqdm

from captum_mi.datasets import AntiPCA, GaussianBumps, KnownInformation, Rectangles
from captum_mi.estimators import (
    KSG,
    PCA,
    Autoencoder,
    Compressed,
    Compressor,
    KernelDensity,
    KozachenkoLeonenko,
    MutualInformationEstimator,
    WeightedKozachenkoLeonenko,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
Sampler = Callable[[float, int, int], KnownInformation]
"""Pairs of an information, an image size and a seed of their rotations."""

ESTIMATORS: dict[str, MutualInformationEstimator] = {
    "KL": KozachenkoLeonenko(),
    "WKL": WeightedKozachenkoLeonenko(),
    "KSG": KSG(),
    "KDE ML": KernelDensity("ml"),
    "KDE LSE": KernelDensity("lse"),
}
RAW_ESTIMATORS: dict[str, MutualInformationEstimator] = {
    "KL": KozachenkoLeonenko(whiten=False),
    "KSG": KSG(),
    "KDE ML": KernelDensity("ml", whiten=False),
    "KDE LSE": KernelDensity("lse", whiten=False),
}
"""Without whitening: raw images have a covariance that is singular to rounding."""

SIZES = (16, 32)
RAW_SIZES = (4, 8)
COMPRESSED_SIZES = (4, 8, 16)
FRESH_SEED = 1_000_003
FRESH = 5000  # images a compressor learns from
TWO_SIGMA = 1.96
LOWEST = -4.0  # nats, of the panels; a curve that falls below says how far
PALETTE = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


class Effort(NamedTuple):
    """How much work to spend."""

    samples: int
    kappas: tuple[float, ...]
    signal_kappas: tuple[float, ...]
    steps: int
    batch_size: int


QUICK = Effort(1500, (0, 2, 4, 6, 8, 10), (0, 1, 2, 3, 4), 600, 128)
FULL = Effort(5000, tuple(range(11)), tuple(i / 4 for i in range(17)), 2000, 256)


def gaussian_images(folder: Path, *, quick: bool = False) -> list[Row]:
    """Figure 3: images of two-dimensional Gaussians, 16x16 and 32x32.

    Estimates from the parameters, from two principal components and from the two numbers of an
    autoencoder; writes ``figure3.csv`` and ``figure3.png``.

    Args:
        folder: where to write; made if it is not there.
        quick: fewer samples, informations and training steps.

    Returns:
        one row per size, code, estimator and information.
    """
    rows = _estimates("2-D Gaussians", 2, SIZES, ESTIMATORS, quick=quick)
    return _written(rows, folder / "figure3", _panels)


def rectangles(folder: Path, *, quick: bool = False) -> list[Row]:
    """Figure 4: images of rectangles, four parameters; ``figure4.csv`` and ``figure4.png``.

    Arguments and result as for :func:`gaussian_images`.
    """
    rows = _estimates("rectangles", 4, SIZES, ESTIMATORS, quick=quick)
    return _written(rows, folder / "figure4", _panels)


def autoencoder_against_pca(folder: Path, *, quick: bool = False) -> list[Row]:
    """Figure 6: PCA and autoencoder, by the weighted estimator, where PCA does well and where not.

    On 2-D Gaussians (a), rectangles (b) and anti-PCA vectors (c); ``figure6.csv``, ``figure6.png``.
    Arguments and result as for :func:`gaussian_images`.
    """
    weighted = {"WKL": ESTIMATORS["WKL"]}
    rows = [
        *_estimates("2-D Gaussians", 2, SIZES[:1], weighted, quick=quick),
        *_estimates("rectangles", 4, SIZES[:1], weighted, quick=quick),
        *_estimates("anti-PCA", 2, (0,), weighted, quick=quick),
    ]
    return _written(rows, folder / "figure6", _by_code)


def uncompressed(folder: Path, *, quick: bool = False) -> list[Row]:
    """Appendix table 2: entropies of raw images fail, and two principal components mend them.

    Raw 4x4 and 8x8 images are estimated without whitening, and without the weighted estimator,
    which has no weights in so many dimensions; from 1,500 samples also in the full run, for kernels
    in 128 dimensions take their time, and the error is of another order. KSG, which the paper
    leaves out, does not fail: it subtracts no entropies. Writes ``table2.csv`` and ``table2.png``.

    Args:
        folder: where to write; made if it is not there.
        quick: fewer samples and informations.

    Returns:
        one row per size, code and estimator, with the mean squared error over the informations.
    """
    effort = QUICK if quick else FULL
    rows = []
    for size in tqdm(COMPRESSED_SIZES, desc="raw images", unit="size"):
        tasks: list[tuple[str, Compressor | None, dict[str, MutualInformationEstimator]]] = [
            ("PCA", _principal("2-D Gaussians", 2, size), ESTIMATORS)
        ]
        if size in RAW_SIZES:
            tasks.append(("raw", None, RAW_ESTIMATORS))
        for code, compressor, estimators in tasks:
            spent = QUICK if compressor is None else effort
            for name, estimator in estimators.items():
                squares = []
                for seed, kappa in enumerate(spent.kappas):
                    x, y = SAMPLERS["2-D Gaussians"](kappa, size, seed).sample(spent.samples, seed)
                    if compressor is None:
                        x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
                    nested = Compressed(estimator, x=compressor, y=compressor)
                    squares.append((nested.estimate(x, y).value - kappa) ** 2)
                row = {"size": size, "code": code, "estimator": name, "samples": spent.samples}
                rows.append({**row, "mse": sum(squares) / len(squares)})
    return _written(rows, folder / "table2", _bars)


def root_mean_squares(rows: Iterable[Row]) -> list[Row]:
    """Root mean squared error over the informations, for each data set, size, code and estimator.

    Args:
        rows: of the figures.

    Example:
        >>> row = {"data": "d", "size": 16, "code": "PCA", "estimator": "KL", "std_error": 0.1}
        >>> rows = [{**row, "truth": 0, "estimate": 3.0}, {**row, "truth": 1, "estimate": 5.0}]
        >>> round(root_mean_squares(rows)[0]["rmse"], 4)
        3.5355
    """
    squares: dict[tuple[Any, ...], list[float]] = {}
    names = ("data", "size", "code", "estimator")
    for row in rows:
        key = tuple(row[name] for name in names)
        squares.setdefault(key, []).append((row["estimate"] - row["truth"]) ** 2)
    return [
        {**dict(zip(names, key, strict=True)), "rmse": math.sqrt(sum(values) / len(values))}
        for key, values in squares.items()
    ]


def _gaussians(kappa: float, size: int, seed: int) -> KnownInformation:
    return GaussianBumps(kappa, size, mix=True, mix_seed=seed)


def _rectangles(kappa: float, size: int, seed: int) -> KnownInformation:
    return Rectangles(kappa, size, mix=True, mix_seed=seed)


def _anti_pca(kappa: float, _size: int, _seed: int) -> KnownInformation:
    return AntiPCA(kappa)


SAMPLERS: dict[str, Sampler] = {
    "2-D Gaussians": _gaussians,
    "rectangles": _rectangles,
    "anti-PCA": _anti_pca,
}


def _fresh(data: str, size: int) -> Any:  # noqa: ANN401, an array
    return SAMPLERS[data](0.0, size, 0).sample(FRESH, FRESH_SEED)[0]


@cache
def _principal(data: str, dim: int, size: int) -> PCA:
    return PCA(dim).fit(_fresh(data, size))


@cache
def _autoencoder(data: str, dim: int, size: int, effort: Effort) -> Autoencoder:
    if data == "anti-PCA":  # vectors train in seconds
        effort = FULL
    autoencoder = Autoencoder(dim, steps=effort.steps, batch_size=effort.batch_size)
    return autoencoder.fit(_fresh(data, size))


def _estimates(
    data: str,
    dim: int,
    sizes: Sequence[int],
    estimators: dict[str, MutualInformationEstimator],
    *,
    quick: bool,
) -> list[Row]:
    """One row per size, code, estimator and information."""
    effort = QUICK if quick else FULL
    kappas = effort.signal_kappas if data == "anti-PCA" else effort.kappas
    rows = []
    for size in sizes:
        compressors: dict[str, Compressor | None] = {
            "parameters": None,
            "PCA": _principal(data, dim, size),
            "autoencoder": _autoencoder(data, dim, size, effort),
        }
        name_of_size = f" {size}x{size}" if size else ""
        for seed, kappa in enumerate(tqdm(kappas, desc=f"{data}{name_of_size}", unit="kappa")):
            sampler: Any = SAMPLERS[data](kappa, size, seed)
            images = sampler.sample(effort.samples, seed)
            parameters = sampler.parameters.sample(effort.samples, seed)
            for code, compressor in compressors.items():
                x, y = parameters if compressor is None else images
                for name, estimator in estimators.items():
                    nested = Compressed(estimator, x=compressor, y=compressor)
                    estimate = nested.estimate(x, y)
                    rows.append(
                        {
                            "data": data,
                            "size": size or "",
                            "code": code,
                            "estimator": name,
                            "samples": effort.samples,
                            "truth": float(kappa),
                            "estimate": estimate.value,
                            "std_error": estimate.std_error,
                        }
                    )
    return rows


def _written(rows: list[Row], path: Path, draw: Callable[[list[Row]], Figure]) -> list[Row]:
    """Writes rows and their plot; returns the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    draw(rows).savefig(path.with_suffix(".png"), dpi=120)
    return rows


def _distinct(rows: Iterable[Row], name: str) -> list[Any]:
    return list(dict.fromkeys(row[name] for row in rows))


def _curve(axes: Axes, rows: list[Row], label: str, colour: str) -> None:
    """Estimate against truth with 95 % intervals."""
    axes.errorbar(
        [row["truth"] for row in rows],
        [row["estimate"] for row in rows],
        yerr=[TWO_SIGMA * row["std_error"] for row in rows],
        label=label,
        color=colour,
        marker="o",
        markersize=3,
        linewidth=1,
        capsize=2,
    )


def _explained(figure: Figure, rows: list[Row]) -> None:
    """Says above the panels what a point is."""
    figure.suptitle(
        f"{rows[0]['samples']:,} pairs a point; normals behind images are rotated at random anew"
        " for each point; bars: 95 % intervals of sampling",
        fontsize="medium",
    )


def _diagonal(axes: Axes, rows: list[Row], title: str) -> None:
    most = max(row["truth"] for row in rows)
    axes.plot([0, most], [0, most], color="black", linestyle="--", linewidth=1, label="truth")
    axes.set_title(title)
    axes.set_xlabel("true mutual information, nats")
    axes.set_ylabel("estimate, nats")


def _panels(rows: list[Row]) -> Figure:
    """A panel per size and code, a curve per estimator."""
    sizes, codes = _distinct(rows, "size"), _distinct(rows, "code")
    figure = Figure(figsize=(4 * len(codes), 3.6 * len(sizes)), layout="constrained")
    grid = figure.subplots(len(sizes), len(codes), squeeze=False, sharex=True, sharey=True)
    for line, size in zip(grid, sizes, strict=True):
        for axes, code in zip(line, codes, strict=True):
            here = [row for row in rows if (row["size"], row["code"]) == (size, code)]
            for name, colour in zip(_distinct(here, "estimator"), PALETTE, strict=False):
                _curve(axes, [row for row in here if row["estimator"] == name], name, colour)
            _diagonal(axes, here, f"{here[0]['data']} {size}x{size}, {code}")
            axes.set_ylim(LOWEST, max(row["truth"] for row in rows) + 1)
            axes.label_outer()
            least = min(here, key=lambda row: float(row["estimate"]))
            if least["estimate"] < LOWEST:
                text = f"{least['estimator']} falls to {least['estimate']:.1f}"
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                axes.text(0.98, 0.03, text, ha="right", transform=axes.transAxes, bbox=box)
    grid[0, 0].legend()
    _explained(figure, rows)
    return figure


def _by_code(rows: list[Row]) -> Figure:
    """A panel per data set, a curve per code."""
    kinds = _distinct(rows, "data")
    figure = Figure(figsize=(4.2 * len(kinds), 3.8), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds)), kinds, strict=True):
        here = [row for row in rows if row["data"] == kind]
        for code, colour in zip(_distinct(here, "code"), PALETTE, strict=False):
            _curve(axes, [row for row in here if row["code"] == code], code, colour)
        size = here[0]["size"]
        _diagonal(axes, here, f"{kind} {size}x{size}, WKL" if size else f"{kind}, WKL")
        axes.legend()
    _explained(figure, rows)
    return figure


def _bars(rows: list[Row]) -> Figure:
    """A group of bars per code and size, a bar per estimator."""
    groups = list(dict.fromkeys((row["code"], row["size"]) for row in rows))
    groups.sort(key=lambda group: (group[0] != "raw", group[1]))
    names = _distinct(rows, "estimator")
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(yscale="log", ylabel="mean squared error, nats$^2$")
    width = 0.8 / len(names)
    for shift, (name, colour) in enumerate(zip(names, PALETTE, strict=False)):
        mine = [row for row in rows if row["estimator"] == name]
        places = [groups.index((row["code"], row["size"])) + shift * width for row in mine]
        axes.bar(places, [row["mse"] for row in mine], width, label=name, color=colour)
    samples = {(row["code"], row["size"]): row["samples"] for row in rows}
    labels = [f"{code} {size}x{size}\n{samples[code, size]:,} pairs" for code, size in groups]
    axes.set_xticks([i + 0.4 - width / 2 for i in range(len(groups))], labels)
    axes.set_title(
        "2-D Gaussians: raw images, and two principal components\n"
        "(raw images have too many dimensions for WKL)",
        fontsize="medium",
    )
    axes.legend()
    return figure
