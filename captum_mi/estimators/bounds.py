"""Lower bounds on mutual information as pure functions of a score matrix, in nats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

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


def pointwise_info_nce(matched: Tensor, log_sum_others: Tensor, n_others: int) -> Tensor:
    r"""Returns InfoNCE's term of each pair, whose mean over pairs is the bound.

    .. math:: s - \log \frac{e^{s} + \sum_m e^{s_m}}{1 + M} \le \log(1 + M)

    Args:
        matched: any shape, the scores s of pairs that belong together.
        log_sum_others: of a shape that broadcasts with it, the log-sum-exp of the scores s_m of
            each pair's M negatives.
        n_others: M.

    Returns:
        nats, signed, at most ``log(1 + n_others)``; of the shape of ``matched``.

    Example:
        >>> pointwise_info_nce(torch.tensor([50.0, 0.0]), torch.tensor(7.0).log(), 7)
        tensor([2.0794, 0.0000])
    """
    return matched - torch.logaddexp(matched, log_sum_others) + math.log1p(n_others)


def local_info_nce(scores: Tensor) -> Tensor:
    r"""Returns InfoNCE's terms of a global representation and each place of its image.

    .. math:: s_{nnk} - \log \frac{e^{s_{nnk}} + \sum_{m \ne n, k'} e^{s_{nmk'}}}{1 + (N - 1) K}

    The negatives are all places of all other images; the own image's other places are none, for
    they were not drawn independently of it. The mean is a lower bound of the mean over places of
    :math:`I(Z; X_k)` where the critic knows the place, and of :math:`I(Z; X_K)`, K uniform, where
    it does not, up to this: negatives of one image depend on each other, so that with few images
    of many alike places the mean can come out above.

    Args:
        scores: (N, N, K), critic values; row n pairs Z of image n with each place of each image.

    Returns:
        (N, K), nats, signed, at most ``log(1 + (N - 1) K)``.

    Raises:
        ValueError: if ``scores`` is not (N, N, K) with N of at least 2.

    Source: Hjelm et al., "Learning deep representations by mutual information estimation and
    maximization", ICLR 2019, eq. 5 and section 3.3.

    Example:
        >>> scores = 1000 * torch.eye(64)[:, :, None].expand(64, 64, 49)
        >>> local_info_nce(scores).mean()
        tensor(8.0353)
    """
    if scores.ndim != 3 or len(scores) != scores.shape[1] or len(scores) < 2:
        raise ValueError(
            f"`scores` must be (N, N, K), N at least 2, got shape {tuple(scores.shape)}"
        )
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)[:, :, None]
    others = scores.masked_fill(own, -math.inf).logsumexp(dim=(1, 2))
    matched = scores.diagonal().T
    return pointwise_info_nce(matched, others[:, None], (len(scores) - 1) * scores.shape[2])
