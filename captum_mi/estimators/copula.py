"""Mutual information of the copula, from neighbors of pairs and of shuffled pairs, in nats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from captum_mi._checks import check_jobs, check_positive
from captum_mi.estimators._neighbors import nearest_distances
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
from captum_mi.estimators.knn import minus_log_densities
from captum_mi.estimators.neighbor_weights import (
    FEWEST,
    dependent_noise,
    independent_noise,
    weights_for,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from captum_mi.estimators._samples import Samples

NOISE = 0.02
"""Nats of noise of an entropy; less than where biases do not cancel."""
SMOOTH = 20
"""The neighbor that measures densities for the standard error: a far one, of little noise."""


class CopulaNeighbors(MutualInformationEstimator):
    r"""Entropy of shuffled pairs less that of pairs, from weighted neighbors of normal scores.

    .. math:: \hat I = \hat h(X, Y_\pi) - \hat h(X, Y)

    where the shuffle :math:`\pi` makes Y independent of X. Both entropies have as many dimensions
    and the same margins, so that most of their bias cancels: all of it, up to the noise, where X
    and Y are independent, and where they are jointly normal, for both spaces are whitened. Before
    that, each column is mapped to normal scores by its ranks: jointly normal columns behind any
    increasing maps behave as normal ones do, and heavy tails and sharp ends of columns are gone.
    Neither changes the mutual information. Ties are put in random order, as
    small uniform noise would, so that counts and rounded values are no exception.

    The most accurate of the estimators here that need no training, for X and Y that have a density
    in all their dimensions. Where X lies on a surface of fewer, take :class:`KSG`.

    Args:
        k: how many neighbors; None takes the fewest whose weights leave little noise, see
            :func:`neighbor_weights`.
        shuffles: over how many the entropy of shuffled pairs is averaged.
        seed: of the shuffles and of the order of ties.
        n_jobs: threads that search for neighbors, as scikit-learn counts them; -1 takes all cores.

    Source: the entropy's weights are those of Berrett, Samworth and Yuan 2019; shuffled pairs
    against the bias of information are an old remedy for spike trains (Panzeri et al. 2007,
    "Correcting for the sampling bias problem in spike train information measures").

    Example:
        >>> x, noise = np.random.default_rng(0).standard_normal((2, 2000, 4))
        >>> estimate = CopulaNeighbors().estimate(np.exp(x), x + noise)  # the truth is 1.386
        >>> print(f"{estimate.value:.2f} +- {estimate.std_error:.2f}")
        1.37 +- 0.04
    """

    def __init__(
        self, k: int | None = None, *, shuffles: int = 3, seed: int = 0, n_jobs: int | None = -1
    ) -> None:
        """Stores and checks the arguments."""
        self.k = None if k is None else check_positive("k", k)
        self.shuffles = check_positive("shuffles", shuffles)
        self.seed = seed
        self.n_jobs = check_jobs(n_jobs)

    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Estimates the mutual information of two variables whose values have an order.

        Args:
            x: (N, d_x).
            y: (N, d_y), row i drawn together with row i of ``x``.
        """
        first, second = as_paired_samples(x, y)
        n_samples = len(first)
        check_least("x", first, FEWEST + 1 if self.k is None else self.k + 1, self)
        first, second = normal_scores(first, self.seed), normal_scores(second, self.seed + 1)
        pairs = torch.cat([first, second], dim=1)
        weights = weights_for(n_samples, pairs.shape[1], self.k, noise=NOISE)
        smooth = _last(min(SMOOTH, n_samples - 1))
        margins = _smooth_entropy(self.n_jobs, "x", first, smooth) + _smooth_entropy(
            self.n_jobs, "y", second, smooth
        )
        white, volume = whitened("(x, y)", pairs)
        of_pairs, spread = _densities(self.n_jobs, white, weights, smooth)
        log_ratio = margins - volume - spread
        of_shuffled = [
            _entropy(self.n_jobs, torch.cat([first, second[order]], dim=1), weights)
            for order in self._orders(n_samples)
        ]
        value = sum(of_shuffled) / self.shuffles - float(of_pairs.mean()) - volume
        noise = (1 + 1 / self.shuffles) * _noise(weights, pairs.shape[1])
        variance = (float(log_ratio.var()) + noise) / n_samples
        return self._reported(Estimate(value, math.sqrt(variance), n_samples))

    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        """Estimates the mutual information of ordered values and a label.

        Each label's samples are compared with as many under shuffled labels.

        Args:
            x: (N, d).
            labels: (N,), integers or strings, each at least twice.
        """
        samples = as_samples("x", x)
        n_samples, dim = samples.shape
        rows = label_rows(labels, n_samples)
        samples = whitened("x", normal_scores(samples, self.seed))[0]
        orders = self._orders(n_samples)
        value, noise = 0.0, 0.0
        (log_ratio,) = _densities(self.n_jobs, samples, _last(min(SMOOTH, n_samples - 1)))
        for label, members in rows.items():
            count, share = len(members), len(members) / n_samples
            check_least(f"x of label {label!r}", samples[members], 2, self)
            weights = weights_for(count, dim, self.k, noise=NOISE)
            smooth = _last(min(SMOOTH, count - 1))
            of_label, spread = _densities(self.n_jobs, samples[members], weights, smooth)
            log_ratio[members] -= spread
            for order in orders:
                (of_shuffled,) = _densities(self.n_jobs, samples[order[members]], weights)
                value += share / self.shuffles * float((of_shuffled - of_label).mean())
            noise += share * (1 + 1 / self.shuffles) * _noise(weights, dim)
        std_error = math.sqrt((float(log_ratio.var()) + noise) / n_samples)
        found = Estimate(value, std_error, n_samples)
        return self._reported(found, label_entropy(rows))

    def _orders(self, n_samples: int) -> list[Tensor]:
        rng = np.random.default_rng(self.seed)
        return [torch.from_numpy(rng.permutation(n_samples)) for _ in range(self.shuffles)]


def _noise(weights: NDArray[np.float64], dim: int) -> float:
    return independent_noise(weights) + dependent_noise(weights, dim)


def _last(k: int) -> NDArray[np.float64]:
    return np.asarray(np.eye(k)[-1])


def _densities(n_jobs: int | None, samples: Tensor, *weights: NDArray[np.float64]) -> list[Tensor]:
    """Returns -log density at each sample, by each of several weights of neighbors."""
    distances = nearest_distances(samples, max(map(len, weights)), n_jobs=n_jobs)
    dim = samples.shape[1]
    return [minus_log_densities(distances, each, dim) for each in weights]


def _entropy(n_jobs: int | None, samples: Tensor, weights: NDArray[np.float64]) -> float:
    white, volume = whitened("(x, y)", samples)
    return float(_densities(n_jobs, white, weights)[0].mean()) + volume


def _smooth_entropy(
    n_jobs: int | None, name: str, scores: Tensor, smooth: NDArray[np.float64]
) -> Tensor:
    """Returns -log density at each sample, known exactly for the scores of one column."""
    if scores.shape[1] == 1:
        return scores[:, 0].square() / 2 + math.log(2 * math.pi) / 2
    white, half_log_det = whitened(name, scores)
    return _densities(n_jobs, white, smooth)[0] + half_log_det
