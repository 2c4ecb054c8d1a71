"""The largest directions of samples: of all at once, or of batches that are not kept."""

from __future__ import annotations

import math

import torch
from scipy.linalg import eigh
from torch import Tensor

ROWS = 128
"""Samples merged at a time: more take longer, by their products, and more memory."""
LEAST = 1e-6
"""Of the largest deviation: below it, products of samples resolve nothing."""

RESOLVED = 1e-4
"""Of the largest deviation: above it, products of samples give axes to 8 digits."""


class Scatter:
    r"""Mean and scatter :math:`S = \sum_i (x_i - \bar x)(x_i - \bar x)^\top` of samples.

    Of the scatter, its ``count`` largest directions are followed as the rows of a factor F with
    :math:`F^\top F \approx S`. A batch is merged by putting its centered samples, and a row for the
    shift of the mean, below F, and taking the largest directions of these rows.

    Args:
        count: directions followed; the scatter is exact where no more than these have any.

    Attributes:
        mean: (d,).
        factor: (at most ``count``, d), orthogonal rows, of falling length.
        total: trace of S, exact.
        seen: N.

    Source: Ross et al. 2008, "Incremental learning for robust visual tracking".
    """

    def __init__(self, count: int) -> None:
        """Starts from no samples."""
        self.count = count
        self.seen = 0
        self.total = 0.0
        self._largest = 0.0  # entry
        self.mean = torch.empty(0)
        self.factor = torch.empty(0)

    def add(self, batch: Tensor) -> None:
        """Takes in samples, (B, d) of a floating-point type; all batches on one device."""
        if not self.seen:
            self.mean = batch.new_zeros(batch.shape[1], dtype=torch.float64)
            self.factor = batch.new_zeros(0, batch.shape[1], dtype=torch.float64)
        for part in torch.split(batch, ROWS):
            self._merge(part.double(), torch.finfo(batch.dtype).eps)

    def _merge(self, samples: Tensor, rounding: float) -> None:
        size, seen = len(samples), self.seen + len(samples)
        self._largest = max(self._largest, float(samples.abs().max()))
        mean = samples.mean(0)
        centered = samples - mean
        shift = math.sqrt(self.seen * size / seen) * (self.mean - mean)
        self.total += float(centered.square().sum() + shift.square().sum())
        self.mean = self.mean + (mean - self.mean) * (size / seen)
        self.seen = seen
        # The longest row whose entries are rounding, with a margin.
        noise = rounding * self._largest * (math.sqrt(seen) + math.sqrt(len(mean)))
        self.factor = _largest_directions(
            torch.cat([self.factor, centered, shift[None]]), self.count, noise
        )


def _largest_directions(rows: Tensor, count: int, noise: float) -> Tensor:
    """Returns orthogonal rows with the same scatter, the longest ``count`` above the noise."""
    tall = rows.shape[0] > rows.shape[1]
    products = rows.T @ rows if tall else rows @ rows.T
    lengths, axes = _largest_axes(products, count)
    kept = lengths > max(noise, LEAST * float(lengths[0]))
    directions = axes[kept]
    return lengths[kept, None] * directions if tall else directions @ rows


def _largest_axes(products: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns roots of the largest eigenvalues, falling, and their vectors, one a row."""
    size = len(products)
    squares, axes = eigh(
        products.cpu().numpy(), subset_by_index=[max(size - count, 0), size - 1], driver="evr"
    )
    lengths = torch.from_numpy(squares).clamp(min=0).sqrt().flip(0)
    return lengths.to(products), torch.from_numpy(axes).T.flip(0).to(products)


def principal_axes(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the lengths of rows along their principal axes, and the first of the axes.

    Few rows of many columns are decomposed by their products, where these resolve ``count`` axes.

    Args:
        rows: (N, d), float64, centered.
        count: axes wanted, at most N and d.

    Returns:
        All min(N, d) lengths, falling, and ``count`` or more orthonormal axes, (., d).
    """
    if len(rows) < rows.shape[1]:
        products = rows.new_zeros(len(rows), len(rows))
        for part in torch.split(torch.arange(len(rows)), ROWS):  # below the diagonal is enough
            products[part, : part[-1] + 1] = rows[part] @ rows[: part[-1] + 1].T
        lengths, places = _largest_axes(products, count)
        if lengths[-1] > RESOLVED * lengths[0]:
            every = torch.linalg.eigvalsh(products).clamp(min=0).sqrt().flip(0)
            return every, places @ rows / lengths[:, None]
    _, lengths, axes = torch.linalg.svd(rows, full_matrices=False)
    return lengths, axes
