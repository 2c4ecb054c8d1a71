"""Mutual information from counts of neighbors, in nats."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from scipy.special import digamma

from captum_mi._checks import check_positive
from captum_mi.estimators._neighbors import (
    check_duplicates,
    count_closer,
    nearest_distances,
    warn_of_duplicates,
)
from captum_mi.estimators._samples import (
    as_paired_samples,
    as_samples,
    check_jitter,
    check_least,
    jittered,
    label_rows,
    n_duplicates,
)
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.estimate import Estimate

if TYPE_CHECKING:
    from torch import Tensor

    from captum_mi.estimators._samples import Samples


class KSG(MutualInformationEstimator):
    r"""Mutual information from counts inside the ball of the k-th neighbor, largest coordinate.

    .. math:: \hat I = \psi(k) + \psi(N) - \langle \psi(n_x + 1) + \psi(n_y + 1) \rangle

    where :math:`n_x` samples are strictly closer in X than the k-th neighbor is in (X, Y). Each
    column is scaled to standard deviation 1. The least biased of the three near independence;
    a strong dependence in several dimensions is underestimated.

    A label takes the place of Y in :meth:`estimate_discrete`: the ball is that of the k-th
    neighbor of the same label.

    Args:
        k: which neighbor.
        jitter: noise that separates duplicates, in standard deviations of each column.

    Warns:
        UserWarning: if samples of X or of Y repeat; where the k-th neighbor in (X, Y), or of the
            same label, lies at distance 0 it is an error.

    Source: Kraskov, Stoegbauer and Grassberger 2004, "Estimating mutual information", algorithm 1;
    labels: Ross 2014, "Mutual information between discrete and continuous data sets".

    Example:
        >>> import numpy as np
        >>> x, noise = np.random.default_rng(0).standard_normal((2, 2000))
        >>> estimate = KSG().estimate(x, x + noise)  # the truth is 0.347
        >>> print(f"{estimate.value:.2f} +- {estimate.std_error:.2f}")
        0.34 +- 0.02
    """

    def __init__(self, k: int = 3, *, jitter: float = 0.0) -> None:
        """Stores and checks the arguments."""
        self.k = check_positive("k", k)
        self.jitter = check_jitter(jitter)

    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Estimates the mutual information of two continuous variables, by Kraskov et al."""
        first, second = as_paired_samples(x, y)
        check_least("x", first, self.k + 1, self)
        joint = self._scaled(torch.cat([first, second], dim=1))
        spaces = {"x": joint[:, : first.shape[1]], "y": joint[:, first.shape[1] :]}
        radius = nearest_distances(joint, self.k, math.inf)[:, -1]
        check_duplicates("(x, y)", radius, radius)
        terms = torch.full_like(radius, digamma(self.k) + digamma(len(joint)))
        for name, samples in spaces.items():
            warn_of_duplicates(name, n_duplicates(samples))
            terms -= torch.digamma(count_closer(samples, radius).double() + 1)
        if bool((terms == terms[0]).all()):
            warnings.warn(
                f"every sample gives {float(terms[0]):.3f} nats, the most that KSG can tell from"
                f" {len(joint)} samples: x and y determine each other",
                stacklevel=2,
            )
        return Estimate.of(terms)

    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        """Estimates the mutual information of a continuous and a discrete variable, by Ross."""
        samples = self._scaled(as_samples("x", x))
        radius = samples.new_empty(len(samples))
        shares = samples.new_empty(len(samples))
        for label, rows in label_rows(labels, len(samples)).items():
            members = samples[rows]
            name = f"x of label {label!r}"
            check_least(name, members, self.k + 1, self)
            radius[rows] = nearest_distances(members, self.k, math.inf)[:, -1]
            shares[rows] = len(members)
            check_duplicates(name, radius[rows], radius[rows])
        closer = count_closer(samples, radius).double() + 1
        terms = digamma(self.k) + digamma(len(samples)) - shares.digamma() - closer.digamma()
        return Estimate.of(terms)

    def _scaled(self, samples: Tensor) -> Tensor:
        samples = jittered(samples, self.jitter)
        return (samples - samples.mean(dim=0)) / samples.std(dim=0)
