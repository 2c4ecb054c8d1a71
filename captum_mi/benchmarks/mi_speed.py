"""How close do the nearest-neighbor estimators come to the tree queries that they need?"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.neighbors import KDTree, NearestNeighbors
from tqdm.auto import tqdm

from captum_mi.estimators import (
    KSG,
    KernelDensity,
    KozachenkoLeonenko,
    MutualInformationEstimator,
    WeightedKozachenkoLeonenko,
)

Array: TypeAlias = NDArray[np.float64]

SIZES = (2_000, 20_000, 200_000)
DIMS = (2, 4, 8, 16)
PATIENCE = 60.0  # seconds a run may be expected to take
RUNS = 3
ENOUGH = 2.0  # seconds after which a run is not repeated
RHO = 0.8


class Timing(NamedTuple):
    """Median seconds of an estimate, of the same queries alone, and of ennemi's estimate.

    None was skipped as too slow, or is not there.
    """

    estimator: str
    n_samples: int
    dim: int
    ours: float | None
    trees: float | None
    scikit_learn: float | None
    ennemi: float | None = None


class Memory(NamedTuple):
    """Peak resident memory of a process, in MB, before and after an estimate."""

    before: float
    after: float


def main(
    sizes: Sequence[int] = SIZES, dims: Sequence[int] = DIMS, patience: float = PATIENCE
) -> list[Timing]:
    """Times every estimator on normals of ``dim`` columns, half of them X and half Y.

    It is compared with the queries alone, by SciPy's trees on all cores (the limit), and by
    scikit-learn, on all cores where it uses them; and with ennemi, if it is installed, which
    estimates entropies, and the information of two columns, on one core.

    Args:
        sizes: numbers of samples, ascending.
        dims: columns of X and Y together, each even.
        patience: seconds; what may take longer, if time grows with the square of N, is skipped.
    """
    contests = {
        "KL": (KozachenkoLeonenko(), lambda _: 1),
        "WKL": (WeightedKozachenkoLeonenko(), lambda dim: max(5, dim)),
        "KSG": (KSG(), lambda _: 3),
    }
    for estimator, _ in contests.values():  # imports and threads
        estimator.estimate(*_normals(100, 1))
    timings = []
    for dim in tqdm(dims, desc="dimensions", leave=False):
        for name, (estimator, neighbors) in contests.items():
            histories: list[list[tuple[int, float]]] = [[], [], [], []]
            for n_samples in sizes:
                x, y = _normals(n_samples, dim // 2)
                contenders = _contenders(estimator, neighbors, x, y)
                seconds = [
                    None if run is None else _within(patience, run, n_samples, history)
                    for run, history in zip(contenders, histories, strict=True)
                ]
                timings.append(Timing(name, n_samples, dim, *seconds))
    return timings


def table(timings: Sequence[Timing]) -> str:
    """Returns the timings as text; a ratio below 1 means faster than that contender."""
    lines = [
        "estimator        N   d    ours s   trees s  sklearn s  ennemi s"
        "  ours/trees  ours/sklearn  ours/ennemi",
    ]
    for timing in timings:
        times = [_text(value, ".3f") for value in timing[3:]]
        ratios = [_text(_ratio(timing.ours, other), ".2f") for other in timing[4:]]
        lines.append(
            f"{timing.estimator:9} {timing.n_samples:7} {timing.dim:3}  {times[0]:>8}"
            f"  {times[1]:>8}  {times[2]:>9}  {times[3]:>8}"
            f"  {ratios[0]:>10}  {ratios[1]:>12}  {ratios[2]:>11}"
        )
    if any(None in timing[:6] for timing in timings):
        lines.append("-: skipped, for it might have taken too long")
    if all(timing.ennemi is None for timing in timings):
        lines.append("no times of ennemi: `pip install ennemi` adds them")
    else:
        lines.append("ennemi: on one core; it has no WKL, and KSG of two columns alone")
    return "\n".join(lines)


def kernel_density_memory(
    n_samples: int = 20_000, dim: int = 8, bandwidth: Literal["ml", "lse"] | float = "ml"
) -> Memory:
    """Measures the peak memory of a new process that estimates with :class:`KernelDensity`.

    Args:
        n_samples: N.
        dim: columns of X and Y together.
        bandwidth: ``"ml"``, ``"lse"`` or a number.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would start with this process's peak
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(_estimate_here, n_samples, dim, bandwidth).result()


