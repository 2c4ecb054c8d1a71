"""Normal scores: each column mapped to a standard normal by its ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import ndtri

if TYPE_CHECKING:
    from torch import Tensor


def normal_scores(samples: Tensor, seed: int = 0) -> Tensor:
    r"""Returns the normal quantiles of each column's ranks, ties in random order.

    No strictly increasing map of a column changes them. Among values that repeat, as counts do,
    the random order is that of uniform noise smaller than their step: each value can still be told
    from its scores, so that no information is lost, and none is added.

    Args:
        samples: (N, d).
        seed: of the order of ties.

    Returns:
        (N, d), :math:`\Phi^{-1}((r - \tfrac12) / N)` with r the ranks from 1 to N.

    Source: of random ties, Rueschendorf 2009, "On the distributional transform, Sklar's theorem,
    and the empirical copula process".

    Example:
        >>> normal_scores(torch.tensor([[3.0], [-8.0], [500.0]])).flatten().round(decimals=2)
        tensor([ 0.0000, -0.9700,  0.9700], dtype=torch.float64)
    """
    values = samples.cpu().numpy()
    n_samples = len(values)
    ties = np.random.default_rng(seed).random(values.shape)
    scores = np.empty(values.shape)
    quantiles = ndtri((np.arange(n_samples) + 0.5) / n_samples)
    for column, noise, out in zip(values.T, ties.T, scores.T, strict=True):
        out[np.lexsort((noise, column))] = quantiles
    return torch.from_numpy(scores).to(samples.device)
