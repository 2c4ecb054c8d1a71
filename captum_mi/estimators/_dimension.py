"""How many dimensions samples fill near each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from captum_mi.estimators._neighbors import nearest_distances

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBORS = 20
LOOKED_AT = 2_000
"""Samples that are enough to tell."""


def intrinsic_dimension(samples: Tensor) -> float:
    r"""Estimates on how many dimensions samples lie locally, by maximum likelihood.

    .. math:: \hat m^{-1} = \frac{1}{N k} \sum_{i=1}^N \sum_{j=1}^{k} \log \frac{r_{k,i}}{r_{j,i}}

    from the distances r to k = 20 neighbors. It falls short above some ten dimensions.

    Args:
        samples: (N, d), no two at one place.

    Source: Levina and Bickel 2004, "Maximum likelihood estimation of intrinsic dimension"; the mean
    of inverses: MacKay and Ghahramani 2005.

    Example:
        >>> turn = torch.linspace(0, 6, 500, dtype=torch.float64)
        >>> round(intrinsic_dimension(torch.stack([turn.cos(), turn.sin()], dim=1)), 1)
        1.2
    """
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    some = samples[order[:LOOKED_AT].to(samples.device)]
    logs = nearest_distances(some, min(NEIGHBORS, len(some) - 1)).log()
    return 1 / float((logs[:, -1:] - logs).mean())


def fills(samples: Tensor) -> bool:
    """Tells whether samples (N, d) seem to have a density in all d dimensions.

    Up to four, one dimension less is noticed; in more of them, where the estimate falls short by
    itself, half as many are.
    """
    dim = samples.shape[1]
    if dim == 1:
        return True
    least = dim - 0.5 if dim <= 4 else 0.6 * dim**0.85
    return intrinsic_dimension(samples) > least
