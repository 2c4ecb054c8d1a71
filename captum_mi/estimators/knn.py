"""Entropy and mutual information from distances to nearest neighbors, in nats."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from scipy.special import digamma, gammaln

from captum_mi._checks import check_choice, check_positive
from captum_mi.estimators._neighbors import count_closer, nearest_distances
from captum_mi.estimators._samples import (
    as_paired_samples,
    as_samples,
    check_jitter,
    check_least,
    jittered,
    label_rows,
    n_duplicates,
)
from captum_mi.estimators.base import EntropyEstimator, Estimate, MutualInformationEstimator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from captum_mi.estimators._samples import Samples

Kind = Literal["paper", "code"]
SUM_TOLERANCE = 1e-9
LARGE_NORM = 50.0


def neighbor_weights(k: int, dim: int, kind: Kind = "paper") -> NDArray[np.float64]:
    r"""Returns weights of the first k neighbors that cancel the leading bias of the entropy.

    The shortest :math:`w` with

    .. math:: \sum_j w_j = 1 \qquad
        \sum_j w_j \frac{\Gamma(j + 2l/n)}{\Gamma(j)} = 0, \; l = 1 \dots \lfloor n/4 \rfloor

    that is zero off the neighbors :math:`\lfloor ik/n \rfloor, i = 1 \dots n`.

    Args:
        k: the number of neighbors.
        dim: n, the dimension of the samples.
        kind: ``"paper"`` solves this; ``"code"`` does, like the code published with Butakov et al.,
            only above four dimensions, and up to four takes the nearest neighbor alone.

    Returns:
        (k,).

    Raises:
        ValueError: if k leaves no solution.

    Warns:
        UserWarning: if the weights are longer than 50: they multiply the noise as well.

    Source: Berrett, Samworth and Yuan 2019, "Efficient multivariate entropy estimation via
    k-nearest neighbour distances", eq. 2.

    Example:
        >>> neighbor_weights(5, 5).round(2)
        array([ 1.54,  0.67,  0.06, -0.43, -0.84])
    """
    weights = np.zeros(k)
    if kind == "code" and dim <= 4:
        weights[0] = 1.0
        return weights
    neighbors = np.unique(np.arange(1, dim + 1) * k // dim)
    neighbors = neighbors[neighbors > 0]
    powers = np.arange(1 + dim // 4)[:, None] * 2 / dim
    conditions = np.exp(gammaln(neighbors + powers) - gammaln(neighbors))
    conditions /= np.linalg.norm(conditions, axis=1, keepdims=True)
    wanted = np.zeros(len(conditions))
    wanted[0] = 1 / math.sqrt(len(neighbors))
    solution = np.linalg.lstsq(conditions, wanted, rcond=None)[0]
    norm = float(np.linalg.norm(solution))
    residual = np.abs(conditions[1:] @ solution).max(initial=0.0)
    if abs(solution.sum() - 1) > SUM_TOLERANCE or residual > SUM_TOLERANCE * norm:
        what, also = f"{dim} dimensions are too many", ""
        if k < dim:
            what = f"`k` must be larger in {dim} dimensions, got {k}"
            also = ", or choose a larger one"
        raise ValueError(
            f"{what}: no weights of {len(neighbors)} neighbors meet the {len(conditions)}"
            f" conditions; compress to fewer dimensions with `PCA`{also}"
        )
    if norm > LARGE_NORM:
        warnings.warn(
            f"the weights of k={k} neighbors in {dim} dimensions have norm {norm:.3g}, above"
            f" {LARGE_NORM:g}, and multiply the noise as well; choose a larger `k`, or compress to"
            " fewer dimensions with `PCA`",
            stacklevel=2,
        )
    weights[neighbors - 1] = solution
    return weights


class _NeighborEntropy(EntropyEstimator):
    """Entropy from a weighted mean over the logarithms of neighbors' distances."""

    def __init__(self, *, whiten: bool, jitter: float) -> None:
        self.whiten = whiten
        self.jitter = check_jitter(jitter)

    @abstractmethod
    def _weights(self, dim: int) -> NDArray[np.float64]:
        """Returns (k,) weights that sum to 1."""

    def _minus_log_densities(self, spaces: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self._minus_log_density(name, samples) for name, samples in spaces.items()}

    def _minus_log_density(self, name: str, samples: Tensor) -> Tensor:
        n_samples, dim = samples.shape
        weights = self._weights(dim)
        (used,) = weights.nonzero()
        distances = nearest_distances(samples, len(weights))
        _check_duplicates(name, distances[:, 0], distances[:, used[0]])
        log_ball = dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)
        constant = math.log(n_samples - 1) + log_ball - float(weights[used] @ digamma(used + 1))
        used_weights = torch.from_numpy(weights[used]).to(samples.device)
        return constant + dim * (distances[:, used].log() @ used_weights)


