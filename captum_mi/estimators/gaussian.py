"""Mutual information of a Gaussian copula, in closed form, in nats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from scipy.special import digamma

from captum_mi.estimators._samples import (
    as_paired_samples,
    as_samples,
    check_least,
    label_entropy,
    label_rows,
    whitened,
)
from captum_mi.estimators._scores import normal_scores
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.estimate import Estimate

if TYPE_CHECKING:
    from torch import Tensor

    from captum_mi.estimators._samples import Samples


class GaussianCopula(MutualInformationEstimator):
    r"""Mutual information of the normal variables that the columns are increasing maps of.

    .. math:: \hat I = -\tfrac12 \sum_i \log(1 - \rho_i^2) - b

    with :math:`\rho_i` the canonical correlations of the columns' normal scores, and b the bias
    that covariances of N normal samples have. Exact for variables with a Gaussian copula, in any
    dimension and with little noise; of any others it sees what correlations tell, at most their
    information if single columns, and possibly more or less otherwise.

    Args:
        seed: of the order of ties.

    Source: Ince et al. 2017, "A statistical framework for neuroimaging data analysis based on
    mutual information estimated via a Gaussian copula"; the bias: Misra, Singh and Demchuk 2005.

    Example:
        >>> import numpy as np
        >>> x, noise = np.random.default_rng(0).standard_normal((2, 2000, 25))
        >>> estimate = GaussianCopula().estimate(np.exp(x), x + 4 * noise)  # the truth is 0.758
        >>> print(f"{estimate.value:.2f} +- {estimate.std_error:.2f}")
        0.77 +- 0.03
    """

    def __init__(self, *, seed: int = 0) -> None:
        """Stores the argument."""
        self.seed = seed

    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Estimates the mutual information of two variables whose values have an order.

        Args:
            x: (N, d_x).
            y: (N, d_y), row i drawn together with row i of ``x``; N above d_x + d_y + 1.
        """
        first, second = as_paired_samples(x, y)
        dims = first.shape[1], second.shape[1]
        check_least("x", first, sum(dims) + 2, self)
        first = whitened("x", normal_scores(first, self.seed))[0]
        second = whitened("y", normal_scores(second, self.seed + 1))[0]
        return self._reported(gaussian_information(first, second))

    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        r"""Estimates the mutual information of ordered values and a label.

        .. math:: \hat I = \tfrac12 \log\det C - \tfrac12 \sum_l p_l \log\det C_l

        of the covariances of the normal scores, which are taken for normal with and without the
        label: an upper bound if they are so given the label.

        Args:
            x: (N, d).
            labels: (N,), integers or strings, each at least d + 2 times.
        """
        samples = as_samples("x", x)
        n_samples, dim = samples.shape
        rows = label_rows(labels, n_samples)
        samples = normal_scores(samples, self.seed)
        terms = torch.empty(n_samples, dtype=torch.float64, device=samples.device)
        white, volume = whitened("x", samples)
        value, terms[:] = volume - _log_det_bias(dim, n_samples) / 2, white.square().sum(1) / 2
        for label, members in rows.items():
            name = f"x of label {label!r}"
            check_least(name, samples[members], dim + 2, self)
            white, volume = whitened(name, samples[members])
            share = len(members) / n_samples
            value -= share * (volume - _log_det_bias(dim, len(members)) / 2)
            terms[members] -= white.square().sum(1) / 2 + volume
        error = float(terms.std()) / math.sqrt(n_samples)
        return self._reported(Estimate(value, error, n_samples), label_entropy(rows))


def gaussian_information(x: Tensor, y: Tensor) -> Estimate:
    r"""Returns the mutual information of jointly normal variables from whitened samples.

    The standard error is that of the mean of :math:`\log p(x, y) / p(x) p(y)` at the samples.

    Args:
        x: (N, d_x), of covariance I.
        y: (N, d_y), of covariance I.
    """
    n_samples = len(x)
    left, correlations, right = torch.linalg.svd(x.T @ y / (n_samples - 1), full_matrices=False)
    if float(correlations.max()) > 1 - 1e-12:
        raise ValueError(
            "`x` and `y` determine each other: a canonical correlation is 1, and their information"
            " is infinite; drop the columns that both hold"
        )
    a, b = x @ left, y @ right.T
    squares = correlations**2
    rest = 1 - squares
    log_ratio = -rest.log() / 2 - (squares * (a**2 + b**2) - 2 * correlations * a * b) / (2 * rest)
    dims = x.shape[1], y.shape[1]
    bias = sum(_log_det_bias(dim, n_samples) for dim in dims) - _log_det_bias(sum(dims), n_samples)
    value = float(-rest.log().sum()) / 2 - bias / 2
    # At independence it varies as a chi-square of d_x d_y degrees does, half of what the terms do.
    degrees = dims[0] * dims[1] / n_samples
    variance = (max(float(log_ratio.sum(1).var()) - degrees, 0.0) + degrees / 2) / n_samples
    return Estimate(value, math.sqrt(variance), n_samples)


def _log_det_bias(dim: int, n_samples: int) -> float:
    """Returns by how much the log-determinant of a covariance of normal samples is expected off."""
    halves = (n_samples - 1 - torch.arange(dim).numpy()) / 2
    return float(digamma(halves).sum()) - dim * math.log((n_samples - 1) / 2)
