"""Lower bounds on mutual information as pure functions of a score matrix, in nats.

A critic's score of X_i and Y_j stands in row i, column j: the diagonal holds the pairs drawn from
the joint distribution P, all else pairs of its product of marginals, Q. Sums of exponentials stay
in log space. Each bound takes log-weights of the N samples, of which :func:`pointwise_terms` makes
standard errors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import softplus

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Bound = Callable[[Tensor, Tensor | None], Tensor]


def donsker_varadhan(scores: Tensor, log_weights: Tensor | None = None) -> Tensor:
    r"""Returns the Donsker-Varadhan bound, which MINE maximizes.

    .. math:: E_P f - \log E_Q e^f \le I, \quad \text{with equality at } f = \log\frac{p}{q} + c

    Of a few samples it is biased upwards, for the logarithm of a mean is concave.

    Args:
        scores: (N, N), N of at least 2.
        log_weights: (N,), of the samples; None for equal ones.

    Returns:
        0-d tensor, nats, of any sign and size.

    Raises:
        ValueError: if ``scores`` is not a square matrix of at least two rows.

    Source: Belghazi et al., "Mutual information neural estimation", ICML 2018, eq. 10.

    Example:
        >>> donsker_varadhan(torch.tensor([[3.0, 1.0], [1.0, 3.0]]))
        tensor(2.)
    """
    return _mean(_matched(scores), log_weights) - log_mean_exp(scores, log_weights)


def tuba(
    scores: Tensor, log_weights: Tensor | None = None, *, log_baseline: Tensor | float
) -> Tensor:
    r"""Returns the tractable unnormalized Barber-Agakov bound of a constant baseline a.

    .. math:: E_P f - \frac{E_Q e^f}{a} - \log a + 1 \le I

    At :math:`a = E_Q e^f` it touches the Donsker-Varadhan bound, in its value and in its gradient;
    but its mean over small batches has no bias, where a is known.

    Args:
        scores: (N, N), N of at least 2.
        log_weights: (N,), of the samples; None for equal ones.
        log_baseline: log a, a number or 0-d.

    Returns:
        0-d tensor, nats.

    Raises:
        ValueError: if ``scores`` is not a square matrix of at least two rows.

    Source: Poole et al., "On variational bounds of mutual information", ICML 2019, eq. 8.

    Example:
        >>> tuba(torch.tensor([[3.0, 1.0], [1.0, 3.0]]), log_baseline=1.0)
        tensor(2.)
    """
    partition = (log_mean_exp(scores, log_weights) - log_baseline).exp()
    return _mean(_matched(scores), log_weights) - partition - log_baseline + 1


def nwj(scores: Tensor, log_weights: Tensor | None = None) -> Tensor:
    r"""Returns the bound of Nguyen, Wainwright and Jordan, also called MINE-f and f-GAN KL.

    .. math:: E_P f - e^{-1} E_Q e^f \le I, \quad \text{with equality at } f = 1 + \log\frac{p}{q}

    Args:
        scores: (N, N), N of at least 2.
        log_weights: (N,), of the samples; None for equal ones.

    Returns:
        0-d tensor, nats.

    Raises:
        ValueError: if ``scores`` is not a square matrix of at least two rows.

    Source: Nguyen et al., "Estimating divergence functionals and the likelihood ratio by convex
    risk minimization", IEEE Transactions on Information Theory 2010.

    Example:
        >>> nwj(torch.ones(4, 4))
        tensor(0.)
    """
    return tuba(scores, log_weights, log_baseline=1.0)


def jensen_shannon(scores: Tensor, log_weights: Tensor | None = None) -> Tensor:
    r"""Returns the bound of twice the Jensen-Shannon divergence of P and Q.

    .. math:: 2 \log 2 - E_P\, \mathrm{sp}(-f) - E_Q\, \mathrm{sp}(f) \le 2\, \mathrm{JSD} \le I,
        \quad \mathrm{sp}(f) = \log(1 + e^f)

    with equality on the left at :math:`f = \log(p / q)`: logistic regression of whether a pair
    belongs together. Its gradients are bounded; but it tells little about information above a nat.

    Args:
        scores: (N, N), N of at least 2.
        log_weights: (N,), of the samples; None for equal ones.

    Returns:
        0-d tensor, nats, at most ``2 log 2``.

    Raises:
        ValueError: if ``scores`` is not a square matrix of at least two rows.

    Source: Hjelm et al., "Learning deep representations by mutual information estimation and
    maximization", ICLR 2019, eq. 4; the constant is ours.

    Example:
        >>> jensen_shannon(100 * (2 * torch.eye(8) - 1))
        tensor(1.3863)
    """
    matched = _mean(softplus(-_matched(scores)), log_weights)
    log_pairs = _log_pairs(scores, log_weights)
    others = (softplus(scores) * log_pairs.exp()).sum()
    return 2 * math.log(2) - matched - others


def smile(scores: Tensor, log_weights: Tensor | None = None, *, clip: float = 5.0) -> Tensor:
    r"""Returns the Donsker-Varadhan value with what is averaged over Q clipped.

    .. math:: E_P f - \log E_Q\, \mathrm{clip}(e^f, e^{-\tau}, e^{\tau})

    It varies less, at the price of a bias of either sign: it is no bound. For a critic near
    :math:`\log(p / q)`, such as one that :func:`jensen_shannon` trained.

    Args:
        scores: (N, N), N of at least 2.
        log_weights: (N,), of the samples; None for equal ones.
        clip: tau; infinite for :func:`donsker_varadhan`.

    Returns:
        0-d tensor, nats.

    Raises:
        ValueError: if ``scores`` is not a square matrix of at least two rows.

    Source: Song and Ermon, "Understanding the limitations of variational mutual information
    estimators", ICLR 2020, eq. 17.

    Example:
        >>> smile(100 * torch.eye(8) - 50, clip=2.0)
        tensor(52.)
    """
    clipped = log_mean_exp(scores.clamp(-clip, clip), log_weights)
    return _mean(_matched(scores), log_weights) - clipped


def info_nce(scores: Tensor, log_weights: Tensor | None = None) -> Tensor:
    r"""Returns the InfoNCE bound on the mutual information of the pairs on the diagonal.

    .. math:: \frac1N \sum_i \left( s_{ii} - \log \frac1N \sum_j e^{s_{ij}} \right) \le \log N

    An off-diagonal entry of ``-inf`` takes that pair out of the row's negatives.

    Args:
        scores: (N, N), critic values; row i pairs sample i of X with every sample of Y, its own on
            the diagonal.
        log_weights: (N,), of the samples; None for equal ones.

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
    matched = _matched(scores, least=1)
    if log_weights is None:
        return (matched - scores.logsumexp(dim=1)).mean() + math.log(len(scores))
    log_shares = log_weights.log_softmax(dim=0)
    return _mean(matched - (scores + log_shares).logsumexp(dim=1), log_weights)


