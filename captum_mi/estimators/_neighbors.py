"""Exact distances to nearest neighbours: trees in few dimensions, brute force in many."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from scipy.spatial import cKDTree  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

TREE_DIM = 15  # above it a tree visits most of its leaves
LEAF_SIZE = 32
CHUNK = 2**20  # entries of a block of distances
SPARE = 8  # more candidates than neighbours, against the rounding of products


def nearest_distances(samples: Tensor, k: int, norm: float = 2) -> Tensor:
    """Distances of each sample to its ``k`` nearest others.

    Args:
        samples: (N, d), with N > k.
        k: how many.
        norm: 2, Euclidean, or ``math.inf``, the largest coordinate.

    Returns:
        (N, k), ascending, on the device of ``samples``.

    Example:
        >>> nearest_distances(torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64), 2)
        tensor([[1., 3.],
                [1., 2.],
                [2., 3.]], dtype=torch.float64)
    """
    if samples.shape[1] <= TREE_DIM:
        tree, points = _tree(samples)
        order = tree.indices  # neighbours ask one after another, which spares the cache
        found, _ = tree.query(points[order], k=range(2, k + 2), p=norm, workers=-1)
        distances = torch.empty((len(samples), k), dtype=torch.float64)
        distances[torch.from_numpy(order)] = torch.from_numpy(found)
        return distances.to(samples.device)
    nearest = _nearest_euclidean if norm == 2 else _nearest_maximum
    return torch.cat([nearest(samples, rows, k) for rows in _chunks(samples)])


def count_closer(samples: Tensor, radius: Tensor) -> Tensor:
    """How many other samples are strictly closer than a radius, by the largest coordinate.

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
    if samples.shape[1] <= TREE_DIM:
        tree, points = _tree(samples)
        order = tree.indices
        found = tree.query_ball_point(
            points[order],
            radius.cpu().numpy()[order],
            p=math.inf,
            return_length=True,
            workers=-1,
        )
        counts = torch.empty(len(samples), dtype=torch.int64)
        counts[torch.from_numpy(order)] = torch.from_numpy(found).long()
        return counts.to(samples.device) - 1
    return torch.cat(
        [
            (torch.cdist(samples[rows], samples, p=math.inf) <= radius[rows, None]).sum(dim=1) - 1
            for rows in _chunks(samples)
        ]
    )


def _tree(samples: Tensor) -> tuple[cKDTree, NDArray[np.float64]]:
    points = samples.cpu().numpy()
    return cKDTree(points, leafsize=LEAF_SIZE), points


def _chunks(samples: Tensor) -> Iterator[Tensor]:
    size = max(1, CHUNK // len(samples))
    yield from torch.split(torch.arange(len(samples), device=samples.device), size)


def _nearest_euclidean(samples: Tensor, rows: Tensor, k: int) -> Tensor:
    """Candidates by matrix products, their distances by differences, free of cancellation."""
    queries = samples[rows]
    # |q - s|^2 without |q|^2, which does not change the order.
    scores = torch.addmm((samples**2).sum(dim=1), queries, samples.T, alpha=-2)
    scores[torch.arange(len(rows), device=rows.device), rows] = math.inf
    candidates = scores.topk(min(k + SPARE, len(samples) - 1), largest=False, sorted=False).indices
    distances: Tensor = torch.linalg.vector_norm(samples[candidates] - queries[:, None], dim=-1)
    return distances.topk(k, largest=False).values


def _nearest_maximum(samples: Tensor, rows: Tensor, k: int) -> Tensor:
    distances = torch.cdist(samples[rows], samples, p=math.inf)
    distances[torch.arange(len(rows), device=rows.device), rows] = math.inf
    return distances.topk(k, largest=False).values
