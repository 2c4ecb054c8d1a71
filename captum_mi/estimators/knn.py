"""Entropy and mutual information from distances to nearest neighbors, in nats."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from scipy.special import digamma

from captum_mi._checks import check_choice, check_jobs, check_positive
from captum_mi.estimators._neighbors import check_duplicates, nearest_distances
from captum_mi.estimators._samples import check_jitter
from captum_mi.estimators.base import EntropyEstimator
from captum_mi.estimators.neighbor_weights import FEWEST, Kind, dependent_noise, weights_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor


class _NeighborEntropy(EntropyEstimator):
    """Entropy from a weighted mean over the logarithms of neighbors' distances."""

    def __init__(self, *, whiten: bool, jitter: float, n_jobs: int | None) -> None:
        self.whiten = whiten
        self.jitter = check_jitter(jitter)
        self.n_jobs = n_jobs

    @abstractmethod
    def _weights(self, n_samples: int, dim: int) -> NDArray[np.float64]:
        """Returns (k,) weights that sum to 1, for samples of that shape."""

    def _noise(self, n_samples: int, dim: int) -> float:
        return dependent_noise(self._weights(n_samples, dim), dim) / n_samples

    def _minus_log_densities(self, spaces: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self._minus_log_density(name, samples) for name, samples in spaces.items()}

    def _minus_log_density(self, name: str, samples: Tensor) -> Tensor:
        n_samples, dim = samples.shape
        weights = self._weights(n_samples, dim)
        (used,) = weights.nonzero()
        distances = nearest_distances(samples, len(weights), n_jobs=self.n_jobs)
        check_duplicates(name, distances[:, 0], distances[:, used[0]])
        return minus_log_densities(distances, weights, dim)


class KozachenkoLeonenko(_NeighborEntropy):
    r"""Entropies from the distance r to the k-th neighbor.

    .. math:: -\log \hat p(x_i) = \log(N-1) + \log c_n - \psi(k) + n \log r_{k,i}

    with :math:`c_n` the volume of the unit ball. Good up to about four dimensions; its bias grows
    with them.

    Args:
        k: which neighbor; more of them lower the variance and raise the bias.
        whiten: map the samples to covariance I first, see :class:`EntropyEstimator`.
        jitter: noise that separates duplicates, in standard deviations of each column.
        n_jobs: threads that search for neighbors, as scikit-learn counts them; -1 takes all cores.

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

    def __init__(
        self,
        k: int = 1,
        *,
        whiten: bool = True,
        jitter: float = 0.0,
        n_jobs: int | None = -1,
    ) -> None:
        """Stores and checks the arguments."""
        super().__init__(whiten=whiten, jitter=jitter, n_jobs=check_jobs(n_jobs))
        self.k = check_positive("k", k)

    def _least_samples(self, dim: int) -> int:
        return self.k + 1

    def _weights(self, n_samples: int, dim: int) -> NDArray[np.float64]:
        weights = np.zeros(self.k)
        weights[-1] = 1.0
        return weights


class WeightedKozachenkoLeonenko(_NeighborEntropy):
    r"""Entropies from weighted distances to k neighbors, the leading bias canceled.

    .. math:: -\log \hat p(x_i) = \log(N-1) + \log c_n
        + \sum_j w_j \left( n \log r_{j,i} - \psi(j) \right)

    with the weights of :func:`neighbor_weights`. Good up to about 4 + 4 dimensions: in more of them
    X, Y and (X, Y) have biases that do not cancel, and :class:`CopulaNeighbors` is better.

    Args:
        k: how many neighbors; None takes, in each space, the fewest whose weights leave little
            noise, 5 to 50 of them; with the paper's weights as many as dimensions, at least 5.
        weights: ``"variance"`` for those of least variance, ``"paper"`` for the shortest, or
            ``"code"`` for those of the published code.
        whiten: map the samples to covariance I first, see :class:`EntropyEstimator`.
        jitter: noise that separates duplicates, in standard deviations of each column.
        n_jobs: threads that search for neighbors, as scikit-learn counts them; -1 takes all cores.

    Warns:
        UserWarning: if samples repeat, or if the paper's weights are long; where the nearest
            neighbor in use lies at distance 0, or no weights exist, it is an error.

    Source: Berrett, Samworth and Yuan 2019, "Efficient multivariate entropy estimation via
    k-nearest neighbour distances"; Butakov et al. 2024.

    Example:
        >>> x, noise = np.random.default_rng(0).standard_normal((2, 2000, 4))
        >>> estimate = WeightedKozachenkoLeonenko().estimate(x, x + noise)  # the truth is 1.386
        >>> print(f"{estimate.value:.2f} +- {estimate.std_error:.2f}")
        1.56 +- 0.07
    """

    def __init__(
        self,
        k: int | None = None,
        *,
        weights: Kind = "variance",
        whiten: bool = True,
        jitter: float = 0.0,
        n_jobs: int | None = -1,
    ) -> None:
        """Stores and checks the arguments."""
        super().__init__(whiten=whiten, jitter=jitter, n_jobs=check_jobs(n_jobs))
        self.k = None if k is None else check_positive("k", k)
        self.weights = check_choice("weights", weights, get_args(Kind))

    def _least_samples(self, dim: int) -> int:
        if self.k is not None:
            return self.k + 1
        return FEWEST + 1 if self.weights == "variance" else max(FEWEST, dim) + 1

    def _weights(self, n_samples: int, dim: int) -> NDArray[np.float64]:
        return weights_for(n_samples, dim, self.k, self.weights)


def minus_log_densities(distances: Tensor, weights: NDArray[np.float64], dim: int) -> Tensor:
    """Returns -log density at each sample, nats, from weighted distances to its neighbors.

    Args:
        distances: (N, K), ascending, in the space of all N samples.
        weights: (k,), with k at most K, that sum to 1.
        dim: the dimension of the space.

    Returns:
        (N,).
    """
    (used,) = weights.nonzero()
    log_ball = dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)
    constant = math.log(len(distances) - 1) + log_ball - float(weights[used] @ digamma(used + 1))
    used_weights = torch.from_numpy(weights[used]).to(distances.device)
    return constant + dim * (distances[:, used].log() @ used_weights)