def log_mean_exp(scores: Tensor, log_weights: Tensor | None = None) -> Tensor:
    r"""Returns :math:`\log E_Q e^f` over all pairs off the diagonal.

    Args:
        scores: (N, N), N of at least 2.
        log_weights: (N,), of the samples; a pair has the product of its two. None for equal ones.

    Returns:
        0-d tensor.

    Example:
        >>> log_mean_exp(torch.tensor([[3.0, 1.0], [1.0, 3.0]]))
        tensor(1.)
    """
    _matched(scores)
    return (scores + _log_pairs(scores, log_weights)).logsumexp(dim=(0, 1))


def pointwise_terms(bound: Bound, scores: Tensor) -> Tensor:
    r"""Returns one term for each sample, whose mean is the bound and whose spread its error.

    .. math:: B + N\, \frac{\partial B}{\partial a_k}

    with log-weights a of the samples: the influence that sample k has, by all pairs in which it
    stands. This is the delta method, also called infinitesimal jackknife: the standard deviation of
    the terms over :math:`\sqrt N` is the standard error of the bound for a critic that was fitted
    on other samples.

    Args:
        bound: takes a score matrix and log-weights of its samples.
        scores: (N, N).

    Returns:
        (N,), nats.

    Source: Efron, "The jackknife, the bootstrap and other resampling plans", 1982, chapter 6.

    Example:
        >>> scores = torch.randn(50, 50)
        >>> terms = pointwise_terms(donsker_varadhan, scores)
        >>> torch.allclose(terms.mean(), donsker_varadhan(scores), atol=1e-5)
        True
    """
    scores = scores.detach()
    with torch.enable_grad():
        log_weights = scores.new_zeros(len(scores)).requires_grad_()
        value = bound(scores, log_weights)
        (slope,) = torch.autograd.grad(value, log_weights)
    return value.detach() + len(scores) * slope


def _matched(scores: Tensor, least: int = 2) -> Tensor:
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or len(scores) < least:
        raise ValueError(
            f"`scores` must be a square matrix of at least {least} rows, got shape"
            f" {tuple(scores.shape)}"
        )
    return scores.diagonal()


def _mean(values: Tensor, log_weights: Tensor | None) -> Tensor:
    return values.mean() if log_weights is None else log_weights.softmax(dim=0) @ values


def _log_pairs(scores: Tensor, log_weights: Tensor | None) -> Tensor:
    """Returns the logarithms of the pairs' shares in a mean over Q: none for the diagonal."""
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    if log_weights is None:
        even = -math.log(len(scores) * (len(scores) - 1))
        return torch.full_like(scores, even).masked_fill(own, -math.inf)
    log_pairs = (log_weights[:, None] + log_weights).masked_fill(own, -math.inf)
    return log_pairs - log_pairs.logsumexp(dim=(0, 1))


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
