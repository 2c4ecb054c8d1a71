"""Lower bounds of what a global representation tells of the places of its image, in nats.

A critic's score of Z of image n and place k of image m stands in row n, column m, depth k. Own
places are drawn together with Z, those of other images are not; the own image's other places are
neither to an own place, for they were not drawn independently of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import softplus

from captum_mi.estimators.bounds import pointwise_info_nce

if TYPE_CHECKING:
    from torch import Tensor


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
    _check_local(scores)
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)[:, :, None]
    others = scores.masked_fill(own, -math.inf).logsumexp(dim=(1, 2))
    matched = scores.diagonal().T
    return pointwise_info_nce(matched, others[:, None], (len(scores) - 1) * scores.shape[2])


def local_donsker_varadhan(scores: Tensor) -> Tensor:
    r"""Returns the Donsker-Varadhan bound of a global representation and a place of its image.

    .. math:: \frac{1}{NK} \sum_{n, k} s_{nnk}
        - \log \frac{1}{N (N - 1) K} \sum_{n, m \ne n, k} e^{s_{nmk}}

    One logarithm is taken of the mean over all pairs of different images and all places, so that
    the mean over many batches is a lower bound of :math:`I(Z; X_K)`, K uniform, up to this: the
    logarithm of a mean over few pairs is too small in the mean, and the bound too large.

    Args:
        scores: (N, N, K), critic values; row n pairs Z of image n with each place of each image.

    Returns:
        0-d tensor, nats.

    Raises:
        ValueError: if ``scores`` is not (N, N, K) with N of at least 2.

    Source: Hjelm et al., "Learning deep representations by mutual information estimation and
    maximization", ICLR 2019, eq. 2 and section 3.3.

    Example:
        >>> local_donsker_varadhan(torch.eye(8)[:, :, None].expand(8, 8, 4))
        tensor(1.)
    """
    matched, others = _matched_and_others(scores)
    return matched.mean() - (others.flatten().logsumexp(dim=0) - math.log(others.numel()))


def local_jensen_shannon(scores: Tensor) -> Tensor:
    r"""Returns a bound on twice the Jensen-Shannon divergence of own and other images' places.

    .. math:: 2 \log 2 - \frac{1}{NK} \sum_{n, k} \log(1 + e^{-s_{nnk}})
        - \frac{1}{N (N - 1) K} \sum_{n, m \ne n, k} \log(1 + e^{s_{nmk}}) \le 2 \log 2

    It is no bound of the mutual information, but rises with it; its gradient is bounded. The best
    critic is the logarithm of the density ratio.

    Args:
        scores: (N, N, K), critic values; row n pairs Z of image n with each place of each image.

    Returns:
        0-d tensor, nats.

    Raises:
        ValueError: if ``scores`` is not (N, N, K) with N of at least 2.

    Source: Nowozin et al., "f-GAN", NeurIPS 2016; Hjelm et al., ICLR 2019, eq. 4, to which it adds
    2 log 2, so that independence gives 0.

    Example:
        >>> local_jensen_shannon(torch.zeros(8, 8, 4))
        tensor(0.)
        >>> local_jensen_shannon(200 * torch.eye(8)[:, :, None] - 100)
        tensor(1.3863)
    """
    matched, others = _matched_and_others(scores)
    return 2 * math.log(2) - softplus(-matched).mean() - softplus(others).mean()


def _matched_and_others(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the scores of own places, (N, K), and of other images', (N, N - 1, K)."""
    _check_local(scores)
    n_images = len(scores)
    others = scores[~torch.eye(n_images, dtype=torch.bool, device=scores.device)]
    return scores.diagonal().T, others.reshape(n_images, n_images - 1, -1)


def _check_local(scores: Tensor) -> None:
    if scores.ndim != 3 or len(scores) != scores.shape[1] or len(scores) < 2:
        raise ValueError(
            f"`scores` must be (N, N, K), N at least 2, got shape {tuple(scores.shape)}"
        )
