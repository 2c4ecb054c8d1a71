"""The variance of an estimate whose terms depend on each other, from estimates of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from captum_mi.estimators.estimate import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

LEAST = 500  # samples of a block: an estimate of fewer varies by more than its share
MOST_BLOCKS = 16
FREEDOM = 8  # degrees of, at least
SEED = 1_094_795_585


def block_variance(estimate: Callable[[Tensor], Tensor], n_samples: int, least: int) -> float:
    """Returns the variance of an estimate of all samples, square nats, from disjoint random blocks.

    Estimates of B blocks of N / B samples vary by B times as much as that of all; the variance of
    an estimate by nearest neighbors falls by 1 / N, as its terms depend on near ones alone. Blocks
    are halves below 1,500 samples and up to 16 above, drawn anew until 8 degrees of freedom are
    there: all of this costs one more estimate of many samples, and up to eight of few.

    Args:
        estimate: takes row numbers and returns the terms of an estimate from those rows.
        n_samples: N.
        least: how many samples an estimate takes; 0 is returned if halves are smaller.

    Returns:
        The variance, about 50 % uncertain.
    """
    count = min(max(n_samples // LEAST, 2), MOST_BLOCKS)
    if n_samples // count < least:
        return 0.0
    rng = np.random.default_rng(SEED)
    variances = []
    for _ in range(-(-FREEDOM // (count - 1))):
        blocks = np.array_split(rng.permutation(n_samples), count)
        means = [float(estimate(torch.from_numpy(block)).mean()) for block in blocks]
        variances.append(np.var(means, ddof=1) / count)
    return float(np.mean(variances))


def estimate_of(terms: Tensor, variance: float) -> Estimate:
    """Returns the mean of terms with the larger of two variances: of blocks, or as if independent.

    Args:
        terms: (N,), nats.
        variance: of :func:`block_variance`.
    """
    shown = float(terms.var()) / len(terms)
    return Estimate.of(terms, max(variance - shown, 0.0))
