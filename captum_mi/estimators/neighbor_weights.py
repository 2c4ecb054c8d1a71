"""Weights of nearest neighbors: how biases cancel, and what noise they leave."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import gammaln, polygamma

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["variance", "paper", "code"]

FEWEST, MOST = 5, 50
"""Neighbors to choose from."""
NOISE = 0.03
"""Nats of noise of an entropy that few neighbors may have: fewer of them are less biased."""
CONDITIONED = range(3, 17)
"""Dimensions in which the leading bias term is canceled by the weights of least variance. Below, it
falls faster than the noise as samples grow; above, no neighbor is near enough for terms to lead."""
SUM_TOLERANCE = 1e-9
LARGE_NORM = 50.0
DEPENDENCE = {1: 1.65, 2: 1.5, 3: 1.5, 4: 1.7, 5: 1.8, 8: 1.9, 10: 2.2, 16: 3.5, 50: 12.0}
"""Dimension -> variance of the mean of neighbors' terms, as a multiple of what it were if the terms
did not depend on each other. Simulated: up to 8 dimensions by uniform samples on a torus, where it
is hardly another for other numbers and weights of neighbors, and above by normals."""


def neighbor_weights(k: int, dim: int, kind: Kind = "variance") -> NDArray[np.float64]:
    r"""Returns weights of the first k neighbors that cancel the leading bias of the entropy.

    .. math:: \sum_j w_j = 1 \qquad
        \sum_j w_j \frac{\Gamma(j + 2l/n)}{\Gamma(j)} = 0, \; l = 1 \dots L

    ``"variance"`` meets one condition, none below 3 and above 16 dimensions, with the least
    variance of the weighted mean, where the logarithms of the volumes within neighbors i and j
    have covariance :math:`\psi'(\max(i, j))`. ``"paper"`` meets
    :math:`L = \lfloor n/4 \rfloor` with the shortest w that is zero off the neighbors
    :math:`\lfloor ik/n \rfloor, i = 1 \dots n`. ``"code"`` does, like the code published with
    Butakov et al., only above four dimensions, and up to four takes the nearest neighbor alone.

    Args:
        k: the number of neighbors.
        dim: n, the dimension of the samples.
        kind: ``"variance"``, ``"paper"`` or ``"code"``.

    Returns:
        (k,).

    Raises:
        ValueError: if k leaves no solution.

    Warns:
        UserWarning: if the weights of the paper are longer than 50: they multiply the noise too.

    Source: Berrett, Samworth and Yuan 2019, "Efficient multivariate entropy estimation via
    k-nearest neighbour distances", eq. 2; the conditions are theirs, the least variance is not.

    Example:
        >>> neighbor_weights(5, 5).round(2)
        array([ 0.56,  1.  ,  1.25,  1.43, -3.24])
        >>> neighbor_weights(5, 5, "paper").round(2)
        array([ 1.54,  0.67,  0.06, -0.43, -0.84])
    """
    if kind == "variance":
        return _least_variance(k, dim)
    weights = np.zeros(k)
    if kind == "code" and dim <= 4:
        weights[0] = 1.0
        return weights
    neighbors = np.unique(np.arange(1, dim + 1) * k // dim)
    neighbors = neighbors[neighbors > 0]
    conditions = _conditions(neighbors, dim, dim // 4)
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
            f" conditions of the paper; take `weights='variance'`, compress to fewer dimensions"
            f" with `PCA`{also}"
        )
    if norm > LARGE_NORM:
        warnings.warn(
            f"the weights of k={k} neighbors in {dim} dimensions have norm {norm:.3g}, above"
            f" {LARGE_NORM:g}, and multiply the noise as well; take `weights='variance'`, choose a"
            " larger `k`, or compress to fewer dimensions with `PCA`",
            stacklevel=2,
        )
    weights[neighbors - 1] = solution
    return weights


def weights_for(
    n_samples: int,
    dim: int,
    k: int | None = None,
    kind: Kind = "variance",
    noise: float = NOISE,
) -> NDArray[np.float64]:
    """Returns the weights for so many samples: of the fewest neighbors that leave little noise.

    Their noise falls and their bias grows with their number. From 5 neighbors on, the first number
    of little noise is taken, at most 50 and a tenth of the samples. Where that
    leaves more, as it does in many dimensions, a part of the leading bias stays: as much as brings
    the noise down to it.

    Args:
        n_samples: N.
        dim: the dimension of the samples.
        k: the number of neighbors, if it is given.
        kind: as in :func:`neighbor_weights`; the paper's take as many as dimensions, at least 5.
        noise: nats, standard deviation of the noise of an entropy that is little enough.
    """
    if k is not None:
        return _cached(min(k, n_samples - 1), dim, kind)
    if kind != "variance":
        return _cached(min(max(FEWEST, dim), n_samples - 1), dim, kind)
    k, limit = min(FEWEST, n_samples - 1), n_samples * noise**2
    most = max(k, min(MOST, n_samples // 10))
    while k < most and independent_noise(_cached(k, dim)) > limit:
        k = min(most, k + max(1, k // 4))
    weights = _cached(k, dim)
    # The last neighbor alone has the least noise, which the rest's adds to.
    last: NDArray[np.float64] = np.eye(k)[-1]
    least = independent_noise(last)
    rest = independent_noise(weights) - least
    if least + rest <= limit or not rest:
        return weights
    return np.asarray(last + math.sqrt(max(limit - least, 0.0) / rest) * (weights - last))


def independent_noise(weights: NDArray[np.float64]) -> float:
    """Returns the variance of a sample's weighted mean of the logarithms of neighbors' volumes."""
    return float(weights @ _covariance(len(weights)) @ weights)


def dependent_noise(weights: NDArray[np.float64], dim: int) -> float:
    """Returns N times the variance of the mean over samples that their own variance lacks.

    Neighbors of neighbors share samples, so that the terms of an entropy are not independent.
    """
    multiple = float(np.interp(dim, list(DEPENDENCE), list(DEPENDENCE.values())))
    return (multiple - 1) * independent_noise(weights)


@lru_cache(maxsize=1024)
def _cached(k: int, dim: int, kind: Kind = "variance") -> NDArray[np.float64]:
    weights = neighbor_weights(k, dim, kind)
    weights.flags.writeable = False
    return weights


def _least_variance(k: int, dim: int) -> NDArray[np.float64]:
    if dim not in CONDITIONED or k == 1:
        return np.asarray(np.eye(k)[-1])
    conditions = _conditions(np.arange(1, k + 1), dim, 1)
    wanted = np.array([1 / math.sqrt(k), 0.0])
    spread = np.linalg.solve(_covariance(k), conditions.T)
    return np.asarray(spread @ np.linalg.solve(conditions @ spread, wanted), dtype=np.float64)


def _conditions(neighbors: NDArray[np.int64], dim: int, count: int) -> NDArray[np.float64]:
    """Returns the rows of ones, and of the bias terms to cancel, each of length 1."""
    powers = np.arange(1 + count)[:, None] * 2 / dim
    rows = np.exp(gammaln(neighbors + powers) - gammaln(neighbors))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float64)


def _covariance(k: int) -> NDArray[np.float64]:
    places = np.arange(1, k + 1)
    found: NDArray[np.float64] = polygamma(1, np.maximum(places[:, None], places))
    return found