class KozachenkoLeonenko(_NeighborEntropy):
    r"""Entropies from the distance r to the k-th neighbor.

    .. math:: -\log \hat p(x_i) = \log(N-1) + \log c_n - \psi(k) + n \log r_{k,i}

    with :math:`c_n` the volume of the unit ball. Good up to about four dimensions; its bias grows
    with them.

    Args:
        k: which neighbor; more of them lower the variance and raise the bias.
        whiten: map the samples to covariance I first, see :class:`EntropyEstimator`.
        jitter: noise that separates duplicates, in standard deviations of each column.

    Warns:
        UserWarning: if samples repeat; where the k-th neighbor lies at distance 0 it is an error.

    Source: Kozachenko and Leonenko 1987; k > 1: Goria et al. 2005, "A new class of random vector
    entropy estimators and its applications".

    Example:
        >>> x, noise = np.random.default_rng(0).standard_normal((2, 2000))
        >>> estimate = KozachenkoLeonenko(k=3).estimate(x, x + noise)  # the truth is 0.347
        >>> print(f"{estimate.value:.2f} +- {estimate.std_error:.2f}")
        0.39 +- 0.03
    """

    def __init__(self, k: int = 1, *, whiten: bool = True, jitter: float = 0.0) -> None:
        """Stores and checks the arguments."""
        super().__init__(whiten=whiten, jitter=jitter)
        self.k = check_positive("k", k)

    def _least_samples(self, dim: int) -> int:
        return self.k + 1

    def _weights(self, dim: int) -> NDArray[np.float64]:
        weights = np.zeros(self.k)
        weights[-1] = 1.0
        return weights


class WeightedKozachenkoLeonenko(_NeighborEntropy):
    r"""Entropies from weighted distances to k neighbors, the leading bias canceled.

    .. math:: -\log \hat p(x_i) = \log(N-1) + \log c_n
        + \sum_j w_j \left( n \log r_{j,i} - \psi(j) \right)

    with the weights of :func:`neighbor_weights`. Made for about 4 to 10 dimensions; beyond, the
    weights explode and with them the standard error.

    Args:
        k: how many neighbors; None takes the dimension of each space, at least 5.
        weights: ``"paper"``, or ``"code"`` for those of the published code.
        whiten: map the samples to covariance I first, see :class:`EntropyEstimator`.
        jitter: noise that separates duplicates, in standard deviations of each column.

    Warns:
        UserWarning: if samples repeat, or if the weights are long; where the nearest neighbor in
            use lies at distance 0, or no weights exist, it is an error.

    Source: Berrett, Samworth and Yuan 2019, "Efficient multivariate entropy estimation via
    k-nearest neighbour distances"; Butakov et al. 2024.

    Example:
        >>> x, noise = np.random.default_rng(0).standard_normal((2, 2000, 4))
        >>> estimate = WeightedKozachenkoLeonenko().estimate(x, x + noise)  # the truth is 1.386
        >>> print(f"{estimate.value:.2f} +- {estimate.std_error:.2f}")
        1.20 +- 0.17
    """

    def __init__(
        self,
        k: int | None = None,
        *,
        weights: Kind = "paper",
        whiten: bool = True,
        jitter: float = 0.0,
    ) -> None:
        """Stores and checks the arguments."""
        super().__init__(whiten=whiten, jitter=jitter)
        self.k = None if k is None else check_positive("k", k)
        self.weights = check_choice("weights", weights, get_args(Kind))

    def _neighbors(self, dim: int) -> int:
        return max(5, dim) if self.k is None else self.k

    def _least_samples(self, dim: int) -> int:
        return self._neighbors(dim) + 1

    def _weights(self, dim: int) -> NDArray[np.float64]:
        return neighbor_weights(self._neighbors(dim), dim, self.weights)


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
        _check_duplicates("(x, y)", radius, radius)
        terms = torch.full_like(radius, digamma(self.k) + digamma(len(joint)))
        for name, samples in spaces.items():
            _warn_of_duplicates(name, n_duplicates(samples))
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
            _check_duplicates(name, radius[rows], radius[rows])
        closer = count_closer(samples, radius).double() + 1
        terms = digamma(self.k) + digamma(len(samples)) - shares.digamma() - closer.digamma()
        return Estimate.of(terms)

    def _scaled(self, samples: Tensor) -> Tensor:
        samples = jittered(samples, self.jitter)
        return (samples - samples.mean(dim=0)) / samples.std(dim=0)


def _check_duplicates(name: str, nearest: Tensor, needed: Tensor) -> None:
    zeros = int((needed == 0).sum())
    if zeros:
        raise ValueError(
            f"`{name}` has {zeros} samples at distance 0 from the neighbor that measures their"
            " density; use `estimate_discrete` with a discrete variable as `labels`, drop repeated"
            " rows, and give rounded values a `jitter` of about their step"
        )
    _warn_of_duplicates(name, int((nearest == 0).sum()))


def _warn_of_duplicates(name: str, count: int) -> None:
    if count:
        warnings.warn(
            f"`{name}` has {count} samples that repeat others, which biases distances to"
            " neighbors; use `estimate_discrete` with a discrete variable as `labels`, and"
            " `jitter` separates the rest",
            stacklevel=4,
        )
