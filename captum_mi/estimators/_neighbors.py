"""Exact distances to nearest neighbors: trees in few dimensions, brute force in many."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

TREE_DIM = {2: 10, math.inf: 15}  # above it a tree visits too many of its leaves
LEAF_SIZE = 32
CHUNK = 2**19  # entries of a block of distances
WIDTH = 2**14  # columns of a block of products: wider ones do not fit the cache
SPARE = 8  # more candidates than neighbors, against the rounding of products
MARGIN = 4  # roundings of a scalar product, for each of its terms


def nearest_distances(
    samples: Tensor, k: int, norm: float = 2, n_jobs: int | None = None
) -> Tensor:
    """Returns the distances of each sample to its ``k`` nearest others.

    Args:
        samples: (N, d), with N > k.
        k: how many.
        norm: 2, Euclidean, or ``math.inf``, the largest coordinate.
        n_jobs: threads that search a tree, -1 for all, None for one; brute force has PyTorch's.

    Returns:
        (N, k), ascending, on the device of ``samples``.

    Example:
        >>> nearest_distances(torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64), 2)
        tensor([[1., 3.],
                [1., 2.],
                [2., 3.]], dtype=torch.float64)
    """
    # Near 1 no square overflows; powers of two leave every digit as it is.
    unit = math.ldexp(1.0, math.frexp(float(samples.abs().max()))[1] - 1)
    scaled = samples / unit
    if samples.shape[1] <= TREE_DIM[norm]:
        points = scaled.cpu().numpy()
        tree = cKDTree(points, leafsize=LEAF_SIZE)
        order = tree.indices  # queries of close samples follow each other and find the cache warm
        workers = 1 if n_jobs is None else n_jobs
        found, _ = tree.query(points[order], k=range(2, k + 2), p=norm, workers=workers)
        distances = torch.empty((len(samples), k), dtype=torch.float64)
        distances[torch.from_numpy(order)] = torch.from_numpy(found)
        return distances.to(samples.device) * unit
    distances = samples.new_empty(len(samples), k)
    doubtful = torch.arange(len(samples), device=samples.device)
    if norm == 2:
        doubtful = doubtful[_nearest_by_products(scaled, distances)]
    _nearest_by_differences(scaled, doubtful, norm, distances)
    return distances * unit


def count_closer(samples: Tensor, radius: Tensor) -> Tensor:
    """Counts the other samples that are strictly closer than a radius, by the largest coordinate.

    Args:
        samples: (N, d).
        radius: (N,), positive, one for each sample. A distance that differs from it by rounding
            alone counts as equal, hence not closer.

    Returns:
        (N,) integers on the device of ``samples``.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
        >>> count_closer(points, torch.tensor([3.5, 1.0, 2.5], dtype=torch.float64))
        tensor([2, 0, 1])
    """
    radius = radius * (1 - 1e-10)
    if samples.shape[1] <= TREE_DIM[math.inf]:
        from sklearn.neighbors import KDTree  # takes a second

        points = samples.cpu().numpy()
        # On one core it counts some three times faster than SciPy's tree on two.
        found = KDTree(points, metric="chebyshev").query_radius(
            points, radius.cpu().numpy(), count_only=True
        )
        return torch.from_numpy(found).long().to(samples.device) - 1
    counts = torch.empty_like(radius, dtype=torch.int64)
    for rows in _chunks(samples):
        gaps = torch.cdist(samples[rows], samples, p=math.inf)
        counts[rows] = (gaps <= radius[rows, None]).sum(dim=1) - 1
    return counts


def check_duplicates(name: str, nearest: Tensor, needed: Tensor) -> None:
    """Raises a ValueError where a needed distance is 0, and warns where the nearest is."""
    zeros = int((needed == 0).sum())
    if zeros:
        raise ValueError(
            f"`{name}` has {zeros} samples at distance 0 from the neighbor that measures their"
            " density; take `MutualInformation()`, use `estimate_discrete` with a discrete variable"
            " as `labels`, drop repeated rows, or spread counts and rounded values over their"
            " steps, as dithered(x, y) does"
        )
    warn_of_duplicates(name, int((nearest == 0).sum()))


def warn_of_duplicates(name: str, count: int) -> None:
    """Warns of so many samples that repeat others."""
    if count:
        warnings.warn(
            f"`{name}` has {count} samples that repeat others, which biases distances to"
            " neighbors; take `MutualInformation()`, use `estimate_discrete` with a discrete"
            " variable as `labels`, or spread counts and rounded values over their steps, as"
            " dithered(x, y) does",
            stacklevel=4,
        )


def _chunks(samples: Tensor) -> Iterator[slice]:
    return _slices(len(samples), max(1, CHUNK // len(samples)))


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


# Blocks share one memory, or at least nothing that is allocated between them outlives them: else
# they fragment the heap, by gigabytes in all.


def _nearest_by_products(samples: Tensor, distances: Tensor) -> Tensor:
    """Fills in Euclidean distances to the nearest of candidates, which matrix products find.

    The distances themselves are norms of differences, free of cancellation.

    Returns:
        (N,), True where rounding may have hidden a nearer sample from the candidates: where the
        neighbors are much closer than the middle of all samples.
    """
    n_samples, k = distances.shape
    n_candidates = min(k + SPARE, n_samples - 1)
    middle = samples.sort(dim=0).values[n_samples // 2]  # which a far sample does not move
    centered = samples - middle
    squares = (centered**2).sum(dim=1)
    width = min(n_samples, WIDTH)
    memory = samples.new_empty(CHUNK)
    doubtful = torch.zeros(n_samples, dtype=torch.bool, device=samples.device)
    rounding = MARGIN * samples.shape[1] * torch.finfo(samples.dtype).eps
    for rows in _slices(n_samples, CHUNK // width):
        n_rows = rows.stop - rows.start
        best = samples.new_full((n_rows, n_candidates), math.inf)
        candidates = torch.zeros_like(best, dtype=torch.int64)
        for columns in _slices(n_samples, width):
            n_columns = columns.stop - columns.start
            # |q - s|^2 without |q|^2, which does not change the order.
            scores = memory[: n_rows * n_columns].view(n_rows, n_columns)
            torch.addmm(squares[columns], centered[rows], centered[columns].T, alpha=-2, out=scores)
            _leave_out(scores, rows.start - columns.start)
            near = scores.topk(min(n_candidates, n_columns), largest=False, sorted=False)
            merged = torch.cat([best, near.values], dim=1)
            best, places = merged.topk(n_candidates, largest=False, sorted=False)
            found = torch.cat([candidates, near.indices + columns.start], dim=1)
            candidates = found.gather(1, places)
        gaps = torch.linalg.vector_norm(samples[candidates] - samples[rows, None], dim=-1)
        distances[rows] = gaps.topk(k, largest=False).values
        if n_candidates < n_samples - 1:
            reach = distances[rows, -1]
            others = best.amax(dim=1) + squares[rows]  # squared, the least of all others
            error = rounding * (squares[rows].sqrt() + reach) ** 2
            doubtful[rows] = (reach > 0) & (reach**2 > others - error)
    return doubtful


def _nearest_by_differences(samples: Tensor, rows: Tensor, norm: float, distances: Tensor) -> None:
    """Fills in the distances of some rows, by all differences of coordinates."""
    for part in torch.split(rows, max(1, CHUNK // len(samples))):
        gaps = torch.cdist(
            samples[part], samples, p=norm, compute_mode="donot_use_mm_for_euclid_dist"
        )
        gaps[torch.arange(len(part), device=part.device), part] = math.inf
        distances[part] = gaps.topk(distances.shape[1], largest=False).values


def _leave_out(block: Tensor, offset: int) -> None:
    """Puts each sample infinitely far from itself: entries (i, i + offset) of a block, if any."""
    block.diagonal(offset).fill_(math.inf)
