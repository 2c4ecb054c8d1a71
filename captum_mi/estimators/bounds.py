"""Lower bounds on mutual information as pure functions of a score matrix, in nats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def info_nce(scores: Tensor) -> Tensor:
    r"""Returns the InfoNCE bound on the mutual information of the pairs on the diagonal.

    .. math:: \frac1N \sum_i \left( s_{ii} - \log \frac1N \sum_j e^{s_{ij}} \right) \le \log N

    An off-diagonal entry of ``-inf`` takes that pair out of the row's negatives.

    Args:
        scores: (N, N), critic values; row i pairs sample i of X with every sample of Y, its own on
            the diagonal.

    Returns:
        0-d tensor, nats, at most ``log N``.

    Raises:
        ValueError: if ``scores`` is not a square matrix.

    Source: van den Oord et al. 2018, "Representation learning with contrastive predictive coding",
    eq. 4.

    Example:
        >>> info_nce(1000 * torch.eye(8))
        tensor(2.0794)
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"`scores` must be a square matrix, got shape {tuple(scores.shape)}")
    matched = scores.diagonal()
    return (matched - scores.logsumexp(dim=1)).mean() + math.log(scores.shape[0])
