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
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tqdm.auto import tqdm

from captum_mi.benchmarks._figures import MeanSquare, Point, bars, by_code, panels
from captum_mi.datasets import AntiPCA, GaussianBumps, KnownImages, Rectangles
from captum_mi.estimators import (
    KSG,
    MINE,
    PCA,
    Autoencoder,
    Compressed,
    Compressor,
    CopulaNeighbors,
    GaussianCopula,
    KernelDensity,
    KozachenkoLeonenko,
    MutualInformationEstimator,
    Training,
    WeightedKozachenkoLeonenko,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

Sampler = Callable[[float, int, int], KnownImages | AntiPCA]
"""Makes the sampler of an information, an image size and a seed of the rotations."""

ON_CODES: dict[str, MutualInformationEstimator] = {
    "copula": CopulaNeighbors(),
    "KL": KozachenkoLeonenko(),
    "WKL": WeightedKozachenkoLeonenko(),
    "KSG": KSG(),
    "KSG cv": KSG(control_variate=True),
    "Gaussian copula": GaussianCopula(),
    "KDE ML": KernelDensity("ml"),
    "KDE LSE": KernelDensity("lse"),
}
ON_RAW_IMAGES: dict[str, MutualInformationEstimator] = {
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


class RootMeanSquare(NamedTuple):
    """An estimator's root mean squared error over the informations, nats."""

    data: str
    size: int | None
    code: str
    estimator: str
    rmse: float


Written = TypeVar("Written", Point, MeanSquare)


class Effort(NamedTuple):
    """The work to spend."""

    samples: int
    kappas: tuple[float, ...]
    signal_kappas: tuple[float, ...]
    steps: int
    batch_size: int


QUICK = Effort(1500, (0, 2, 4, 6, 8, 10), (0, 1, 2, 3, 4), 600, 128)
FULL = Effort(5000, tuple(range(11)), tuple(i / 4 for i in range(17)), 2000, 256)


def gaussian_images(folder: Path, *, quick: bool = False) -> list[Point]:
    """Makes figure 3: images of two-dimensional Gaussians, 16x16 and 32x32.

    Estimates from the parameters, from two principal components, from the two numbers of an
    autoencoder and, by a critic with convolutional towers, from the images; writes
    ``figure3.csv`` and ``figure3.png``.

    Args:
        folder: where to write; made if it is not there.
        quick: fewer samples, informations and training steps.

    Returns:
        one point per size, code, estimator and information.
    """
    points = _estimates("2-D Gaussians", 2, SIZES, ON_CODES, quick=quick, critic=True)
    return _written(points, folder / "figure3", panels)


def rectangles(folder: Path, *, quick: bool = False) -> list[Point]:
    """Makes figure 4: images of rectangles, four parameters; ``figure4.csv`` and ``figure4.png``.

    Arguments and result as for :func:`gaussian_images`.
    """
    points = _estimates("rectangles", 4, SIZES, ON_CODES, quick=quick, critic=True)
    return _written(points, folder / "figure4", panels)


def autoencoder_against_pca(folder: Path, *, quick: bool = False) -> list[Point]:
    """Makes figure 6: PCA against the autoencoder, by the weighted estimator.

    On 2-D Gaussians (a), rectangles (b) and anti-PCA vectors (c), where PCA fails;
    ``figure6.csv`` and ``figure6.png``. Arguments and result as for :func:`gaussian_images`.
    """
    weighted = {"WKL": ON_CODES["WKL"]}
    points = [
        *_estimates("2-D Gaussians", 2, SIZES[:1], weighted, quick=quick),
        *_estimates("rectangles", 4, SIZES[:1], weighted, quick=quick),
        *_estimates("anti-PCA", 2, (0,), weighted, quick=quick),
    ]
    return _written(points, folder / "figure6", by_code)


def uncompressed(folder: Path, *, quick: bool = False) -> list[MeanSquare]:
    """Makes appendix table 2: entropies of raw images, and of two principal components.

    Raw 4x4 and 8x8 images are estimated without whitening, and without the weighted estimator,
    which has no weights in so many dimensions; from 1,500 samples also in the full run, for kernels
    in 128 dimensions are slow. KSG, which the paper leaves out, subtracts no entropies. Writes
    ``table2.csv`` and ``table2.png``.

    Args:
        folder: where to write; made if it is not there.
        quick: fewer samples and informations.

    Returns:
        one mean square per size, code and estimator.
    """
    effort = QUICK if quick else FULL
    means = []
    for size in tqdm(COMPRESSED_SIZES, desc="raw images", unit="size"):
        tasks: list[tuple[str, Compressor | None, dict[str, MutualInformationEstimator]]] = [
            ("PCA", _principal("2-D Gaussians", 2, size), ON_CODES)
        ]
        if size in RAW_SIZES:
            tasks.append(("raw", None, ON_RAW_IMAGES))
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
                mse = sum(squares) / len(squares)
                means.append(MeanSquare(size, code, name, spent.samples, mse))
    return _written(means, folder / "table2", bars)


def root_mean_squares(points: Iterable[Point]) -> list[RootMeanSquare]:
    """Returns the errors over the informations, for each data set, size, code and estimator.

    Args:
        points: of the figures.

    Example:
        >>> near = Point("d", 16, "PCA", "KL", 500, truth=0.0, estimate=3.0, std_error=0.1)
        >>> far = near._replace(truth=1.0, estimate=5.0)
        >>> round(root_mean_squares([near, far])[0].rmse, 4)
        3.5355
    """
    squares: dict[tuple[str, int | None, str, str], list[float]] = {}
    for point in points:
        key = (point.data, point.size, point.code, point.estimator)
        squares.setdefault(key, []).append((point.estimate - point.truth) ** 2)
    return [
        RootMeanSquare(*key, rmse=math.sqrt(sum(values) / len(values)))
        for key, values in squares.items()
    ]


def _gaussians(kappa: float, size: int, seed: int) -> KnownImages:
    return GaussianBumps(kappa, size, mix=True, mix_seed=seed)


def _rectangles(kappa: float, size: int, seed: int) -> KnownImages:
    return Rectangles(kappa, size, mix=True, mix_seed=seed)


def _anti_pca(kappa: float, _size: int, _seed: int) -> AntiPCA:
    return AntiPCA(kappa)


SAMPLERS: dict[str, Sampler] = {
    "2-D Gaussians": _gaussians,
    "rectangles": _rectangles,
    "anti-PCA": _anti_pca,
}


def _fresh(data: str, size: int) -> NDArray[np.float64]:
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


def _critics(effort: Effort) -> dict[str, MutualInformationEstimator]:
    """Returns the paper's critic, two convolutional towers, which trains on the images."""
    training = Training(steps=effort.steps, batch_size=min(effort.batch_size, 128))
    return {"MINE": MINE("concat", (100,), training)}


def _estimates(
    data: str,
    dim: int,
    sizes: Sequence[int],
    estimators: dict[str, MutualInformationEstimator],
    *,
    quick: bool,
    critic: bool = False,
) -> list[Point]:
    """Estimates once per size, code, estimator and information, by a critic from images too."""
    effort = QUICK if quick else FULL
    kappas = effort.signal_kappas if data == "anti-PCA" else effort.kappas
    points = []
    for size in sizes:
        compressors: dict[str, Compressor | None] = {
            "parameters": None,
            "PCA": _principal(data, dim, size),
            "autoencoder": _autoencoder(data, dim, size, effort),
        }
        if critic:
            compressors["images"] = None
        name_of_size = f" {size}x{size}" if size else ""
        for seed, kappa in enumerate(tqdm(kappas, desc=f"{data}{name_of_size}", unit="kappa")):
            sampler = SAMPLERS[data](kappa, size, seed)
            images = sampler.sample(effort.samples, seed)
            parameters = sampler.parameters.sample(effort.samples, seed)
            for code, compressor in compressors.items():
                x, y = parameters if code == "parameters" else images
                for name, estimator in (
                    _critics(effort) if code == "images" else estimators
                ).items():
                    nested = Compressed(estimator, x=compressor, y=compressor)
                    estimate = nested.estimate(x, y)
                    points.append(
                        Point(
                            data,
                            size or None,
                            code,
                            name,
                            effort.samples,
                            float(kappa),
                            estimate.value,
                            estimate.std_error,
                        )
                    )
    return points


def _written(
    rows: list[Written], path: Path, draw: Callable[[list[Written]], Figure]
) -> list[Written]:
    """Writes rows and their plot; returns the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0]._fields)
        writer.writerows(rows)
    draw(rows).savefig(path.with_suffix(".png"), dpi=120)
    return rows
