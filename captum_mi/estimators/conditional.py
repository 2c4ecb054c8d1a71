"""Conditional mutual information from counts of neighbors, in nats."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from captum_mi._checks import check_positive
from captum_mi.estimators._balls import apart, count_within, kth_distances
from captum_mi.estimators._samples import as_paired_samples, as_samples, check_least
from captum_mi.estimators._subsamples import block_variance, estimate_of
from captum_mi.estimators.discrete import check_same_length, value_codes

if TYPE_CHECKING:
    from torch import Tensor

    from captum_mi.estimators._samples import Samples
    from captum_mi.estimators.estimate import Estimate


class ConditionalKSG:
    r"""Conditional mutual information from counts of neighbors, by the largest coordinate.

    .. math:: \hat I(X;Y|Z) = \langle \psi(n_{xyz}) - \psi(n_{xz}) - \psi(n_{yz}) + \psi(n_z)
        \rangle

    where the n count the samples, a sample itself among them, that are closer to it than its k-th
    neighbor is in (X, Y, Z); where that neighbor lies at distance 0, those that equal it. Without
    ties :math:`n_{xyz} = k`. What X and Y share beyond Z: 0 if Z explains all that ties them, and
    more than I(X;Y) if Z depends on both. Columns are scaled, and may be mixed, as for
    :class:`MixedKSG`; strong dependences on a Z of several dimensions are underestimated.

    Args:
        k: which neighbor.

    Source: Frenzel and Pompe 2007, "Partial mutual information for coupling analysis of
    multivariate time series"; ties: Mesner and Shalizi 2021, "Conditional mutual information
    estimation for mixed, discrete and continuous data".

    Example:
        >>> import numpy as np
        >>> from captum_mi.estimators import KSG
        >>> z, *noises = np.random.default_rng(0).standard_normal((3, 2000))
        >>> x, y = z + noises[0], z + noises[1]
        >>> print(KSG().estimate(x, y))  # the truth is 0.144
        0.127 ± 0.018 nats
        >>> print(ConditionalKSG().estimate(x, y, z))  # the truth is 0
        0.005 ± 0.019 nats
    """

    def __init__(self, k: int = 3) -> None:
        """Stores and checks the argument."""
        self.k = check_positive("k", k)

    def __repr__(self) -> str:
        """Returns the call that builds this estimator."""
        return f"ConditionalKSG(k={self.k})"

    def estimate(self, x: Samples, y: Samples, z: Samples) -> Estimate:
        """Estimates what X and Y share, given a variable of any kind of numbers.

        Args:
            x: (N, d_x).
            y: (N, d_y), row i drawn together with row i of ``x``.
            z: (N, d_z), the same.
        """
        first, second = as_paired_samples(x, y)
        check_least("x", first, self.k + 1, self)
        given = as_samples("z", z).to(first.device)
        check_same_length("z", len(given), len(first))
        spaces = [apart(samples) for samples in (first, second, given)]
        variance = block_variance(
            lambda rows: self._terms(*(space[rows] for space in spaces)), len(first), self.k + 1
        )
        return self._named(estimate_of(self._terms(*spaces), variance))

    def estimate_discrete(self, x: Samples, y: Samples, labels: Samples) -> Estimate:
        """Estimates what X and Y share given a label: I(X;Y|L=l), weighted by frequency.

        A label of at most k samples counts as 0.

        Args:
            x: (N, d_x).
            y: (N, d_y), row i drawn together with row i of ``x``.
            labels: (N,) of any kind, entry i drawn together with row i of ``x``.
        """
        first, second = as_paired_samples(x, y)
        check_least("x", first, self.k + 1, self)
        codes = torch.from_numpy(value_codes("labels", labels)).to(first.device)
        check_same_length("labels", len(codes), len(first))
        spaces = apart(first), apart(second)
        variance = block_variance(
            lambda rows: self._label_terms(spaces[0][rows], spaces[1][rows], codes[rows]),
            len(first),
            self.k + 1,
        )
        return self._named(estimate_of(self._label_terms(*spaces, codes), variance))

    def _terms(self, first: Tensor, second: Tensor, given: Tensor) -> Tensor:
        radius = kth_distances(torch.cat([first, second, given], dim=1), self.k)
        return _contrast(first, second, given, radius)

    def _label_terms(self, first: Tensor, second: Tensor, codes: Tensor) -> Tensor:
        terms = torch.zeros_like(first[:, 0])
        for code in range(int(codes.max()) + 1):
            rows = codes == code
            members = first[rows], second[rows]
            n_members = len(members[0])
            if n_members > self.k:
                radius = kth_distances(torch.cat(members, dim=1), self.k)
                terms[rows] = _contrast(*members, first.new_zeros(n_members, 1), radius)
        return terms

    def _named(self, found: Estimate) -> Estimate:
        return replace(found, estimator=repr(self))


def _contrast(first: Tensor, second: Tensor, given: Tensor, radius: Tensor) -> Tensor:
    """Returns the terms of the estimate from counts inside each sample's radius."""
    total = torch.zeros_like(radius)
    for sign, *spaces in ((1, first, second, given), (-1, first, given), (-1, second, given)):
        total += sign * count_within(torch.cat(spaces, dim=1), radius).digamma()
    return total + count_within(given, radius).digamma()
