"""Mutual information of variables that are continuous in part and discrete in part, in nats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.special import digamma

from captum_mi._checks import check_positive
from captum_mi.estimators._balls import apart, count_within, kth_distances
from captum_mi.estimators._samples import (
    as_paired_samples,
    as_samples,
    check_least,
)
from captum_mi.estimators._subsamples import block_variance, estimate_of
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.discrete import PlugIn, check_same_length, value_codes

if TYPE_CHECKING:
    from torch import Tensor

    from captum_mi.estimators._samples import Samples
    from captum_mi.estimators.estimate import Estimate


class MixedKSG(MutualInformationEstimator):
    r"""Mutual information from counts of neighbors, for columns of any kind of numbers.

    .. math:: \hat I = \psi(N) + \langle \psi(n_{xy}) - \psi(n_x) - \psi(n_y) \rangle

    where the n count the samples, a sample itself among them, that are closer to it than its k-th
    neighbor is in (X, Y), by the largest coordinate; where that neighbor lies at distance 0, those
    that equal it. So X and Y may be discrete, continuous, mixtures of both such as amounts of rain,
    which are often 0 exactly, or have columns of several kinds. Without ties
    :math:`n_{xy} = k` and this is :class:`KSG`; with values that all repeat often it is a plug-in
    estimate.

    Each column is scaled to standard deviation 1. Of a column that is ``"mixed"``
    (:func:`kind_of`), the frequent values lie far from the others, however near they are as
    numbers: a one-to-one map, which changes no mutual information, and without which neighbors of
    one sort pass for those of the other.

    A label takes the place of Y in :meth:`estimate_discrete`: neighbors are of the same label, and
    where that has no more than k samples, the farthest of them is the last.

    Args:
        k: which neighbor.

    Source: Gao, Kannan, Oh and Viswanath 2017, "Estimating mutual information for
    discrete-continuous mixtures", algorithm 1, which takes k for n_xy wherever the k-th neighbor
    is not at distance 0 and so overestimates where several are as far as it.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x = rng.integers(5, size=2000)
        >>> y = x + rng.uniform(0, 2, size=2000)  # the truth is 1.055
        >>> print(MixedKSG().estimate(x, y))
        1.065 ± 0.012 nats
    """

    def __init__(self, k: int = 3) -> None:
        """Stores and checks the argument."""
        self.k = check_positive("k", k)

    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Estimates the mutual information of two variables of any kind of numbers.

        Args:
            x: (N, d_x).
            y: (N, d_y), row i drawn together with row i of ``x``.
        """
        spaces = self._spaces(x, y)
        terms = self._terms(*spaces)
        variance = block_variance(
            lambda rows: self._terms(*(space[rows] for space in spaces)), len(terms), self.k + 1
        )
        return self._reported(estimate_of(terms, variance))

    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        """Estimates the mutual information of numbers of any kind and a label.

        Args:
            x: (N, d).
            labels: (N,), entry i drawn together with row i of ``x``.
        """
        samples, codes = self._labeled(x, labels)
        terms = self._label_terms(samples, codes)
        variance = block_variance(
            lambda rows: self._label_terms(samples[rows], codes[rows]), len(samples), self.k + 1
        )
        return self._reported(estimate_of(terms, variance), PlugIn().entropy(codes).value)

    def value(self, x: Samples, y: Samples, *, discrete: bool = False) -> float:
        """Returns the value of an estimate alone, without the blocks behind its standard error."""
        if discrete:
            return float(self._label_terms(*self._labeled(x, y)).mean())
        return float(self._terms(*self._spaces(x, y)).mean())

    def _spaces(self, x: Samples, y: Samples) -> tuple[Tensor, Tensor]:
        first, second = as_paired_samples(x, y)
        check_least("x", first, self.k + 1, self)
        return apart(first), apart(second)

    def _labeled(self, x: Samples, labels: Samples) -> tuple[Tensor, Tensor]:
        samples = as_samples("x", x)
        codes = torch.from_numpy(value_codes("labels", labels)).to(samples.device)
        check_same_length("labels", len(codes), len(samples))
        return apart(samples), codes

    def _terms(self, first: Tensor, second: Tensor) -> Tensor:
        joint = torch.cat([first, second], dim=1)
        radius = kth_distances(joint, self.k)
        terms: Tensor = count_within(joint, radius).digamma() + digamma(len(joint))
        return (
            terms - count_within(first, radius).digamma() - count_within(second, radius).digamma()
        )

    def _label_terms(self, samples: Tensor, codes: Tensor) -> Tensor:
        radius = samples.new_full((len(samples),), torch.inf)
        terms = samples.new_full((len(samples),), digamma(len(samples)))
        for code in range(int(codes.max()) + 1):
            rows = codes == code
            members = samples[rows]
            if len(members) > 1:
                radius[rows] = kth_distances(members, min(self.k, len(members) - 1))
                terms[rows] += count_within(members, radius[rows]).digamma() - digamma(len(members))
        return terms - count_within(samples, radius).digamma()
