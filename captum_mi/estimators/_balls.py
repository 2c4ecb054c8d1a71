"""Balls around samples that may repeat: how far they reach, and how many samples lie inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from captum_mi.estimators._neighbors import count_closer, nearest_distances
from captum_mi.estimators.discrete import value_codes
from captum_mi.estimators.kinds import atoms, kind_of

if TYPE_CHECKING:
    from torch import Tensor


def apart(samples: Tensor) -> Tensor:
    """Returns samples scaled, with a column more for each that is mixed, of atoms and the rest.

    Args:
        samples: (N, d), float64, columns that vary.

    Returns:
        (N, d) or more columns; frequent values of a mixed column are farther from its others than
        any two samples are in another column.
    """
    scaled = (samples - samples.mean(dim=0)) / samples.std(dim=0)
    far = 2 * float((scaled.max(dim=0).values - scaled.min(dim=0).values).max())
    columns = [column.cpu().numpy() for column in samples.unbind(dim=1)]
    aside = [far * atoms(column) for column in columns if kind_of(column) == "mixed"]
    if not aside:
        return scaled
    return torch.cat([scaled, torch.from_numpy(np.stack(aside, axis=1)).to(scaled.device)], dim=1)


def kth_distances(samples: Tensor, k: int) -> Tensor:
    """Returns the distance of each sample (N, d) to its k-th neighbor, by the largest coordinate.

    Of samples that are equal, k + 1 decide all distances; a tree of more would be slow.
    """
    if any(bool((column.sort().values.diff() > 0).all()) for column in samples.unbind(dim=1)):
        return nearest_distances(samples, k, torch.inf)[:, -1]  # none is equal
    codes = torch.from_numpy(value_codes("samples", samples))
    order = codes.argsort(stable=True)
    times = codes.bincount()
    earlier = torch.arange(len(codes)) - (times.cumsum(0) - times)[codes[order]]
    kept = order[earlier <= k].to(samples.device)
    distances = samples.new_zeros(len(samples))
    distances[kept] = nearest_distances(samples[kept], k, torch.inf)[:, -1]
    return distances


def count_within(samples: Tensor, radius: Tensor) -> Tensor:
    """Counts the samples closer than a radius, with the sample itself; at radius 0 its equals."""
    return count_closer(samples, radius).to(radius.dtype) + 1