def _estimate_here(n_samples: int, dim: int, bandwidth: Literal["ml", "lse"] | float) -> Memory:
    """Estimates in this process, and returns its peak memory before and after."""
    x, y = _normals(n_samples, dim // 2)
    before = _peak()
    KernelDensity(bandwidth).estimate(x, y)
    return Memory(before, _peak())


def _contenders(
    estimator: MutualInformationEstimator, neighbors: Callable[[int], int], x: Array, y: Array
) -> list[Callable[[], object] | None]:
    spaces = [np.hstack([x, y]), x, y]
    if isinstance(estimator, KSG):
        joint, *margins = spaces
        queries = [
            partial(_count_by_scipy, joint, margins, neighbors(0)),
            partial(_count_by_scikit_learn, joint, margins, neighbors(0)),
        ]
    else:
        counts = [neighbors(space.shape[1]) for space in spaces]
        queries = [
            partial(_query_by_scipy, spaces, counts),
            partial(_query_by_scikit_learn, spaces, counts),
        ]
    return [partial(estimator.estimate, x, y), *queries, _by_ennemi(estimator, spaces)]


def _by_ennemi(
    estimator: MutualInformationEstimator, spaces: Sequence[Array]
) -> Callable[[], object] | None:
    """Returns ennemi's estimate from (X, Y), X and Y, where it has one and is there."""
    if find_spec("ennemi") is None:
        return None
    ennemi = import_module("ennemi")
    if isinstance(estimator, KozachenkoLeonenko):
        entropy = partial(ennemi.estimate_entropy, k=estimator.k, multidim=True)
        return lambda: [entropy(space) for space in spaces]
    _, x, y = spaces
    if isinstance(estimator, KSG) and x.shape[1] == y.shape[1] == 1:
        return partial(ennemi.estimate_mi, y[:, 0], x[:, 0], k=estimator.k, preprocess=False)
    return None


def _query_by_scipy(spaces: Sequence[Array], counts: Sequence[int]) -> None:
    for space, k in zip(spaces, counts, strict=True):
        cKDTree(space).query(space, k=k + 1, workers=-1)


def _query_by_scikit_learn(spaces: Sequence[Array], counts: Sequence[int]) -> None:
    for space, k in zip(spaces, counts, strict=True):
        NearestNeighbors(n_neighbors=k, n_jobs=-1).fit(space).kneighbors()


def _count_by_scipy(joint: Array, margins: Sequence[Array], k: int) -> None:
    distances, _ = cKDTree(joint).query(joint, k=[k + 1], p=math.inf, workers=-1)
    radius = np.nextafter(distances[:, 0], 0)
    for margin in margins:
        cKDTree(margin).query_ball_point(margin, radius, p=math.inf, return_length=True, workers=-1)


def _count_by_scikit_learn(joint: Array, margins: Sequence[Array], k: int) -> None:
    nearest = NearestNeighbors(n_neighbors=k, metric="chebyshev", n_jobs=-1).fit(joint)
    radius = np.nextafter(nearest.kneighbors()[0][:, -1], 0)
    for margin in margins:
        KDTree(margin, metric="chebyshev").query_radius(margin, radius, count_only=True)


def _normals(n_samples: int, dim: int) -> tuple[Array, Array]:
    x, noise = np.random.default_rng(0).standard_normal((2, n_samples, dim))
    return x, RHO * x + math.sqrt(1 - RHO**2) * noise


def _within(
    patience: float,
    run: Callable[[], object],
    n_samples: int,
    history: list[tuple[int, float]],
) -> float | None:
    """Times a run, and notes it in its history, unless the history tells that it may take long."""
    if _expected(n_samples, history) > patience:
        history.append((n_samples, math.inf))
        return None
    measured: list[float] = []
    while len(measured) < RUNS and sum(measured) < ENOUGH:
        begin = time.perf_counter()
        run()
        measured.append(time.perf_counter() - begin)
    history.append((n_samples, median(measured)))
    return history[-1][1]


def _expected(n_samples: int, history: Sequence[tuple[int, float]]) -> float:
    """Returns the seconds if they grow with the square of N, as those of a tree do at worst."""
    if not history:
        return 0.0
    before, seconds = history[-1]
    return seconds * (n_samples / before) ** 2


def _ratio(ours: float | None, other: float | None) -> float | None:
    return None if ours is None or other is None else ours / other


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _peak() -> float:
    """Returns the peak resident memory of this process in MB."""
    import resource

    # Not ru_maxrss, which a process started by a larger one inherits.
    try:
        with Path("/proc/self/status").open(encoding="ascii") as lines:
            return next(float(line.split()[1]) for line in lines if "VmHWM" in line) / 1e3
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
