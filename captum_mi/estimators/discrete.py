"""Mutual information and entropy of discrete variables from how often values occur, in nats."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import xlogy

from captum_mi._checks import brief
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.estimate import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from captum_mi.estimators._samples import Samples

    Counts = NDArray[np.int64]

OFTEN_ONCE = 0.25  # of the samples: if so many combinations occur but once, a bias is left


class PlugIn(MutualInformationEstimator):
    r"""Mutual information of two discrete variables: frequencies for probabilities, jackknifed.

    .. math:: \hat I = d(N) + \langle d(n_{xy}) - d(n_x) - d(n_y) \rangle
        \qquad d(n) = n \log n - (n - 1) \log (n - 1)

    where :math:`n_{xy}` of the N samples share a sample's x and y, :math:`n_x` its x. This is the
    jackknife N I - (N - 1) <I without sample i>, term by term, of the plug-in estimate I, whose
    bias of about :math:`(K_{xy} - K_x - K_y + 1) / 2N` for K occurring values it removes up to
    order 1/N². As Miller and Madow's correction does, but it removes more where many combinations
    are rare; Grassberger's removes most there and is more than twice as noisy near independence;
    Chao and Shen's leaves the bias of full tables. As d grows, no term exceeds that of an entropy:
    the estimate is at most :meth:`entropy` of X or Y.

    The standard error is the jackknife's, in large samples the delta method's, and at least that of
    the chi-squared variable which the plug-in estimate is at independence.

    A variable is (N,) labels of any kind, texts say, or (N, d) of which a row is one value.

    Warns:
        UserWarning: if more than a quarter of the samples have a combination of values that no
            other has, so that the estimate is too high.

    Source: Miller 1955, "Note on the bias of information estimates"; Efron and Stein 1981, "The
    jackknife estimate of variance"; compared by Paninski 2003, "Estimation of entropy and mutual
    information".

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.integers(3, size=600)
        >>> y = np.where(rng.random(600) < 0.5, x, rng.integers(3, size=600))  # 0.231 nats
        >>> print(PlugIn().estimate(x, y))
        0.207 ± 0.026 nats
    """

    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Estimates the mutual information of two discrete variables.

        Args:
            x: (N,) or (N, d), values of any kind.
            y: (N,) or (N, d), entry i drawn together with entry i of ``x``.
        """
        return self._estimate(x, y, "y")

    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        """Estimates the same as :meth:`estimate`, as both variables are discrete.

        Args:
            x: (N,) or (N, d), values of any kind.
            labels: (N,), entry i drawn together with entry i of ``x``.
        """
        return self._estimate(x, labels, "labels")

    def entropy(self, x: Samples) -> Estimate:
        """Estimates the entropy of a discrete variable, jackknifed as well.

        Args:
            x: (N,) or (N, d), values of any kind.
        """
        counts = _occurrences(value_codes("x", x))
        terms = _increments(np.array(len(counts))) - _increments(counts)
        return replace(Estimate.of(torch.from_numpy(terms)), estimator=repr(self))

    def _estimate(self, x: Samples, y: Samples, name: str) -> Estimate:
        first, second = value_codes("x", x), value_codes(name, y)
        n_samples = len(first)
        check_same_length(name, len(second), n_samples)
        both = _occurrences(first * (int(second.max()) + 1) + second)
        of_x, of_y = _occurrences(first), _occurrences(second)
        alone = float((both == 1).mean())
        if alone > OFTEN_ONCE:
            warnings.warn(
                f"{alone:.0%} of the samples have a combination of `x` and `{name}` that no other"
                " has, so that their mutual information is overestimated; merge rare values, give"
                " more samples, or take `KSG` with `dithered` if they are numbers",
                stacklevel=3,
            )
        terms = _increments(np.array(n_samples)) + _increments(both)
        terms -= _increments(of_x) + _increments(of_y)
        plug_in = float(np.log(n_samples * (both / of_x) / of_y).mean())
        # At independence 2 N (plug-in) is chi-squared: its mean, twice N times the bias that the
        # jackknife removes, is half its variance.
        least = max(plug_in - float(terms.mean()), 0.0) / n_samples
        shown = float(terms.var(ddof=1)) / n_samples
        found = Estimate.of(torch.from_numpy(terms), max(least - shown, 0.0))
        return self._reported(found)


def value_codes(name: str, values: Samples) -> Counts:
    """Returns a number from 0 for each sample, equal where the values are.

    Args:
        name: the argument, for the wording of errors.
        values: (N,), of any kind that can be compared, or (N, d), of which a row is one value.

    Raises:
        ValueError: on another number of axes, fewer than two samples, or missing values.

    Example:
        >>> value_codes("x", [("a", 1), ("b", 1), ("a", 1)])
        array([0, 1, 0])
    """
    import pandas as pd  # takes half a second

    cells: Any = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    if np.ndim(cells) not in {1, 2}:
        raise ValueError(
            f"`{name}` must be (N,) or (N, d) discrete values, got {brief(values)}; flatten each"
        )
    table = pd.DataFrame(cells)
    if len(table) < 2:
        raise ValueError(f"`{name}` must hold at least 2 samples, got {len(table)}")
    missing = int(table.isna().any(axis=1).sum())
    if missing:
        raise ValueError(f"`{name}` must not be missing, got {missing} rows with NaN or None")
    found: Counts = np.zeros(len(table), dtype=np.int64)
    for position in range(table.shape[1]):
        codes, uniques = pd.factorize(table.iloc[:, position])
        found = pd.factorize(found * len(uniques) + codes)[0]
    return found


def check_same_length(name: str, length: int, expected: int) -> None:
    """Raises a ValueError if a variable has not as many samples as ``x``."""
    if length != expected:
        raise ValueError(
            f"`x` and `{name}` must have the same number of samples, got {expected} and {length}"
        )


def _occurrences(codes: Counts) -> Counts:
    """Returns how many samples have each sample's value, (N,)."""
    _, inverse, times = np.unique(codes, return_inverse=True, return_counts=True)
    return times[inverse]


def _increments(counts: Counts) -> NDArray[np.float64]:
    """Returns n log n - (n - 1) log(n - 1) for each count n."""
    found: NDArray[np.float64] = xlogy(counts, counts) - xlogy(counts - 1, counts - 1)
    return found
